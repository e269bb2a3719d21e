package dbtest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestVersions(t *testing.T) {
	for _, c := range []struct{ listed, flavors, mysql, mariadb string }{
		{"", "mysql mariadb", "mysql", "mariadb"},
		{"mariadb-11", "mariadb", "mysql", "mariadb-11"},
		{"mysql, mariadb-11", "mysql mariadb", "mysql", "mariadb-11"},
		{"mariadb,mariadb-11", "mariadb", "mysql", "mariadb"},
		{"mysql-8.4", "mysql", "mysql-8.4", "mariadb"},
		{"postgres-18", "mysql mariadb", "mysql", "mariadb"}, // not of this side
		{"postgres-18,mariadb-11", "mariadb", "mysql", "mariadb-11"},
	} {
		t.Setenv(ServersVariable, c.listed)
		if got := Flavors(); !slices.Equal(got, strings.Fields(c.flavors)) {
			t.Errorf("%q: flavors %v, want %s", c.listed, got, c.flavors)
		}
		if got := versionOf("mysql") + " " + versionOf("mariadb"); got != c.mysql+" "+c.mariadb {
			t.Errorf("%q: folders %s", c.listed, got)
		}
		if got := versionOf("mariadb-11"); got != "mariadb-11" { // asked for by its version
			t.Errorf("%q: folder %s for mariadb-11", c.listed, got)
		}
	}
	// What a test asks for by folder is that, whatever is listed.
	t.Setenv(ServersVariable, "mariadb-99")
	root, _, err := findMySQL(MySQLOptions{Flavor: "mariadb", Root: filepath.Join(".tools", "mariadb")})
	if err != nil || !filepath.IsAbs(root) || filepath.Base(root) != "mariadb" {
		t.Errorf("%s, %v", root, err)
	}
	if _, _, err := findMySQL(MySQLOptions{Flavor: "mariadb"}); err == nil || !strings.Contains(err.Error(), "run scripts/setup mariadb-99") {
		t.Errorf("a version that is not there: %v", err)
	}
}

func TestVersionsOfPostgres(t *testing.T) {
	chosen := os.Getenv(ServersVariable)
	for _, c := range []struct {
		listed string
		major  int
		want   string // the end of the folder, or of the error
	}{
		{"mysql,postgres-98", 0, "run scripts/setup postgres-98"},
		{"postgres-98", 97, "run scripts/setup postgres-97"}, // asked for by its version
		{"postgres-99", 0, "run scripts/setup postgres-99"},
		{"", 9, "run scripts/setup postgres-9"},
		{"postgres-new", 0, "want postgres- and a major version, such as postgres-18"},
	} {
		t.Setenv(ServersVariable, c.listed)
		got, err := findPostgres("", c.major)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasSuffix(got, c.want) {
			t.Errorf("%q, major %d: %s, want %s", c.listed, c.major, got, c.want)
		}
	}
	t.Setenv(ServersVariable, chosen)
	if p := PG(t); !isFile(p.Client("pg_dump")) || !isFile(p.Client("pg_restore")) { // of whatever version the tests run on
		t.Errorf("PostgreSQL %s, its programs in %s", p.Version, p.BinDir)
	}
}
