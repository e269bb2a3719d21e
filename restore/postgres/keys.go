package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"txreel/change"
	"txreel/restore"
)

// Prepare implements restore.Target: it makes the indexes that finding rows takes,
// and no others.
func (t *Target) Prepare(ctx context.Context) (_ change.Seq, err error) {
	defer t.lost(&err)
	seq, rows, err := t.state(ctx)
	if err != nil {
		return 0, err
	}
	t.applied = seq
	if seq == t.job.Plan.Seq && len(t.job.Plan.Mends) == 0 { // nothing to replay, or all of it done
		return seq, nil
	}
	if slices.ContainsFunc(t.job.Plan.Definitions, func(d change.Seq) bool { return d <= seq }) { // the schema is whole, and the base's tables may be others by now
		t.replay, err = newReplay(ctx, t, rows)
		return seq, err
	}
	var touched []*table
	for i := range t.tables {
		if c := t.job.Plan.Changes[t.tables[i].name()]; c != nil && c.Updates+c.Deletes > 0 {
			touched = append(touched, &t.tables[i])
		}
	}
	done, err := t.doneEntries(ctx)
	if err != nil {
		return 0, err
	}
	keys := make(map[uint32]bool)
	var identities []string
	for _, tab := range touched {
		if tab.KeyConstraint != 0 {
			keys[tab.KeyConstraint] = true
		} else if tab.KeyIndex != 0 {
			keys[tab.KeyIndex] = true
		}
		if tab.Identity == "i" { // which need not be the primary key
			identities = append(identities, "\nALTER TABLE ONLY "+tab.quoted()+" REPLICA IDENTITY USING INDEX ",
				"\nALTER TABLE ONLY "+plainName(tab)+" REPLICA IDENTITY USING INDEX ")
		}
	}
	err = t.build(ctx, restore.PhaseKeys, done, func(e *entry) bool {
		return (e.class == catalogConstraint || e.class == catalogClass) && keys[e.oid] ||
			slices.ContainsFunc(identities, func(s string) bool { return strings.Contains(e.sql, s) })
	})
	if err != nil {
		return 0, err
	}
	var keyless []*table
	for _, tab := range touched {
		if len(tab.Key) == 0 {
			keyless = append(keyless, tab)
		}
	}
	err = t.parallel(ctx, len(keyless), func(ctx context.Context, conn *pgx.Conn, i int) error {
		return inTx(ctx, conn, func() error { return makeHelper(ctx, conn, keyless[i]) })
	})
	if err != nil {
		return 0, err
	}
	t.replay, err = newReplay(ctx, t, rows)
	return seq, err
}

// plainName is a table's name as pg_dump writes one that needs no quotes.
func plainName(t *table) string { return t.Schema + "." + t.Name }

// helper is a temporary index over a hash of the first columns of a table without
// a key: any value fits it, of any type, and together they tell most rows apart.
type helper struct {
	function string   // quoted
	columns  []string // unquoted
	types    []string
}

// hashed is how many characters of a value go into the hash.
const hashed = 200

// findHelper says what the helper of a table is, whether or not it has been made.
// Columns of types that tend to hold documents are taken only where there are no others.
func findHelper(ctx context.Context, conn *pgx.Conn, quoted string) (*helper, error) {
	const most = 16
	rows, err := conn.Query(ctx, `
		SELECT 'txreel_restore.h' || attrelid::text, attname::text, pg_catalog.format_type(atttypid, NULL), document
		FROM pg_catalog.pg_attribute a, LATERAL (SELECT atttypid IN ('json'::regtype, 'jsonb'::regtype, 'xml'::regtype, 'bytea'::regtype, 'tsvector'::regtype)
			OR t.typcategory IN ('A', 'C') AS document FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid) d
		WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
		ORDER BY document, attnum LIMIT $2`, quoted, most)
	if err != nil {
		return nil, fmt.Errorf("look at the columns of %s: %w", quoted, err)
	}
	var h helper
	var column, typ string
	var document bool
	_, err = pgx.ForEachRow(rows, []any{&h.function, &column, &typ, &document}, func() error {
		if !document || len(h.columns) == 0 {
			h.columns, h.types = append(h.columns, column), append(h.types, typ)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the columns of %s: %w", quoted, err)
	}
	return &h, nil
}

// hashSQL is the hash of texts; both the index and those who use it go by it. An
// empty text stands for NULL.
func hashSQL(texts []string) string {
	for i, t := range texts {
		texts[i] = fmt.Sprintf("pg_catalog.left(%s, %d)", t, hashed)
	}
	return `pg_catalog.hashtextextended(pg_catalog.concat_ws(E'\x01', ` + strings.Join(texts, ", ") + `) COLLATE pg_catalog."C", 0)`
}

// call is the expression that is indexed.
func (h *helper) call() string {
	var names []string
	for _, c := range h.columns {
		names = append(names, quote(c))
	}
	return h.function + "(" + strings.Join(names, ", ") + ")"
}

// makeHelper gives a table without a key its helper, within a transaction. The function may call itself
// immutable: it is only used by sessions with the same settings.
func makeHelper(ctx context.Context, conn *pgx.Conn, tab *table) error {
	h, err := findHelper(ctx, conn, tab.quoted())
	if err != nil || len(h.columns) == 0 {
		return err
	}
	var texts []string
	for i := range h.columns {
		texts = append(texts, fmt.Sprintf("pg_catalog.concat($%d)", i+1))
	}
	name := fmt.Sprintf("txreel_restore_%d", tab.OID)
	tag, err := conn.Exec(ctx, "INSERT INTO txreel_restore.helpers VALUES ($1, $2) ON CONFLICT DO NOTHING", tab.quoted(), quote(tab.Schema, name))
	if err == nil && tag.RowsAffected() > 0 {
		err = run(ctx, conn, fmt.Sprintf("CREATE OR REPLACE FUNCTION %s(%s) RETURNS int8 LANGUAGE plpgsql IMMUTABLE AS %s; CREATE INDEX %s ON %s (%s)",
			h.function, strings.Join(h.types, ", "), literal("BEGIN RETURN "+hashSQL(texts)+"; END"), quote(name), tab.quoted(), h.call()))
	}
	if err != nil {
		return fmt.Errorf("index %s for the replay: %w", tab.name(), err)
	}
	return nil
}

// dropHelpers removes the indexes made by makeHelper.
func (t *Target) dropHelpers(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, "DELETE FROM txreel_restore.helpers RETURNING name")
	if err != nil {
		return fmt.Errorf("read the restore's progress: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read the restore's progress: %w", err)
	}
	for _, name := range names {
		if err := run(ctx, conn, "DROP INDEX IF EXISTS "+name); err != nil {
			return fmt.Errorf("drop index %s: %w", name, err)
		}
	}
	return nil
}
