package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/restore"
	"txreel/sources/postgres/pgbase"
)

// evidence returns by what each table of a report was verified.
func evidence(rep *restore.Report) map[string]restore.Evidence {
	by := make(map[string]restore.Evidence)
	for _, t := range rep.Tables {
		by[t.Table] = t.Verified
	}
	return by
}

// TestVerifyFinds alters a restored target behind the restore's back, each time in a way that leaves all numbers of
// rows as they were. The same restore, run again, looks again.
func TestVerifyFinds(t *testing.T) {
	ctx := context.Background()
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	createDB(t, pg, "src", `CREATE TABLE a (id int, v text); INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 1000) i; INSERT INTO a VALUES (7, 'v7'), (0, NULL);
		CREATE TABLE b (LIKE a); INSERT INTO b SELECT id + 5000, v FROM a; CREATE TABLE later (id int PRIMARY KEY, v text); INSERT INTO later SELECT id, v FROM a WHERE id BETWEEN 1 AND 5`)
	r := record(t, pg, "src")
	first := r.base()
	r.exec("UPDATE later SET v = 'w' WHERE id = 1")
	tail := r.capture()
	url, err := pg.CreateDB(ctx, "dst")
	r.check(err)
	verify := func(before string, level restore.Level) (*restore.Report, error) {
		t.Helper()
		p, err := restore.MakePlan(ctx, r.archive, Dialect{}, restore.Goal{})
		r.check(err)
		target, err := Open(ctx, url, Options{PgRestore: pg.Client("pg_restore")})
		r.check(err)
		defer target.Close()
		m := meddler{Target: target, beforeVerify: func() { pg.MustExec(t, "dst", before) }}
		return restore.Run(ctx, r.archive, p, m, restore.Options{Jobs: 2, Verify: level})
	}
	undo := "SELECT 1"
	for _, c := range []struct {
		name, sql, undo string
		tables          []string
	}{
		{"one bit of one value", "UPDATE a SET v = overlay(v PLACING chr(ascii(v) # 1) FROM 1) WHERE id = 500", "UPDATE a SET v = 'v500' WHERE id = 500", []string{"public.a"}},
		{"two rows swapped between tables", "UPDATE a SET id = 5001 WHERE id = 1; UPDATE b SET id = 1 WHERE id = 5001", "UPDATE a SET id = 1 WHERE id = 5001; UPDATE b SET id = 5001 WHERE id = 1", []string{"public.a", "public.b"}},
		{"one row twice and another lost", "UPDATE a SET id = 3, v = 'v3' WHERE id = 2", "UPDATE a SET id = 2, v = 'v2' WHERE ctid = (SELECT max(ctid) FROM a WHERE id = 3)", []string{"public.a"}},
		{"NULL and no text", "UPDATE b SET v = '' WHERE v IS NULL", "UPDATE b SET v = NULL WHERE v = ''", []string{"public.b"}},
		{"values that moved between rows", "UPDATE a SET id = 11 - id WHERE id IN (4, 7) AND ctid <> (SELECT max(ctid) FROM a WHERE id = 7)", "UPDATE a SET id = 11 - id WHERE v IN ('v4') OR (v = 'v7' AND id = 4)", []string{"public.a"}},
	} {
		_, err := verify(undo+";"+c.sql, restore.VerifyContent)
		undo = c.undo
		var wrong restore.MismatchError
		if !errors.As(err, &wrong) {
			t.Fatalf("%s: error %v is no MismatchError", c.name, err)
		}
		var names []string
		for _, m := range wrong {
			names = append(names, m.Table)
			if m.Want.Rows != m.Found.Rows || m.Want.Content == m.Found.Content || m.Want.Content == "" || m.Record != "base "+first.ID {
				t.Errorf("%s: %s", c.name, &m)
			}
		}
		if fmt.Sprint(names) != fmt.Sprint(c.tables) {
			t.Errorf("%s: found in %s, it is in %s", c.name, names, c.tables)
		}
		wantError(t, err, nil, "phase \"verify\"", c.tables[0], wrong[0].Want.Content, wrong[0].Found.Content)
	}
	rep, err := verify(undo, restore.VerifyContent)
	r.check(err)
	want := map[string]restore.Evidence{"public.a": restore.ByContent, "public.b": restore.ByContent, "public.later": restore.ByRows}
	if got := evidence(rep); !maps.Equal(got, want) || rep.Cut.Seq != tail.Seq {
		t.Errorf("verified by %v, want %v", got, want)
	}
	if s := rep.String(); !strings.Contains(s, "public.a: 1002 rows, verified: content") || !strings.Contains(s, "2 tables by content, 1 by the number of rows") {
		t.Errorf("the report says\n%s", s)
	}

	// Who asks for rows has them counted, and no more.
	url, err = pg.CreateDB(ctx, "dst2")
	r.check(err)
	p, err := restore.MakePlan(ctx, r.archive, Dialect{}, restore.Goal{})
	r.check(err)
	target, err := Open(ctx, url, Options{PgRestore: pg.Client("pg_restore")})
	r.check(err)
	defer target.Close()
	m := meddler{Target: target, beforeVerify: func() { pg.MustExec(t, "dst2", "UPDATE a SET v = 'other'") }}
	if rep, err = restore.Run(ctx, r.archive, p, m, restore.Options{Verify: restore.VerifyRows}); err != nil {
		t.Fatal(err)
	}
	for table, by := range evidence(rep) {
		if by != restore.ByRows {
			t.Errorf("%s was verified by %s", table, by)
		}
	}
}

