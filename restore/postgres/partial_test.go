package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/restore"
	"txreel/sources/postgres/ddl"
)

// selection names tables by patterns of package path, and schemas.
func selection(tables, schemas []string) restore.Selection {
	s := restore.Selection{Schemas: schemas}
	for _, text := range tables {
		s.Tables = append(s.Tables, restore.Pattern{Text: text, Match: func(schema, name string) bool {
			ok, err := path.Match(text, schema+"."+name)
			return ok && err == nil
		}})
	}
	return s
}

// meter counts the bytes that are read of objects.
type meter struct {
	archive.Store
	mu    sync.Mutex
	bytes int64
	keys  map[string]int64 // read as a whole or in part
}

// Open implements archive.Store.
func (m *meter) Open(ctx context.Context, key string, off, length int64) (io.ReadCloser, int64, error) {
	body, size, err := m.Store.Open(ctx, key, off, length)
	if err != nil {
		return nil, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return &metered{body, m, key}, size, nil
}

type metered struct {
	io.ReadCloser
	of  *meter
	key string
}

// Read implements io.Reader.
func (b *metered) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	b.of.bytes += int64(n)
	b.of.keys[b.key] += int64(n)
	return n, err
}

// restorePart restores a selection into a new database, and returns what was read for it.
func restorePart(t testing.TB, r *recorder, g restore.Goal, s *restore.Selection, name string) (url string, rep *restore.Report, read *meter) {
	t.Helper()
	ctx := context.Background()
	url, err := r.pg.CreateDB(ctx, name)
	r.check(err)
	read = &meter{Store: r.archive.Store, keys: map[string]int64{}}
	a, err := archive.Open(ctx, read)
	r.check(err)
	var choose restore.Chooser
	if s != nil {
		choose = Chooser(a, *s, Options{PgRestore: r.pg.Client("pg_restore")})
	}
	p, err := restore.MakePartialPlan(ctx, a, Dialect{}, g, choose)
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	target, err := Open(ctx, url, Options{PgRestore: r.pg.Client("pg_restore"), Exact: r.exact})
	r.check(err)
	defer target.Close()
	rep, err = restore.Run(ctx, a, p, target, restore.Options{Jobs: 2})
	if err != nil {
		t.Fatalf("restore of %v: %v", s, err)
	}
	return url, rep, read
}

