package mysql

import (
	"fmt"
	"strings"

	"txreel/sources/mysql/gtid"
)

// version is a server's version, as far as statements and variables depend on it.
type version struct {
	flavor gtid.Flavor
	number int    // 90704 is 9.7.4
	text   string // as the server says it
}

// parseVersion reads what SELECT VERSION() returns.
func parseVersion(text string) (version, error) {
	v := version{flavor: gtid.MySQL, text: text}
	if strings.Contains(text, "MariaDB") {
		v.flavor = gtid.MariaDB
	}
	var major, minor, patch int
	if n, err := fmt.Sscanf(strings.TrimPrefix(text, "5.5.5-"), "%d.%d.%d", &major, &minor, &patch); n != 3 || err != nil {
		return v, fmt.Errorf("the server says its version is %q, which is none of MySQL or MariaDB", clip(text))
	}
	v.number = major*10000 + minor*100 + patch
	return v, nil
}

func (v version) mariadb() bool { return v.flavor == gtid.MariaDB }

// series is the part of the version within which servers read each other's data files.
func (v version) series() string { return fmt.Sprintf("%d.%d", v.number/10000, v.number/100%100) }

func (v version) String() string { return v.flavor.String() + " " + v.text }

// replica returns a variable that names replicas, as this version calls it.
func (v version) replica(name string) string {
	if v.mariadb() || v.number < 80026 {
		return "slave_" + name
	}
	return "replica_" + name
}

// forget is the statement that empties the binary log and the account of what was executed.
func (v version) forget() string {
	if v.mariadb() || v.number < 80200 {
		return "RESET MASTER"
	}
	return "RESET BINARY LOGS AND GTIDS"
}

// word is the server's for a replica in statements.
func (v version) word() string {
	if v.mariadb() || v.number < 80022 {
		return "SLAVE"
	}
	return "REPLICA"
}
