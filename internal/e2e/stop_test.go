package e2e

import (
	"context"
	"testing"
	"time"

	"txreel/internal/dbtest"
)

// stopLimit is how long a fast shutdown of the source may take: a promise, not a guess at the machine's speed.
const stopLimit = 5 * time.Second

// TestSourceStop stops the source under a capture that is idle, loaded, or held up by a store that hangs. It must not
// be kept from stopping, and after its start the capture goes on by itself and has missed nothing.
func TestSourceStop(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		load, hung bool
	}{
		{name: "idle"},
		{name: "loaded", load: true},
		{name: "store hung", load: true, hung: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pg := dbtest.PG(t)
			var gateway *dbtest.Gateway
			if c.hung {
				gateway = dbtest.S3(t)
			}
			s := newSite(t, pg, "stopped", gateway).setup()
			s.racing()
			capture := s.capture()
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			clients := 0
			if c.load {
				clients = 4
			}
			work := startLedger(s, clients)
			if c.load {
				eventually(t, time.Minute, "clients write", func() bool { return work.committed() > 100 })
			}
			if c.hung {
				if err := gateway.Pause(); err != nil {
					t.Fatal(err)
				}
				// The capture has come to a stop when the server has sent more than it was told is safe, and more comes.
				at := s.lsn(confirmed(s))
				eventually(t, time.Minute, "the capture is held up", func() bool { return s.here() > at+1<<20 })
				if now := s.lsn(confirmed(s)); now > at {
					at = now
					eventually(t, time.Minute, "the capture is held up", func() bool { return s.here() > at+1<<20 })
				}
			}

			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := pg.Stop(ctx, "fast"); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > stopLimit {
				t.Errorf("the source took %v to stop, more than %v", took, stopLimit)
			} else {
				t.Logf("the source took %v to stop", took)
			}
			if c.hung {
				if err := gateway.Resume(); err != nil {
					t.Fatal(err)
				}
			}
			if err := pg.Start(ctx); err != nil {
				t.Fatal(err)
			}
			more := work.committed() + 20
			if c.load {
				eventually(t, time.Minute, "clients write again", func() bool { return work.committed() > more })
			}
			work.end(t)
			s.waitPast(a, s.here())
			if !capture.alive() {
				t.Fatalf("the capture ended with code %d:\n%s", capture.wait(0), tail(capture.stderr(), 5))
			}
			capture.kill()
			work.check(t, readRecord(t, a, 1))
		})
	}
}

// confirmed is the query for what the source may forget.
func confirmed(s *site) string {
	return `SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '` + s.slot() + `'`
}