// TestVerifyAgainstLaterBase restores from one base to the place of the next: what was captured and replayed must
// come to what the source held. What the record cannot say of a table is no mismatch.
func TestVerifyAgainstLaterBase(t *testing.T) {
	ctx := context.Background()
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	createDB(t, pg, "src", `CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'v' FROM generate_series(1, 100) i; CREATE TABLE still (n numeric); INSERT INTO still VALUES (1.10), (1.1);
		CREATE TABLE altered (n int); INSERT INTO altered VALUES (1)`)
	r := record(t, pg, "src")
	from := r.base()
	r.exec("UPDATE a SET v = v || id; DELETE FROM a WHERE id > 90; INSERT INTO a SELECT i, NULL FROM generate_series(200, 300) i; ALTER TABLE altered ADD m int DEFAULT 5; CREATE TABLE fresh (n int)")
	to := r.base()
	r.exec("UPDATE a SET v = 'later'")
	r.capture()
	goal := restore.Goal{Kind: restore.AtSeq, Seq: to.Seq, Base: from.ID}
	_, rep := restoreTo(t, r, goal, "dst")
	want := map[string]restore.Evidence{"public.a": restore.ByContent, "public.still": restore.ByContent, "public.altered": restore.ByContent}
	if got := evidence(rep); !maps.Equal(got, want) || rep.Base.ID != from.ID || rep.Proof != to.ID || rep.Replayed == 0 {
		t.Errorf("from %s against %s: %v, want %v", rep.Base.ID, rep.Proof, got, want)
	}
	if s := strings.Join(rep.Warnings, "\n"); !strings.Contains(s, "public.fresh") || strings.Contains(s, "public.a ") {
		t.Errorf("warnings: %s", s)
	}

	// A transaction that is missing from the record, or was replayed wrong, shows.
	p, err := restore.MakePlan(ctx, r.archive, Dialect{}, goal)
	r.check(err)
	url, err := pg.CreateDB(ctx, "dst2")
	r.check(err)
	target, err := Open(ctx, url, Options{PgRestore: pg.Client("pg_restore")})
	r.check(err)
	defer target.Close()
	m := meddler{Target: target, beforeVerify: func() { pg.MustExec(t, "dst2", "UPDATE a SET v = 'v7' WHERE id = 8; UPDATE still SET n = 1.1") }}
	_, err = restore.Run(ctx, r.archive, p, m, restore.Options{Jobs: 2})
	wantError(t, err, nil, "table public.a: on record (base "+to.ID, "table public.still")

	for _, c := range []struct {
		goal restore.Goal
		want []string
	}{
		{restore.Goal{Base: "nonsense"}, []string{`the archive has no base "nonsense"`, "txreel status"}},
		{restore.Goal{Base: from.ID, Epoch: 2}, []string{"epoch 2 has no base"}},
		{restore.Goal{Kind: restore.AtSeq, Seq: to.Seq, Before: true, Base: to.ID}, []string{to.ID, "behind the point asked for", to.Seq.String()}},
	} {
		_, err := restore.MakePlan(ctx, r.archive, Dialect{}, c.goal)
		wantError(t, err, restore.ErrNoBase, c.want...)
	}
	p, err = restore.MakePlan(ctx, r.archive, Dialect{}, restore.Goal{Base: from.ID})
	if err != nil || p.Base.ID != from.ID || p.Seq != to.Seq+1 || p.Proof != nil {
		t.Errorf("%v, %v", p, err)
	}
}

