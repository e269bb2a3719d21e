package postgres

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"txreel/internal/dbtest"
	"txreel/sources/postgres/pgclient"
)

// TestDumpedBy reads the version of pg_dump out of a dump, and wants a pg_restore that is no older.
func TestDumpedBy(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	program, err := pgclient.At(t.Context(), pg.Client("pg_dump"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	dump := filepath.Join(dir, "schema.dump")
	if out, err := exec.CommandContext(t.Context(), program.Path, "--format=custom", "--schema-only", "--file="+dump, pg.URL("postgres")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, err := dumpedBy(dump); got != program.Major || err != nil {
		t.Errorf("dumped by %d, %v, want %d", got, err, program.Major)
	}
	if _, err := pgRestore(t.Context(), pg.Client("pg_restore"), dump, pg.Major); err != nil {
		t.Error(err)
	}
	old := filepath.Join(dir, "pg_restore")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho 'pg_restore (PostgreSQL) 13.4'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := pgRestore(t.Context(), old, dump, 13); err == nil || !strings.Contains(err.Error(), "is of version 13, and the schema of the base was written by pg_dump") {
		t.Errorf("an old pg_restore: %v", err)
	}
	whole, err := os.ReadFile(dump)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 90 { // cut, and with a byte that is another
		bent := append([]byte(nil), whole[:200]...)
		bent[n] ^= 0x81
		for _, b := range [][]byte{whole[:n], bent} {
			if err := os.WriteFile(dump, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := dumpedBy(dump); err != nil {
				t.Errorf("byte %d: %v", n, err)
			}
		}
	}
}
