package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"txreel/internal/dbtest"
	"txreel/sources"
)

// catalogState is what setup may change, for comparison before and after.
const catalogState = `
	SELECT 'table ' || c.oid::regclass, relreplident::text || COALESCE((SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = c.oid AND indisreplident), '') FROM pg_class c WHERE relkind IN ('r', 'p') AND oid >= 16384
	UNION ALL SELECT 'publication ' || pubname, COALESCE(obj_description(oid, 'pg_publication'), '') FROM pg_publication
	UNION ALL SELECT 'slot ' || slot_name, plugin FROM pg_replication_slots ORDER BY 1`

// everyTable holds one table for every way to have an identity, or not.
const everyTable = `
	CREATE SCHEMA "we""ird";
	CREATE TABLE "we""ird"."ta ble" (n int);
	CREATE TABLE "we""ird".E (n int);
	CREATE TABLE "we""ird"."new
line\'; DROP" (n int);
	CREATE TABLE keyed (n int PRIMARY KEY);
	CREATE TABLE plain (n int);
	CREATE TABLE uniq (n int NOT NULL, m int, CONSTRAINT uniq_n UNIQUE (n), UNIQUE (m));
	CREATE TABLE deferred (n int PRIMARY KEY DEFERRABLE);
	CREATE TABLE full_already (n int); ALTER TABLE full_already REPLICA IDENTITY FULL;
	CREATE TABLE nothing (n int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
	CREATE TABLE by_index (n int NOT NULL UNIQUE); ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_n_key;
	CREATE TABLE generated (n int, g int GENERATED ALWAYS AS (n * 2) STORED, PRIMARY KEY (n, g));
	CREATE TABLE generated_index (n int, g int NOT NULL GENERATED ALWAYS AS (n * 2) STORED, UNIQUE (g)); ALTER TABLE generated_index REPLICA IDENTITY USING INDEX generated_index_g_key;
	CREATE TABLE generated_late (n int PRIMARY KEY, g int NOT NULL GENERATED ALWAYS AS (n * 2) STORED, UNIQUE (g));
	CREATE TABLE root (n int) PARTITION BY LIST (n);
	CREATE TABLE leaf_1 PARTITION OF root FOR VALUES IN (1); CREATE TABLE leaf_2 PARTITION OF root (PRIMARY KEY (n)) FOR VALUES IN (2);
	CREATE TABLE parent (n int PRIMARY KEY); CREATE TABLE child () INHERITS (parent);
	CREATE UNLOGGED TABLE fleeting (n int);`

// keylessHere are the tables of everyTable that need a fix, as regclass prints them.
var keylessHere = []string{`"we""ird"."ta ble"`, `"we""ird".e`, "\"we\"\"ird\".\"new\nline\\'; DROP\"", "plain", "uniq", "deferred", "nothing", "leaf_1", "child"}