const partialSchema = `
CREATE SCHEMA sales; CREATE SCHEMA util; CREATE SCHEMA other;
CREATE TYPE util.mood AS ENUM ('sad', 'happy');
CREATE TYPE util.pair AS (a int, b text);
CREATE DOMAIN util.posint AS int CHECK (VALUE > 0);
CREATE FUNCTION util.inner_twice(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1 * 2; END';
CREATE FUNCTION util.twice(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN util.inner_twice($1); END';
CREATE FUNCTION util.unused() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION util.stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := NEW.v || ''!''; INSERT INTO other.audit_trail VALUES (1); RETURN NEW; END';
CREATE SEQUENCE util.numbers START 7;
CREATE TABLE other.audit_trail (n int); ALTER TABLE other.audit_trail REPLICA IDENTITY FULL;
CREATE TABLE other.customers (id serial PRIMARY KEY, v text);
CREATE TABLE other.big (id int PRIMARY KEY, v text);
CREATE TABLE sales.items (id serial PRIMARY KEY, n int DEFAULT nextval('util.numbers'), mood util.mood, pair util.pair, pos util.posint, v text,
	a int, twice int GENERATED ALWAYS AS (util.twice(a)) STORED, customer int REFERENCES other.customers, CHECK (a > -1));
CREATE INDEX items_twice ON sales.items (util.twice(pos));
CREATE TABLE sales.lines (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item int REFERENCES sales.items, v text);
CREATE TABLE sales.nokey (k int, v text); ALTER TABLE sales.nokey REPLICA IDENTITY FULL;
CREATE TABLE sales.part (k int, region text, v text, PRIMARY KEY (k, region)) PARTITION BY LIST (region);
CREATE TABLE sales.part_e PARTITION OF sales.part FOR VALUES IN ('e');
CREATE TABLE sales.part_w PARTITION OF sales.part FOR VALUES IN ('w');
CREATE TABLE other.parent (a int PRIMARY KEY); CREATE TABLE sales.child (b int PRIMARY KEY, ref int REFERENCES other.parent) INHERITS (other.parent);
CREATE TABLE public.plain (id serial PRIMARY KEY); INSERT INTO public.plain SELECT generate_series(1, 5);
CREATE VIEW sales.both AS SELECT i.id, c.v FROM sales.items i JOIN other.customers c ON c.id = i.customer;
CREATE VIEW sales.own AS SELECT id FROM sales.items;
CREATE TRIGGER stamp BEFORE UPDATE ON sales.items FOR EACH ROW EXECUTE FUNCTION util.stamp();
ALTER TABLE sales.items ENABLE ROW LEVEL SECURITY; CREATE POLICY everybody ON sales.items USING (true);
CREATE POLICY few ON sales.items USING (EXISTS (SELECT FROM other.customers));
COMMENT ON COLUMN sales.items.v IS 'a comment';
INSERT INTO other.customers (v) SELECT 'c' || i FROM generate_series(1, 50) i;
INSERT INTO other.big SELECT i, md5(i::text) || md5((i + 1)::text) FROM generate_series(1, 20000) i;
INSERT INTO sales.items (mood, pair, pos, v, a, customer) SELECT 'sad', (i, 'x')::util.pair, i, 'v' || i, i, 1 + i % 50 FROM generate_series(1, 300) i;
INSERT INTO sales.lines (item, v) SELECT 1 + i % 300, 'l' || i FROM generate_series(1, 200) i;
INSERT INTO sales.nokey SELECT i % 10, 'n' FROM generate_series(1, 100) i;
INSERT INTO sales.part SELECT i, CASE WHEN i % 2 = 0 THEN 'e' ELSE 'w' END, 'p' FROM generate_series(1, 100) i;
INSERT INTO other.parent VALUES (1); INSERT INTO sales.child VALUES (2, 3, 1);
`

// only leaves of a database's tables those that a name begins.
func only(d map[string]dbtest.TableDump, names ...string) map[string]dbtest.TableDump {
	for name := range d {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(name, n) }) {
			delete(d, name)
		}
	}
	return d
}

