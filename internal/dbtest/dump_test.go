package dbtest

import (
	"context"
	"strings"
	"testing"
)

func TestDumpAndDiff(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := PG(t)
	dump := func(db string, skip ...string) map[string]TableDump {
		t.Helper()
		d, err := Dump(ctx, p.URL(db), skip...)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	schema := `
		CREATE SCHEMA "we""ird"; CREATE TABLE "we""ird"."ta ble" (r text, "from" text);
		CREATE TABLE public.two (a text, b text);
		CREATE TABLE public.leafy (n int) PARTITION BY LIST (n);
		CREATE TABLE public.leafy_1 PARTITION OF public.leafy FOR VALUES IN (1);
		CREATE TABLE public.parent (n int); CREATE TABLE public.child () INHERITS (public.parent);
		CREATE TABLE public.f (x float8, m money, at timestamptz, raw bytea, of regclass, span interval);
		CREATE UNLOGGED TABLE public.fleeting (n int); CREATE TABLE public.nothing ();`
	rows := `
		INSERT INTO "we""ird"."ta ble" VALUES ('r', E'line\nbreak\t\\');
		INSERT INTO public.two VALUES (NULL, ''), ('', NULL), ('x', 'y'), ('x', 'y');
		INSERT INTO public.leafy VALUES (1); INSERT INTO public.child VALUES (7);
		INSERT INTO public.f VALUES (0.1::float8 + 0.2::float8, 12.5, '2026-03-01 12:00+02', '\x00ff', 'public.two', '1 day -2 hours');`
	for _, db := range []string{"a", "b"} {
		if _, err := p.CreateDB(ctx, db); err != nil {
			t.Fatal(err)
		}
		p.MustExec(t, db, schema+rows)
	}
	// Other settings of the database and another order of rows are no difference.
	p.MustExec(t, "b", `
		ALTER DATABASE b SET datestyle = 'German'; ALTER DATABASE b SET extra_float_digits = -5; ALTER DATABASE b SET bytea_output = 'escape';
		ALTER DATABASE b SET timezone = 'Asia/Kolkata'; ALTER DATABASE b SET intervalstyle = 'iso_8601'; ALTER DATABASE b SET search_path = 'public';
		DELETE FROM public.two; INSERT INTO public.two VALUES ('x', 'y'), ('', NULL), ('x', 'y'), (NULL, '');`)
	a := dump("a")
	if diff := Diff(a, dump("b")); diff != "" {
		t.Errorf("equal databases differ:\n%s", diff)
	}
	for name, want := range map[string]int64{`"we""ird"."ta ble"`: 1, `"public"."two"`: 4, `"public"."leafy_1"`: 1,
		`"public"."parent"`: 0, `"public"."child"`: 1, `"public"."f"`: 1, `"public"."fleeting"`: 0, `"public"."nothing"`: 0} {
		if got, ok := a[name]; !ok || got.Rows != want {
			t.Errorf("%s: %d rows (%v), want %d", name, got.Rows, ok, want)
		}
	}
	if len(a) != 8 {
		t.Errorf("%d tables: %v", len(a), a)
	}
	if got := a[`"public"."f"`].Sample[0]; !strings.Contains(got, "0.30000000000000004") || !strings.Contains(got, "2026-03-01 10:00:00+00") ||
		!strings.Contains(got, `x00ff`) || !strings.Contains(got, "public.two") {
		t.Errorf("row text: %s", got)
	}
	if _, ok := dump("a", `we"ird`)[`"we""ird"."ta ble"`]; ok {
		t.Error("a skipped schema was read")
	}

	// Every way in which a table can differ is seen, and undone by its opposite.
	for _, c := range []struct{ name, change, undo, want string }{
		{"null became empty", `UPDATE two SET a = '' WHERE a IS NULL`, `UPDATE two SET a = NULL WHERE b = ''`, `- (,"")`},
		{"a duplicate is gone", `DELETE FROM two WHERE ctid = (SELECT min(ctid) FROM two WHERE a = 'x')`, `INSERT INTO two VALUES ('x', 'y')`, "- (x,y)"},
		{"one more row", `INSERT INTO two VALUES (',', NULL)`, `DELETE FROM two WHERE a = ','`, `+ (",",)`},
		{"other leaf", `DELETE FROM leafy`, `INSERT INTO leafy VALUES (1)`, "leafy_1"},
		{"one bit of a float", `UPDATE f SET x = 0.3`, `UPDATE f SET x = 0.1::float8 + 0.2::float8`, `"public"."f"`},
		{"no table", `ALTER TABLE two RENAME TO drei`, `ALTER TABLE drei RENAME TO two`, "only in the first"},
	} {
		p.MustExec(t, "b", c.change)
		if diff := Diff(a, dump("b")); !strings.Contains(diff, c.want) {
			t.Errorf("%s: want %q in:\n%s", c.name, c.want, diff)
		}
		p.MustExec(t, "b", c.undo)
		if diff := Diff(a, dump("b")); diff != "" {
			t.Errorf("%s, undone:\n%s", c.name, diff)
		}
	}
}

func TestDumpOfBytesThatAreNoText(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := PG(t)
	p.MustExec(t, "postgres", `CREATE DATABASE raw TEMPLATE template0 ENCODING 'SQL_ASCII'`)
	p.MustExec(t, "raw", `SET client_encoding = 'SQL_ASCII'; CREATE TABLE t (b text); INSERT INTO t VALUES (E'\xff\xfe')`)
	before, err := Dump(ctx, p.URL("raw"))
	if err != nil {
		t.Fatal(err)
	}
	p.MustExec(t, "raw", `UPDATE t SET b = E'\xff\xfd'`)
	after, err := Dump(ctx, p.URL("raw"))
	if err != nil {
		t.Fatal(err)
	}
	if Diff(before, after) == "" {
		t.Error("a changed byte went unseen")
	}
}

func TestDumpKeepsNoLargeTable(t *testing.T) {
	t.Parallel()
	p := PG(t)
	p.MustExec(t, "postgres", `CREATE TABLE big AS SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n`)
	a, err := Dump(context.Background(), p.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	p.MustExec(t, "postgres", `DELETE FROM big WHERE n = 77`)
	b, err := Dump(context.Background(), p.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	if big := a[`"public"."big"`]; big.Rows != 5000 || big.Sample != nil {
		t.Errorf("%d rows, %d kept", big.Rows, len(big.Sample))
	}
	if diff := Diff(a, b); !strings.Contains(diff, "5000 rows") || !strings.Contains(diff, "4999 rows") {
		t.Errorf("diff: %s", diff)
	}
}
