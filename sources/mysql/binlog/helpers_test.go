package binlog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"txreel/internal/dbtest"
	"txreel/sources/mysql/gtid"
)

// runCorpus makes a server log statements of every kind, and returns the files it closed.
func runCorpus(t *testing.T, m *dbtest.MySQL) []string {
	t.Helper()
	flavor := m.Flavor
	for i, name := range []string{"common", flavor} {
		script, err := os.ReadFile(filepath.Join("testdata", name+".sql"))
		if err != nil {
			t.Fatal(err)
		}
		hashed := map[string]string{"mysql": "'topsecret'", "mariadb": "PASSWORD('topsecret')"}[flavor]
		text := strings.NewReplacer("$FILE", filepath.Join(t.TempDir(), fmt.Sprint(i)), "PASSWORD_OF('topsecret')", hashed).Replace(string(script))
		if _, err := m.Client(t.Context(), "", text); err != nil {
			t.Fatal(err)
		}
	}
	files := m.Binlogs()
	if len(files) < 4 {
		t.Fatalf("binlog files: %v", files)
	}
	return files[:len(files)-1]
}

// flavorOf returns the flavor of a server.
func flavorOf(m *dbtest.MySQL) gtid.Flavor {
	if m.Flavor == "mariadb" {
		return gtid.MariaDB
	}
	return gtid.MySQL
}

// eachEvent reads a binlog file as capture reads a stream: every event is whole, its
// checksum is right, and it begins at the offset it is shown with.
func eachEvent(t testing.TB, file string, visit func(at uint64, f *Format, e *Event)) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := walk(b, visit); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// walk calls visit for every event of a file.
func walk(b []byte, visit func(at uint64, f *Format, e *Event)) error {
	if len(b) < len(Magic) || string(b[:len(Magic)]) != Magic {
		return fmt.Errorf("no binlog file")
	}
	f := &Format{}
	for at := uint64(len(Magic)); at < uint64(len(b)); {
		h, err := ParseHeader(b[at:])
		if err != nil {
			return fmt.Errorf("at %d: %w", at, err)
		}
		if at+uint64(h.Size) > uint64(len(b)) {
			return fmt.Errorf("at %d: a %s event is cut off", at, h.Type)
		}
		e, err := f.Parse(b[at : at+uint64(h.Size)])
		if err == nil {
			err = e.Verify()
		}
		if err == nil && e.Type == TypeFormatDescription {
			f, err = ParseFormat(&e)
		}
		if err != nil {
			return fmt.Errorf("at %d: %w", at, err)
		}
		visit(at, f, &e)
		at += uint64(h.Size)
	}
	return nil
}
