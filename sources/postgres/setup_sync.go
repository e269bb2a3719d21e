package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"txreel/sources"
)

// syncFacts is what zero-loss mode takes of a server and of the role that captures.
type syncFacts struct {
	host                                managed
	names                               string // synchronous_standby_names
	version                             int
	super, set, reload, stats, language bool // of the role; all false if it does not exist
	plpgsql                             bool
	others                              int // standbys that are called as a capture would be
}

// readSync looks at a role, which need not exist, and at what is connected as a slot's standby without being it.
func readSync(ctx context.Context, conn *pgx.Conn, role, slot string) (syncFacts, error) {
	var f syncFacts
	err := conn.QueryRow(ctx, `
		SELECT current_setting('synchronous_standby_names'), current_setting('server_version_num')::int,
		       EXISTS (SELECT FROM pg_catalog.pg_language WHERE lanname = 'plpgsql'),
		       COALESCE((SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin') LIMIT 1), ''),
		       (SELECT count(*) FROM pg_catalog.pg_stat_replication r WHERE application_name = $1
		           AND pid IS DISTINCT FROM (SELECT active_pid FROM pg_catalog.pg_replication_slots WHERE slot_name = $1))`, slot).
		Scan(&f.names, &f.version, &f.plpgsql, &f.host, &f.others)
	if err != nil {
		return f, wrapSQL("look at the server's synchronous replication", err)
	}
	set := "false"
	if f.version >= 150000 {
		set = "pg_catalog.has_parameter_privilege(rolname, 'synchronous_standby_names', 'ALTER SYSTEM')"
	}
	err = conn.QueryRow(ctx, `
		SELECT rolsuper, rolsuper OR `+set+`, pg_catalog.has_function_privilege(rolname, 'pg_catalog.pg_reload_conf()', 'EXECUTE'),
		       pg_catalog.pg_has_role(rolname, 'pg_read_all_stats', 'USAGE'),
		       COALESCE((SELECT pg_catalog.has_language_privilege(rolname, l.oid, 'USAGE') FROM pg_catalog.pg_language l WHERE lanname = 'plpgsql'), false)
		FROM pg_catalog.pg_roles WHERE rolname = $1`, role).Scan(&f.super, &f.set, &f.reload, &f.stats, &f.language)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return f, wrapSQL("look at the role's privileges", err)
	}
	return f, nil
}

// refused says why no privilege would help, or "".
func (f *syncFacts) refused(slot string) string {
	switch {
	case f.host != "" && !f.set:
		return "this managed service keeps the setting synchronous_standby_names to itself: capture without --sync"
	case f.names != "" && f.names != quoteIdent(slot):
		return fmt.Sprintf("synchronous_standby_names is %q there: zero-loss mode turns this setting on and off itself and shares it with nobody; empty it, or capture without --sync", f.names)
	}
	return ""
}

// lack is a privilege that is missing, and the statement that gives it; none where there is no such statement.
type lack struct{ what, fix string }

// lacks returns what the role is missing, quoted.
func (f *syncFacts) lacks(role string) []lack {
	var list []lack
	name := quoteIdent(role)
	switch {
	case !f.set && f.version < 150000:
		list = append(list, lack{fmt.Sprintf("role %s is no superuser, which PostgreSQL before 15 demands of whoever sets synchronous_standby_names: capture without --sync", name), ""})
	case !f.set:
		list = append(list, lack{fmt.Sprintf("role %s may not set synchronous_standby_names", name), "GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO " + name})
	}
	if !f.reload {
		list = append(list, lack{fmt.Sprintf("role %s may not make settings count", name), "GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO " + name})
	}
	if !f.stats {
		list = append(list, lack{fmt.Sprintf("role %s cannot see who waits", name), "GRANT pg_read_all_stats TO " + name})
	}
	const guard = "cannot leave a guard in the server, which lets COMMITs go when the capture cannot"
	switch {
	case !f.plpgsql:
		list = append(list, lack{"a capture " + guard, "CREATE EXTENSION plpgsql"})
	case !f.language:
		list = append(list, lack{fmt.Sprintf("role %s %s", name, guard), "GRANT USAGE ON LANGUAGE plpgsql TO " + name})
	}
	return list
}

