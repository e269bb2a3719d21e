package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"txreel/sources/mysql/gtid"
)

func (c *Conn) mariaDB() bool { return c.Flavor == gtid.MariaDB }

// isCode reports whether the server answered with one of the error numbers.
func isCode(err error, codes ...uint16) bool {
	var refused *ServerError
	return errors.As(err, &refused) && slices.Contains(codes, refused.Code)
}

// denied reports whether the server refused for want of a privilege.
func denied(err error) bool {
	return isCode(err, 1044, 1045, 1142, 1143, 1227, 1370, 1419, 3057, 3530)
}

// access is what the session's user may do everywhere.
type access struct {
	user    string // quoted, for GRANT
	mariaDB bool
	global  map[string]bool
}

func (a *access) may(privilege string) bool { return a.global["ALL PRIVILEGES"] || a.global[privilege] }

// readAccess reads the privileges that hold on *.*, with those of active roles.
func readAccess(ctx context.Context, c *Conn) (access, error) {
	a := access{mariaDB: c.mariaDB(), global: make(map[string]bool)}
	row, err := c.QueryRow(ctx, "SELECT CURRENT_USER()")
	if err != nil {
		return a, wrapSQL("read the user's name", err)
	}
	name := row[0].String()
	at := strings.LastIndexByte(name, '@')
	a.user = quoteLiteral(name[:max(at, 0)]) + "@" + quoteLiteral(name[at+1:])
	r, err := c.Query(ctx, "SHOW GRANTS")
	if err != nil {
		return a, wrapSQL("read the user's privileges", err)
	}
	for _, row := range r.Rows {
		list, is := strings.CutPrefix(row[0].String(), "GRANT ")
		list, _, global := strings.Cut(list, " ON *.* TO ")
		if !is || !global {
			continue
		}
		for p := range strings.SplitSeq(list, ",") {
			a.global[strings.ToUpper(strings.TrimSpace(p))] = true
		}
	}
	return a, nil
}

// checkBase refuses a user to whom the server would show less than it has: what is not
// shown would be missing in silence.
func (a *access) checkBase() error {
	var missing []string
	for _, p := range []string{"SELECT", "SHOW VIEW", "TRIGGER", "EVENT"} {
		if !a.may(p) {
			missing = append(missing, p)
		}
	}
	if a.mariaDB {
		if !a.may("BINLOG MONITOR") && !a.may("REPLICATION CLIENT") && !a.may("SUPER") {
			missing = append(missing, "BINLOG MONITOR")
		}
	} else {
		if !a.may("REPLICATION CLIENT") {
			missing = append(missing, "REPLICATION CLIENT")
		}
		if !a.may("XA_RECOVER_ADMIN") {
			missing = append(missing, "XA_RECOVER_ADMIN")
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("the user may not see all that a base must hold: GRANT %s ON *.* TO %s", strings.Join(missing, ", "), a.user)
}
