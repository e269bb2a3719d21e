package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/archive"
	"txreel/restore"
	"txreel/sources/postgres/pgbase"
)

// table is a table of the base.
type table struct {
	*archive.BaseTable
	pgbase.Table
}

func (t *table) quoted() string { return quote(t.Schema, t.Name) }
func (t *table) name() string   { return t.Schema + "." + t.Name }

// Check implements restore.Target.
func (t *Target) Check(ctx context.Context, j *restore.Job) (resumed bool, err error) {
	defer t.lost(&err)
	t.job = j
	if err := t.readManifest(); err != nil {
		return false, err
	}
	if err := t.checkServer(ctx); err != nil {
		return false, err
	}
	if err := t.lock(ctx); err != nil {
		return false, err
	}
	if t.resumed, err = t.checkProgress(ctx); err != nil {
		return false, err
	}
	if !t.resumed && !j.Force {
		if err := t.checkEmpty(ctx); err != nil {
			return false, err
		}
	}
	if err := t.readSchema(ctx); err != nil {
		return false, err
	}
	if err := t.checkGlobals(ctx); err != nil {
		return false, err
	}
	return t.resumed, t.checkRoles(ctx)
}

func (t *Target) readManifest() (err error) {
	if t.job.Plan.Engine != "postgres" {
		return fmt.Errorf("the archive records a %s database, the target is PostgreSQL", t.job.Plan.Engine)
	}
	t.engine, t.tables, err = readManifest(t.job.Plan.Base)
	return err
}

// readManifest returns what the manifest of a base says of PostgreSQL, and its tables without our own.
func readManifest(b *archive.Base) (engine pgbase.Engine, tables []table, err error) {
	damaged := func(what string, err error) error {
		return fmt.Errorf("%w: manifest of base %s: %s: %w", archive.ErrCorrupt, b.ID, what, err)
	}
	if err := json.Unmarshal(b.Engine, &engine); err != nil {
		return engine, nil, damaged("engine", err)
	}
	for i := range b.Tables {
		t := table{BaseTable: &b.Tables[i]}
		if t.Schema == ourSchema {
			continue
		}
		if err := json.Unmarshal(t.Engine, &t.Table); err != nil {
			return engine, nil, damaged(t.name(), err)
		}
		tables = append(tables, t)
	}
	return engine, tables, nil
}

// checkServer refuses a server that cannot hold the base, and the source itself.
func (t *Target) checkServer(ctx context.Context) error {
	var version int
	var encoding, collate, ctype, database string
	var standby, create bool
	err := t.control.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text,
		       datname::text, pg_is_in_recovery(), has_database_privilege(oid, 'CREATE')
		FROM pg_catalog.pg_database WHERE datname = current_database()`).
		Scan(&version, &encoding, &collate, &ctype, &database, &standby, &create)
	if err != nil {
		return fmt.Errorf("look at target: %w", err)
	}
	system, err := t.system(ctx)
	if err != nil {
		return err
	}
	p := t.job.Plan
	switch {
	case standby:
		return errors.New("the target is a standby, which takes no writes: name a primary server")
	case system == p.System && database == p.Database:
		return fmt.Errorf("%w: it is the recorded database itself: restore into a fresh database, and move over when it is good", restore.ErrNotEmpty)
	case version/10000 < t.engine.ServerVersion/10000:
		return fmt.Errorf("the target runs PostgreSQL %d, the base comes from PostgreSQL %d: restore into the same or a newer major version",
			version/10000, t.engine.ServerVersion/10000)
	case encoding != t.engine.Encoding:
		return fmt.Errorf("the target's database has encoding %s, the base %s: CREATE DATABASE … TEMPLATE template0 ENCODING '%s'",
			encoding, t.engine.Encoding, t.engine.Encoding)
	case !create:
		return fmt.Errorf("role %q may not create schemas in database %q: GRANT CREATE ON DATABASE, or connect as the owner", t.cfg.User, database)
	}
	if collate != t.engine.Collate || ctype != t.engine.Ctype {
		t.warn("the target's database sorts by collate %q, ctype %q; the source's by %q, %q", collate, ctype, t.engine.Collate, t.engine.Ctype)
	}
	return nil
}

// system returns the target's system identifier.
func (t *Target) system(ctx context.Context) (string, error) {
	var id string
	err := t.control.QueryRow(ctx, "SELECT system_identifier::text FROM pg_catalog.pg_control_system()").Scan(&id)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "42501" {
		if t.job.Force {
			return "", errors.New("nothing proves that the target is not the recorded database itself: GRANT EXECUTE ON FUNCTION pg_control_system TO the role, or restore without --force")
		}
		return "", nil // a target that must be empty is not the source
	}
	if err != nil {
		return "", fmt.Errorf("read the target's system identifier: %w", err)
	}
	return id, nil
}

// lockKey is what every restore into a database locks.
const lockKey = 0x74787265656c // "txreel"

// lock makes this the only restore into the database, and ends what sessions a
// killed one has left: they could still commit.
func (t *Target) lock(ctx context.Context) error {
	deadline := time.Now().Add(15 * time.Second)
	for {
		var got bool
		if err := t.control.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", int64(lockKey)).Scan(&got); err != nil {
			return fmt.Errorf("lock target: %w", err)
		}
		if got {
			break
		}
		if time.Now().After(deadline) {
			return errors.New("another restore into this database is at work: let it end, or stop it")
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	for {
		var left int
		err := t.control.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity
			WHERE application_name = $1 AND datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()`, workerApp).Scan(&left)
		if err != nil {
			return fmt.Errorf("end sessions of an interrupted restore: %w", err)
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline.Add(30 * time.Second)) {
			return fmt.Errorf("%d sessions of an interrupted restore do not end: terminate those that pg_stat_activity shows as %q", left, workerApp)
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(100 * time.Millisecond):
		return nil
	}
}

