package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
)

// TestRolledBack puts a source back to an earlier copy of its disk, which no timeline tells of, and lets it write past the end
// of the record. None of that gets into the record before somebody has decided so.
func TestRolledBack(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "rolled", nil).setup()
	s.exec(`CREATE TABLE t (id serial PRIMARY KEY, v text)`)
	first := s.capture()
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	first.kill()
	restart := func(between func() error) {
		t.Helper()
		if err := errors.Join(pg.Stop(t.Context(), "fast"), between(), pg.Start(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	copied := filepath.Join(pg.Dir, "copy")
	restart(func() error { return exec.Command("cp", "-a", pg.DataDir(), copied).Run() })
	second := s.capture() // the server is the one it was
	s.exec(`INSERT INTO t (v) VALUES ('recorded')`)
	s.waitPast(a, s.here())
	second.kill()
	tail, err := a.Tail(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	restart(func() error {
		return errors.Join(os.Rename(pg.DataDir(), pg.DataDir()+".old"), os.Rename(copied, pg.DataDir()))
	})
	for n := 0; s.here() <= position(t, tail.Position); n++ {
		s.exec(fmt.Sprintf(`INSERT INTO t (v) VALUES ('another history %d')`, n))
	}
	s.exec(`INSERT INTO t (v) VALUES ('behind')`)

	r := s.capture().result(time.Minute)
	if r.code != 3 {
		t.Fatalf("exit code %d, want 3:\n%s", r.code, r.stderr)
	}
	r.sentence(t, "gap in the record", "put back to an earlier state", "--new-epoch")
	gap, err := a.Gap(t.Context(), 1)
	if err != nil || gap == nil || gap.Cause != archive.CauseDiverged {
		t.Errorf("gap on record: %+v, %v", gap, err)
	}
	if now, err := a.Tail(t.Context(), 1); err != nil || now.Seq != tail.Seq {
		t.Errorf("the record ends with %s, ended with %s: %v", now.Seq, tail.Seq, err)
	}
	next := s.capture("--new-epoch")
	s.waitBases(a, 2, 1)
	s.exec(`INSERT INTO t (v) VALUES ('at last')`)
	s.waitPast(a, s.here())
	next.kill()
	s.restore("rolled_again")
	s.same("rolled_again")
}