// TestPartial restores some tables, with all that they are made of, and reads no more than that of the archive.
func TestPartial(t *testing.T) {
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	createDB(t, pg, "src", partialSchema)
	r := record(t, pg, "src")
	base := r.base()
	big := func() { // in segments of its own, which compress little
		r.exec(`DO $$BEGIN FOR i IN 1..40 LOOP UPDATE other.big SET v = (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 16 + id % 2)) WHERE id % 50 = i; COMMIT; END LOOP; END$$`)
		r.capture()
	}
	big()
	r.exec(`DO $$BEGIN FOR i IN 1..20 LOOP
		UPDATE sales.items SET a = a + 1, pos = pos + 1 WHERE id = i;
		INSERT INTO sales.lines (item, v) VALUES (i, 'new');
		UPDATE sales.nokey SET v = 'w' || i WHERE ctid = (SELECT ctid FROM sales.nokey WHERE k = i % 10 LIMIT 1);
		UPDATE sales.part SET v = 'q', region = 'e' WHERE k = i;
		DELETE FROM other.audit_trail;
		COMMIT;
	END LOOP; END$$`)
	r.exec(`INSERT INTO sales.items (mood, pos, v, a) VALUES ('happy', 1, 'last', 5); TRUNCATE other.audit_trail; UPDATE sales.child SET a = 9;`)
	r.capture()
	big()
	seq := r.capture().Seq
	source := content(t, pg.URL("src"))
	goal := restore.Goal{Kind: restore.AtSeq, Seq: seq}
	_, all, whole := restorePart(t, r, goal, nil, "whole")
	for _, exact := range []bool{false, true} {
		r.exact = exact
		items := selection([]string{"sales.items"}, nil)
		name := fmt.Sprintf("items_%t", exact)
		url, rep, read := restorePart(t, r, goal, &items, name)
		if d := dbtest.Diff(only(copyOf(source), `"sales"."items"`), content(t, url)); d != "" {
			t.Errorf("exact %t: the table is not the source's:\n%s", exact, d)
		}
		if (rep.Folded == 0) != exact {
			t.Errorf("exact %t: folded to %s: %v", exact, rep.Folded, rep.Warnings)
		}
		checkItems(t, pg, name, rep)
		if read.bytes*8 > whole.bytes {
			t.Errorf("exact %t: %d bytes were read, for everything %d", exact, read.bytes, whole.bytes)
		}
		p := rep.Partial
		if p.Segments == 0 || p.Segments >= p.SegmentsAll || p.BaseBytes*4 > p.BaseBytesAll {
			t.Errorf("the report says it read %d of %d segments, %d of %d bytes of the base", p.Segments, p.SegmentsAll, p.BaseBytes, p.BaseBytesAll)
		}
		for i := range base.Tables {
			for _, c := range base.Tables[i].Chunks {
				if got, want := read.keys[base.Key(c.Name)] > 0, base.Tables[i].Name == "items"; got != want {
					t.Errorf("chunk %s of table %s was read: %t", c.Name, base.Tables[i].Name, got)
				}
			}
		}
		t.Logf("exact %t: %d of %d bytes, %.2f s; for everything, folded, %.2f s", exact, read.bytes, whole.bytes, rep.Seconds, all.Seconds)

		all := selection(nil, []string{"sales"})
		url, rep, _ = restorePart(t, r, goal, &all, fmt.Sprintf("sales_%t", exact))
		if d := dbtest.Diff(only(copyOf(source), `"sales"`), only(content(t, url), `"sales"`)); d != "" {
			t.Errorf("exact %t: the schema is not the source's:\n%s", exact, d)
		}
		if got := rep.Partial.Structure; len(got) != 1 || got[0] != "other.parent" {
			t.Errorf("without rows came %v", got)
		}
		if left := names(rep.Partial.LeftOut); !slices.Contains(left, "view sales.both") || !slices.Contains(left, "fk constraint sales.child child_ref_fkey") || slices.Contains(left, "view sales.own") {
			t.Errorf("left out: %v", left)
		}
		part := selection([]string{"sales.part"}, nil)
		url, _, _ = restorePart(t, r, goal, &part, fmt.Sprintf("part_%t", exact))
		if d := dbtest.Diff(only(copyOf(source), `"sales"."part`), content(t, url)); d != "" {
			t.Errorf("exact %t: the partitions are not the source's:\n%s", exact, d)
		}
	}
}

func copyOf(d map[string]dbtest.TableDump) map[string]dbtest.TableDump {
	c := make(map[string]dbtest.TableDump, len(d))
	for k, v := range d {
		c[k] = v
	}
	return c
}

func names(left []restore.LeftOut) (all []string) {
	for _, l := range left {
		all = append(all, l.Object)
	}
	return all
}

