package dbtest

import (
	"os"
	"slices"
	"strings"
)

// ServersVariable is the environment variable that says which servers the tests use, where the usual ones are not
// meant: a list of folders of .tools with commas between them, each named after its server and perhaps a version, such
// as "mariadb-11" or "mysql,mariadb-11". A test that wants a "mariadb" gets the one of the folder listed, and a server
// that the list does not name is not among Flavors. "postgres-18" makes that version every PostgreSQL for which a test
// asks for none. `make test-matrix` sets it; the demo and measurements leave it unset.
const ServersVariable = "TXREEL_TEST_SERVERS"

// usual are the folders of .tools when nothing else is said.
func usual() []string { return []string{"mysql", "mariadb"} }

// Flavors are what every test of the MySQL side ranges over.
func Flavors() []string {
	var flavors []string
	for _, folder := range listed() {
		if name := serverOf(folder); slices.Contains(usual(), name) && !slices.Contains(flavors, name) {
			flavors = append(flavors, name)
		}
	}
	if flavors == nil {
		return usual()
	}
	return flavors
}

// versionOf returns the folder of .tools that stands for a server's name: the one listed, or that of the same name.
func versionOf(name string) string {
	for _, folder := range listed() {
		if serverOf(folder) == name {
			return folder
		}
	}
	return name
}

// serverOf is the server's name in that of a folder: "mariadb" of "mariadb-11".
func serverOf(folder string) string {
	name, _, _ := strings.Cut(folder, "-")
	return name
}

// listed are the folders that the environment names.
func listed() []string {
	return strings.FieldsFunc(os.Getenv(ServersVariable), func(r rune) bool { return r == ',' || r == ' ' })
}
