package txreel

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"txreel/archive"
	"txreel/audit"
	"txreel/internal/dbtest"
	"txreel/restore"
	pgtarget "txreel/restore/postgres"
	"txreel/sink/dir"
	"txreel/sources/postgres/pgoutput"
)

var update = flag.Bool("update", false, "write the expected rows of the kept archives anew")

// TestForever reads the archives that a build of each version of the format wrote and
// that are kept for ever: they are whole, their history reads as it did, and they restore
// to the rows they did.
func TestForever(t *testing.T) {
	pg := dbtest.PG(t)
	if pg.Major < 15 { // which wrote them, and an older one cannot take them
		pg = dbtest.PGWith(t, dbtest.PostgresOptions{Major: 15})
	}
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) { testForever(t, pg, version) })
	}
}

// copied returns a copy of a kept archive: a restore notes in the archive what it reads.
func copied(t *testing.T, kept string) string {
	t.Helper()
	at := t.TempDir()
	if err := os.CopyFS(at, os.DirFS(kept)); err != nil {
		t.Fatal(err)
	}
	return at
}

func testForever(t *testing.T, pg *dbtest.Postgres, version string) {
	kept := "testdata/archives/" + version
	ctx := t.Context()
	store, err := dir.Open(copied(t, kept))
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(ctx, store)
	if err != nil {
		t.Fatal(err)
	}
	if report, err := a.Verify(ctx, archive.VerifyOptions{Full: true}); err != nil {
		t.Fatalf("verify: %v: %v", err, report.Problems)
	}

	var export, log bytes.Buffer
	if _, err := audit.Export(ctx, a, &pgoutput.Decoder{}, audit.ExportOptions{}, &export); err != nil {
		t.Fatal(err)
	}
	if err := audit.Log(ctx, a, audit.Query{Reverse: true}, audit.JSONLines(&log)); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{kept + ".jsonl": export.Bytes(), kept + ".log.jsonl": log.Bytes()} {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s reads differently now:\n%s", name, got)
		}
	}

	var rows bytes.Buffer
	for i, goal := range []restore.Goal{
		{Kind: restore.AtMark, Text: "before-migration"},
		{Kind: restore.AtSeq, Seq: 5},
		{Kind: restore.AtSeq, Seq: 3, Before: true},
		{},
	} {
		fmt.Fprintf(&rows, "%s\n", goal)
		restoreTo(t, pg, a, goal, fmt.Sprint(version, "_point", i), &rows)
	}
	if *update {
		if err := os.WriteFile(kept+".rows.txt", rows.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(kept + ".rows.txt")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rows.Bytes(), want) {
		t.Errorf("restored:\n%s\nwant:\n%s", rows.Bytes(), want)
	}

	// Between the changed definition and the base that followed it.
	if _, err := restore.MakePlan(ctx, a, pgtarget.Dialect{}, restore.Goal{Kind: restore.AtSeq, Seq: 0xc}); !errors.Is(err, restore.ErrDefinitionChanged) {
		t.Errorf("a point behind a changed definition and before the next base: %v", err)
	}
}

// restoreTo restores into a new database and writes what each of its tables holds.
func restoreTo(t *testing.T, pg *dbtest.Postgres, a *archive.Archive, goal restore.Goal, db string, rows *bytes.Buffer) {
	t.Helper()
	ctx := t.Context()
	if err := pg.Exec(ctx, "postgres", "create database "+db+" template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C'"); err != nil {
		t.Fatal(err)
	}
	plan, err := restore.MakePlan(ctx, a, pgtarget.Dialect{}, goal)
	if err != nil {
		t.Fatal(err)
	}
	target, err := pgtarget.Open(ctx, pg.URL(db), pgtarget.Options{PgRestore: pg.Client("pg_restore")})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if _, err := restore.Run(ctx, a, plan, target, restore.Options{}); err != nil {
		t.Fatalf("restore to %s: %v", goal, err)
	}
	dump, err := dbtest.Dump(ctx, pg.URL(db))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(dump)) {
		fmt.Fprintf(rows, "  %s: %d rows, %s\n", name, dump[name].Rows, dump[name].SHA256)
	}
}
