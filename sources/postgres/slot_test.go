package postgres

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"txreel/capture"
	"txreel/change"
	"txreel/internal/dbtest"
)

// testSlotChecks opens streams of slots that do not continue the record.
func testSlotChecks(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "checks")
	other := newSite(t, pg, "checks_other")
	s.exec("select pg_create_logical_replication_slot('checks_plugin', 'test_decoding'), pg_create_physical_replication_slot('checks_physical')")
	position := func() change.Position { return change.Position(s.one("select pg_current_wal_insert_lsn()")) }
	tail := position()
	s.exec("insert into t default values")
	for _, c := range []struct {
		name, slot, publication string
		tail                    change.Position
		prepare                 string
		gap                     bool
		want                    string
	}{
		{name: "missing", slot: "checks_none", tail: tail, gap: true, want: `slot "checks_none" does not exist in the source`},
		{name: "missing, first", slot: "checks_none", gap: true, want: "does not exist"},
		{name: "other plug-in", slot: "checks_plugin", tail: tail, want: `belongs to plug-in "test_decoding"`},
		{name: "physical", slot: "checks_physical", tail: tail, want: "belongs to plug-in"},
		{name: "other database", slot: other.db, tail: tail, want: `database "checks_other"`},
		{name: "no position", slot: s.db, tail: "12:34", want: "not an LSN"},
		{name: "behind the log", slot: s.db, tail: "FFFFFF/0", gap: true, want: "put back to an earlier state"},
		{name: "advanced", slot: s.db, tail: tail, prepare: "select pg_replication_slot_advance('checks', pg_current_wal_lsn())", gap: true, want: "advanced or created anew by somebody else"},
		{name: "no publication", slot: s.db, publication: "checks_nopub", tail: "", gap: true, want: `publication "checks_nopub" does not exist`},
		{name: "incomplete publication, first", slot: s.db, tail: "", prepare: "alter publication txreel set (publish = 'insert, delete')", want: "no UPDATE"},
	} {
		if c.prepare != "" {
			s.exec(c.prepare)
		}
		o := s.options(c.tail)
		o.Slot = c.slot
		if c.publication != "" {
			o.Publication = c.publication
		}
		_, err := s.tryOpen(o)
		if err == nil || errors.Is(err, capture.ErrGap) != c.gap || errors.Is(err, capture.ErrUnreachable) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a gap %v and %q", c.name, err, c.gap, c.want)
		}
		if err != nil && c.gap && !strings.Contains(err.Error(), "--new-epoch") {
			t.Errorf("%s: does not say what to do: %v", c.name, err)
		}
	}
}

// testSlotCreation lets a prepared transaction that nobody ends stand in the way.
func testSlotCreation(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "creation")
	s.exec("begin; insert into t default values; prepare transaction 'forgotten'")
	err := CreateSlot(t.Context(), s.url(), "creation2", 300)
	if err == nil || errors.Is(err, capture.ErrUnreachable) || !strings.Contains(err.Error(), "still running") {
		t.Errorf("%v", err)
	}
	if n := s.one("select count(*) from pg_replication_slots where slot_name = 'creation2'"); n != "0" {
		t.Errorf("%s slots left", n)
	}
	s.exec("rollback prepared 'forgotten'")
	if err := CreateSlot(t.Context(), s.url(), "creation2", 0); err != nil {
		t.Error(err)
	}
	if err := CreateSlot(t.Context(), s.url(), "creation2", 10_000); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("twice: %v", err)
	}
	conn := connectTo(t, s.url())
	slot, err := ReadSlot(t.Context(), conn, "creation2")
	if err != nil || !slot.Exists || slot.Lost || slot.Active || slot.Confirmed == "" {
		t.Errorf("%+v, %v", slot, err)
	}
	// One that was made before its publication can never be read.
	s.exec("drop publication txreel; create publication txreel for all tables")
	if predates, err := SlotPredates(t.Context(), conn, "creation2", "txreel"); err != nil || !predates {
		t.Errorf("predates %v, %v", predates, err)
	}
	src := s.open("")
	if err := DropSlot(t.Context(), conn, s.db); !errors.Is(err, capture.ErrOtherCapture) {
		t.Errorf("dropped while it is read: %v", err)
	}
	src.Close()
	if err := DropSlot(t.Context(), conn, "creation2"); err != nil {
		t.Error(err)
	}
	if slot, err := ReadSlot(t.Context(), conn, "creation2"); err != nil || slot.Exists {
		t.Errorf("dropped: %+v, %v", slot, err)
	}
}

