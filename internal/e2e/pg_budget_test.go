package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
)

// TestWALBudget lets a source keep more log than its budget: first for a transaction that stays open, then for a store
// that is down. Told to keep the slot the capture warns and loses nothing; told to drop it, the source comes first, the gap
// is on record as a choice, and the record goes on behind it without being asked.
func TestWALBudget(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t, "autovacuum=off")
	gateway := dbtest.S3(t)
	s := newSite(t, pg, "budget", gateway).setup()
	s.exec(`CREATE TABLE t (id bigserial PRIMARY KEY, v text)`)
	grow := func() {
		s.exec(`INSERT INTO t (v) SELECT repeat(md5(i::text), 30) FROM generate_series(1, 25000) i`) // some 27 MB of log
	}
	slots := func() string {
		return s.value(`SELECT count(*) FROM pg_replication_slots WHERE slot_name = '` + s.slot() + `'`)
	}

	first := s.capture("--wal-budget", "16MiB")
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	long, err := pg.Conn(t.Context(), s.db)
	if err != nil {
		t.Fatal(err)
	}
	defer long.Close(t.Context())
	if _, err := long.Exec(t.Context(), `SET application_name = 'sleepy'; BEGIN; INSERT INTO t (v) VALUES ('open')`); err != nil {
		t.Fatal(err)
	}
	grow()
	s.waitPast(a, s.here())
	eventually(t, patience(), "the warning", func() bool {
		return contains(first.stderr(), "keeps the slot", `"budget_bytes":16777216`, `"percent":1`)
	})
	if gap, err := a.Gap(t.Context(), 1); err != nil || gap != nil || slots() != "1" {
		t.Fatalf("told to keep the slot: gap %+v, %s slots: %v", gap, slots(), err)
	}
	first.signal(terminate)
	if code := first.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	// The choice of another start holds from then on. The budget is that of the start before.
	second := s.capture("--at-wal-budget", "drop", "--lock-timeout", "500ms")
	eventually(t, patience(), "the slot to go", func() bool { return slots() == "0" })
	eventually(t, patience(), "what holds up the new slot", func() bool { return contains(second.stderr(), `application \"sleepy\"`) })
	if _, err := long.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	s.waitBases(a, 2, 1)
	s.exec(`INSERT INTO t (v) VALUES ('behind')`)
	s.waitPast(a, s.here())
	s.checkBudgetGap(a, 1)

	// The archive cannot be reached: the slot goes all the same, and the gap is on record when it can.
	if err := gateway.Stop(); err != nil {
		t.Fatal(err)
	}
	grow()
	eventually(t, patience(), "the slot to go again", func() bool { return slots() == "0" })
	if err := gateway.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := second.result(time.Minute) // another base within the hour would be no answer
	if r.code != 3 {
		t.Fatalf("exit code %d, want 3:\n%s", r.code, tail(r.stderr, 5))
	}
	s.checkBudgetGap(a, 2)

	third := s.capture() // a person has looked at it
	s.waitBases(a, 3, 1)
	s.exec(`INSERT INTO t (v) VALUES ('at last')`)
	s.waitPast(a, s.here())
	third.signal(terminate)
	if code := third.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	c, err := a.LastChoice(t.Context(), 3)
	if err != nil || c == nil || c.Epoch != 3 || c.Number != 1 || c.AtBudget != archive.AtBudgetDrop || c.Budget != 16<<20 {
		t.Errorf("the choice on record is %+v, %v", c, err)
	}
	if c, err := a.LastChoice(t.Context(), 1); err != nil || c.Number != 2 || c.AtBudget != archive.AtBudgetDrop {
		t.Errorf("the choice of epoch 1 is %+v, %v", c, err)
	}
	s.restore("budget_again")
	s.same("budget_again")
	s.must("verify", "--full")
}

// checkBudgetGap checks that an epoch ends by choice, and that the next, if there is one, says so.
func (s *site) checkBudgetGap(a *archive.Archive, epoch uint64) {
	s.t.Helper()
	gap, err := a.Gap(s.t.Context(), epoch)
	if err != nil || gap == nil || gap.Cause != archive.CauseBudget || !strings.Contains(gap.Detail, "the budget is 16 MiB") {
		s.t.Errorf("gap of epoch %d: %+v, %v", epoch, gap, err)
	}
	epochs, err := a.Epochs(s.t.Context())
	if err != nil || uint64(len(epochs)) > epoch && epochs[epoch].Cause != archive.CauseBudget {
		s.t.Errorf("epochs %+v, %v", epochs, err)
	}
	if r := s.must("status"); !contains(r.stdout, "GAP", fmt.Sprint(epoch)) {
		s.t.Errorf("status says:\n%s", r.stdout)
	}
}
