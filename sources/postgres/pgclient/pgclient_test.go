package pgclient

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// put makes a program that says it is of a version.
func put(t *testing.T, path, version string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho 'pg_dump (PostgreSQL) "+version+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFind is not parallel: it sets PATH.
func TestFind(t *testing.T) {
	root := t.TempDir()
	folders := []string{root + "/lib/*/bin", root + "/pgsql-*/bin"}
	onPath := put(t, root+"/path/pg_dump", "16.2 (Debian 16.2-1)")
	put(t, root+"/lib/9/bin/pg_dump", "9.6.24")
	put(t, root+"/lib/15/bin/pg_dump", "15.20")
	newest := put(t, root+"/pgsql-17/bin/pg_dump", "17.10")
	if err := os.Symlink(put(t, root+"/share/pg_wrapper", "99.1"), filepath.Join(root, "share", "pg_dump")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		need       int
		want, err  string
	}{
		{name: "PATH will do", path: "/path", need: 16, want: onPath},
		{name: "PATH is too old", path: "/path", need: 17, want: newest},
		{name: "nothing on PATH", path: "/lib", need: 14, want: newest},
		{name: "Debian's starter on PATH", path: "/share", need: 14, want: newest},
		{name: "nothing is new enough", path: "/path", need: 18, want: newest, err: "is of version 17 and it takes 18 or newer: install PostgreSQL's client programs of that version, or name its pg_dump with --pg-dump"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("PATH", root+c.path+":/usr/bin:/bin")
			if c.path == "/lib" {
				t.Setenv("PATH", root+c.path)
			}
			p, err := find(t.Context(), "pg_dump", c.need, folders)
			if p.Path != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v, %v, want %s", p, err, c.want)
			}
		})
	}
	t.Setenv("PATH", root+"/lib")
	if _, err := find(t.Context(), "pg_dump", 14, nil); err == nil || !strings.Contains(err.Error(), "not installed here") {
		t.Errorf("none at all: %v", err)
	}
	broken := filepath.Join(root, "broken")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho nothing\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := At(t.Context(), broken); err == nil || !strings.Contains(err.Error(), "does not say its version") {
		t.Errorf("a program of no version: %v", err)
	}
}
