package mysql

import (
	"context"
	"fmt"
	"strings"

	"txreel/sources"
)

func (d *doctor) checkCapturePrivileges(context.Context) error {
	const check = "capture privileges"
	d.report(check, d.grants.missing(captureNeeds(d.mariadb)), "may read the binlog")
	return nil
}

func (d *doctor) checkBasePrivileges(context.Context) error {
	const check = "base privileges"
	if d.opts.CaptureOnly {
		d.add(check, sources.SeverityNote, "", "user %s only captures: look with the user that takes bases, too", d.account)
		return nil
	}
	needs := baseNeeds(d.mariadb)
	if d.opts.AllowLock {
		needs = append(needs, lockNeeds()...)
	}
	d.report(check, d.grants.missing(needs), "may read everything a base holds")
	if len(d.grants.revoked) > 0 && d.grants.has("SELECT") {
		var fixes []string
		for _, schema := range d.grants.revoked {
			fixes = append(fixes, "GRANT SELECT ON "+schema+".* TO "+d.account+";")
		}
		d.add(check, sources.SeverityProblem, strings.Join(fixes, " "), "user %s may not read %s: a base would lack it", d.account, strings.Join(d.grants.revoked, ", "))
	}
	return nil
}

// report makes one finding of what is missing, as bad as the worst of it.
func (d *doctor) report(check string, missing []need, fine string) {
	if len(missing) == 0 {
		d.add(check, sources.SeverityOK, "", "user %s %s", d.account, fine)
		return
	}
	severity := sources.SeverityNote
	var lacks []string
	for _, n := range missing {
		if n.severity == sources.SeverityProblem || n.severity == sources.SeverityWarning && severity == sources.SeverityNote {
			severity = n.severity
		}
		lacks = append(lacks, fmt.Sprintf("%s (without it %s)", n.privilege, n.purpose))
	}
	d.add(check, severity, grantSQL(missing, d.account)+";", "user %s lacks %s", d.account, strings.Join(lacks, ", "))
}

// checkSessions looks for sessions whose own settings differ from what is demanded of the server: a session keeps what
// it began with, and a privileged one may choose.
func (d *doctor) checkSessions(ctx context.Context) error {
	const check = "sessions"
	if d.mariadb {
		d.add(check, sources.SeverityNote, "", "MariaDB does not show the settings of other sessions: after a change of binlog_format or binlog_row_image, connect the application anew")
		return nil
	}
	switch {
	case !d.on("performance_schema"):
		d.add("performance_schema", sources.SeverityNote, d.set.static("performance_schema", "ON"), "performance_schema is OFF: the settings of other sessions cannot be seen")
		return nil
	case !d.grants.has("SELECT"):
		d.add(check, sources.SeverityNote, "", "the settings of other sessions cannot be seen without SELECT on performance_schema")
		return nil
	}
	r, err := d.conn.Query(ctx, `
		SELECT t.PROCESSLIST_ID, COALESCE(t.PROCESSLIST_USER, t.NAME), LOWER(v.VARIABLE_NAME), v.VARIABLE_VALUE
		FROM performance_schema.variables_by_thread v JOIN performance_schema.threads t ON t.THREAD_ID = v.THREAD_ID
		WHERE t.PROCESSLIST_ID IS NOT NULL AND (
			v.VARIABLE_NAME = 'binlog_format' AND v.VARIABLE_VALUE <> 'ROW' OR v.VARIABLE_NAME = 'binlog_row_image' AND v.VARIABLE_VALUE <> 'FULL'
			OR v.VARIABLE_NAME = 'sql_log_bin' AND v.VARIABLE_VALUE = 'OFF')
		ORDER BY t.PROCESSLIST_ID, v.VARIABLE_NAME`)
	if err != nil {
		return err
	}
	var found, kills []string
	unlogged := false
	for _, row := range r.Rows {
		if row[0].String() == fmt.Sprint(d.conn.ID) {
			continue
		}
		unlogged = unlogged || row[2].String() == "sql_log_bin"
		found = append(found, fmt.Sprintf("%s of user %s has %s = %s", row[0], row[1], row[2], row[3]))
		if kill := "KILL " + row[0].String() + ";"; len(kills) == 0 || kills[len(kills)-1] != kill {
			kills = append(kills, kill)
		}
	}
	switch {
	case len(found) == 0:
		d.add(check, sources.SeverityOK, "", "every session logs as the server is set")
	case unlogged:
		d.add(check, sources.SeverityWarning, statements(kills, "or let the application connect anew"), "what a session writes with sql_log_bin = OFF is recorded nowhere: %s", listed(found))
	default:
		d.add(check, sources.SeverityWarning, statements(kills, "or let the application connect anew"), "sessions do not log whole rows: %s", listed(found))
	}
	return nil
}

// checkTemporaryTables matters only before a change to rows: statements on temporary tables of sessions that are open
// are in the log by then, and are replayed in another session.
func (d *doctor) checkTemporaryTables(ctx context.Context) error {
	if d.mariadb || d.vars["binlog_format"] == "ROW" || !d.grants.has("PROCESS") {
		return nil
	}
	row, err := d.conn.QueryRow(ctx, "SELECT COUNT(*) FROM information_schema.INNODB_TEMP_TABLE_INFO")
	if err != nil {
		return err
	}
	if n := row[0].String(); n != "0" {
		d.add("temporary tables", sources.SeverityWarning, "close the sessions that hold them", "%s temporary tables are open while statements are logged: "+
			"such a session cannot change to rows, and a base taken now does not hold what its statements refer to", n)
	}
	return nil
}

// checkUnlogged names the accounts that may leave the log out, or statements in it.
func (d *doctor) checkUnlogged(ctx context.Context) error {
	const check = "unlogged writes"
	if !d.grants.has("SELECT") {
		return nil // only the account's own grants would be seen
	}
	privileges := "'SUPER', 'SYSTEM_VARIABLES_ADMIN', 'SESSION_VARIABLES_ADMIN'"
	if d.mariadb {
		privileges = "'SUPER', 'BINLOG ADMIN'"
	}
	r, err := d.conn.Query(ctx, `SELECT DISTINCT GRANTEE FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE IN (`+privileges+`)
		AND GRANTEE NOT LIKE '''mysql.%' AND GRANTEE NOT LIKE '''mariadb.sys%' AND GRANTEE NOT LIKE '''rdsadmin''@%' ORDER BY GRANTEE`)
	if err != nil {
		return err
	}
	var names []string
	for _, row := range r.Rows {
		names = append(names, row[0].String())
	}
	if len(names) > 0 {
		d.add(check, sources.SeverityNote, "", "%d accounts may write without the binlog (SET sql_log_bin = 0) or log statements: %s. What they write that way is in no record, and no log can show it", len(names), listed(names))
	}
	return nil
}
