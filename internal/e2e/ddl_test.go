package e2e

import (
	"strings"
	"testing"
	"time"

	"txreel/change"
	"txreel/internal/dbtest"
)

// TestMarkAndLog names a moment, finds a mistake behind it by its size, and goes back to before either.
func TestMarkAndLog(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "marked", nil).setup()
	s.exec(`CREATE TABLE "odd Table" (id int PRIMARY KEY, v text); INSERT INTO "odd Table" SELECT g, 'first' FROM generate_series(1, 2000) g`)
	s.capture()
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	s.exec(`UPDATE "odd Table" SET v = 'second' WHERE id <= 10`)
	before := s.dump(s.db)
	s.must("mark", "before-the-mistake")
	if r := s.run("mark", "before-the-mistake"); r.code != 1 {
		t.Errorf("the same mark again: exit code %d", r.code)
	} else {
		r.sentence(t, "exists already")
	}
	s.exec(`DELETE FROM "odd Table" WHERE id > 5`)
	s.exec(`INSERT INTO "odd Table" VALUES (3000, 'after')`)
	s.waitPast(a, s.here())
	after := s.dump(s.db)
	moment := time.Now().UTC().Format(time.RFC3339Nano)
	s.must("mark", "later") // now the record has passed the moment

	var found struct {
		Seq string `json:"seq"`
		XID string `json:"xid"`
	}
	r := s.must("log", "--min-rows", "1000", "--op", "delete", "--table", "odd*", "--json")
	if n := strings.Count(r.stdout, "\n"); n != 1 {
		t.Fatalf("log finds %d transactions, want 1:\n%s", n, r.stdout)
	}
	r.decode(t, &found)
	if text := s.must("log", "--xid", found.XID).stdout; !contains(text, found.XID, "odd Table", "1995") {
		t.Errorf("log shows\n%s", text)
	}
	if r := s.must("log", "--since", "1 hour ago", "--oneline"); strings.Count(r.stdout, "\n") < 3 {
		t.Errorf("log shows\n%s", r.stdout)
	}
	if r := s.must("log", "--until", "1 hour ago"); r.stdout != "" {
		t.Errorf("log shows\n%s", r.stdout)
	}
	if r := s.must("status"); !contains(r.stdout, "before-the-mistake", "base", "slot "+s.slot()) {
		t.Errorf("status shows\n%s", r.stdout)
	}

	for db, c := range map[string]struct {
		point []string
		want  map[string]dbtest.TableDump
	}{
		"by_mark": {[]string{"--to-mark", "before-the-mistake"}, before},
		"by_xid":  {[]string{"--to-txn", found.XID, "--before"}, before},
		"by_seq":  {[]string{"--to-seq", found.Seq, "--before"}, before},
		"by_time": {[]string{"--to-time", moment}, after},
		"by_end":  {nil, after},
	} {
		s.restore(db, c.point...)
		if diff := dbtest.Diff(c.want, s.dump(db)); diff != "" {
			t.Errorf("restored %v:\n%s", c.point, diff)
		}
	}
	// The record says nothing of the future.
	r = s.run("restore", "--dry-run", "--to-time", time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	if r.code != 6 {
		t.Errorf("restore to the future: exit code %d, want 6", r.code)
	}
	r.sentence(t, "is not in the archive", "--to latest")
}

