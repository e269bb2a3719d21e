package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sources/postgres/lsn"
)

func TestVisibility(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "1:2", "a:2:", "1:b:", "1:5:2,x", "3:5:2", "3:5:5", "1:2:3:4"} {
		if v, err := parseVisibility(bad); err == nil {
			t.Errorf("%q is %v", bad, v)
		}
	}
	const wrap = 1 << 32
	v, err := parseVisibility(fmt.Sprintf("%d:%d:%d,%d", wrap+10, wrap+20, wrap+15, wrap+10))
	if err != nil {
		t.Fatal(err)
	}
	for xid, want := range map[uint64]bool{9: true, wrap + 9: true, wrap + 10: false, wrap + 11: true, wrap + 15: false, wrap + 19: true, wrap + 20: false, 2 * wrap: false} {
		if v.sees(xid) != want {
			t.Errorf("sees %d: %t", xid, !want)
		}
	}
	for _, c := range []struct {
		earlier, later string
		want           bool
	}{
		{"10:10:", "10:10:", true},
		{"10:12:10", "11:20:13", true},
		{"10:12:10", "10:20:10", true},     // which both do not see
		{"10:12:10", "10:20:10,11", false}, // a slot had seen the commit of 11, and nobody else has
		{"10:12:10", "10:11:10", false},
	} {
		earlier, err1 := parseVisibility(c.earlier)
		later, err2 := parseVisibility(c.later)
		if got := later.covers(&earlier); err1 != nil || err2 != nil || got != c.want {
			t.Errorf("%s covers %s: %t, want %t", c.later, c.earlier, got, c.want)
		}
	}
}

func TestBehindRecords(t *testing.T) {
	t.Parallel()
	const page, file = 8192, 16 << 20
	for insert, want := range map[lsn.LSN]lsn.LSN{
		3*file + page:          3*file + page,
		3*file + page + 24:     3*file + page,
		3*file + page + 40:     3*file + page + 40, // the rest of a record, of 16 bytes
		3*file + 40:            3 * file,
		3*file + 48:            3*file + 48,
		3*file + page - 8:      3*file + page - 8,
		3*file + 2*page + 1000: 3*file + 2*page + 1000,
	} {
		if got := behindRecords(insert, page, file); got != want {
			t.Errorf("%s: %s, want %s", insert, got, want)
		}
	}
}

func TestPlacing(t *testing.T) {
	t.Parallel()
	v, err := parseVisibility("10:30:12,15,20")
	if err != nil {
		t.Fatal(err)
	}
	// Transactions end at their Seq times 16; the first two are of the base before.
	for _, c := range []struct {
		name  string
		at    lsn.LSN
		xids  []string // from Seq 3 on
		whole change.Seq
		ahead []change.Seq
		fails string
	}{
		{"nothing behind", 32, nil, 2, nil, ""},
		{"all seen", 96, []string{"9", "11", "29", ""}, 6, nil, ""},
		{"not all of the record", 80, []string{"9", "", "11", "31"}, 5, nil, ""},
		{"one not seen, behind all that are", 96, []string{"9", "11", "12", "30"}, 4, nil, ""},
		{"one not seen, in front of others", 144, []string{"9", "12", "11", "", "15", "16", "40"}, 3, []change.Seq{5, 8}, ""},
		{"seen behind the place", 64, []string{"9", "11", "16"}, 0, nil, "take another base"},
		{"no id", 96, []string{"x"}, 0, nil, "has the id \"x\""},
	} {
		p := placing{seen: v, at: c.at, prefix: true, whole: 2}
		var err error
		for i, more := 0, true; i < len(c.xids) && more && err == nil; i++ {
			seq := change.Seq(3 + i)
			more, err = p.look(&change.Txn{Seq: seq, XID: c.xids[i], Position: lsn.LSN(16 * seq).Position()})
		}
		switch {
		case c.fails != "":
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v", c.name, err)
			}
		case err != nil || p.whole != c.whole || !slices.Equal(p.ahead, c.ahead):
			t.Errorf("%s: up to %s and %v, %v; want %s and %v", c.name, p.whole, p.ahead, err, c.whole, c.ahead)
		}
	}

	p := placing{seen: v, at: 1 << 40, prefix: true}
	more, err := p.look(&change.Txn{Seq: 1, XID: "12", Position: "0/10"})
	for seq := change.Seq(2); more && err == nil && seq < maxAhead+10; seq++ {
		more, err = p.look(&change.Txn{Seq: seq, XID: "9", Position: "0/20"})
	}
	if err == nil || !strings.Contains(err.Error(), "(12) had been written") || len(p.ahead) != maxAhead {
		t.Errorf("%d ahead: %v", len(p.ahead), err)
	}
}

