package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/sources"
)

func (d *doctor) checkRole(context.Context) error {
	name := quoteIdent(d.user)
	switch {
	case d.role.super:
		d.add("role", sources.SeverityNote, "txreel setup --role NAME prints a role with less", "role %s is a superuser; capture needs REPLICATION, pg_read_all_data and pg_monitor only", name)
		return nil
	case d.role.replication || d.role.rdsReplication:
		d.add("role", sources.SeverityOK, "", "role %s may replicate", name)
	case d.role.onRDS:
		d.add("role", sources.SeverityProblem, "GRANT rds_replication TO "+name+";", "role %s may not replicate", name)
	default:
		d.add("role", sources.SeverityProblem, "ALTER ROLE "+name+" REPLICATION;", "role %s may not replicate", name)
	}
	if !d.role.monitor {
		d.add("role", sources.SeverityWarning, "GRANT pg_monitor TO "+name+";", "role %s is not in pg_monitor: it cannot see who holds back a slot", name)
	}
	return nil
}

// checkReadAccess looks for what a base could not read: tables of all schemas, since pg_dump locks each, and sequences.
func (d *doctor) checkReadAccess(ctx context.Context) error {
	name := quoteIdent(d.user)
	total, first, err := d.relations(ctx, `c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
		AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))`)
	if err != nil {
		return err
	}
	if total > 0 {
		d.add("read access", sources.SeverityProblem, "GRANT pg_read_all_data TO "+name+";", "role %s cannot read %s, which a base needs", name, listed(first, total))
	}
	hidden, first, err := d.relations(ctx, `c.relkind IN ('r', 'p') AND c.relrowsecurity AND row_security_active(c.oid)`)
	if err != nil {
		return err
	}
	if hidden > 0 {
		d.add("row security", sources.SeverityProblem, "ALTER ROLE "+name+" BYPASSRLS;", "row security hides rows of %s from role %s: a base would be refused", listed(first, hidden), name)
	}
	if total+hidden == 0 {
		d.add("read access", sources.SeverityOK, "", "role %s can read every table and sequence", name)
	}
	return nil
}

// relations counts the user's relations c in namespaces n that meet a condition, and names the first.
func (d *doctor) relations(ctx context.Context, condition string) (total int, first []string, err error) {
	err = d.conn.QueryRow(ctx, `
		SELECT count(*), COALESCE((array_agg(format('%I.%I', n.nspname, c.relname) ORDER BY n.nspname, c.relname))[1:10], '{}')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= 16384 AND n.nspname NOT LIKE 'pg\_%' AND `+condition).
		Scan(&total, &first)
	return total, first, err
}

// checkReplicationConnection does what capture does first, through whatever stands between.
func (d *doctor) checkReplicationConnection(ctx context.Context) error {
	const check = "replication connection"
	cfg, err := connConfig(d.source, "txreel doctor", true)
	if err != nil {
		return err
	}
	conn, err := dial(ctx, cfg)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		d.add(check, sources.SeverityProblem, d.connectFix(ctx, err), "%v", err)
		return nil
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it only read
	answer, err := conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil || len(answer) != 1 || len(answer[0].Rows) != 1 || len(answer[0].Rows[0]) < 4 {
		d.add(check, sources.SeverityProblem, "point the source at the server itself", "IDENTIFY_SYSTEM is not answered as a PostgreSQL server does (%v): a pooler or proxy in between cannot carry replication", err)
		return nil
	}
	id, db := string(answer[0].Rows[0][0]), string(answer[0].Rows[0][3])
	var here string
	if err := d.conn.QueryRow(ctx, `SELECT system_identifier::text FROM pg_control_system()`).Scan(&here); err == nil && here != id || db != d.db {
		d.add(check, sources.SeverityProblem, "point the source at one server", "the replication connection reaches database %q of system %s, an ordinary one database %q of system %s: "+
			"something in between spreads connections over servers", db, id, d.db, here)
		return nil
	}
	d.add(check, sources.SeverityOK, "", "the server accepts replication connections of role %s to database %s", quoteIdent(d.user), quoteIdent(d.db))
	return d.checkPins(ctx, conn)
}

// checkPins makes sure that the settings we ask for arrive: a pooler may drop them, and values would change their text.
func (d *doctor) checkPins(ctx context.Context, replication *pgconn.PgConn) error {
	const check = "output settings"
	want := pinnedSettings()
	delete(want, "idle_in_transaction_session_timeout") // not ours in the doctor's own session
	want["client_encoding"] = d.conn.PgConn().ParameterStatus("server_encoding")
	for _, conn := range []*pgconn.PgConn{d.conn.PgConn(), replication} {
		answer, err := conn.Exec(ctx, "SELECT pg_catalog.lower(name), setting FROM pg_catalog.pg_settings").ReadAll()
		if err != nil {
			return err
		}
		if wrong := wrongPins(want, answer); len(wrong) > 0 {
			d.add(check, sources.SeverityProblem, "point the source at the server itself, past poolers and proxies", "settings do not arrive as sent: %s", strings.Join(wrong, ", "))
			return nil
		}
	}
	d.add(check, sources.SeverityOK, "", "the settings that fix the text of values are in force")
	return nil
}

func wrongPins(want map[string]string, answer []*pgconn.Result) []string {
	got := map[string]string{}
	for _, r := range answer {
		for _, row := range r.Rows {
			got[string(row[0])] = string(row[1])
		}
	}
	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			wrong = append(wrong, fmt.Sprintf("%s is %q, not %q", name, got[name], want[name]))
		}
	}
	return wrong
}

// connectFix is the line of pg_hba.conf that is missing, if that is the trouble, with the address the server sees.
func (d *doctor) connectFix(ctx context.Context, err error) string {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return ""
	}
	switch pgErr.Code {
	case "42501":
		return "ALTER ROLE " + quoteIdent(d.user) + " REPLICATION;"
	case "28000":
		var from string
		var tls bool
		err := d.conn.QueryRow(ctx, `
			SELECT COALESCE(host(inet_client_addr()) || CASE family(inet_client_addr()) WHEN 4 THEN '/32' ELSE '/128' END, ''),
			       COALESCE((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)`).Scan(&from, &tls)
		switch {
		case err != nil && !errors.Is(err, pgx.ErrNoRows):
			return ""
		case from == "":
			return fmt.Sprintf("add to pg_hba.conf: local %s %s scram-sha-256; then SELECT pg_reload_conf();", quoteIdent(d.db), quoteIdent(d.user))
		case tls:
			return fmt.Sprintf("add to pg_hba.conf: hostssl %s %s %s scram-sha-256; then SELECT pg_reload_conf();", quoteIdent(d.db), quoteIdent(d.user), from)
		}
		return fmt.Sprintf("add to pg_hba.conf: host %s %s %s scram-sha-256; then SELECT pg_reload_conf();", quoteIdent(d.db), quoteIdent(d.user), from)
	}
	return ""
}