// TestDDL creates and alters tables while a capture runs. It takes new bases by itself; a restore that would have to
// cross a change of which the source has no log refuses, writes nothing and names the points it can reach.
func TestDDL(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "ddl", nil)
	s.must("setup", "--apply", "--no-ddl", "--slot", s.slot())
	s.exec(`CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'one')`)
	s.capture()
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	s.exec(`INSERT INTO t VALUES (2, 'two')`)
	s.waitPast(a, s.here())
	old := s.dump(s.db)

	// In one transaction, so that the changed table is written to before any base can know it; and another one right behind it, or the next base might be of that very point.
	s.exec(`BEGIN; ALTER TABLE t ADD w int DEFAULT 7; INSERT INTO t VALUES (3, 'three', 3); COMMIT; INSERT INTO t VALUES (5, 'five', 5)`)
	at := s.waitPast(a, s.here())
	crossing := at.Seq
	s.waitBases(a, 1, 2)
	s.exec(`CREATE TABLE created (id int); INSERT INTO created VALUES (1); INSERT INTO t VALUES (4, 'four', 4)`)
	s.waitBases(a, 1, 3)
	s.exec(`INSERT INTO created VALUES (2)`)
	s.waitPast(a, s.here())

	var altering string // the transaction with the change
	for _, txn := range readRecord(t, a, 1) {
		for _, row := range txn.rows["public.t"] {
			if len(row.new) == 3 && altering == "" {
				altering = txn.seq.String()
			}
		}
	}
	if altering == "" || altering > crossing.String() {
		t.Fatalf("the change of the table is in transaction %q", altering)
	}
	if _, err := pg.CreateDB(t.Context(), "refused"); err != nil {
		t.Fatal(err)
	}
	r := s.with("TXREEL_TARGET="+pg.URL("refused")).run("restore", "--to-seq", altering)
	if r.code != 6 {
		t.Errorf("restore across the change: exit code %d, want 6", r.code)
	}
	if !contains(r.stderr, "cannot be reached exactly", "public.t", "nearest exact points", "--to-seq") {
		t.Errorf("restore across the change says:\n%s", r.stderr)
	}
	if n := s.in("refused", `SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace`); n != "0" {
		t.Errorf("a refused restore left %s relations", n)
	}
	s.restore("just_before", "--to-seq", altering, "--before")
	if diff := dbtest.Diff(old, s.dump("just_before")); diff != "" {
		t.Errorf("just before the change:\n%s", diff)
	}
	s.restore("behind")
	s.same("behind")
}

// TestSchemaUnlogged changes what a source without a log of definitions has besides tables. Capture looks from time to time, and a restore names
// each difference: what was another by the point, and what may have been.
func TestSchemaUnlogged(t *testing.T) {
	t.Parallel()
	s := newSite(t, dbtest.PG(t), "unlogged", nil)
	s.must("setup", "--apply", "--no-ddl", "--slot", s.slot())
	s.exec(`CREATE TABLE t (id int PRIMARY KEY, v text); CREATE VIEW v AS SELECT 1 AS one; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE INDEX by_v ON t (v)`)
	s.capture("--schema-every", "1s", "--heartbeat", "500ms")
	a := s.waitArchive()
	base := s.waitBases(a, 1, 1)[0]
	look := func(what string) change.Seq {
		t.Helper()
		at := s.waitPast(a, s.here()).Seq
		eventually(t, patience(), what, func() bool {
			parts, err := a.PartialBases(t.Context(), 1)
			return err == nil && len(parts) > 0 && parts[len(parts)-1].SchemaOnly() && parts[len(parts)-1].Seq >= at
		})
		return at
	}
	look("the schema is looked at")
	s.exec(`INSERT INTO t VALUES (1, 'one')`)
	before := s.waitPast(a, s.here()).Seq
	s.exec(`CREATE INDEX made ON t (v, id); DROP INDEX by_v; ALTER VIEW v RENAME TO w; CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'; GRANT SELECT ON t TO PUBLIC`)
	look("the change is seen")
	s.exec(`INSERT INTO t VALUES (2, 'two')`)
	after := s.waitPast(a, s.here()).Seq
	changes := []string{"index public.made was made", "index public.by_v was dropped", "view public.v was renamed, or moved, to view public.w", "function public.f() was changed", "acl public.TABLE t was made"}
	if r := s.restore("early", "--base", base.ID, "--to-seq", before.String()); !contains(r.stdout+r.stderr, append(changes, "the schema may have been another at the point")...) ||
		strings.Contains(r.stdout+r.stderr, "the schema was another") {
		t.Errorf("before the change a restore says\n%s%s", r.stdout, r.stderr)
	}
	if r := s.restore("late", "--base", base.ID, "--to-seq", after.String()); !contains(r.stdout+r.stderr, append(changes, "the schema was another at the point")...) ||
		strings.Contains(r.stdout+r.stderr, "may have been another") {
		t.Errorf("behind the change a restore says\n%s%s", r.stdout, r.stderr)
	}
}