// TestBaseOfWhatIsVisible takes a base while one commit waits for a standby that never comes, one transaction is prepared and one runs: it waits for
// none of them, and holds what others committed behind the first one.
func TestBaseOfWhatIsVisible(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t, "autovacuum=off")
	s := newSite(t, pg, "visible")
	a := newTestArchive(t)
	beat, stop := s.record(a, s.options(""))
	take := func() (*archive.Base, map[string]string) {
		t.Helper()
		o := s.baseOptions()
		o.LockTimeout = 1000
		b, err := TakeBase(t.Context(), a, 1, o)
		if err == nil {
			err = FinishBase(t.Context(), a, b, beat)
		}
		if err != nil {
			t.Fatal(err)
		}
		return b, rows(t, a, b, "t")
	}
	local := s.conn()
	do := func(sql string) {
		t.Helper()
		if _, err := local.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	do("set synchronous_commit = local")
	do("insert into t values (1, 'one'), (2, 'two')")
	first, _ := take()
	if e, err := engineOf(first); err != nil || e.Visible != nil || e.Slot == "" || e.Snapshot == "" {
		t.Errorf("the first base: %+v, %v", e, err)
	}

	name := func(who string) {
		t.Helper()
		s.exec("alter system set synchronous_standby_names = '" + who + "'")
		s.exec("select pg_reload_conf()")
		eventually(t, "the setting", func() bool { return s.one("select current_setting('synchronous_standby_names')") == who })
	}
	name("nobody")
	if err := pg.AwaitSync(t.Context(), "visible"); err != nil {
		t.Fatal(err)
	}
	waiter := s.conn()
	waited := make(chan error, 1)
	go func() {
		_, err := waiter.Exec(context.WithoutCancel(t.Context()), "insert into t values (3, 'waits')")
		waited <- err
	}()
	eventually(t, "a commit that waits", func() bool { return s.one("select count(*) from pg_stat_activity where wait_event = 'SyncRep'") == "1" })
	running := s.conn()
	for _, sql := range []string{"set synchronous_commit = local", "begin", "insert into t values (8, 'runs')"} {
		if _, err := running.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range []string{
		"begin", "insert into t values (7, 'prepared')", "prepare transaction 'p'",
		"update t set v = 'first' where n = 1",
		"begin", "savepoint a", "insert into t values (4, 'four')", "release a", "savepoint b", "delete from t", "rollback to b", "commit",
		"delete from t where n = 2",
	} {
		do(sql)
	}
	b, got := take()
	want := map[string]string{"1": "1\tfirst", "4": "4\tfour"}
	e, err := engineOf(b)
	if err != nil || e.Visible == nil || e.Visible.Since != first.Seq || e.Slot != "" {
		t.Errorf("the base behind it: %+v, %v", e, err)
	}
	if !maps.Equal(got, want) || len(b.Ahead) != 3 || b.Ahead[0] <= b.Seq+1 {
		t.Errorf("it holds %v, and %v ahead of %s; want %v, and three transactions behind the one that waits", got, b.Ahead, b.Seq, want)
	}

	do("commit prepared 'p'")
	if _, err := running.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	name("")
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	last, held := take()
	end := mustLSN(t, change.Position(s.one("select pg_current_wal_insert_lsn()")))
	var tail archive.Tail
	eventually(t, "the archive to hold everything", func() bool {
		beat()
		tail, err = a.Tail(t.Context(), 1)
		return err == nil && mustLSN(t, tail.Position) >= behindRecords(end, 8192, 16<<20)
	})
	stop()
	if len(last.Ahead) > 0 || last.Seq > tail.Seq {
		t.Errorf("at rest a base holds %v ahead of %s", last.Ahead, last.Seq)
	}
	all := map[string]string{"1": "1\tfirst", "3": "3\twaits", "4": "4\tfour", "7": "7\tprepared", "8": "8\truns"}
	replay(t, a, got, "t", b, tail.Seq)
	if !maps.Equal(got, all) || !maps.Equal(held, all) {
		t.Errorf("with what follows it holds %v, the next one %v, want %v", got, held, all)
	}
}
