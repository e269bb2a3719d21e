package e2e

import (
	"encoding/json"
	"testing"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/restore"
	"txreel/sink/dir"
)

// TestPartialRestore restores one table of a database, on its own and beside the source's, and asks for what is not there.
func TestPartialRestore(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "part", nil).setup()
	s.exec(`CREATE SCHEMA sales; CREATE TYPE sales.mood AS ENUM ('sad', 'happy'); CREATE TABLE public.customers (id int PRIMARY KEY); CREATE TABLE public.big (id int PRIMARY KEY, v text);
		CREATE TABLE sales.items (id serial PRIMARY KEY, mood sales.mood, customer int REFERENCES public.customers);
		INSERT INTO customers SELECT generate_series(1, 10); INSERT INTO sales.items (mood, customer) SELECT 'sad', i FROM generate_series(1, 10) i;
		INSERT INTO big SELECT i, md5(i::text) FROM generate_series(1, 50000) i`)
	s.capture()
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	s.exec(`UPDATE sales.items SET mood = 'happy' WHERE id = 3`)
	s.exec(`ALTER TABLE big ADD COLUMN w int DEFAULT 1; ALTER TABLE sales.items ADD COLUMN n int DEFAULT 2; UPDATE sales.items SET n = id`)
	point := s.waitPast(a, s.here()).Seq.String()
	const items = `SELECT string_agg(concat_ws('|', id, mood, customer, n), ' ' ORDER BY id) FROM sales.items`
	want := s.value(items)
	r := s.restore("part_one", "--table", "sales.items", "--json")
	if got := s.in("part_one", items); got != want {
		t.Errorf("restored was %s, want %s", got, want)
	}
	if got := s.in("part_one", `SELECT string_agg(oid::regclass::text, ' ') FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace::text !~ '^pg_|^information'`); got != "sales.items" {
		t.Errorf("restored were %s", got)
	}
	var report restore.Report
	if err := json.Unmarshal([]byte(r.stdout), &struct {
		Partial **restore.Partial `json:"partial"`
	}{&report.Partial}); err != nil {
		t.Fatal(err)
	}
	p := report.Partial
	if p == nil || p.BaseBytes*8 > p.BaseBytesAll || len(p.Tables) != 1 || len(p.LeftOut) != 1 || p.LeftOut[0].Object != "fk constraint sales.items items_customer_fkey" {
		t.Errorf("the report says %+v", p)
	}
	s.exec(`DELETE FROM sales.items WHERE id > 5`)
	s.waitPast(a, s.here())
	live := s.with("TXREEL_TARGET=" + pg.URL("part"))
	into := live.must("restore", "--schema", "sales", "--to-seq", point, "--into-schema", "before")
	if got := s.value(`SELECT count(*) || ' ' || (SELECT count(*) FROM sales.items) FROM before.items`); got != "10 5" {
		t.Errorf("rows restored and left: %s\n%s", got, into.stdout)
	}
	for _, c := range []struct {
		args []string
		said string
	}{
		{[]string{"--table", "sales.item", "--dry-run"}, "did you mean sales.items"},
		{[]string{"--schema", "sale", "--dry-run"}, "did you mean sales"},
		{[]string{"--table", "sales.items", "--table", "big", "--into-schema", "x", "--dry-run"}, "one schema"},
		{[]string{"--into-schema", "x", "--dry-run"}, "--table or --schema"},
		{[]string{"--table", "big", "--globals", "--dry-run"}, "--globals"},
	} {
		if r := s.run(append([]string{"restore"}, c.args...)...); r.code != 2 || !contains(r.stderr, c.said) {
			t.Errorf("%v: exit code %d: %s", c.args, r.code, r.stderr)
		}
	}
	my := newPlace(t, "partmy", nil)
	store, err := dir.Open(my.archive)
	if err == nil {
		_, err = archive.Init(t.Context(), store, archive.Identity{Engine: "mysql", System: "s", Database: "d"})
	}
	if err != nil {
		t.Fatal(err)
	}
	if r := my.run("restore", "--table", "big", "--dry-run"); r.code != 2 || !contains(r.stderr, "PostgreSQL so far") {
		t.Errorf("of MySQL: exit code %d: %s", r.code, r.stderr)
	}
}
