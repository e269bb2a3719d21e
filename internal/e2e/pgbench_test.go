package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/restore"
)

// state is what the source held at one point of its history.
type state struct {
	point []string // options of txreel restore
	marks int      // rows of the table marks, which is not in dump
	dump  map[string]dbtest.TableDump
}

// TestPgbench records pgbench's TPC-B with 8 clients while bases are taken, and restores to points in the middle of
// it: those whose state is known hold exactly that, and at every other one the books balance.
func TestPgbench(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "bench", nil)
	s.setup()
	s.exec(`CREATE TABLE marks (n int)`)
	bench := func(args ...string) *process {
		t.Helper()
		return start(t, []string{"PGHOST=" + pg.Dir, "PGPORT=" + strconv.Itoa(pg.Port), "PGUSER=postgres"}, nil,
			pg.Client("pgbench"), append(args, s.db)...)
	}
	if r := bench("-i", "-q", "-s", strconv.Itoa(times(2, 10))).result(5 * time.Minute); r.code != 0 {
		t.Fatal(r.stderr)
	}
	load := bench("-c", "8", "-j", "2", "-T", "600")
	capture := s.capture("--flush-age", "200ms")
	a := s.waitArchive()
	s.waitBases(a, 1, 1) // taken under load

	var states []state
	for n := range 5 {
		if !load.alive() {
			t.Fatalf("pgbench ended before %d states were known", n)
		}
		before := s.value(`SELECT count(*) FROM pgbench_history`)
		eventually(t, time.Minute, "pgbench goes on", func() bool {
			now, err1 := strconv.Atoi(s.value(`SELECT count(*) FROM pgbench_history`))
			was, err2 := strconv.Atoi(before)
			return err1 == nil && err2 == nil && now > was+50+rand.IntN(200)
		})
		states = append(states, s.standstill(n))
		if n == 2 {
			s.must("base", "--proof") // a second one, in the middle
		}
	}
	if *long {
		time.Sleep(2 * time.Minute)
	}
	load.kill() // in the middle of transactions
	s.value(`SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity WHERE application_name = 'pgbench'`)
	s.waitPast(a, s.here())
	capture.signal(terminate)
	if code := capture.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	states = append(states, state{point: []string{"--to", "latest"}, marks: len(states), dump: s.dump(s.db)})

	for i, want := range states {
		db := fmt.Sprintf("at%d", i)
		s.restore(db, want.point...)
		got := s.dump(db)
		if diff := dbtest.Diff(want.dump, got); diff != "" {
			t.Errorf("restored %v:\n%s", want.point, diff)
		}
		if marks := s.in(db, `SELECT count(*) FROM marks`); marks != strconv.Itoa(want.marks) {
			t.Errorf("restored %v: %s marks, want %d", want.point, marks, want.marks)
		}
		s.balanced(db)
	}
	// From the first base to the place of the second, which was taken under load too: what was captured and replayed
	// comes to what the source held.
	bases := s.waitBases(a, 1, 2)
	slices.SortFunc(bases, func(x, y archive.Base) int { return cmp.Compare(x.Seq, y.Seq) })
	proven(t, s.restore("proven", "--base", bases[0].ID, "--to-seq", bases[1].Seq.String(), "--json"), bases[0].ID, bases[1].ID)
	if r := s.run("restore", "--base", "nonsense", "--dry-run"); r.code != 2 || !strings.Contains(r.stderr, `no base "nonsense"`) {
		t.Errorf("a base that does not exist: exit code %d\n%s", r.code, r.stderr)
	}
	// Points nobody stood still for.
	txns := readRecord(t, a, 1)
	first := s.waitBases(a, 1, 1)[0].Seq
	for i := range 2 {
		txn := txns[int(first)+rand.IntN(len(txns)-int(first))]
		db := fmt.Sprintf("random%d", i)
		s.restore(db, "--to-seq", txn.seq.String())
		s.balanced(db)
	}
}

// standstill keeps all writers out for a moment, and returns what the database holds then with a point to restore
// to: the transaction that kept them out, or the position of the log before it.
func (s *site) standstill(n int) state {
	s.t.Helper()
	ctx := s.t.Context()
	conn, err := s.pg.Conn(ctx, s.db)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	tx, err := conn.Begin(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	// pgbench writes accounts first: who waits for it holds nothing else.
	if _, err := tx.Exec(ctx, `LOCK TABLE pgbench_accounts, pgbench_tellers, pgbench_branches, pgbench_history IN SHARE MODE`); err != nil {
		s.t.Fatal(err)
	}
	here := s.here().String()
	st := state{dump: s.dump(s.db), marks: n, point: []string{"--to-position", here}}
	var xid string
	if err := tx.QueryRow(ctx, `INSERT INTO marks VALUES ($1) RETURNING pg_current_xact_id()::text`, n).Scan(&xid); err != nil {
		s.t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		s.t.Fatal(err)
	}
	switch n % 3 {
	case 0:
		st.marks, st.point = n+1, []string{"--to-txn", xid}
	case 1:
		st.point = []string{"--to-txn", xid, "--before"}
	}
	return st
}

// dump returns what a database of the source's server holds, besides the table marks.
func (s *site) dump(db string) map[string]dbtest.TableDump {
	s.t.Helper()
	d, err := dbtest.Dump(s.t.Context(), s.pg.URL(db), "txreel")
	if err != nil {
		s.t.Fatal(err)
	}
	delete(d, `"public"."marks"`)
	return d
}

// restore restores into a new database of the source's server.
func (s *site) restore(db string, point ...string) result {
	s.t.Helper()
	target, err := s.pg.CreateDB(s.t.Context(), db)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.with("TXREEL_TARGET=" + target).must(append([]string{"restore"}, point...)...)
}

// in returns the one value a query has in another database.
func (s *site) in(db, sql string) string {
	s.t.Helper()
	return s.pg.MustQuery(s.t, db, sql)[0][0]
}

// balanced checks the rule of TPC-B: all four tables tell of the same money.
func (s *site) balanced(db string) {
	s.t.Helper()
	sums := s.in(db, `SELECT array_agg(DISTINCT sum) FROM (
		SELECT sum(abalance) FROM pgbench_accounts UNION ALL SELECT sum(tbalance) FROM pgbench_tellers UNION ALL
		SELECT sum(bbalance) FROM pgbench_branches UNION ALL SELECT coalesce(sum(delta), 0) FROM pgbench_history) sums`)
	var sum int
	if n, err := fmt.Sscanf(sums, "{%d}", &sum); n != 1 || err != nil || fmt.Sprintf("{%d}", sum) != sums {
		s.t.Errorf("the books of %s do not balance: %s", db, sums)
	}
}

// proven demands of a restore's report in JSON that it went from one base to the place of another, and found every table
// to hold what that one has on record.
func proven(t *testing.T, r result, from, to string) {
	t.Helper()
	var report struct {
		Base     restore.BasePoint   `json:"base"`
		Proof    string              `json:"proof"`
		Replayed uint64              `json:"replayed_transactions"`
		Tables   []restore.TableRows `json:"tables"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("%v\n%s", err, r.stdout)
	}
	if report.Base.ID != from || report.Proof != to || report.Replayed == 0 || len(report.Tables) == 0 {
		t.Errorf("restored from base %s, %d transactions, compared with %q; want from %s, compared with %s", report.Base.ID, report.Replayed, report.Proof, from, to)
	}
	for _, table := range report.Tables {
		if table.Verified != restore.ByContent {
			t.Errorf("%s was verified by %s", table.Table, table.Verified)
		}
	}
}
