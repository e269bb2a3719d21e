package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/archive"
	"txreel/change"
	"txreel/sources/postgres/lsn"
	"txreel/sources/postgres/pgbase"
)

// GlobalsLook is what one look at roles and settings has found.
type GlobalsLook struct {
	Hash  string
	State *pgbase.Globals // nil when Hash is the one known before
	// The state is that of a moment at which the source's log was not before After, and not beyond Position.
	After, Position change.Position
}

// LookAtGlobals reads roles, settings and the like in one short transaction that waits for nobody. No log tells their changes, so
// who wants to know them has to look again and again: when the hash is still the one known, nothing but that comes over the wire.
func LookAtGlobals(ctx context.Context, conn *pgx.Conn, known string) (*GlobalsLook, error) {
	sql, err := globalsSQL(ctx, conn, known)
	if err != nil {
		return nil, err
	}
	const where = "select pg_catalog.pg_current_wal_insert_lsn()::text; "
	results, err := conn.PgConn().Exec(ctx, `begin isolation level read committed read only; set local client_encoding = 'UTF8'; set local lock_timeout = '500ms'; set local statement_timeout = '10s'; `+
		where+sql+"; "+where+"commit").ReadAll()
	if err != nil {
		_, _ = conn.PgConn().Exec(ctx, "rollback").ReadAll() // the error is the one before
		return nil, wrapSQL("read roles and settings", err)
	}
	if len(results) != 8 {
		return nil, fmt.Errorf("read roles and settings: %d answers to 8 statements", len(results))
	}
	look := &GlobalsLook{}
	for i, p := range map[int]*change.Position{4: &look.After, 6: &look.Position} {
		at, err := lsn.Parse(string(results[i].Rows[0][0]))
		if err != nil {
			return nil, err
		}
		*p = at.Position()
	}
	look.Hash, look.State, err = readGlobals(results[5])
	return look, err
}

func globalsSQL(ctx context.Context, conn *pgx.Conn, known string) (string, error) {
	var passwords bool
	if err := conn.QueryRow(ctx, pgbase.GlobalsRights).Scan(&passwords); err != nil {
		return "", wrapSQL("read roles and settings", err)
	}
	return pgbase.GlobalsSQL(majorVersion(conn.PgConn())*10000, passwords, known)
}

func readGlobals(r *pgconn.Result) (hash string, g *pgbase.Globals, err error) {
	if len(r.Rows) != 1 || len(r.Rows[0]) != 2 {
		return "", nil, errors.New("read roles and settings: the server has no row for the database")
	}
	row := r.Rows[0]
	if row[1] != nil {
		g, err = pgbase.ParseGlobals(row[1])
	}
	return string(row[0]), g, err
}

// snapshotGlobals reads roles and settings under a base's snapshot. What the role is refused is no reason to have no base: why then
// says so.
func snapshotGlobals(ctx context.Context, conn *pgx.Conn) (g *pgbase.Globals, why string, err error) {
	sql, err := globalsSQL(ctx, conn, "")
	if err != nil {
		return nil, "", err
	}
	if _, err := conn.Exec(ctx, "savepoint globals"); err != nil {
		return nil, "", wrapSQL("read roles and settings", err)
	}
	encoding := conn.PgConn().ParameterStatus("client_encoding")
	results, err := conn.PgConn().Exec(ctx, "set local client_encoding = 'UTF8'; "+sql+"; set local client_encoding = "+quoteLiteral(encoding)).ReadAll()
	if err == nil {
		_, g, err = readGlobals(results[1])
	}
	if err != nil {
		why = err.Error()
		if _, err := conn.Exec(ctx, "rollback to savepoint globals"); err != nil {
			return nil, "", wrapSQL("read roles and settings", err)
		}
	}
	return g, why, nil
}

// globalsCovered is what coverage calls them.
const globalsCovered = "roles, memberships, settings and tablespaces"

// globalsCoverage is what a base says of roles and settings that it could read.
func globalsCoverage(ctx context.Context, conn *pgx.Conn) (archive.Coverage, error) {
	var roles int64
	var passwords, settings bool
	err := conn.QueryRow(ctx, "select (select count(*) from pg_catalog.pg_roles r where r.rolname !~ '^pg_'), pg_catalog.pg_has_role(current_user, 'pg_read_all_settings', 'usage'), ("+pgbase.GlobalsRights+")").Scan(&roles, &settings, &passwords)
	if err != nil {
		return archive.Coverage{}, wrapSQL("count roles", err)
	}
	c := archive.Coverage{Class: archive.Bounded, What: globalsCovered,
		Detail: fmt.Sprintf("%d roles; as they stand at each base and whenever capture looks (--globals-every); never passwords; `txreel restore --globals` makes them, but no tablespace", roles)}
	if !passwords {
		c.Detail += "; which roles have a password is not seen"
	}
	if !settings {
		c.Detail += "; settings of the server that only members of pg_read_all_settings see are not there"
	}
	return c, nil
}

// describeGlobals puts roles and settings into what a base says of itself.
func (b *baseRun) describeGlobals(ctx context.Context, e *pgbase.Engine) error {
	g, why, err := snapshotGlobals(ctx, b.leader)
	if e.Globals = g; g != nil || err != nil {
		return err
	}
	for i := range b.base.Coverage {
		if c := &b.base.Coverage[i]; c.What == globalsCovered {
			c.Class, c.Detail = archive.Missing, "names of owners and grantees only: "+why
		}
	}
	return nil
}
