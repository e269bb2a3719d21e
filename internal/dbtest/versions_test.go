package dbtest

import (
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