// checkItems looks at what came along with the table, and what did not.
func checkItems(t *testing.T, pg *dbtest.Postgres, db string, rep *restore.Report) {
	t.Helper()
	for sql, want := range map[string]string{
		`SELECT string_agg(relname, ' ' ORDER BY relname COLLATE "C") FROM pg_class WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('sales', 'util', 'other'))`: "items items_id_seq items_pkey items_twice numbers pair",
		`SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE pronamespace = 'util'::regnamespace`:                                                                     "inner_twice stamp twice",
		`SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE conrelid = 'sales.items'::regclass AND contype <> 'n'`:                                             "items_a_check items_pkey",
		`SELECT string_agg(tgname, ' ') FROM pg_trigger WHERE tgrelid = 'sales.items'::regclass`:                                                                                      "stamp",
		`SELECT string_agg(polname, ' ') FROM pg_policy`:                                                                                                                              "everybody",
		`SELECT col_description('sales.items'::regclass, 6)`:                                                                                                                          "a comment",
		`SELECT count(*) FROM pg_namespace WHERE nspname IN ('other', 'txreel_restore')`:                                                                                              "0",
		`SELECT pg_get_serial_sequence('sales.items', 'id')`:                                                                                                                          "sales.items_id_seq",
		`SELECT nextval('sales.items_id_seq') > 301 AND nextval('util.numbers') > 300`:                                                                                                "t",
	} {
		if got := pg.MustQuery(t, db, sql)[0][0]; got != want {
			t.Errorf("%s: %s: got %q, want %q", db, sql, got, want)
		}
	}
	left := names(rep.Partial.LeftOut)
	for _, want := range []string{"fk constraint sales.items items_customer_fkey", "policy sales.items few", "table other.audit_trail"} {
		if !slices.Contains(left, want) {
			t.Errorf("%s is not named as left out: %v", want, left)
		}
	}
	if len(rep.Tables) != 1 || rep.Tables[0].Table != "sales.items" {
		t.Errorf("verified were %v", rep.Tables)
	}
}

// TestPartialRefused asks for what is not there.
func TestPartialRefused(t *testing.T) {
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	r := small(t, pg, "src")
	for text, close := range map[string]string{"public.b_": "public.b", "sales.a": "public.a", "nothing.like_it": ""} {
		s := selection([]string{text}, nil)
		_, err := restore.MakePartialPlan(context.Background(), r.archive, Dialect{}, restore.Goal{}, Chooser(r.archive, s, Options{PgRestore: pg.Client("pg_restore")}))
		var unmatched *restore.UnmatchedError
		if !errors.As(err, &unmatched) {
			t.Fatalf("%s: %v", text, err)
		}
		if close != "" && !slices.Contains(unmatched.Close, close) || close == "" && len(unmatched.Close) > 0 {
			t.Errorf("%s: close are %v, want %q", text, unmatched.Close, close)
		}
	}
}

// logDefinitions makes the source write down changes of definitions, as setup does.
func (r *recorder) logDefinitions() {
	r.t.Helper()
	r.exec(ddl.Install(true))
	for _, tr := range ddl.Triggers() {
		r.exec("CREATE EVENT TRIGGER " + tr.Name + " ON " + tr.Event + " EXECUTE FUNCTION " + ddl.Function + "; ALTER EVENT TRIGGER " + tr.Name + " ENABLE ALWAYS")
	}
}

