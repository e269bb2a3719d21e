package e2e

import (
	"math/rand/v2"
	"testing"
	"time"

	"txreel/internal/dbtest"
)

// TestKill ends a capture with SIGKILL at random moments, again and again, while clients write. Whatever it was
// doing, the record holds every committed transaction exactly once.
func TestKill(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	for _, store := range []string{"dir", "s3"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			var gateway *dbtest.Gateway
			if store == "s3" {
				gateway = dbtest.S3(t)
			}
			s := newSite(t, pg, "kill_"+store, gateway).setup()
			s.racing()
			first := s.capture() // the record begins before the load does
			s.waitPast(s.waitArchive(), 1)
			first.kill()
			work := startLedger(s, 4)
			s.killing(times(12, 250))
			// Some clients lose their connection and do not learn how their last transaction went.
			s.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND backend_type = 'client backend' AND query LIKE '%ledger%' AND pid <> pg_backend_pid()`)

			last := s.capture()
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			work.end(t)
			s.waitPast(a, s.here())
			last.kill()

			if epochs, err := a.Epochs(t.Context()); err != nil || len(epochs) != 1 {
				t.Fatalf("%d epochs: %v", len(epochs), err)
			}
			if gap, err := a.Gap(t.Context(), 1); err != nil || gap != nil {
				t.Fatalf("gap %+v: %v", gap, err)
			}
			work.check(t, readRecord(t, a, 1))
			s.must("verify", "--full")
		})
	}
}

// killing starts captures and kills each after a random while: some while they start, most while they stream.
func (s *site) killing(times int) {
	s.t.Helper()
	streamed := 0
	for i := range times {
		c := s.capture()
		if until := []string{"", "capture started", `"message":"segment"`}[i%3]; until != "" {
			eventually(s.t, time.Minute, "the capture gets on", func() bool { return c.has(until) || !c.alive() })
		}
		select {
		case <-c.done:
			s.t.Fatalf("%s ended by itself with code %d:\n%s", c, c.wait(0), tail(c.stderr(), 10))
		case <-time.After(rand.N(500 * time.Millisecond)): // a random moment is what is wanted
		}
		c.kill()
		if c.has(`"message":"segment"`) {
			streamed++
		}
		s.checkSlot()
	}
	s.t.Logf("killed %d times, %d of them while shipping segments", times, streamed)
	if streamed < times/4 {
		s.t.Errorf("only %d of %d captures got as far as shipping a segment", streamed, times)
	}
}

// checkSlot fails the test if the source may forget something the archive does not hold (Invariant 1).
func (s *site) checkSlot() {
	s.t.Helper()
	rows := s.pg.MustQuery(s.t, s.db, `SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '`+s.slot()+`'`)
	a, ok := s.open()
	if len(rows) == 0 || rows[0][0] == dbtest.Null || !ok {
		return // killed before it had either
	}
	confirmed := s.lsn(`SELECT '` + rows[0][0] + `'`)
	tail, err := a.Tail(s.t.Context(), 1)
	if err != nil {
		s.t.Fatal(err)
	}
	if tail.Seq > 0 && position(s.t, tail.Position) < confirmed {
		s.t.Errorf("the slot stands at %s, the archive ends at %s", confirmed, tail.Position)
	}
}
