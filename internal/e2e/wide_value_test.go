package e2e

import (
	"testing"

	"txreel/internal/dbtest"
)

// TestWideValue writes a value that the source can keep and cannot send: its text has more than 1 GB. Capture ends with a gap and
// says why, a base says in which table it is, and once it is gone the record goes on in a new epoch. It takes gigabytes of memory.
func TestWideValue(t *testing.T) {
	if !*long {
		t.Skip("only with -e2e.long: a value of 540 MB takes the server gigabytes of memory")
	}
	s := newSite(t, dbtest.PG(t), "wide", nil)
	s.exec(`CREATE TABLE wide (id int PRIMARY KEY, v bytea); ALTER TABLE wide ALTER v SET STORAGE EXTERNAL`)
	s.setup()
	c := s.capture()
	s.waitBases(s.waitArchive(), 1, 1)
	s.exec(`INSERT INTO wide SELECT 1, convert_to(repeat('x', 540000000), 'UTF8')`)
	r := c.result(patience())
	if r.code != 3 || !contains(r.stderr, "more than 1 GB as text", "--new-epoch") {
		t.Errorf("capture ends with %d: %s", r.code, tail(r.stderr, 3))
	}
	s.exec(`SELECT pg_drop_replication_slot('` + s.slot() + `')`)
	s.capture("--new-epoch")
	a := s.waitArchive()
	eventually(t, patience(), "the next epoch begins", func() bool {
		epochs, err := a.Epochs(t.Context())
		return err == nil && len(epochs) == 2
	})
	if r := s.run("base"); r.code == 0 || !contains(r.stderr, `table "public"."wide"`, "more than 1 GB as text") {
		t.Errorf("a base of it: %d: %s", r.code, tail(r.stderr, 3))
	}
	s.exec(`DELETE FROM wide`)
	s.waitBases(a, 2, 1)
	s.exec(`INSERT INTO wide VALUES (2, 'small')`)
	s.waitPast(a, s.here())
	s.restore("wide_again")
	s.same("wide_again")
}
