package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"txreel/capture"
	"txreel/sources"
	"txreel/sources/postgres/lsn"
)

// healthLimit is how long a healthy capture may go without progress: neither
// something became durable nor was there nothing to do.
const healthLimit = 30 * time.Second

// monitor serves metrics and health of a capture.
type monitor struct {
	status    *capture.Status
	source    atomic.Pointer[stream]
	started   time.Time
	trips     atomic.Int64 // times the breaker let COMMITs go
	protected atomic.Bool  // COMMIT waits for the archive
	failures  prometheus.Counter
	metrics   *prometheus.Registry // nil when nothing is served
	server    *http.Server
	done      chan struct{}
}

// startMetrics listens on addr; with an empty addr nothing is served.
func startMetrics(addr string, status *capture.Status) (*monitor, error) {
	m := &monitor{
		status: status, started: time.Now(), done: make(chan struct{}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "txreel_capture_failures_total", Help: "Times the capture was interrupted and started again."}),
	}
	if addr == "" {
		close(m.done)
		return m, nil
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	mux := http.NewServeMux()
	m.metrics = m.registry()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", m.healthz)
	m.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { // joined by stop
		defer close(m.done)
		_ = m.server.Serve(listener) // ends with Shutdown
	}()
	return m, nil
}

func (m *monitor) stop() {
	if m.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := m.server.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
			_ = m.server.Close()
		}
	}
	<-m.done
}

func (m *monitor) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	counter := func(name, help string, value func(capture.Snapshot) uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value(m.status.Snapshot())) }))
	}
	counter("txreel_segments_total", "Segments shipped by this process.", func(s capture.Snapshot) uint64 { return s.Segments })
	counter("txreel_transactions_total", "Transactions shipped by this process, heartbeats included.", func(s capture.Snapshot) uint64 { return s.Transactions })
	counter("txreel_bytes_total", "Bytes of segments shipped by this process.", func(s capture.Snapshot) uint64 { return s.Bytes })
	gauge("txreel_durable_seq", "Seq of the last durable transaction.", func() float64 { return float64(m.status.Snapshot().Seq) })
	gauge("txreel_durable_position_bytes", "PostgreSQL: position up to which everything is durable, the LSN as a number.", func() float64 {
		at, err := lsn.FromPosition(m.status.Snapshot().Position)
		if err != nil { // nothing is durable yet, or the position is a GTID set
			return 0
		}
		return float64(at)
	})
	gauge("txreel_durable_commit_timestamp_seconds", "Latest commit time among what is durable, by the source's clock.", func() float64 {
		return float64(m.status.Snapshot().Latest) / 1e6
	})
	gauge("txreel_durable_age_seconds", "Seconds since something last became durable or there was nothing to record.", func() float64 {
		return time.Since(m.progress()).Seconds()
	})
	gauge("txreel_retained_wal_bytes", "Log the source keeps that is not durable in the archive yet; with PostgreSQL, for the slot.", m.retention(func(r *sources.Retention) float64 { return float64(r.Kept) }))
	gauge("txreel_retained_wal_limit_bytes", "Log the source may keep: for the slot (max_slot_wal_keep_size), or of binlog in all (max_binlog_total_size, binlog_space_limit); -1 is no limit.", m.retention(func(r *sources.Retention) float64 { return float64(r.Limit) }))
	gauge("txreel_wal_budget_bytes", "PostgreSQL: log the source may keep for the slot before --at-wal-budget applies.", m.retention(func(r *sources.Retention) float64 { return float64(r.Budget) }))
	gauge("txreel_time_to_purge_seconds", "MySQL, MariaDB: seconds until the source may purge binlog that is not durable in the archive; -1 is never by age.", m.retention(func(r *sources.Retention) float64 {
		if r.Purge < 0 {
			return -1
		}
		return r.Purge.Seconds()
	}))
	gauge("txreel_connected", "1 while the source is being read.", func() float64 {
		if m.source.Load() == nil {
			return 0
		}
		return 1
	})
	gauge("txreel_protected", "1 while COMMIT on the source waits for the archive (--sync).", func() float64 {
		if m.protected.Load() {
			return 1
		}
		return 0
	})
	gauge("txreel_breaker_trips", "Times COMMITs were let go because the archive took too long, by this process.", func() float64 { return float64(m.trips.Load()) })
	r.MustRegister(m.failures)
	return r
}

// connected notes the stream being read; nil when there is none.
func (m *monitor) connected(s stream) {
	if s == nil {
		m.source.Store(nil)
		return
	}
	m.source.Store(&s)
}

// retention reads a value of what is known of the source's log. It is NaN, as Prometheus
// has it for what is not known, before the first look.
func (m *monitor) retention(value func(*sources.Retention) float64) func() float64 {
	return func() float64 {
		if s := m.source.Load(); s != nil {
			if r := (*s).Retention(); r != nil {
				return value(r)
			}
		}
		return math.NaN()
	}
}

func (m *monitor) progress() time.Time {
	if p := m.status.Snapshot().Progress(); p.After(m.started) {
		return p
	}
	return m.started
}

// healthz answers by progress: a process that runs but gets nowhere is not
// healthy.
func (m *monitor) healthz(w http.ResponseWriter, _ *http.Request) {
	age := time.Since(m.progress()).Round(time.Second)
	if age > healthLimit {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "no progress for %s\n", age)
		return
	}
	fmt.Fprintf(w, "ok, last progress %s ago\n", age)
}
