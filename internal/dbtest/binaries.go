package dbtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// errNoPostgres says how to get the binaries nobody found.
var errNoPostgres = errors.New("no PostgreSQL server binaries found in /usr/lib/postgresql/*/bin or on PATH: " +
	"run scripts/setup, or install the postgresql package")

// findPostgres returns the folder holding initdb and postgres: the one given; else that of a major version; else the
// one the environment lists (see ServersVariable); else the newest of Debian's folders, or what PATH offers.
func findPostgres(given string, major int) (string, error) {
	if given != "" {
		if hasServer(given) {
			return given, nil
		}
		return "", errors.New("no initdb and postgres in " + given)
	}
	if major != 0 {
		return findMajor("postgres-"+strconv.Itoa(major), major)
	}
	if folder := versionOf("postgres"); folder != "postgres" {
		major, err := strconv.Atoi(strings.TrimPrefix(folder, "postgres-"))
		if err != nil {
			return "", fmt.Errorf("%s lists %q: want postgres- and a major version, such as postgres-18", ServersVariable, folder)
		}
		return findMajor(folder, major)
	}
	if dir := newestDebian(); dir != "" {
		return dir, nil
	}
	if initdb, err := exec.LookPath("initdb"); err == nil && hasServer(filepath.Dir(initdb)) {
		return filepath.Dir(initdb), nil
	}
	return "", errNoPostgres
}

// findMajor returns the folder of one major version: what scripts/setup unpacked, else Debian's.
func findMajor(folder string, major int) (string, error) {
	if program, ok := findAbove(filepath.Join(".tools", folder, "bin", "postgres")); ok && hasServer(filepath.Dir(program)) {
		return filepath.Dir(program), nil
	}
	if dir := filepath.Join("/usr/lib/postgresql", strconv.Itoa(major), "bin"); hasServer(dir) {
		return dir, nil
	}
	return "", fmt.Errorf("no PostgreSQL %d in .tools/%s/bin of this folder or one above it, nor in /usr/lib/postgresql: run scripts/setup %s",
		major, folder, folder)
}

// newestDebian is the newest of /usr/lib/postgresql/*/bin, if there is any.
func newestDebian() string {
	best, dir := 0, ""
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // fails only on a bad pattern
	for _, d := range found {
		major, err := strconv.Atoi(filepath.Base(filepath.Dir(d)))
		if err == nil && major > best && hasServer(d) {
			best, dir = major, d
		}
	}
	return dir
}

func hasServer(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.IsDir() {
			return false
		}
	}
	return true
}
