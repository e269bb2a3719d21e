package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"txreel/internal/dbtest"
	"txreel/internal/failpoint"
)

// prunePlan is what a test looks at of txreel prune --json.
type prunePlan struct {
	Bases    int   `json:"bases"`
	Segments int64 `json:"segments"`
	Packs    int64 `json:"packs"`
	Removed  bool  `json:"removed"`
	Epochs   []struct {
		KeptBy []string `json:"kept_by"`
	} `json:"epochs"`
}

func (s *place) prune(args ...string) (p prunePlan) {
	s.t.Helper()
	r := s.must(append([]string{"prune", "--json", "--settle", "1ms"}, args...)...)
	if err := json.Unmarshal([]byte(r.stdout), &p); err != nil {
		s.t.Fatalf("%v\n%s", err, r.stdout)
	}
	return p
}

// objects returns the names of the archive's objects.
func (s *place) objects() string {
	s.t.Helper()
	var all []string
	err := filepath.WalkDir(s.archive, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

// TestPrune removes the beginning of a record: nothing before it is confirmed, nothing that a hold or a restore wants, and nothing that a
// kept point needs; killed at any step it leaves an archive that is whole. What is gone is said to be.
func TestPrune(t *testing.T) {
	t.Parallel()
	s := newSite(t, dbtest.PG(t), "pruned", nil)
	s.exec(`CREATE TABLE t (id serial PRIMARY KEY, n int)`)
	s.setup()
	capture := s.capture("--base-every", "0")
	a := s.waitArchive()
	first := s.waitBases(a, 1, 1)[0]
	write := func() (seq string) {
		for range 5 {
			s.exec(`INSERT INTO t (n) SELECT g FROM generate_series(1, 10) g; UPDATE t SET n = n + 1 WHERE id % 3 = 0`)
		}
		return s.waitPast(a, s.here()).Seq.String()
	}
	old := write()
	write() // a base right behind it would be one of that point
	s.must("base")
	write()
	time.Sleep(1500 * time.Millisecond)
	now := time.Now().UTC().Format(time.RFC3339Nano)
	write()
	kept := s.dump(s.db)
	capture.signal(terminate)
	if code := capture.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	keep := func() string { // all that is behind now
		at, err := time.Parse(time.RFC3339Nano, now)
		if err != nil {
			t.Fatal(err)
		}
		return time.Since(at).String()
	}
	was := s.objects()
	if p := s.prune("--keep", keep()); p.Removed || p.Bases != 1 || p.Segments == 0 {
		t.Fatalf("the plan is %+v", p)
	}
	if s.objects() != was {
		t.Error("a plan changes the archive")
	}
	for _, bad := range []string{"0s", "-1h", "soon"} {
		if r := s.run("prune", "--keep="+bad); r.code != 2 {
			t.Errorf("--keep %s: exit code %d\n%s", bad, r.code, r.stderr)
		}
	}

	s.must("hold", "place", "case-7", "--to", now, "--reason", "the auditors ask")
	if p := s.prune("--keep", keep(), "--confirm"); p.Removed || len(p.Epochs) != 1 || len(p.Epochs[0].KeptBy) != 1 {
		t.Errorf("under a hold: %+v", p)
	}
	if r := s.run("hold", "place", "case-7", "--reason", "again"); r.code != 1 || !strings.Contains(r.stderr, "case-7") {
		t.Errorf("a second hold of the name: exit code %d\n%s", r.code, r.stderr)
	}
	if r := s.must("hold", "list"); !strings.Contains(r.stdout, "case-7 keeps what was committed up to") {
		t.Errorf("hold list:\n%s", r.stdout)
	}
	if r := s.must("status"); !strings.Contains(r.stdout, "hold      case-7") {
		t.Errorf("status does not show the hold:\n%s", r.stdout)
	}
	s.must("hold", "lift", "case-7", "--reason", "they have it")
	if r := s.run("hold", "lift", "case-7", "--reason", "again"); r.code != 1 {
		t.Errorf("lifted twice: exit code %d\n%s", r.code, r.stderr)
	}
	release, err := a.PinBase(t.Context(), &first, "a test")
	if err != nil {
		t.Fatal(err)
	}
	if p := s.prune("--keep", keep(), "--confirm"); p.Bases != 0 || len(p.Epochs[0].KeptBy) != 1 {
		t.Errorf("while somebody reads: %+v", p)
	}
	release()

	for i, at := range failpoint.Pruning() {
		if at == failpoint.PruneRollupGone || at == failpoint.PrunePackGone {
			continue // the one takes a thousand segments, which package archive's tests have, and the other is in TestCompact
		}
		p := *s
		p.archive = filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(p.archive, os.DirFS(s.archive)); err != nil {
			t.Fatal(err)
		}
		p.binary = failingTxreel(t)
		command := []string{"prune", "--keep", keep(), "--settle", "1ms", "--confirm"}
		if at == failpoint.HoldCreating {
			command = []string{"hold", "place", "case-8", "--to", now, "--reason", "too late"}
		}
		if r := p.with(fmt.Sprintf("TXREEL_TEST_FAILPOINT=kill:%s:1", at)).run(command...); r.code == 0 {
			t.Errorf("%s: it was not killed", at)
		}
		p.must("verify", "--full")
		p.must("restore", "--dry-run", "--to-time", now)
		if again := p.prune("--keep", keep(), "--confirm"); again.Removed != (at != failpoint.PruneEnding) {
			t.Errorf("%s: the prune behind it: %+v", at, again)
		}
		p.must("verify", "--full")
		if i%3 == 2 {
			p.restore(fmt.Sprintf("killed%d", i))
			if diff := dbtest.Diff(kept, p.dump(fmt.Sprintf("killed%d", i))); diff != "" {
				t.Errorf("%s: restored:\n%s", at, diff)
			}
		}
	}

	if p := s.prune("--keep", keep(), "--confirm"); !p.Removed || p.Bases != 1 {
		t.Errorf("confirmed: %+v", p)
	}
	if r := s.must("prune", "--keep", keep(), "--confirm"); !strings.Contains(r.stdout, "nothing to remove") {
		t.Errorf("again:\n%s", r.stdout)
	}
	s.must("verify", "--full")
	s.restore("pruned_again")
	if !strings.Contains(s.objects(), filepath.Join(s.archive, "pins")) {
		t.Error("a restore places no pin")
	}
	if diff := dbtest.Diff(kept, s.dump("pruned_again")); diff != "" {
		t.Errorf("restored:\n%s", diff)
	}
	r := s.run("restore", "--dry-run", "--to-seq", old)
	if r.code != 6 || !strings.Contains(r.stderr, "was pruned on") {
		t.Errorf("to what is gone: exit code %d\n%s", r.code, r.stderr)
	}
	for _, command := range [][]string{{"status"}, {"log"}, {"verify"}} {
		if r := s.must(command...); !strings.Contains(strings.ToLower(r.stdout), "pruned") {
			t.Errorf("%v does not say so:\n%s", command, r.stdout)
		}
	}
	if r := s.must("audit", "export"); !strings.Contains(r.stdout, `"pruned_before"`) {
		t.Errorf("audit export does not say so:\n%s", r.stdout)
	}
	// It goes on being recorded.
	s.capture("--base-every", "0")
	write()
	s.restore("pruned_more")
	s.same("pruned_more")
}