// testBlocker expects to be told which transaction a new slot waits for. Nobody else may write meanwhile.
func testBlocker(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "blocker")
	create := func() string {
		t.Helper()
		err := CreateSlot(t.Context(), s.url(), "blocker2", 300)
		if err == nil {
			t.Fatal("created")
		}
		return err.Error()
	}
	s.exec("begin; insert into t default values; prepare transaction 'it''s'")
	if says := create(); !strings.Contains(says, `ROLLBACK PREPARED 'it''s' in that database`) || !strings.Contains(says, `database "blocker"`) {
		t.Error(says)
	}
	s.exec("rollback prepared 'it''s'")
	conn := s.conn()
	if _, err := conn.Exec(t.Context(), "set application_name = 'the culprit'; begin; insert into t default values"); err != nil {
		t.Fatal(err)
	}
	if says := create(); !strings.Contains(says, fmt.Sprintf(`pid %d (application "the culprit", role "postgres", database "blocker") has had it open for`, conn.PgConn().PID())) || !strings.Contains(says, `"idle in transaction"`) {
		t.Error(says)
	}
	// A role that may not see it says what it knows.
	s.exec("create role blind login replication password 'x'")
	err := CreateSlot(t.Context(), pg.URLAs("blind", "x", s.db), "blocker2", 300)
	if err == nil || !strings.Contains(err.Error(), "pg_prepared_xacts") {
		t.Error(err)
	}
	s.exec("drop role blind")
}

// testFailoverSlot expects that standbys may keep a copy of the slot, where the server can do that.
func testFailoverSlot(t *testing.T, pg *dbtest.Postgres) {
	if pg.Major < 17 {
		t.Logf("PostgreSQL %d has no failover slots", pg.Major)
		return
	}
	s := newSite(t, pg, "failover")
	if got := s.one("select failover from pg_replication_slots where slot_name = 'failover'"); got != "t" {
		t.Errorf("failover is %s", got)
	}
}

// TestLostSlot lets the server remove log that a slot needs, once while nobody reads
// and once under a stream.
func TestLostSlot(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t, "max_slot_wal_keep_size=1MB", "min_wal_size=32MB", "max_wal_size=32MB", "statement_timeout=0")
	s := newSite(t, pg, "lost")
	live := newSite(t, pg, "live")
	tail := change.Position(s.confirmed())
	src := live.open("")
	nextIdle(t, src)
	lose := func(slot string) {
		t.Helper()
		for range 50 {
			s.exec("insert into t (v) select repeat('x', 1000) from generate_series(1, 2000); select pg_switch_wal()")
			s.exec("checkpoint")
			if s.one("select wal_status from pg_replication_slots where slot_name = '"+slot+"'") == "lost" {
				return
			}
		}
		t.Fatal("the slot is still there")
	}
	lose("lost")
	if _, err := s.tryOpen(s.options(tail)); !errors.Is(err, capture.ErrGap) || !strings.Contains(err.Error(), "invalidated") {
		t.Errorf("%v", err)
	}
	if _, err := s.tryOpen(s.options("")); !errors.Is(err, capture.ErrGap) {
		t.Errorf("without a tail: %v", err)
	}
	lose("live")
	if err := failure(t, src); !errors.Is(err, capture.ErrUnreachable) && !errors.Is(err, capture.ErrGap) {
		t.Errorf("under a stream: %v", err)
	}
	src.Close()
	if _, err := live.tryOpen(live.options(tail)); !errors.Is(err, capture.ErrGap) {
		t.Errorf("after the stream: %v", err)
	}
	h, err := ReadHealth(t.Context(), connectTo(t, s.url()), "lost")
	if err != nil || h.WALStatus != "lost" || h.LimitBytes != 1<<20 {
		t.Errorf("health %+v, %v", h, err)
	}
	if _, err := ReadHealth(t.Context(), connectTo(t, s.url()), "none"); err == nil || errors.Is(err, capture.ErrUnreachable) {
		t.Errorf("health of nothing: %v", err)
	}
}

func TestExplainStream(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code, message string
		gap, away     bool
	}{
		{"42704", `publication "txreel" does not exist`, true, false},
		{"55000", `can no longer get changes from replication slot "x"`, true, false},
		{"58P01", "requested WAL segment 000000010000000000000003 has already been removed", true, false},
		{"58P01", `could not access file "pgoutput": No such file or directory`, false, false},
		{"57P01", "terminating connection due to administrator command", false, true},
		{"XX000", "invalid memory alloc request size 1080000003", true, false},
		{"XX000", "could not map filenumber", false, false},
	} {
		err := explainStream(fmt.Errorf("x: %w", pgError(c.code, c.message)))
		if errors.Is(err, capture.ErrGap) != c.gap || errors.Is(err, capture.ErrUnreachable) != c.away {
			t.Errorf("%s %s: %v", c.code, c.message, err)
		}
	}
}
