package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
)

// TestReadAgainInOnePiece records a transaction that the source cannot send faithfully before it has ended: a logical
// message in it was rolled back. The capture goes on by itself, and the record holds what was committed.
func TestReadAgainInOnePiece(t *testing.T) {
	t.Parallel()
	s := newSite(t, dbtest.PG(t, "logical_decoding_work_mem=64kB"), "pieces", nil).setup()
	s.exec(`CREATE TABLE t (id int PRIMARY KEY, v text)`)
	capture := s.capture()
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	s.exec(`INSERT INTO t VALUES (1)`)
	s.waitPast(a, s.here())
	s.exec(`BEGIN; INSERT INTO t VALUES (2); SAVEPOINT a; SELECT pg_logical_emit_message(true, 'app', 'rolled back');
		INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(3, 300) i; ROLLBACK TO a; INSERT INTO t VALUES (1000); COMMIT`)
	s.exec(`BEGIN; INSERT INTO t VALUES (1001); SELECT pg_logical_emit_message(true, 'app', 'committed'); COMMIT`)
	s.waitPast(a, s.here())
	if !capture.alive() || !capture.has("piece by piece") {
		t.Errorf("the capture did not read it again:\n%s", tail(capture.stderr(), 5))
	}
	rows, messages := 0, ""
	for _, txn := range readRecord(t, a, 1) {
		rows += len(txn.rows["public.t"])
		for _, m := range txn.messages {
			if !strings.HasPrefix(m, "txreel.fence") {
				messages += m + ";"
			}
		}
	}
	if rows != 4 || !strings.Contains(messages, "committed") || strings.Contains(messages, "rolled back") {
		t.Errorf("%d rows, messages %q", rows, messages)
	}
	s.restore("pieces_again")
	s.same("pieces_again")
	s.must("verify", "--full")
	capture.signal(terminate)
	if code := capture.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// TestForkedTail restores the source from an earlier copy of its files, which puts it on another timeline: what was
// recorded since never happened there, and the gap says from where on.
func TestForkedTail(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "forked", nil).setup()
	s.exec(`CREATE TABLE t (id int PRIMARY KEY)`)
	first := s.capture()
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	s.exec(`INSERT INTO t VALUES (1)`)
	s.waitPast(a, s.here())
	first.kill()

	stop := func() {
		t.Helper()
		if err := pg.Stop(t.Context(), "fast"); err != nil {
			t.Fatal(err)
		}
	}
	begin := func() {
		t.Helper()
		if err := pg.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	copied := filepath.Join(pg.Dir, "copy")
	stop()
	if out, err := exec.Command("cp", "-a", pg.DataDir(), copied).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	begin()
	second := s.capture()
	s.waitPast(a, s.here()) // what the server logs of its own
	forkedAt := s.here()
	s.exec(`INSERT INTO t VALUES (2)`)
	s.exec(`INSERT INTO t VALUES (3)`)
	tail := s.waitPast(a, s.here())
	second.signal(terminate)
	if code := second.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	stop()
	if err := os.Rename(pg.DataDir(), pg.DataDir()+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(copied, pg.DataDir()); err != nil {
		t.Fatal(err)
	}
	if err := pg.Configure(map[string]string{"restore_command": "false"}); err != nil {
		t.Fatal(err)
	}
	signal := filepath.Join(pg.DataDir(), "recovery.signal")
	if err := os.WriteFile(signal, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chown", "--reference", pg.DataDir(), signal).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	begin()
	eventually(t, patience(), "the end of recovery", func() bool { return s.value(`SELECT pg_is_in_recovery()`) == "f" })

	r := s.capture().result(time.Minute)
	if r.code != 3 {
		t.Fatalf("exit code %d, want 3:\n%s", r.code, r.stderr)
	}
	r.sentence(t, "timeline 1", "timeline 2", "never happened on this one", "--new-epoch")
	gap, err := a.Gap(t.Context(), 1)
	if err != nil || gap == nil || gap.Cause != archive.CauseDiverged {
		t.Fatalf("gap %+v, %v", gap, err)
	}
	// Both rows lie behind the fork, and nothing before them does that touches a table.
	_, from, _ := strings.Cut(gap.Detail, "from Seq ")
	for i, txn := range readRecord(t, a, 1) {
		rows := len(txn.rows["public.t"])
		forked := txn.seq.String() >= strings.Fields(from + " ?")[0]
		if rows > 0 && forked != (txn.rows["public.t"][0].new[0] != "1") {
			t.Errorf("transaction %d, %s, is forked: %t; %s", i, txn.seq, forked, gap.Detail)
		}
	}
	if !strings.Contains(gap.Detail, "to its end at "+string(gap.Tail.Position)) || position(t, gap.Tail.Position) < forkedAt || position(t, tail.Position) > position(t, gap.Tail.Position) {
		t.Errorf("the tail is %+v: %s", gap.Tail, gap.Detail)
	}

	third := s.capture("--new-epoch")
	s.waitBases(a, 2, 1)
	s.exec(`INSERT INTO t VALUES (4)`)
	s.waitPast(a, s.here())
	third.signal(terminate)
	if code := third.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	s.restore("forked_again")
	s.same("forked_again")
}
