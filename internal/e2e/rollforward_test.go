package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
)

// TestBaseFromHistory has a capture that makes its bases of the record, makes another one when the source cannot be reached, and restores from that
// without replaying anything.
func TestBaseFromHistory(t *testing.T) {
	t.Parallel()
	s := newSite(t, dbtest.PG(t), "rolled", nil)
	s.exec(`CREATE TABLE doc (id serial PRIMARY KEY, n int, body text); ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
		CREATE TABLE loose (v text, n int); CREATE TABLE still (id int PRIMARY KEY, v text); INSERT INTO still SELECT g, g FROM generate_series(1, 500) g;
		INSERT INTO doc (n, body) SELECT g, repeat(g::text, 1000) FROM generate_series(1, 500) g`)
	s.setup()
	s.exec(`ALTER TABLE loose REPLICA IDENTITY FULL`)
	capture := s.capture("--base-every", "1s", "--base-from", "history")
	a := s.waitArchive()
	s.waitBases(a, 1, 1)

	const change = `INSERT INTO doc (n, body) SELECT g, repeat('x', g * 10) FROM generate_series(1, 50) g;
		UPDATE doc SET n = n + 1 WHERE id % 3 = 0; UPDATE doc SET body = body || '!' WHERE id % 17 = 1; DELETE FROM doc WHERE id % 29 = 5;
		UPDATE doc SET id = id + 100000 WHERE id % 31 = 7 AND id < 100000;
		INSERT INTO loose SELECT 'twice', 1 FROM generate_series(1, 4); DELETE FROM loose WHERE ctid = (SELECT min(ctid) FROM loose)`
	fromHistory := func() *archive.Base {
		bases, err := a.Bases(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if b := &bases[len(bases)-1]; b.From != nil {
			return b
		}
		return nil
	}
	eventually(t, time.Minute, "the capture makes a base of the record", func() bool { s.exec(change); return fromHistory() != nil })
	s.exec(change)
	s.waitPast(a, s.here())
	capture.signal(terminate)
	if code := capture.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	alone := s.place // the source is not named
	alone.source = nil
	type made struct {
		ID   string `json:"id"`
		Rows int64  `json:"rows"`
	}
	makeBase := func(args ...string) (b made) {
		t.Helper()
		if err := json.Unmarshal([]byte(alone.must(append([]string{"base", "--from-history", "--json"}, args...)...).stdout), &b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := makeBase("--memory", "64KiB")
	if again := makeBase(); again != b {
		t.Errorf("with nothing behind base %+v another one is made: %+v", b, again)
	}
	var report struct {
		Base struct {
			ID string `json:"id"`
		} `json:"base"`
		Replayed uint64 `json:"replayed_transactions"`
		Proof    string `json:"proof"`
	}
	if err := json.Unmarshal([]byte(s.restore("rolled_again", "--json").stdout), &report); err != nil {
		t.Fatal(err)
	}
	if report.Base.ID != b.ID || report.Proof != b.ID || report.Replayed != 0 {
		t.Errorf("the restore began with base %q, replayed %d and compared with %q; want %q", report.Base.ID, report.Replayed, report.Proof, b.ID)
	}
	s.same("rolled_again")
	if was := s.value(`SELECT last_value FROM doc_id_seq`); s.in("rolled_again", `SELECT nextval('doc_id_seq') > `+was) != "t" {
		t.Errorf("the source had handed out %s, which the restored sequence does again", was)
	}
	alone.must("verify")
	if r := alone.must("status"); !strings.Contains(r.stdout, "made of base") {
		t.Errorf("status does not say how the base came about:\n%s", r.stdout)
	}

	// What the record does not tell, the source must.
	capture = s.capture("--base-every", "0")
	s.exec(`ALTER TABLE doc ADD COLUMN more text DEFAULT 'm'`)
	s.exec(change)
	s.waitPast(a, s.here())
	r := alone.run("base", "--from-history")
	if r.code != 1 || !strings.Contains(r.stderr, "take one of the source") || !strings.Contains(r.stderr, "changes definitions") {
		t.Errorf("behind a change of definitions: exit code %d\n%s", r.code, r.stderr)
	}
	if r := alone.run("base"); r.code != 2 || !strings.Contains(r.stderr, "--source") {
		t.Errorf("without a source: exit code %d\n%s", r.code, r.stderr)
	}
	capture.signal(terminate)
	if code := capture.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
