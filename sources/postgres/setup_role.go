package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"txreel/sources"
)

// roleFacts is what matters of a role that captures.
type roleFacts struct {
	exists, super, login, replication, bypassRLS bool
	readAll, monitor, connect, rdsReplication    bool
	onRDS, rowSecurity                           bool // of the server and the database, not the role
}

// readRole looks at a role, which need not exist.
func readRole(ctx context.Context, conn *pgx.Conn, name string) (roleFacts, error) {
	var r roleFacts
	err := conn.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication'),
		       EXISTS (SELECT FROM pg_class WHERE relrowsecurity AND relkind IN ('r', 'p') AND oid >= 16384),
		       has_database_privilege('public', current_database(), 'CONNECT')`).Scan(&r.onRDS, &r.rowSecurity, &r.connect)
	if err != nil {
		return r, fmt.Errorf("look at roles: %w", err)
	}
	err = conn.QueryRow(ctx, `
		SELECT true, rolsuper, rolcanlogin, rolreplication, rolbypassrls,
		       pg_has_role(oid, 'pg_read_all_data', 'USAGE'), pg_has_role(oid, 'pg_monitor', 'USAGE'),
		       has_database_privilege(oid, current_database(), 'CONNECT'),
		       COALESCE((SELECT pg_has_role(r.oid, x.oid, 'USAGE') FROM pg_roles x WHERE x.rolname = 'rds_replication'), false)
		FROM pg_roles r WHERE rolname = $1::text`, name).Scan(&r.exists, &r.super, &r.login, &r.replication, &r.bypassRLS,
		&r.readAll, &r.monitor, &r.connect, &r.rdsReplication)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return r, fmt.Errorf("look at role %q: %w", name, err)
	}
	return r, nil
}

// planRole gives the runtime role what capture needs and nothing more.
func (s Setup) planRole(ctx context.Context, conn *pgx.Conn) ([]sources.Statement, error) {
	if s.Role == "" {
		return nil, nil
	}
	r, err := readRole(ctx, conn, s.Role)
	if err != nil || r.super {
		return nil, err
	}
	name := quoteIdent(s.Role)
	var plan []sources.Statement
	var attrs []string
	if !r.login {
		attrs = append(attrs, "LOGIN")
	}
	if !r.replication && !r.onRDS {
		attrs = append(attrs, "REPLICATION")
	}
	if !r.bypassRLS && r.rowSecurity {
		attrs = append(attrs, "BYPASSRLS") // else row security would hide rows from a base, and reading fails instead
	}
	switch {
	case !r.exists:
		plan = append(plan, sources.Statement{SQL: "CREATE ROLE " + name + " " + strings.Join(attrs, " "),
			Why: "The role capture logs in as. It has no password yet: set one in psql with \\password " + name +
				", which keeps it out of scripts and logs. Guard it: a role that may replicate reads every table."})
	case len(attrs) > 0:
		plan = append(plan, sources.Statement{SQL: "ALTER ROLE " + name + " " + strings.Join(attrs, " "),
			Why: "The role exists and lacks what capture needs."})
	}
	if r.onRDS && !r.rdsReplication {
		plan = append(plan, sources.Statement{SQL: "GRANT rds_replication TO " + name, Why: "On RDS this stands for the attribute REPLICATION."})
	}
	if !r.readAll {
		plan = append(plan, sources.Statement{SQL: "GRANT pg_read_all_data TO " + name, Why: "A base reads every table and sequence."})
	}
	if !r.monitor {
		plan = append(plan, sources.Statement{SQL: "GRANT pg_monitor TO " + name, Why: "status and doctor look at slots, sessions and settings."})
	}
	if !r.connect {
		var db string
		if err := conn.QueryRow(ctx, `SELECT current_database()::text`).Scan(&db); err != nil {
			return nil, fmt.Errorf("look at the database: %w", err)
		}
		plan = append(plan, sources.Statement{SQL: "GRANT CONNECT ON DATABASE " + quoteIdent(db) + " TO " + name,
			Why: "Not everybody may connect to this database."})
	}
	return plan, nil
}
