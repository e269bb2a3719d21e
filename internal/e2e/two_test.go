package e2e

import (
	"strings"
	"testing"
	"time"

	"txreel/internal/dbtest"
)

// TestTwoCaptures lets two captures meet: history never forks, and one of them goes with exit code 5.
func TestTwoCaptures(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)

	t.Run("same slot", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, pg, "same", nil).setup()
		first := s.capture()
		a := s.waitArchive()
		s.waitPast(a, 1)
		work := startLedger(s, 2)

		second := s.capture().result(time.Minute)
		if second.code != 5 {
			t.Errorf("exit code %d, want 5", second.code)
		}
		second.sentence(t, "another")

		// The first one never noticed.
		before := work.committed()
		eventually(t, time.Minute, "work goes on", func() bool { return work.committed() > before+20 })
		work.end(t)
		s.waitPast(a, s.here())
		if !first.alive() || first.has("capture interrupted") {
			t.Errorf("the first capture was disturbed:\n%s", tail(first.stderr(), 5))
		}
		first.kill()
		work.check(t, readRecord(t, a, 1))
		s.must("verify", "--full")
	})

	t.Run("two slots on one archive", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, pg, "two", nil).setup()
		s.racing()
		// A slot as old as the archive's own, which therefore can continue the archive wherever it ends.
		s.exec(`SELECT pg_create_logical_replication_slot('other', 'pgoutput')`)
		one := s.capture()
		a := s.waitArchive()
		s.waitPast(a, 1)
		work := startLedger(s, 2)
		two := s.capture("--slot", "other")

		eventually(t, time.Minute, "one of the two gives up", func() bool { return !one.alive() || !two.alive() })
		loser, winner := one, two
		if one.alive() {
			loser, winner = two, one
		}
		r := loser.result(time.Minute)
		if r.code != 5 {
			t.Errorf("exit code %d, want 5", r.code)
		}
		r.sentence(t, "another writer is at work on this archive")

		// The other one records on.
		work.end(t)
		s.waitPast(a, s.here())
		if !winner.alive() {
			t.Errorf("both captures ended")
		}
		winner.kill()
		work.check(t, readRecord(t, a, 1))
		s.must("verify", "--full")
	})

	t.Run("wrong slot name", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, pg, "wrong", nil).setup()
		first := s.capture()
		a := s.waitArchive()
		s.waitPast(a, 1)

		// A capture that was given another slot cannot say anything of the record's: no gap is written down.
		r := s.run("capture", "--slot", "mistyped")
		if r.code == 0 {
			t.Error("it works")
		}
		r.sentence(t, "mistyped")
		if gap, err := a.Gap(t.Context(), 1); err != nil || gap != nil {
			t.Errorf("a mistyped slot made a gap: %+v, %v", gap, err)
		}
		first.kill()
		again := s.capture()
		s.exec(`CREATE TABLE after (id int)`)
		s.exec(`INSERT INTO after VALUES (1)`)
		s.waitPast(a, s.here())
		again.kill()
	})

	t.Run("two databases in one archive", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, pg, "mine", nil).setup()
		first := s.capture()
		s.waitPast(s.waitArchive(), 1)
		other := newSite(t, pg, "theirs", nil).setup()
		other.archive = s.archive
		r := other.run("capture")
		if r.code != 1 || !strings.Contains(r.stderr, "the archive records another database") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
		if !first.alive() {
			t.Error("the first capture ended")
		}
	})
}
