package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/internal/failpoint"
)

// compactPlan is what a test looks at of txreel compact --json.
type compactPlan struct {
	Packs     int   `json:"packs"`
	Segments  int64 `json:"segments"`
	Left      int64 `json:"left"`
	Compacted bool  `json:"compacted"`
}

// compacting is a command that packs all there is, and does not wait.
var compacting = []string{"compact", "--json", "--older-than", "1ms", "--target-size", "64KiB", "--settle", "1ms", "--confirm"}

func (s *place) compact(args ...string) (p compactPlan) {
	s.t.Helper()
	r := s.must(append(slices.Clone(compacting), args...)...)
	if err := json.Unmarshal([]byte(r.stdout), &p); err != nil {
		s.t.Fatalf("%v\n%s", err, r.stdout)
	}
	return p
}

// said is what commands say of a record, compacted or not.
func (s *place) said() (all string) {
	s.t.Helper()
	for _, command := range [][]string{
		{"log", "--json"}, {"audit", "export"}, {"verify", "--full", "--json"},
	} {
		r := s.must(command...)
		if command[0] == "verify" {
			var v archive.VerifyReport
			if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
				s.t.Fatalf("%v\n%s", err, r.stdout)
			}
			v.Store, v.BytesRead, v.Packs, v.Notes = "", 0, 0, nil // a note says what a compaction has left
			b, err := json.Marshal(v)
			if err != nil {
				s.t.Fatal(err)
			}
			r.stdout = string(b)
		}
		all += r.stdout + "\n"
	}
	return all
}

// count returns how many objects of an archive in a directory have keys that contain a word.
func (s *place) countObjects(word string) int {
	s.t.Helper()
	return strings.Count(s.objects(), word)
}

