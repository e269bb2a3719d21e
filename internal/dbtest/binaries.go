package dbtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// errNoPostgres says how to get the binaries nobody found.
var errNoPostgres = errors.New("no PostgreSQL server binaries found in /usr/lib/postgresql/*/bin or on PATH: " +
	"run scripts/setup, or install the postgresql package")

// findPostgres returns the folder holding initdb and postgres: the one given, else the newest of Debian's folders,
// else whatever PATH offers.
func findPostgres(given string) (string, error) {
	if given != "" {
		if hasServer(given) {
			return given, nil
		}
		return "", errors.New("no initdb and postgres in " + given)
	}
	best, dir := 0, ""
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // fails only on a bad pattern
	for _, d := range found {
		major, err := strconv.Atoi(filepath.Base(filepath.Dir(d)))
		if err == nil && major > best && hasServer(d) {
			best, dir = major, d
		}
	}
	if dir != "" {
		return dir, nil
	}
	if initdb, err := exec.LookPath("initdb"); err == nil && hasServer(filepath.Dir(initdb)) {
		return filepath.Dir(initdb), nil
	}
	return "", errNoPostgres
}

func hasServer(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.IsDir() {
			return false
		}
	}
	return true
}