// TestPartialDefinitions restores tables behind changes of the schema, to them and to others.
func TestPartialDefinitions(t *testing.T) {
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	createDB(t, pg, "src", partialSchema)
	r := record(t, pg, "src")
	r.logDefinitions()
	r.base()
	for _, sql := range []string{
		`UPDATE sales.items SET a = 7 WHERE id < 5; UPDATE other.big SET v = 'x' WHERE id < 5`,
		`ALTER TABLE other.big ADD COLUMN extra text DEFAULT 'e'; CREATE INDEX ON other.big (extra); GRANT SELECT ON other.big TO PUBLIC`,
		`UPDATE other.big SET extra = 'f' WHERE id < 9; UPDATE sales.items SET a = 8 WHERE id < 5`,
		`ALTER TABLE sales.items ADD COLUMN one int; ALTER TABLE other.big ADD COLUMN two int; ALTER TABLE sales.items ADD COLUMN three int; ALTER TABLE other.big ADD COLUMN four int`,
		`CREATE TYPE util.colour AS ENUM ('red'); ALTER TABLE sales.items ADD COLUMN colour util.colour, ADD COLUMN extra int DEFAULT 5`,
		`INSERT INTO sales.items (pos, v, a, colour) VALUES (1, 'red', 1, 'red')`,
		`CREATE TABLE other.fresh (id int PRIMARY KEY, v text); INSERT INTO other.fresh VALUES (1, 'f'); CREATE TABLE other.made AS SELECT 1 AS n`,
		`CREATE VIEW other.seen AS SELECT * FROM other.fresh; CREATE TRIGGER stamp BEFORE UPDATE ON other.fresh FOR EACH ROW EXECUTE FUNCTION util.stamp()`,
		`CREATE TABLE sales.part_x PARTITION OF sales.part FOR VALUES IN ('x'); INSERT INTO sales.part VALUES (1, 'x', 'new'); UPDATE sales.part SET v = 'z' WHERE k = 3`,
		`CREATE TABLE sales.unwanted (id int PRIMARY KEY); INSERT INTO sales.unwanted VALUES (1); CREATE TABLE sales.copied AS SELECT 1 AS n; CREATE VIEW sales.seen AS SELECT 1 AS n`,
		`CREATE TABLE sales.invoices (id int PRIMARY KEY); INSERT INTO sales.invoices VALUES (1), (2); DELETE FROM sales.invoices WHERE id = 1; UPDATE sales.unwanted SET id = 2`,
		`ALTER TABLE sales.items RENAME TO goods; ALTER TABLE other.big RENAME TO items; ALTER TABLE other.items SET SCHEMA sales`,
		`UPDATE sales.goods SET a = 9 WHERE id < 4; DELETE FROM sales.goods WHERE id = 290; UPDATE sales.items SET v = 'y' WHERE id < 4`,
		`DROP TABLE other.customers CASCADE; DROP INDEX sales.items_twice; INSERT INTO other.fresh VALUES (2, 'g')`,
		`TRUNCATE other.fresh, sales.part_e; INSERT INTO sales.part VALUES (2, 'e', 'again')`,
	} {
		r.exec(sql)
	}
	before := r.capture().Seq
	source := content(t, pg.URL("src"))
	r.exec(`CREATE TABLE other.later (id int PRIMARY KEY); INSERT INTO other.later VALUES (1); ALTER TABLE sales.goods ADD COLUMN later int REFERENCES other.later; UPDATE sales.goods SET later = 1`)
	after := r.capture().Seq
	s := selection([]string{"sales.i*", "sales.part"}, nil)
	for _, exact := range []bool{false, true} {
		r.exact = exact
		db := fmt.Sprintf("changed_%t", exact)
		url, rep, _ := restorePart(t, r, restore.Goal{Kind: restore.AtSeq, Seq: before}, &s, db)
		if d := dbtest.Diff(only(copyOf(source), `"sales"."goods"`, `"sales"."part`, `"sales"."invoices"`), content(t, url)); d != "" {
			t.Errorf("exact %t: the tables are not the source's:\n%s", exact, d)
		}
		var tables []string
		for _, tab := range rep.Tables {
			tables = append(tables, tab.Table)
		}
		if want := []string{"sales.goods", "sales.invoices", "sales.part_e", "sales.part_w", "sales.part_x"}; !slices.Equal(tables, want) {
			t.Errorf("exact %t: verified were %v, want %v", exact, tables, want)
		}
		if got := pg.MustQuery(t, db, `SELECT string_agg(relname, ' ' ORDER BY relname COLLATE "C") FROM pg_class WHERE relkind IN ('r', 'p', 'v') AND relnamespace::regnamespace::text !~ '^pg_|^information'`)[0][0]; got != "goods invoices part part_e part_w part_x" {
			t.Errorf("exact %t: there are %s", exact, got)
		}
	}
	url, err := pg.CreateDB(context.Background(), "stopped")
	r.check(err)
	p, err := restore.MakePartialPlan(context.Background(), r.archive, Dialect{}, restore.Goal{Kind: restore.AtSeq, Seq: after}, Chooser(r.archive, s, Options{PgRestore: pg.Client("pg_restore")}))
	r.check(err)
	_, err = runPlan(context.Background(), r, p, url, false)
	if !errors.Is(err, restore.ErrDefinitionChanged) || !strings.Contains(err.Error(), "something that is not") {
		t.Errorf("a foreign key to a table that is not chosen: %v", err)
	}
}

