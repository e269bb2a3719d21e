package txreel

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"txreel/archive"
	"txreel/audit"
	"txreel/internal/dbtest"
	"txreel/restore"
	mysqltarget "txreel/restore/mysql"
	"txreel/sink/dir"
	"txreel/sources/mysql/gtid"
	"txreel/sources/mysql/rowlog"
)

// TestForeverMySQL is TestForever for the archives that record MySQL and MariaDB.
func TestForeverMySQL(t *testing.T) {
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			testForeverMySQL(t, flavor)
		})
	}
}

func testForeverMySQL(t *testing.T, flavor string) {
	kept := "testdata/archives/v2-" + flavor
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
	var export, log, state bytes.Buffer
	if _, err := audit.Export(ctx, a, rowlog.NewDecoder(nil), audit.ExportOptions{}, &export); err != nil {
		t.Fatal(err)
	}
	if err := audit.Log(ctx, a, audit.Query{Reverse: true}, audit.JSONLines(&log)); err != nil {
		t.Fatal(err)
	}
	for _, goal := range []restore.Goal{{Kind: restore.AtMark, Text: "before-migration"}, {}} {
		fmt.Fprintf(&state, "%s\n", goal)
		restoreMySQL(t, a, flavor, goal, &state)
	}
	for name, got := range map[string][]byte{kept + ".jsonl": export.Bytes(), kept + ".log.jsonl": log.Bytes(), kept + ".state.txt": state.Bytes()} {
		if *update {
			if err := os.WriteFile(name, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s reads differently now:\n%s", name, got)
		}
	}
}

// restoreMySQL restores into a fresh server and writes what it holds.
func restoreMySQL(t *testing.T, a *archive.Archive, flavor string, goal restore.Goal, state *bytes.Buffer) {
	t.Helper()
	ctx := t.Context()
	dialect := mysqltarget.Dialect{Flavor: gtid.MySQL}
	if flavor == "mariadb" {
		dialect.Flavor = gtid.MariaDB
	}
	plan, err := restore.MakePlan(ctx, a, dialect, goal)
	if err != nil {
		t.Fatal(err)
	}
	server := dbtest.My(t, flavor)
	target, err := mysqltarget.Open(ctx, server.URL(""), mysqltarget.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if _, err := restore.Run(ctx, a, plan, target, restore.Options{}); err != nil {
		t.Fatalf("restore to %s: %v", goal, err)
	}
	dump, err := dbtest.DumpMySQL(ctx, server.URL(""), dbtest.MySQLDumpOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(dump.Tables)) {
		fmt.Fprintf(state, "  %s: %d rows, %s\n", name, dump.Tables[name].Rows, dump.Tables[name].SHA256)
	}
	for _, name := range slices.Sorted(maps.Keys(dump.Definitions)) {
		fmt.Fprintf(state, "  %s: %q\n", name, dump.Definitions[name])
	}
}
