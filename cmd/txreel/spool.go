package main

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/sink/spool"
)

// spoolGrace is how long a capture that ends goes on shipping what is in its spool.
const spoolGrace = 10 * time.Second

// spoolFlags put a spool in front of the archive's store.
type spoolFlags struct {
	Spool      string   `placeholder:"DIR" help:"Keep segments in DIR, on this machine's own disk, until the archive has them: durable then means an fsync, not a request."`
	SpoolLimit byteSize `default:"10GiB" help:"How much the spool may hold; when it is full, the source keeps its log."`
}

// openSpooled opens the store the flags name. held says that a spool was found with objects in
// it: a capture has worked here before, and the store is waited for.
func (c *captureCmd) openSpooled(ctx context.Context, log zerolog.Logger, m *monitor) (store archive.Store, release func(), held bool, err error) {
	if c.Spool == "" {
		store, release, err = c.openGuarded(ctx)
		return store, release, false, err
	}
	held = spool.Holds(c.Spool)
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 500*time.Millisecond, 30*time.Second
	for {
		store, release, err = c.openGuarded(ctx)
		if err == nil || !held || !errors.Is(err, archive.ErrUnreachable) {
			break
		}
		pause := wait.NextBackOff()
		log.Warn().Err(err).Dur("retry_in", pause).Msg("the spool holds what has to arrive first; waiting for the store")
		select {
		case <-ctx.Done():
			return nil, nil, held, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
	if err != nil {
		return nil, nil, held, err
	}
	s, err := spool.Open(ctx, c.Spool, store, spool.Options{Limit: int64(c.SpoolLimit), Report: reportSpool(log)})
	if err != nil {
		release()
		return nil, nil, held, err
	}
	st := s.Stats()
	log.Info().Str("spool", c.Spool).Int("objects", st.Objects).Int64("bytes", st.Bytes).Msg("spool opened")
	m.spooled(s, int64(c.SpoolLimit))
	disconnect := release
	return s, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), spoolGrace)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			log.Warn().Err(err).Msg("spool not empty")
		}
		disconnect()
	}, held, nil
}

// openGuarded opens the store for a capture, which must not write where another one has gone on.
func (c *captureCmd) openGuarded(ctx context.Context) (archive.Store, func(), error) {
	store, release, err := c.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	return archive.Guard(store), release, nil
}

// reportSpool logs what changes about shipping.
func reportSpool(log zerolog.Logger) func(spool.Stats) {
	return func(st spool.Stats) {
		e, text := log.Warn().Err(st.Trouble), "objects do not arrive in the archive; they stay in the spool, and are tried again"
		switch {
		case st.Lasting:
			text = "objects do not arrive in the archive; they stay in the spool, and nothing new is taken"
		case st.Full:
			text = "spool full: nothing is acknowledged to the source until there is room"
		case st.Trouble == nil:
			e, text = log.Info(), "objects in the spool arrive in the archive, and there is room"
		}
		e.Int("objects", st.Objects).Int64("bytes", st.Bytes).Time("oldest", st.Oldest).Msg(text)
	}
}

// spooled adds what is known of a spool to the metrics.
func (m *monitor) spooled(s *spool.Store, limit int64) {
	if m.metrics == nil {
		return
	}
	for name, g := range map[string]struct {
		help  string
		value func(spool.Stats) float64
	}{
		"txreel_spool_objects":     {"Objects in the spool that have not arrived in the archive.", func(st spool.Stats) float64 { return float64(st.Objects) }},
		"txreel_spool_bytes":       {"Bytes the spool takes on the disk.", func(st spool.Stats) float64 { return float64(st.Bytes) }},
		"txreel_spool_limit_bytes": {"Bytes the spool may take.", func(spool.Stats) float64 { return float64(limit) }},
		"txreel_spool_oldest_seconds": {"Age of the oldest object in the spool: what is lost with this disk and the source.", func(st spool.Stats) float64 {
			if st.Oldest.IsZero() {
				return 0
			}
			return time.Since(st.Oldest).Seconds()
		}},
		"txreel_spool_failing": {"1 after a try to ship that failed.", func(st spool.Stats) float64 {
			if st.Trouble != nil {
				return 1
			}
			return 0
		}},
	} {
		m.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: g.help}, func() float64 { return g.value(s.Stats()) }))
	}
}