// TestPartialKill kills restores of one table at random moments until one comes through, and refuses to go on with another selection.
func TestPartialKill(t *testing.T) {
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	createDB(t, pg, "src", `
		CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text);
		CREATE TABLE c (id serial PRIMARY KEY, a int REFERENCES a, v text UNIQUE);
		INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 2000) i; INSERT INTO b SELECT i, 'v' || i FROM generate_series(1, 2000) i;
		INSERT INTO c (a, v) SELECT i, 'c' || i FROM generate_series(1, 2000) i;`)
	r := record(t, pg, "src")
	r.perSeg, r.pieces = 50, 40 // so many steps that three kills at least come in between
	r.base()
	r.exec(`DO $$BEGIN FOR i IN 1..1500 LOOP
		UPDATE b SET v = v || 'x' WHERE id = 1 + i * 7 % 2000;
		IF i / 100 % 2 = 0 THEN INSERT INTO c (a, v) VALUES (1 + i % 2000, 'd' || i); DELETE FROM c WHERE id = i; END IF;
		COMMIT;
	END LOOP; END$$`)
	seq := r.capture().Seq
	for name, exact := range map[string]bool{"exact": true, "folded": false} {
		url, err := pg.CreateDB(context.Background(), name)
		r.check(err)
		killed(t, childJob{Archive: r.dir, URL: url, Seq: seq, PgRestore: pg.Client("pg_restore"), Exact: exact, Tables: []string{"public.c"}})
		if d := dbtest.Diff(only(content(t, pg.URL("src")), `"public"."c"`), content(t, url)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	url, err := pg.CreateDB(context.Background(), "half")
	r.check(err)
	goal := restore.Goal{Kind: restore.AtSeq, Seq: seq}
	plan := func(tables ...string) *restore.Plan {
		p, err := restore.MakePartialPlan(context.Background(), r.archive, Dialect{}, goal, Chooser(r.archive, selection(tables, nil), Options{PgRestore: pg.Client("pg_restore")}))
		r.check(err)
		return p
	}
	ctx, cancel := context.WithCancel(context.Background())
	target, err := Open(ctx, url, Options{PgRestore: pg.Client("pg_restore")})
	r.check(err)
	_, err = restore.Run(ctx, r.archive, plan("public.c"), target, restore.Options{Jobs: 1, Progress: func(restore.Phase, int64, int64, string) { cancel() }})
	target.Close()
	if err == nil {
		t.Fatal("the restore was not interrupted")
	}
	_, err = runPlan(context.Background(), r, plan("public.b"), url, false)
	if !errors.Is(err, restore.ErrOtherRestore) || !strings.Contains(err.Error(), "--table public.c") {
		t.Errorf("another selection: %v", err)
	}
	if _, err = runPlan(context.Background(), r, plan("public.c"), url, false); err != nil {
		t.Errorf("the same selection: %v", err)
	}
}

// TestPartialInto puts tables beside those of the very database that they come from.
func TestPartialInto(t *testing.T) {
	ctx := context.Background()
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	createDB(t, pg, "src", partialSchema)
	r := record(t, pg, "src")
	r.base()
	r.exec(`UPDATE sales.items SET a = a + 1, pos = pos + 1 WHERE id < 20; INSERT INTO sales.lines (item, v) VALUES (1, 'new'); INSERT INTO sales.part VALUES (1000, 'e', 'q')`)
	seq := r.capture().Seq
	was := only(content(t, pg.URL("src")), `"sales"."items"`, `"sales"."lines"`, `"sales"."part`)
	r.exec(`DELETE FROM sales.lines; UPDATE sales.items SET v = 'lost'; TRUNCATE sales.part; INSERT INTO sales.items (v) VALUES ('later')`)
	now := content(t, pg.URL("src"))
	databases := "SELECT count(*) FROM pg_database"
	before := pg.MustQuery(t, "postgres", databases)[0][0]
	into := func(schema string, tables ...string) (*restore.Report, error) {
		p, err := restore.MakePartialPlan(ctx, r.archive, Dialect{}, restore.Goal{Kind: restore.AtSeq, Seq: seq}, Chooser(r.archive, selection(tables, nil), Options{PgRestore: pg.Client("pg_restore")}))
		r.check(err)
		target, err := OpenInto(ctx, pg.URL("src"), schema, p, Options{PgRestore: pg.Client("pg_restore")})
		if err != nil {
			return nil, err
		}
		defer target.Close()
		return restore.Run(ctx, r.archive, p, target, restore.Options{Jobs: 2})
	}
	rep, err := into("was here", "sales.items", "sales.lines", "sales.part")
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Tables) != 4 {
		t.Errorf("verified were %v", rep.Tables)
	}
	after := content(t, pg.URL("src"))
	beside := make(map[string]dbtest.TableDump)
	for name, d := range after {
		if rest, ok := strings.CutPrefix(name, `"was here".`); ok {
			beside[`"sales".`+rest] = d
			delete(after, name)
		}
	}
	if d := dbtest.Diff(now, after); d != "" {
		t.Errorf("tables that were there are others now:\n%s", d)
	}
	if d := dbtest.Diff(was, beside); d != "" {
		t.Errorf("the tables are not what they were:\n%s", d)
	}
	for sql, want := range map[string]string{
		databases: before,
		`SELECT string_agg(conrelid::regclass::text || ' ' || confrelid::regclass::text, ', ') FROM pg_constraint WHERE contype = 'f' AND connamespace = '"was here"'::regnamespace`: `"was here".lines "was here".items`,
		`SELECT pg_get_serial_sequence('"was here".items', 'id')`:                                                   `"was here".items_id_seq`,
		`SELECT nextval('"was here".items_id_seq') > 301`:                                                           "t",
		`SELECT count(*) FROM pg_trigger WHERE tgrelid = '"was here".items'::regclass AND NOT tgisinternal`:         "1",
		`SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'txreel_restore%'`:                                    "0",
		`SELECT count(*) FROM pg_inherits WHERE inhparent IN ('sales.part'::regclass, '"was here".part'::regclass)`: "4",
	} {
		if got := pg.MustQuery(t, "src", sql)[0][0]; got != want {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
	if _, err := into("was here", "sales.items"); !errors.Is(err, restore.ErrNotEmpty) {
		t.Errorf("into a schema with tables: %v", err)
	}
	if _, err := into("two", "sales.items", "other.big"); err == nil || !strings.Contains(err.Error(), "one schema") {
		t.Errorf("of two schemas: %v", err)
	}
	r.exec(`CREATE SCHEMA empty; CREATE FUNCTION public.stop() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity LIKE 'empty.nokey%') THEN RAISE 'stop'; END IF; END$$;
		CREATE EVENT TRIGGER stop ON ddl_command_end EXECUTE FUNCTION public.stop(); ALTER EVENT TRIGGER stop ENABLE ALWAYS`)
	if _, err := into("empty", "sales.nokey"); err == nil || !strings.Contains(err.Error(), "nothing was made") {
		t.Errorf("stopped at its end: %v", err)
	}
	r.exec(`DROP EVENT TRIGGER stop`)
	if _, err := into("empty", "sales.nokey"); err != nil {
		t.Errorf("begun again: %v", err)
	}
	if got := pg.MustQuery(t, "src", `SELECT count(*) FROM empty.nokey`)[0][0]; got != "100" {
		t.Errorf("%s rows", got)
	}
	if _, err := into("from public", "public.plain"); err != nil {
		t.Errorf("from schema public: %v", err)
	}
	if got := pg.MustQuery(t, "src", `SELECT count(*) || ' ' || pg_get_serial_sequence('"from public".plain', 'id') FROM "from public".plain`)[0][0]; got != `5 "from public".plain_id_seq` {
		t.Errorf("from schema public came %s", got)
	}
	if got := pg.MustQuery(t, "postgres", databases)[0][0]; got != before {
		t.Errorf("%s databases are left, there were %s", got, before)
	}
}
