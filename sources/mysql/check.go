package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"txreel/sources/mysql/gtid"
)

// variables reads global variables by their names in lower case; those that the server does
// not have are not in the map.
func (c *Conn) variables(ctx context.Context, names ...string) (map[string]string, error) {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = quoteLiteral(name)
	}
	r, err := c.Query(ctx, "SHOW GLOBAL VARIABLES WHERE Variable_name IN ("+strings.Join(quoted, ",")+")")
	if err != nil {
		return nil, wrapSQL("read the server's variables", err)
	}
	values := make(map[string]string, len(r.Rows))
	for _, row := range r.Rows {
		values[strings.ToLower(row[0].String())] = row[1].String()
	}
	return values, nil
}

// logs refuses a server that does not log what a record needs, with the statements that
// make it.
func (c *Conn) logs(ctx context.Context) error {
	v, err := c.variables(ctx, "log_bin", "gtid_mode", "binlog_format")
	if err != nil {
		return err
	}
	if !isOn(v["log_bin"]) {
		return fmt.Errorf("the source writes no binlog: set log_bin, server_id and binlog_format = ROW in its configuration and restart it (on a managed service, turn on backups or point-in-time recovery)")
	}
	if mode := strings.ToUpper(v["gtid_mode"]); c.Flavor == gtid.MySQL && mode != "ON" {
		err := fmt.Errorf("the source has gtid_mode = %s, and without GTIDs nobody can prove that a record is complete: %s", mode, gtidStatements(mode))
		if mode != "ON_PERMISSIVE" {
			err = fmt.Errorf("%w%w", err, errAnonymousNow)
		}
		return err
	}
	return nil
}

// errAnonymousNow marks the error of a server that gives no GTIDs to what it commits now.
var errAnonymousNow = errors.New("")

// gtidStatements are the statements that lead from a gtid_mode to ON, online.
func gtidStatements(mode string) string {
	steps := []string{"SET PERSIST enforce_gtid_consistency = ON", "SET PERSIST gtid_mode = OFF_PERMISSIVE", "SET PERSIST gtid_mode = ON_PERMISSIVE", "SET PERSIST gtid_mode = ON"}
	switch mode {
	case "OFF_PERMISSIVE":
		steps = append(steps[:1], steps[2:]...)
	case "ON_PERMISSIVE":
		steps = append(steps[:1], steps[3:]...)
	}
	return "run there, one after the other, " + strings.Join(steps, "; ") + " (before the last one wait until SHOW STATUS LIKE 'Ongoing_anonymous_transaction_count' says 0)"
}

func isOn(value string) bool { return value == "1" || strings.EqualFold(value, "ON") }

// gtidList reads a list of GTIDs, passing over what is none.
func gtidList(text string) []gtid.GTID {
	var list []gtid.GTID
	for part := range strings.SplitSeq(text, ",") {
		if g, err := gtid.ParseGTID(strings.TrimSpace(part)); err == nil {
			list = append(list, g)
		}
	}
	return list
}