// TestWhatIsComparable tells for every kind of table with what it is compared.
func TestWhatIsComparable(t *testing.T) {
	entry := func(name, content string, version archive.HexVersion, engine string) archive.BaseTable {
		return archive.BaseTable{Schema: "s", Name: name, Version: version, Content: content, Engine: []byte(engine)}
	}
	own, later := "xxh3:01", "xxh3:02"
	base := &archive.Base{ID: "own", Engine: []byte(`{"server_version": 150000}`), Tables: []archive.BaseTable{
		entry("plain", own, 1, "{}"), entry("touched", own, 1, "{}"), entry("altered", own, 1, "{}"), entry("unpublished", own, 1, `{"unpublished": true}`),
		entry("no longer published", own, 1, "{}"), entry("old", "", 1, "{}"), entry("other notation", "xxh9:01", 1, "{}"), entry("gone", own, 1, "{}"), entry("unknown later", own, 1, "{}")}}
	proof := &archive.Base{ID: "later", Tables: []archive.BaseTable{
		entry("plain", later, 1, "{}"), entry("touched", later, 1, "{}"), entry("altered", later, 2, "{}"), entry("unpublished", later, 1, `{"unpublished": true}`),
		entry("no longer published", later, 1, `{"unpublished": true}`), entry("old", "", 1, "{}"), entry("other notation", "xxh9:01", 1, "{}"), entry("unknown later", "", 1, "{}")}}
	for _, c := range []struct {
		name  string
		proof *archive.Base
		level restore.Level
		want  map[string]string // "" by rows
	}{
		{"somewhere", nil, restore.VerifyContent, map[string]string{"plain": "own", "touched": "", "altered": "own", "unpublished": "own", "no longer published": "own", "old": "", "other notation": "", "gone": "own", "unknown later": "own"}},
		{"later base", proof, restore.VerifyContent, map[string]string{"plain": "later", "touched": "later", "altered": "own", "unpublished": "own", "no longer published": "own", "old": "", "other notation": "", "gone": "own", "unknown later": "own"}},
		{"own base", base, restore.VerifyContent, map[string]string{"plain": "own", "touched": "own", "altered": "own", "unpublished": "own", "no longer published": "own", "old": "", "other notation": "", "gone": "own", "unknown later": "own"}},
		{"rows", proof, restore.VerifyRows, map[string]string{}},
	} {
		p := &restore.Plan{Engine: "postgres", Base: base, Proof: c.proof, Changes: map[string]*change.TableCount{"s.touched": {}}}
		target := &Target{job: &restore.Job{Plan: p, Verify: c.level}}
		if err := target.readManifest(); err != nil {
			t.Fatal(err)
		}
		all, err := target.comparisons(nil, 15)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range all {
			if x.record != c.want[x.Name] || (x.content == nil) != (x.record == "") {
				t.Errorf("%s: %s is compared with %q, want %q", c.name, x.Name, x.record, c.want[x.Name])
			}
		}
	}
	for _, c := range []struct {
		typ            string
		source, target int
		same           bool
	}{{`"char"`, 15, 15, true}, {`"char"`, 15, 16, false}, {`"char"[]`, 14, 18, false}, {`"char"`, 16, 18, true}, {"char(5)", 15, 18, true}} {
		if got := readsTheSame([]pgbase.Column{{Type: "integer"}, {Type: c.typ}}, c.source, c.target); got != c.same {
			t.Errorf("%s of %d reads the same in %d: %v", c.typ, c.source, c.target, got)
		}
	}
}

// TestCollationVersion warns where the target sorts text by another version of the source's locale.
func TestCollationVersion(t *testing.T) {
	pg := dbtest.PG(t)
	if pg.Major < 15 { // which do not tell
		pg = dbtest.PGWith(t, dbtest.PostgresOptions{Major: 15})
	}
	create := func(name string) {
		pg.MustExec(t, "postgres", "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en' LOCALE 'C'")
	}
	create("src")
	pg.MustExec(t, "src", "CREATE TABLE a (v text PRIMARY KEY); INSERT INTO a VALUES ('a'), ('B')")
	r := record(t, pg, "src")
	version := pg.MustQuery(t, "src", "SELECT datcollversion FROM pg_database WHERE datname = 'src'")[0][0]
	for _, c := range []struct{ name, version string }{{"same", version}, {"other", "0.1"}} {
		r.globals = &pgbase.Globals{Database: pgbase.Database{Provider: "i", Collate: "C", Locale: "en", CollationVersion: c.version}}
		b := r.base()
		create(c.name)
		p, err := restore.MakePlan(t.Context(), r.archive, Dialect{}, restore.Goal{Kind: restore.Latest, Base: b.ID})
		r.check(err)
		rep, err := runPlan(t.Context(), r, p, pg.URL(c.name), false)
		r.check(err)
		if warned := strings.Contains(strings.Join(rep.Warnings, " "), "text is sorted by version "+version); warned != (c.name == "other") {
			t.Errorf("%s: %q", c.name, rep.Warnings)
		}
	}
}