// checkEmpty refuses a database in which a user has made anything.
func (t *Target) checkEmpty(ctx context.Context) error {
	rows, err := t.control.Query(ctx, `
		WITH system AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname LIKE 'pg\_%' OR nspname = 'information_schema'),
		member AS (SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e')
		SELECT * FROM (
			SELECT CASE relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' WHEN 'S' THEN 'sequence '
			       WHEN 'f' THEN 'foreign table ' WHEN 'c' THEN 'type ' ELSE 'table ' END || oid::regclass::text
			FROM pg_catalog.pg_class WHERE relkind IN ('r','p','v','m','S','f','c') AND relnamespace NOT IN (SELECT * FROM system)
			  AND ('pg_class'::regclass::oid, oid) NOT IN (SELECT * FROM member)
			UNION ALL
			SELECT 'function ' || oid::regprocedure::text FROM pg_catalog.pg_proc WHERE pronamespace NOT IN (SELECT * FROM system)
			  AND ('pg_proc'::regclass::oid, oid) NOT IN (SELECT * FROM member)
			UNION ALL
			SELECT 'type ' || oid::regtype::text FROM pg_catalog.pg_type WHERE typtype IN ('e','d','r') AND typnamespace NOT IN (SELECT * FROM system)
			  AND ('pg_type'::regclass::oid, oid) NOT IN (SELECT * FROM member)
			UNION ALL
			SELECT 'schema ' || quote_ident(nspname) FROM pg_catalog.pg_namespace WHERE oid NOT IN (SELECT * FROM system) AND nspname <> 'public'
			  AND ('pg_namespace'::regclass::oid, oid) NOT IN (SELECT * FROM member)
		) found(name) LIMIT 5`)
	if err != nil {
		return fmt.Errorf("look for objects in the target: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for objects in the target: %w", err)
	}
	if len(found) > 0 {
		return fmt.Errorf("%w: it has %s%s: restore into a fresh database (CREATE DATABASE … TEMPLATE template0), or add --force",
			restore.ErrNotEmpty, strings.Join(found[:min(len(found), 4)], ", "), more(len(found) > 4))
	}
	return nil
}

func more(yes bool) string {
	if yes {
		return " and more"
	}
	return ""
}

// checkRoles finds out which roles the schema names and the target lacks.
func (t *Target) checkRoles(ctx context.Context) error {
	t.roles = nil
	if t.opts.NoOwner || t.resumed {
		return nil
	}
	rows, err := t.control.Query(ctx, "SELECT rolname::text FROM pg_catalog.pg_roles")
	if err != nil {
		return fmt.Errorf("read the target's roles: %w", err)
	}
	have, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read the target's roles: %w", err)
	}
	for _, r := range t.engine.Roles {
		if !slices.Contains(have, r) && (t.globals == nil || !t.globals.created[r]) {
			t.roles = append(t.roles, r)
		}
	}
	if len(t.roles) == 0 {
		return nil
	}
	var may bool
	if err := t.control.QueryRow(ctx, "SELECT rolsuper OR rolcreaterole FROM pg_catalog.pg_roles WHERE rolname = current_user").Scan(&may); err != nil {
		return fmt.Errorf("read the target's roles: %w", err)
	}
	if !may {
		return fmt.Errorf("the schema names roles that the target lacks and %q may not create: %s: create them, connect as a role that may and restore them too (--globals), or restore without owners and grants (--no-owner)",
			t.cfg.User, strings.Join(t.roles, ", "))
	}
	return nil
}
