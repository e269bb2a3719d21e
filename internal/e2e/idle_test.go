package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"txreel/internal/dbtest"
)

// TestIdle watches a capture of a database in which nothing happens while its neighbour writes: the source may
// forget, and everybody can see how it goes.
func TestIdle(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "idle", nil).setup()
	addr := freeAddr(t)
	capture := s.start("capture", "--heartbeat", "1s", "--metrics", addr)
	a := s.waitArchive()
	s.waitBases(a, 1, 1)

	if _, err := pg.CreateDB(t.Context(), "neighbour"); err != nil {
		t.Fatal(err)
	}
	from := s.here()
	pg.MustExec(t, "neighbour", `CREATE TABLE noise AS SELECT g, repeat('x', 1000) FROM generate_series(1, 40000) g`)
	written := s.here() - from
	if written < 32<<20 {
		t.Fatalf("the neighbour wrote only %d bytes of log", written)
	}
	s.waitPast(a, s.here())
	eventually(t, time.Minute, "the source need not keep the neighbour's log", func() bool {
		pg.MustExec(t, "postgres", `CHECKPOINT`) // logs what runs, without which a slot cannot move
		kept, err := strconv.Atoi(s.value(`SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), restart_lsn)::bigint
			FROM pg_replication_slots WHERE slot_name = '` + s.slot() + `'`))
		return err == nil && kept < 1<<20
	})

	code, health := get(t, "http://"+addr+"/healthz")
	if code != http.StatusOK || !strings.HasPrefix(health, "ok") {
		t.Errorf("healthz answers %d %q", code, health)
	}
	eventually(t, time.Minute, "the metrics tell how it stands", func() bool {
		_, text := get(t, "http://"+addr+"/metrics")
		m := metrics(text)
		return m["txreel_connected"] == 1 && m["txreel_durable_seq"] >= 2 && m["txreel_segments_total"] >= 2 && m["txreel_bytes_total"] > 0 &&
			m["txreel_durable_age_seconds"] < 30 && m["txreel_durable_commit_timestamp_seconds"] > 1.7e9 &&
			m["txreel_retained_wal_bytes"] < 2<<20 && m["txreel_retained_wal_limit_bytes"] == -1 && m["txreel_capture_failures_total"] == 0
	})
	capture.signal(terminate)
	if code := capture.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	for _, txn := range readRecord(t, a, 1) {
		if len(txn.raw) > 0 {
			t.Errorf("transaction %s holds %d messages, and nothing happened", txn.seq, len(txn.raw))
		}
	}
}

// TestStop ends captures by signal while they hold transactions that are not shipped yet.
func TestStop(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	for _, c := range []struct {
		name   string
		signal os.Signal
		code   int
	}{
		{"term", terminate, 0},
		{"interrupt", os.Interrupt, 130},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, pg, c.name, nil).setup()
			s.exec(`CREATE TABLE t (id int)`)
			addr := freeAddr(t)
			capture := s.start("capture", "--flush-age", "1h", "--heartbeat", "1h", "--metrics", addr)
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			s.exec(`INSERT INTO t VALUES (1)`)
			// The capture has the transaction once it no longer sees itself as up to date.
			eventually(t, time.Minute, "the capture has the transaction", func() bool {
				_, text := get(t, "http://"+addr+"/metrics")
				return metrics(text)["txreel_durable_age_seconds"] > 0.7
			})
			capture.signal(c.signal)
			if code := capture.wait(time.Minute); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			found := 0
			for _, txn := range readRecord(t, a, 1) {
				found += len(txn.rows["public.t"])
			}
			if found != 1 {
				t.Errorf("the record holds %d rows, want 1", found)
			}
		})
	}
}

// freeAddr returns an address on which nobody listens at this moment.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// metrics reads Prometheus' text format.
func metrics(text string) map[string]float64 {
	m := make(map[string]float64)
	for line := range strings.Lines(text) {
		var name string
		var value float64
		if n, err := fmt.Sscan(line, &name, &value); n == 2 && err == nil {
			m[name] = value
		}
	}
	return m
}