// planSync gives the role what zero-loss mode takes beyond what every capture does.
func (s Setup) planSync(ctx context.Context, conn *pgx.Conn) ([]sources.Statement, error) {
	if !s.Sync {
		return nil, nil
	}
	if s.Role == "" {
		return nil, errors.New("zero-loss mode takes privileges: say with --role which role captures (a superuser has them)")
	}
	f, err := readSync(ctx, conn, s.Role, s.Slot)
	if err != nil || f.super {
		return nil, err
	}
	if why := f.refused(s.Slot); why != "" {
		return nil, errors.New(why)
	}
	var plan []sources.Statement
	for _, l := range f.lacks(s.Role) {
		switch {
		case l.fix == "":
			return nil, errors.New(l.what)
		case !f.stats && l.fix == "GRANT pg_read_all_stats TO "+quoteIdent(s.Role):
			continue // with pg_monitor, which planRole gives
		}
		plan = append(plan, sources.Statement{SQL: l.fix, Why: "For zero-loss mode: without it, " + l.what + "."})
	}
	return plan, nil
}

// planUnsync lets no COMMIT wait any more, and takes back what planSync gave.
func (s Setup) planUnsync(ctx context.Context, conn *pgx.Conn) ([]sources.Statement, error) {
	var set, ours, alter, reload bool
	err := conn.QueryRow(ctx, `
		SELECT setting = $1, setting IN ('', $1) AND source = 'configuration file' AND COALESCE(sourcefile LIKE '%postgresql.auto.conf', false)
		FROM pg_catalog.pg_settings WHERE name = 'synchronous_standby_names'`, quoteIdent(s.Slot)).Scan(&set, &ours)
	if err != nil {
		return nil, wrapSQL("look at the server's synchronous replication", err)
	}
	var plan []sources.Statement
	if set || ours {
		plan = append(plan, sources.Statement{SQL: "ALTER SYSTEM RESET synchronous_standby_names", Why: "No COMMIT waits for a capture any more."},
			sources.Statement{SQL: "SELECT pg_catalog.pg_reload_conf()", Why: "So that the setting counts."})
	}
	if s.Role == "" {
		return plan, nil
	}
	granted := func(from, where string) string {
		return `EXISTS (SELECT FROM ` + from + ` a JOIN pg_catalog.pg_roles r ON r.oid = a.grantee WHERE r.rolname = $1 AND ` + where + `)`
	}
	parameter := "false"
	if majorVersion(conn.PgConn()) >= 15 {
		parameter = granted(`pg_catalog.pg_parameter_acl p, pg_catalog.aclexplode(p.paracl)`, `p.parname = 'synchronous_standby_names' AND a.privilege_type = 'ALTER SYSTEM'`)
	}
	function := granted(`pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl)`, `p.oid = 'pg_catalog.pg_reload_conf()'::pg_catalog.regprocedure AND a.grantee <> p.proowner`)
	err = conn.QueryRow(ctx, `SELECT `+parameter+`, `+function, s.Role).Scan(&alter, &reload)
	if err != nil {
		return nil, wrapSQL("look at the role's privileges", err)
	}
	name := quoteIdent(s.Role)
	if alter {
		plan = append(plan, sources.Statement{SQL: "REVOKE ALTER SYSTEM ON PARAMETER synchronous_standby_names FROM " + name, Why: "Only zero-loss mode took it."})
	}
	if reload {
		plan = append(plan, sources.Statement{SQL: "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() FROM " + name, Why: "Only zero-loss mode took it."})
	}
	return plan, nil
}
