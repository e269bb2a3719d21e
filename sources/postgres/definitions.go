package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/archive"
	"txreel/sources"
	"txreel/sources/postgres/ddl"
	"txreel/sources/postgres/pgbase"
)

// readDefinitions says what a base has to know of the log.
func readDefinitions(ctx context.Context, conn *pgx.Conn) (d pgbase.Definitions, err error) {
	l, err := readDefinitionLog(ctx, conn)
	if err != nil || !l.complete() {
		return d, err
	}
	d.Logged = true
	err = conn.QueryRow(ctx, "SELECT pg_catalog.pg_current_snapshot()::text").Scan(&d.Snapshot)
	return d, wrapSQL("look at the base's snapshot", err)
}

// Logged reports whether the source wrote down changes of its schema when a base was taken: then a restore follows them,
// and no base becomes stale by them.
func Logged(b *archive.Base) (bool, error) {
	d, err := definitionsOf(b)
	return d.Logged, err
}

func definitionsOf(b *archive.Base) (pgbase.Definitions, error) {
	e, err := engineOf(b)
	return e.Definitions, err
}

// Lacking says what a base must be taken of although the source writes down changes of its schema: of the tables that
// were rewritten, since a rewrite may fill them with values of which there is no log, or of everything, since something escaped the log of
// definitions. base is the last whole base; mend is the last partial one behind it, or nil. The reason is "" when nothing is lacking.
func Lacking(ctx context.Context, conn *pgx.Conn, base, mend *archive.Base) (sources.BaseRequest, error) {
	var none sources.BaseRequest
	d, err := definitionsOf(base)
	if err != nil || !d.Logged {
		return none, err
	}
	l, err := readDefinitionLog(ctx, conn)
	if err != nil {
		return none, err
	}
	if !l.complete() {
		return sources.BaseRequest{Reason: "the event triggers that write down changes of the schema are gone or disabled, and some may be in no record: run `txreel setup --apply`"}, nil
	}
	var tag string
	err = conn.QueryRow(ctx, `SELECT tag FROM txreel.ddl_log WHERE (event = $2 OR event = $3 AND objects -> 0 ->> 'oid' IS NULL) AND NOT pg_catalog.pg_visible_in_snapshot(xid, $1::text::pg_snapshot) ORDER BY id LIMIT 1`,
		d.Snapshot, string(ddl.Failed), string(ddl.Rewrite)).Scan(&tag)
	if err == nil {
		return sources.BaseRequest{Reason: "what " + tag + " did could not be written down"}, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return none, wrapSQL("look at the log of definitions", err)
	}
	if mend != nil {
		if d, err = definitionsOf(mend); err != nil {
			return none, err
		}
	}
	return rewritten(ctx, conn, d.Snapshot)
}

// rewritten names the tables that were rewritten by transactions that a snapshot does not see. One that is gone by now lacks nothing.
func rewritten(ctx context.Context, conn *pgx.Conn, snapshot string) (r sources.BaseRequest, err error) {
	rows, err := conn.Query(ctx, `
		SELECT DISTINCT c.oid::int8, c.oid::regclass::text FROM txreel.ddl_log l CROSS JOIN LATERAL pg_catalog.jsonb_array_elements(l.objects) o
		JOIN pg_catalog.pg_class c ON c.oid = (o ->> 'oid')::oid
		WHERE l.event = $2 AND NOT pg_catalog.pg_visible_in_snapshot(l.xid, $1::text::pg_snapshot) AND c.relpersistence = 'p' ORDER BY 1`, snapshot, string(ddl.Rewrite))
	if err != nil {
		return r, wrapSQL("look at the log of definitions", err)
	}
	var oid uint32
	var name string
	var names []string
	_, err = pgx.ForEachRow(rows, []any{&oid, &name}, func() error {
		r.Tables, names = append(r.Tables, oid), append(names, name)
		return nil
	})
	if err != nil {
		return r, wrapSQL("look at the log of definitions", err)
	}
	if len(names) > 0 {
		r.Reason = "rewritten: " + listed(names[:min(len(names), 3)], len(names))
	}
	return r, nil
}

// keptFor is how long rows of the log of definitions stay in the source behind the base that needs them no more, for a
// person to look at.
const keptFor = "7 days"

// TrimDefinitions removes rows of the log of definitions that a base stands behind: the archive has them. A role that may not does
// nothing.
func TrimDefinitions(ctx context.Context, conn *pgx.Conn, b *archive.Base) error {
	d, err := definitionsOf(b)
	if err != nil || d.Snapshot == "" {
		return err
	}
	_, err = conn.Exec(ctx, "DELETE FROM txreel.ddl_log WHERE pg_catalog.pg_visible_in_snapshot(xid, $1::text::pg_snapshot) AND at < pg_catalog.now() - $2::interval", d.Snapshot, keptFor)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (refused.Code == "42501" || refused.Code == "42P01") {
		return nil
	}
	return wrapSQL("trim the log of definitions", err)
}

// checkDefinitions says whether changes of the schema are recorded.
func (d *doctor) checkDefinitions(ctx context.Context) error {
	l, err := readDefinitionLog(ctx, d.conn)
	if err != nil {
		return err
	}
	const check = "definitions"
	switch {
	case !l.there():
		d.add(check, sources.SeverityNote, "txreel setup --apply", "changes of the schema are not recorded: a restore is exact up to the next one, and from the base behind it on. The log of definitions takes event triggers, which a superuser can make")
		return nil
	case l.version != ddl.Version():
		d.add(check, sources.SeverityNote, "txreel setup --apply", "the log of definitions is of another version of txreel")
	case !l.complete():
		d.add(check, sources.SeverityWarning, "txreel setup --apply", "an event trigger of the log of definitions is gone or not ENABLE ALWAYS: changes of the schema may be in no record")
		return nil
	}
	var failures int64
	if err := d.conn.QueryRow(ctx, "SELECT count(*) FROM txreel.ddl_log WHERE event = $1", string(ddl.Failed)).Scan(&failures); err != nil {
		return err
	}
	if failures > 0 {
		d.add(check, sources.SeverityWarning, "SELECT id, at, tag, context, query FROM txreel.ddl_log WHERE event = 'failed'", "%d changes of the schema could not be written down; points between them and the next base are not exact", failures)
	}
	return nil
}