func connectTo(t *testing.T, source string) *pgx.Conn {
	t.Helper()
	conn, err := Connect(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func TestSetupRoundTrip(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pg := dbtest.PG(t)
	pg.MustExec(t, "postgres", everyTable)
	before := fmt.Sprint(pg.MustQuery(t, "postgres", catalogState))
	conn := connectTo(t, pg.URL("postgres"))
	s := Setup{Publication: `my "pub"`, Slot: "my_slot", Role: `the "reader"`}

	plan, err := s.Plan(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	if now := fmt.Sprint(pg.MustQuery(t, "postgres", catalogState)); now != before {
		t.Errorf("planning changed the catalog:\n%s", now)
	}
	for _, p := range plan {
		if strings.Contains(strings.ToUpper(p.SQL), "PASSWORD") {
			t.Errorf("a password: %s", p.SQL)
		}
	}
	if last := plan[len(plan)-1]; !strings.HasPrefix(last.SQL, "CREATE PUBLICATION \"my \"\"pub\"\"\" FOR ALL TABLES") {
		t.Errorf("last: %s", last.SQL)
	}
	if script := sources.Script(plan); !strings.Contains(script, `"uniq" REPLICA IDENTITY USING INDEX "uniq_n"`) {
		t.Errorf("the cheaper way for a unique index is not named:\n%s", script)
	}

	// The script as psql would read it does the same as Apply. Running it in one transaction leaves nothing behind.
	if _, err := conn.PgConn().Exec(ctx, "BEGIN;\n"+sources.Script(plan)+"SELECT 'reached';ROLLBACK").ReadAll(); err != nil {
		t.Fatalf("the script does not run: %v\n%s", err, sources.Script(plan))
	}

	if err := s.Apply(ctx, conn, nil); err != nil {
		t.Fatal(err)
	}
	full := map[string]bool{"full_already": true, "generated": pg.Major < generatedSince, "generated_index": pg.Major < generatedSince}
	for _, name := range keylessHere {
		full[name] = true
	}
	for _, row := range pg.MustQuery(t, "postgres", `SELECT c.oid::regclass, relreplident FROM pg_class c WHERE relkind = 'r' AND oid >= 16384`) {
		if got := row[1] == "f"; got != full[row[0]] {
			t.Errorf("table %s: identity %s", row[0], row[1])
		}
	}
	// No statement of the application fails, on any table.
	for _, row := range pg.MustQuery(t, "postgres", `SELECT c.oid::regclass FROM pg_class c WHERE relkind IN ('r', 'p') AND oid >= 16384 AND relnamespace <> 'txreel'::regnamespace`) {
		pg.MustExec(t, "postgres", "UPDATE "+row[0]+" SET n = n; DELETE FROM "+row[0])
	}
	pg.MustExec(t, "postgres", `INSERT INTO plain VALUES (1); UPDATE plain SET n = 2; DELETE FROM plain`)
	if plan, err := s.Plan(ctx, conn); err != nil || len(plan) > 0 {
		t.Errorf("a second plan: %v\n%s", err, sources.Script(plan))
	}
	if got := pg.MustQuery(t, "postgres", `SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, puballtables FROM pg_publication WHERE pubname = 'my "pub"'`); fmt.Sprint(got) != "[[t t t t f t]]" {
		t.Errorf("publication: %v", got)
	}
	if got := pg.MustQuery(t, "postgres", `
		SELECT rolcanlogin, rolreplication, rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolpassword IS NULL,
		       pg_has_role(oid, 'pg_read_all_data', 'USAGE'), pg_has_role(oid, 'pg_monitor', 'USAGE'), pg_has_role(oid, 'pg_write_all_data', 'USAGE')
		FROM pg_authid WHERE rolname = 'the "reader"'`); fmt.Sprint(got) != "[[t t f f f f t t t f]]" {
		t.Errorf("role: %v", got)
	}

	// A table without a key that came later is fixed by setting up again, and undone with the others.
	pg.MustExec(t, "postgres", `CREATE TABLE late (n int)`)
	if err := s.Apply(ctx, conn, nil); err != nil {
		t.Fatal(err)
	}
	pg.MustExec(t, "postgres", `UPDATE late SET n = 1; DROP TABLE late; ALTER TABLE generated_late REPLICA IDENTITY USING INDEX generated_late_g_key`)
	if got := pg.MustQuery(t, "postgres", `SELECT relreplident FROM pg_class WHERE relname = 'generated_late'`)[0][0]; (got == "f") != (pg.Major < generatedSince) {
		t.Errorf("an index with a generated column became the identity: %s", got)
	}

	pg.MustExec(t, "postgres", `SELECT pg_create_logical_replication_slot('my_slot', 'pgoutput')`)
	if err := s.Remove(ctx, conn, nil); err != nil {
		t.Fatal(err)
	}
	if got := pg.MustQuery(t, "postgres", `SELECT relreplident FROM pg_class WHERE relname = 'generated_late'`)[0][0]; got != "i" {
		t.Errorf("the identity that became an index after setup is left as %s", got)
	}
	pg.MustExec(t, "postgres", `ALTER TABLE generated_late REPLICA IDENTITY DEFAULT`)
	if after := fmt.Sprint(pg.MustQuery(t, "postgres", catalogState)); after != before {
		t.Errorf("setup and remove leave a trace:\nbefore %s\nafter  %s", before, after)
	}
	if err := s.Remove(ctx, conn, nil); err != nil {
		t.Errorf("removing nothing: %v", err)
	}
}

func TestSetupOfChosenTables(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pg := dbtest.PG(t)
	pg.MustExec(t, "postgres", everyTable+`CREATE VIEW v AS SELECT 1; CREATE ROLE reader; ALTER TABLE plain ENABLE ROW LEVEL SECURITY`)
	before := fmt.Sprint(pg.MustQuery(t, "postgres", catalogState))
	conn := connectTo(t, pg.URL("postgres"))
	for _, bad := range []string{"nope", "plain", "public.v", "public.fleeting", `no"pe`} {
		if _, err := (Setup{Publication: "p", Slot: "s", Tables: []string{bad}}).Plan(ctx, conn); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("table %s: %v", bad, err)
		}
	}
	s := Setup{Publication: "p", Slot: "s", Role: "reader", Tables: []string{"public.root", "public.parent", `"we""ird"."ta ble"`}}
	if err := s.Apply(ctx, conn, nil); err != nil {
		t.Fatal(err)
	}
	if got := pg.MustQuery(t, "postgres", `SELECT string_agg(format('%I.%I', schemaname, tablename), ' ' ORDER BY tablename) FROM pg_publication_tables WHERE pubname = 'p'`); got[0][0] != `public.child txreel.ddl_log public.leaf_1 public.leaf_2 public.parent "we""ird"."ta ble"` {
		t.Errorf("published: %v", got)
	}
	if got := pg.MustQuery(t, "postgres", `SELECT string_agg(oid::regclass::text, ' ' ORDER BY oid) FROM pg_class WHERE relreplident = 'f'`); got[0][0] != `"we""ird"."ta ble" full_already leaf_1 child` {
		t.Errorf("full: %v", got)
	}
	if got := pg.MustQuery(t, "postgres", `SELECT rolcanlogin, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = 'reader'`); fmt.Sprint(got) != "[[t t t]]" {
		t.Errorf("role: %v", got)
	}

	// Flags somebody changed are mended, tables added.
	pg.MustExec(t, "postgres", `ALTER PUBLICATION p SET (publish = 'insert', publish_via_partition_root = true)`)
	s.Tables = append(s.Tables, "public.plain")
	if err := s.Apply(ctx, conn, nil); err != nil {
		t.Fatal(err)
	}
	pg.MustExec(t, "postgres", `UPDATE plain SET n = 1`)
	if got := pg.MustQuery(t, "postgres", `SELECT pubupdate, pubdelete, pubtruncate, pubviaroot FROM pg_publication WHERE pubname = 'p'`); fmt.Sprint(got) != "[[t t t f]]" {
		t.Errorf("publication: %v", got)
	}
	// A publication of another kind is not bent to ours.
	if _, err := (Setup{Publication: "p", Slot: "s"}).Plan(ctx, conn); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Errorf("all tables over some: %v", err)
	}

	// What another publication still needs, and what somebody changed meanwhile, stays.
	pg.MustExec(t, "postgres", `CREATE PUBLICATION other FOR TABLE root; ALTER TABLE plain ALTER n SET NOT NULL; CREATE UNIQUE INDEX plain_n ON plain (n); ALTER TABLE plain REPLICA IDENTITY USING INDEX plain_n; DROP TABLE child`)
	plan, err := s.PlanRemove(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`Table "public"."leaf_1" keeps REPLICA IDENTITY FULL, because publication "other"`, `table "public"."plain" was changed`, `Table "public"."child" is gone`} {
		if !strings.Contains(sources.Script(plan), want) {
			t.Errorf("want %q in:\n%s", want, sources.Script(plan))
		}
	}
	if err := s.Remove(ctx, conn, nil); err != nil {
		t.Fatal(err)
	}
	pg.MustExec(t, "postgres", `UPDATE root SET n = n; DROP PUBLICATION other; ALTER TABLE leaf_1 REPLICA IDENTITY DEFAULT;
		ALTER TABLE plain REPLICA IDENTITY DEFAULT; CREATE TABLE child () INHERITS (parent)`)
	if after := fmt.Sprint(pg.MustQuery(t, "postgres", catalogState)); after != before {
		t.Errorf("before %s\nafter  %s", before, after)
	}
}

// TestSetupWaitsForLocks holds a table for the first attempt, and then for good.
func TestSetupWaitsForLocks(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pg := dbtest.PG(t)
	pg.MustExec(t, "postgres", `CREATE TABLE plain (n int); CREATE TABLE zlast (n int)`)
	conn, holder := connectTo(t, pg.URL("postgres")), connectTo(t, pg.URL("postgres"))
	hold := func(table string) pgx.Tx {
		t.Helper()
		tx, err := holder.Begin(ctx)
		if err == nil {
			_, err = tx.Exec(ctx, "LOCK TABLE public."+table+" IN ROW EXCLUSIVE MODE")
		}
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	s := Setup{Publication: "p", Slot: "s"}

	tx := hold("zlast")
	gone, cancel := context.WithCancel(ctx)
	defer cancel()
	err := s.Apply(gone, conn, func(_ sources.Statement, err error) {
		if err != nil {
			cancel() // the operator loses patience
		}
	})
	if err == nil || !strings.Contains(err.Error(), "zlast") {
		t.Errorf("got %v", err)
	}
	if got := pg.MustQuery(t, "postgres", `SELECT count(*) FROM pg_publication WHERE pubname = 'p'`); got[0][0] != "0" {
		t.Error("published with a table that has no identity")
	}
	failures := 0
	conn = connectTo(t, pg.URL("postgres"))
	err = s.Apply(ctx, conn, func(_ sources.Statement, err error) {
		if err != nil {
			failures++
			if err := tx.Rollback(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil || failures != 1 {
		t.Errorf("%d failures, %v", failures, err)
	}
	var left string
	if err := conn.QueryRow(ctx, "SHOW lock_timeout").Scan(&left); err != nil || left != "0" {
		t.Errorf("lock_timeout is left at %s, %v", left, err)
	}
	// The half of the first attempt is in the record too.
	if err := s.Remove(ctx, conn, nil); err != nil {
		t.Fatal(err)
	}
	if got := pg.MustQuery(t, "postgres", `SELECT relreplident FROM pg_class WHERE relname IN ('plain', 'zlast')`); fmt.Sprint(got) != "[[d] [d]]" {
		t.Errorf("identities after remove: %v", got)
	}
}

func TestRemoveRefusesSlotsInUseAndForeignOnes(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pg := dbtest.PG(t)
	conn := connectTo(t, pg.URL("postgres"))
	pg.MustExec(t, "postgres", `SELECT pg_create_logical_replication_slot('theirs', 'test_decoding')`)
	err := Setup{Publication: "p", Slot: "theirs"}.Remove(ctx, conn, nil)
	if err == nil || !strings.Contains(err.Error(), "test_decoding") {
		t.Errorf("a foreign slot: %v", err)
	}

	s := Setup{Publication: "p", Slot: "ours"}
	pg.MustExec(t, "postgres", `SELECT pg_create_logical_replication_slot('ours', 'pgoutput')`)
	if _, err := s.Plan(ctx, conn); err == nil || !strings.Contains(err.Error(), "could never read") {
		t.Errorf("a slot older than its publication: %v", err)
	}
	if err := s.Remove(ctx, conn, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(ctx, conn, nil); err != nil {
		t.Fatal(err)
	}
	pg.MustExec(t, "postgres", `SELECT pg_create_logical_replication_slot('ours', 'pgoutput')`)
	cfg, err := connConfig(pg.URL("postgres"), "busy reader", true)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := dial(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close(context.Background()) }()
	mrr := reader.Exec(ctx, `START_REPLICATION SLOT ours LOGICAL 0/0 (proto_version '1', publication_names 'p')`)
	for active := "f"; active != "t"; {
		active = pg.MustQuery(t, "postgres", `SELECT active FROM pg_replication_slots WHERE slot_name = 'ours'`)[0][0]
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
	}
	err = s.Remove(ctx, conn, nil)
	if err == nil || !strings.Contains(err.Error(), "busy reader") || !strings.Contains(err.Error(), "stop that capture") {
		t.Errorf("a slot in use: %v", err)
	}
	if got := pg.MustQuery(t, "postgres", `SELECT count(*) FROM pg_publication WHERE pubname = 'p'`); got[0][0] != "1" {
		t.Error("the publication of a running capture was dropped")
	}
	_ = mrr // ends with its connection
}

func TestUndoRecord(t *testing.T) {
	t.Parallel()
	u := &undo{}
	for _, name := range []string{"plain", `we"ird`, "new\nline", "\xff\xfe", "é", `back\slash 'quote'`, " "} {
		u.add(keylessTable{tableName: tableName{schema: name, name: name + "t"}, identity: 'd'})
	}
	u.add(keylessTable{tableName: tableName{schema: "plain", name: "plaint"}, identity: 'n'})
	u.add(keylessTable{tableName: tableName{schema: "é", name: "ét"}, identity: 'i', index: "an \"index\"", generated: "g"})
	got, err := decodeUndo(u.encode())
	if err != nil || fmt.Sprint(got) != fmt.Sprint(u) || len(got.entries) != 7 || got.entries[0].was != 'n' || got.entries[4].index != "an \"index\"" {
		t.Errorf("%v\n%v\n%v", err, got, u)
	}
	for _, bad := range []string{"a comment", undoHeader + "\n", undoHeader + "\nd", undoHeader + "\nx \"a\" \"b\"", undoHeader + "\nd \"a\"", undoHeader + "\nd \"a\" \"b\" c", undoHeader + "\nd \"a\" \"b", undoHeader + "\nd \"a\" \"b\" \"c\"", undoHeader + "\ni \"a\" \"b\" \"c\" \"d\""} {
		if _, err := decodeUndo(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestSetupNames(t *testing.T) {
	t.Parallel()
	for _, s := range []Setup{{Slot: "s"}, {Publication: strings.Repeat("p", 60), Slot: "s"}, {Publication: "p"}, {Publication: "p", Slot: "No"},
		{Publication: "p", Slot: "s; drop"}, {Publication: "p\x00", Slot: "s"}, {Publication: "p", Slot: "s", Role: strings.Repeat("r", 64)}} {
		if err := s.validate(); err == nil {
			t.Errorf("%+v: no error", s)
		}
	}
}

// TestGeneratedColumns sets up with tables that the server lets nobody update, unless the publication has their generated
// columns, and with one that it lets nobody update whatever the publication has. Where no publication has any, a key with one
// does not tell rows apart.
func TestGeneratedColumns(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pg := dbtest.PG(t, "max_slot_wal_keep_size=1GB")
	pg.MustExec(t, "postgres", `CREATE TABLE plain (a int, twice int GENERATED ALWAYS AS (a * 2) STORED); CREATE TABLE keyed (a int, twice int GENERATED ALWAYS AS (a * 2) STORED, PRIMARY KEY (a, twice))`)
	conn := connectTo(t, pg.URL("postgres"))
	s := Setup{Publication: "p", Slot: "s"}
	use := func(tables ...string) {
		t.Helper()
		for _, table := range tables {
			pg.MustExec(t, "postgres", "INSERT INTO "+table+" VALUES (1), (2); UPDATE "+table+" SET a = a + 10; DELETE FROM "+table+" WHERE a = 11")
		}
	}
	options := DoctorOptions{Publication: "p", Slot: "s"}
	if pg.Major < generatedSince {
		expect(t, examine(t, pg, pg.URL("postgres"), options), want{"replica identity", sources.SeverityWarning, `"public"."keyed" is identified by index "keyed_pkey" with the generated column "twice"`, "txreel setup --apply"})
	}
	if err := s.Apply(ctx, conn, nil); err != nil {
		t.Fatal(err)
	}
	use("plain", "keyed")
	pg.MustExec(t, "postgres", `CREATE TABLE later (a int, twice int GENERATED ALWAYS AS (a * 2) STORED)`)
	use("later")
	if pg.Major < generatedSince {
		identity := func(table, want string) {
			t.Helper()
			if got := pg.MustQuery(t, "postgres", "SELECT relreplident FROM pg_class WHERE oid = '"+table+"'::regclass")[0][0]; got != want {
				t.Errorf("table %s: identity %s, want %s", table, got, want)
			}
		}
		identity("keyed", "f")
		pg.MustExec(t, "postgres", `ALTER TABLE later ADD PRIMARY KEY (a, twice)`)
		identity("later", "f")
		use("later")
		expectHealthy(t, examine(t, pg, pg.URL("postgres"), options))
		pg.MustExec(t, "postgres", `ALTER TABLE later ALTER twice DROP EXPRESSION`)
		identity("later", "d")
		pg.MustExec(t, "postgres", `ALTER EVENT TRIGGER txreel_ddl DISABLE; ALTER TABLE keyed REPLICA IDENTITY DEFAULT; ALTER EVENT TRIGGER txreel_ddl ENABLE ALWAYS`)
		expect(t, examine(t, pg, pg.URL("postgres"), options), want{"replica identity", sources.SeverityProblem, `"public"."keyed" is identified by index "keyed_pkey" with the generated column "twice", which no publication has before version 18: a restore stops`, "txreel setup --apply"})
		return
	}
	pg.MustExec(t, "postgres", `ALTER PUBLICATION p SET (publish_generated_columns = none)`)
	expect(t, examine(t, pg, pg.URL("postgres"), options), want{"publication", sources.SeverityProblem, "leaves out generated columns", "txreel setup --apply"})
	if err := s.Apply(ctx, conn, nil); err != nil {
		t.Fatal(err)
	}
	use("plain", "keyed", "later")
	expectHealthy(t, examine(t, pg, pg.URL("postgres"), options))

	pg.MustExec(t, "postgres", `CREATE TABLE lost (a int NOT NULL UNIQUE, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL)`)
	if err := pg.Exec(ctx, "postgres", `INSERT INTO lost VALUES (1); UPDATE lost SET a = 2`); err == nil {
		t.Error("a table with a virtual column and no key can be updated: there is nothing to refuse")
	}
	expect(t, examine(t, pg, pg.URL("postgres"), options), want{"replica identity", sources.SeverityProblem, `"public"."lost" fail now: without a key its identity is the whole row`, ""})
	cure := `ALTER TABLE "public"."lost" REPLICA IDENTITY USING INDEX "lost_a_key"`
	if err := s.Apply(ctx, conn, nil); err == nil || !strings.Contains(err.Error(), `"twice"`) || !strings.Contains(err.Error(), cure) {
		t.Errorf("a virtual column without a key: %v", err)
	}
	pg.MustExec(t, "postgres", cure)
	use("lost")
	if err := s.Apply(ctx, conn, nil); err != nil {
		t.Error(err)
	}
}
