package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"txreel/change"
	"txreel/internal/dbtest"
)

// TestRewrites fills columns with values of which no log has any. A restore to a point right behind says which table is not
// exact; a base of that table follows, and from it on everything is, also restored from the base of before. The log itself can be neither forged nor switched off unseen.
func TestRewrites(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "rewritten", nil).setup()
	s.exec(`CREATE TABLE drawn (id int PRIMARY KEY); INSERT INTO drawn SELECT generate_series(1, 20); CREATE TABLE exact (id int PRIMARY KEY, v text); INSERT INTO exact VALUES (1, 'a')`)
	s.capture()
	a := s.waitArchive()
	base := s.waitBases(a, 1, 1)[0]
	s.exec(`ALTER TABLE exact ALTER v TYPE varchar(10) USING upper(v)`)
	s.exec(`ALTER TABLE drawn ADD r float8 DEFAULT random()`)
	drawn := s.waitPast(a, s.here()).Seq
	r := s.restore("inexact", "--base", base.ID, "--to-seq", drawn.String())
	if !contains(r.stdout+r.stderr, "table public.drawn is not exact") || strings.Contains(r.stdout+r.stderr, "public.exact is not exact") {
		t.Errorf("the report says\n%s%s", r.stdout, r.stderr)
	}
	if got := s.in("inexact", `SELECT v FROM exact`); got != "A" {
		t.Errorf("the exact table holds %s", got)
	}

	mended := func(tables string, behind change.Seq) {
		t.Helper()
		eventually(t, patience()+time.Minute, "a partial base holds what the rewrite drew", func() bool {
			mends, err := a.PartialBases(t.Context(), 1)
			if err != nil || len(mends) == 0 || mends[len(mends)-1].Seq < behind {
				return false
			}
			var names []string
			for _, tab := range mends[len(mends)-1].Tables {
				names = append(names, tab.Name)
			}
			slices.Sort(names)
			return strings.Join(names, " ") == tables
		})
	}
	mended("drawn exact", drawn)
	// The definition is the same as before, and only the log of definitions tells. Meanwhile the table is called otherwise, and others refer to it.
	s.exec(`CREATE TABLE refers (id int PRIMARY KEY REFERENCES drawn ON DELETE CASCADE); INSERT INTO refers VALUES (3); UPDATE exact SET v = 'later'`)
	s.exec(`BEGIN; ALTER TABLE drawn ALTER r TYPE float8 USING random(); ALTER TABLE drawn RENAME TO redrawn; CREATE TABLE gone AS SELECT 1 AS a; ALTER TABLE gone ADD r float8 DEFAULT random(); DROP TABLE gone; COMMIT`)
	mended("redrawn", s.waitPast(a, s.here()).Seq)
	s.exec(`DELETE FROM redrawn WHERE id = 3; INSERT INTO redrawn VALUES (30, 0.5)`)
	s.waitPast(a, s.here())
	if bases, err := a.Bases(t.Context(), 1); err != nil || len(bases) != 1 {
		t.Errorf("%d bases of everything (%v): one says it all", len(bases), err)
	}
	mends, err := a.PartialBases(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	r = s.restore("exact_again")
	s.same("exact_again")
	if !contains(r.stdout, "partial base", mends[1].ID) || strings.Contains(r.stdout+r.stderr, "is not exact") {
		t.Errorf("the report says\n%s%s", r.stdout, r.stderr)
	}
	s.restore("right_there", "--to-seq", mends[1].Seq.String()) // nothing is replayed behind it
	if want, got := s.value(`SELECT sum(r)::text FROM redrawn WHERE id < 30`), s.in("right_there", `SELECT sum(r)::text FROM redrawn WHERE id NOT IN (3, 30)`); want != got {
		t.Errorf("at the partial base the sum of what was drawn is %s, want %s", got, want)
	}

	s.exec(`CREATE ROLE forger LOGIN; GRANT ALL ON SCHEMA public TO forger`)
	for _, sql := range []string{
		`INSERT INTO txreel.ddl_log (event, tag, xid, at, login, role, settings, query, context) VALUES ('end', 'x', '1', now(), 'x', 'x', '{}', 'x', 'x')`,
		`SELECT txreel.write_failure('x', 'y')`, `DROP EVENT TRIGGER txreel_ddl`, `ALTER EVENT TRIGGER txreel_ddl DISABLE`, `DELETE FROM txreel.ddl_log`,
	} {
		if err := pg.Exec(t.Context(), s.db, "SET ROLE forger; "+sql); err == nil {
			t.Errorf("anybody may %s", sql)
		}
	}
	// An operator of the caller's own is not what the functions use.
	s.exec(`SET ROLE forger; CREATE FUNCTION public.evil(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE forger SUPERUSER'; RETURN true; END $$;
		CREATE OPERATOR public.= (leftarg = text, rightarg = text, function = public.evil); SET search_path = public, pg_catalog; CREATE TABLE public.trap (id int); DROP TABLE public.trap`)
	if got := s.value(`SELECT rolsuper FROM pg_roles WHERE rolname = 'forger'`); got != "f" {
		t.Error("a role has become superuser by an operator of its own")
	}

	s.exec(`ALTER EVENT TRIGGER txreel_drop DISABLE`)
	if r := s.run("doctor"); !contains(r.stdout, "definitions", "not ENABLE ALWAYS") {
		t.Errorf("doctor says\n%s", r.stdout)
	}
}

// TestSetupLeavesNothing compares what pg_dump writes of a database before setup and after its removal, with tables that came and
// changed meanwhile.
func TestSetupLeavesNothing(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	const before = `CREATE TABLE plain (a int); CREATE TABLE keyed (id int PRIMARY KEY); CREATE TABLE nothing (a int); ALTER TABLE nothing REPLICA IDENTITY NOTHING;`
	const meanwhile = `CREATE TABLE late (a int); INSERT INTO late VALUES (1); ALTER TABLE keyed DROP CONSTRAINT keyed_pkey; CREATE TABLE gets_key (a int); ALTER TABLE gets_key ADD PRIMARY KEY (a); CREATE TABLE gone (a int); DROP TABLE gone`
	const use = `UPDATE late SET a = 2; DELETE FROM keyed; UPDATE gets_key SET a = 1`
	s := newSite(t, pg, "left", nil)
	s.exec(before)
	s.setup()
	s.exec(meanwhile)
	s.exec(use)
	if got := s.value(`SELECT string_agg(relname || relreplident::text, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`); got != "gets_keyd keyedf latef nothingf plainf" {
		t.Errorf("identities: %s", got)
	}
	s.must("setup", "--remove", "--slot", s.slot())
	without := newSite(t, pg, "never_there", nil)
	without.exec(before)
	without.exec(meanwhile)
	if diff := firstDifference(without.schema("never_there"), s.schema("left")); diff != "" {
		t.Error(diff)
	}
}