// TestCompact packs what a capture has written: what every command says of it stays the same, byte for byte, while it goes on being recorded; killed
// at any step it leaves an archive that is whole, which the next one finishes, and which prune makes shorter.
func TestCompact(t *testing.T) {
	t.Parallel()
	s := newSite(t, dbtest.PG(t), "compacted", nil)
	s.exec(`CREATE TABLE t (id serial PRIMARY KEY, n int, body text)`)
	s.setup()
	capture := s.capture("--base-every", "0", "--flush-age", "1ms")
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	write := func() string {
		for range 60 {
			s.exec(`INSERT INTO t (n, body) SELECT g, gen_random_uuid() || repeat(md5(g::text), 5) FROM generate_series(1, 30) g; UPDATE t SET n = n + 1 WHERE id % 7 = 0`)
			time.Sleep(3 * time.Millisecond) // a segment of its own, most of them
		}
		return s.waitPast(a, s.here()).Seq.String()
	}
	middle := write()
	s.restore("middle", "--to-seq", middle)
	want := s.dump("middle")
	time.Sleep(1100 * time.Millisecond)
	now := time.Now().UTC().Format(time.RFC3339Nano)
	write()
	s.must("base")
	write()

	if r := s.must("compact", "--older-than", "1ms", "--target-size", "64KiB"); !strings.Contains(r.stdout, "nothing was; --confirm does it") || s.countObjects("/packs/") > 0 {
		t.Errorf("without --confirm:\n%s", r.stdout)
	}
	if r := s.must("compact", "--confirm"); !strings.Contains(r.stdout, "nothing to compact") { // of the last day
		t.Errorf("by default:\n%s", r.stdout)
	}
	for _, bad := range [][]string{{"--older-than", "0s"}, {"--older-than", "old"}, {"--target-size", "1KiB"}, {"--target-size", "5GiB"}} {
		if r := s.run(append([]string{"compact"}, bad...)...); r.code != 2 {
			t.Errorf("%v: exit code %d\n%s", bad, r.code, r.stderr)
		}
	}
	// Beside a capture that goes on.
	before := s.countObjects("/segments/")
	if p := s.compact(); !p.Compacted || p.Packs == 0 || int(p.Segments) < before/2 {
		t.Errorf("of %d segments: %+v", before, p)
	}
	write()
	s.must("verify", "--full")
	capture.signal(terminate)
	if code := capture.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	said := s.said()
	checked := 0
	whole := s.copied()
	if p := whole.compact(); p.Packs == 0 {
		t.Fatalf("nothing to compact: %+v", p)
	}
	if got := whole.said(); got != said {
		t.Errorf("commands say something else of what was compacted: %s", firstDifference(said, got))
	}
	for _, at := range append(failpoint.Compacting(), failpoint.PrunePackGone) {
		for _, hit := range []int{1, 2} {
			p := s.copied()
			p.binary = failingTxreel(t)
			command := compacting
			if at == failpoint.PrunePackGone {
				p.compact()
				command = []string{"prune", "--keep", "1ms", "--settle", "1ms", "--confirm"}
			}
			if r := p.with(fmt.Sprintf("TXREEL_TEST_FAILPOINT=kill:%s:%d", at, hit)).run(command...); r.code == 0 && (hit == 1 || at != failpoint.CompactEnding) {
				t.Errorf("%s, hit %d: it was not killed", at, hit)
			}
			p.must("verify", "--full")
			if at == failpoint.PrunePackGone {
				if again := p.prune("--keep", "1ms", "--confirm"); !again.Removed {
					t.Errorf("%s: the prune behind it: %+v", at, again)
				}
				p.must("verify", "--full")
				continue
			}
			if got := p.said(); got != said {
				t.Errorf("%s, hit %d: commands say something else: %s", at, hit, firstDifference(said, got))
			}
			p.compact()
			if left := p.compact(); left.Compacted {
				t.Errorf("%s, hit %d: the second compact behind it: %+v", at, hit, left)
			}
			if p.contents() != whole.contents() {
				t.Errorf("%s, hit %d: what two compactions leave is not what one leaves", at, hit)
			}
			checked++
		}
	}
	if checked != 2*len(failpoint.Compacting()) {
		t.Errorf("%d kills were looked at", checked)
	}
	// Restores, from what was packed twice over, and to before, within and behind it.
	c := *s
	c.archive = whole.archive
	c.restore("again", "--to-seq", middle)
	if diff := dbtest.Diff(want, c.dump("again")); diff != "" {
		t.Errorf("restored to the middle:\n%s", diff)
	}
	c.restore("time", "--to-time", now)
	if diff := dbtest.Diff(want, c.dump("time")); diff != "" {
		t.Errorf("restored to a time:\n%s", diff)
	}
	c.restore("end")
	c.same("end")
	// It goes on being recorded, and is pruned.
	c.capture("--base-every", "0")
	c.exec(`UPDATE t SET n = -n`)
	c.waitPast(c.mustOpen(), c.here())
	packs := c.countObjects("/packs/")
	if p := c.prune("--keep", "1s", "--confirm"); !p.Removed || p.Packs == 0 || c.countObjects("/packs/") != packs-int(p.Packs) {
		t.Errorf("pruned: %+v, of %d packs", p, packs)
	}
	c.must("verify", "--full")
	c.restore("pruned")
	c.same("pruned")
}

// copied returns the place with a copy of its archive, a directory.
func (s *place) copied() *site {
	s.t.Helper()
	p := *s
	p.archive = filepath.Join(s.t.TempDir(), "copy")
	if err := os.CopyFS(p.archive, os.DirFS(s.archive)); err != nil {
		s.t.Fatal(err)
	}
	return &site{place: p}
}

// contents returns the keys and bytes of an archive in a directory.
func (s *place) contents() string {
	s.t.Helper()
	var b bytes.Buffer
	for _, path := range strings.Split(s.objects(), "\n") {
		content, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %d %x\n", strings.TrimPrefix(path, s.archive), len(content), content)
	}
	return b.String()
}

// TestCompactS3 packs a MariaDB's record in object storage, while it is written, with rights that a capture does not have.
func TestCompactS3(t *testing.T) {
	t.Parallel()
	s := newMySite(t, "mariadb", dbtest.S3(t))
	s.exec(`create table t (id int auto_increment primary key, n int, body text)`)
	s.capture("--base-every", "0", "--flush-age", "1ms")
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	write := func() {
		for range 60 {
			s.exec(`insert into t (n, body) select seq, concat(uuid(), repeat(md5(seq), 5)) from seq_1_to_120`)
			time.Sleep(3 * time.Millisecond)
		}
		s.waitPast(a, s.here())
	}
	write()
	if p := s.compact(); !p.Compacted || p.Packs == 0 {
		t.Errorf("%+v", p)
	}
	write()
	if p := s.compact(); !p.Compacted || p.Packs == 0 {
		t.Errorf("once more: %+v", p)
	}
	s.must("verify", "--full")
	equal(t, dumpOf(t, s.my), s.restore())
}
