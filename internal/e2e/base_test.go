package e2e

import (
	"testing"
	"time"

	"txreel/internal/dbtest"
)

// TestBaseSchedule lets a capture, and then a command of its own, take bases as they become old. What is told to stay goes when it
// is told to, with 0.
func TestBaseSchedule(t *testing.T) {
	t.Parallel()
	s := newSite(t, dbtest.PG(t), "scheduled", nil).setup()
	s.exec(`CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)`)
	c := s.capture("--base-every", "1s", "--heartbeat", "500ms")
	a := s.waitArchive()
	s.waitBases(a, 1, 2) // the record goes on by itself
	c.kill()

	c = s.capture("--base-every", "0", "--heartbeat", "500ms")
	bases, err := a.Bases(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	b := s.start("base", "--schedule", "1s", "--reason", "nightly", "--json")
	all := s.waitBases(a, 1, len(bases)+2)
	for _, base := range all[len(bases):] {
		if base.Reason != "nightly" {
			t.Errorf("a base was taken because of %q", base.Reason)
		}
	}
	b.signal(terminate)
	if code := b.wait(time.Minute); code != 0 {
		t.Errorf("txreel base --schedule ends with %d: %s", code, tail(b.stderr(), 5))
	}
	c.kill()
}
