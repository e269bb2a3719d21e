package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/archive"
	"txreel/sources"
	"txreel/sources/postgres/ddl"
	"txreel/sources/postgres/pgbase"
)

// logRow returns the number of the last row of the log of definitions; 0 for none.
func logRow(ctx context.Context, conn *pgx.Conn) (row int64, err error) {
	err = conn.QueryRow(ctx, "SELECT COALESCE(max(id), 0) FROM txreel.ddl_log").Scan(&row)
	return row, wrapSQL("look at the log of definitions", err)
}

// readDefinitions says what a base has to know of the log.
func readDefinitions(ctx context.Context, conn *pgx.Conn) (d pgbase.Definitions, err error) {
	l, err := readDefinitionLog(ctx, conn)
	if err != nil || !l.complete() {
		return d, err
	}
	d.Logged = true
	d.Row, err = logRow(ctx, conn)
	return d, err
}

// Inexact says why points behind a base need another one although no table's definition differs: a table was rewritten
// with values that no log has, or something escaped the log of definitions. It returns "" when there is no reason.
func Inexact(ctx context.Context, conn *pgx.Conn, b *archive.Base) (reason string, err error) {
	if len(b.Engine) == 0 { // it says nothing of its source
		return "", nil
	}
	var e pgbase.Engine
	if err := json.Unmarshal(b.Engine, &e); err != nil {
		return "", fmt.Errorf("%w: manifest of base %s: engine: %w", archive.ErrCorrupt, b.ID, err)
	}
	if !e.Definitions.Logged {
		return "", nil
	}
	l, err := readDefinitionLog(ctx, conn)
	if err != nil {
		return "", err
	}
	if !l.complete() {
		return "the event triggers that write down changes of the schema are gone or disabled, and some may be in no record: run `txreel setup --apply`", nil
	}
	var tag string
	var rewritten *string
	err = conn.QueryRow(ctx, `SELECT tag, objects -> 0 ->> 'identity' FROM txreel.ddl_log
		WHERE id > $1 AND event IN ($2, $3) ORDER BY id LIMIT 1`, e.Definitions.Row, string(ddl.Rewrite), string(ddl.Failed)).Scan(&tag, &rewritten)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", nil
	case err != nil:
		return "", wrapSQL("look at the log of definitions", err)
	case rewritten != nil:
		return "table " + *rewritten + " was rewritten", nil
	}
	return "what " + tag + " did could not be written down", nil
}

// keptFor is how long rows of the log of definitions stay in the source behind the base that needs them no more, for a
// person to look at.
const keptFor = "7 days"

// TrimDefinitions removes rows of the log of definitions that a base stands behind: the archive has them. A role that may not does
// nothing.
func TrimDefinitions(ctx context.Context, conn *pgx.Conn, b *archive.Base) error {
	var e pgbase.Engine
	if err := json.Unmarshal(b.Engine, &e); err != nil || e.Definitions.Row == 0 {
		return nil // Inexact has said so
	}
	_, err := conn.Exec(ctx, "DELETE FROM txreel.ddl_log WHERE id <= $1 AND at < pg_catalog.now() - $2::interval", e.Definitions.Row, keptFor)
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
