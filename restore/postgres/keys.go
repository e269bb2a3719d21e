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
func (t *Target) Prepare(ctx context.Context) (change.Seq, error) {
	seq, rows, err := t.state(ctx)
	if err != nil {
		return 0, err
	}
	t.applied = seq
	if seq == t.job.Plan.Seq { // nothing to replay, or all of it done
		return seq, nil
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
		return makeHelper(ctx, conn, keyless[i])
	})
	if err != nil {
		return 0, err
	}
	t.replay, err = newReplay(ctx, t, rows)
	return seq, err
}

// plainName is a table's name as pg_dump writes one that needs no quotes.
func plainName(t *table) string { return t.BaseTable.Schema + "." + t.BaseTable.Name }

// helperColumns picks columns by which a row of a table without a key can be looked
// up: of fixed, small size, so that any value fits an index. The first columns of a table tend to tell rows apart.
func helperColumns(ctx context.Context, conn *pgx.Conn, quoted string) ([]string, error) {
	const most = 3
	rows, err := conn.Query(ctx, `
		SELECT a.attname::text
		FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
		WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
		  AND (t.typtype IN ('b', 'e') AND t.typlen > 0 AND t.typname <> 'bool' OR t.oid IN ('numeric'::regtype, 'inet'::regtype))
		  AND EXISTS (SELECT FROM pg_catalog.pg_opclass o WHERE o.opcmethod = 403 AND o.opcdefault
		              AND (o.opcintype = t.oid OR t.typtype = 'e' AND o.opcintype = 'anyenum'::regtype))
		ORDER BY t.typtype = 'e', a.attnum LIMIT $2`, quoted, most)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// makeHelper gives a table without a key an index of our own. Where no column
// suits, rows are found by reading the table.
func makeHelper(ctx context.Context, conn *pgx.Conn, tab *table) error {
	columns, err := helperColumns(ctx, conn, tab.quoted())
	if err != nil {
		return fmt.Errorf("look at the columns of %s: %w", tab.name(), err)
	}
	if len(columns) == 0 {
		return nil
	}
	for i := range columns {
		columns[i] = quote(columns[i])
	}
	err = inTx(ctx, conn, func() error {
		name := fmt.Sprintf("txreel_restore_%d", tab.OID)
		tag, err := conn.Exec(ctx, "INSERT INTO txreel_restore.helpers VALUES ($1, $2) ON CONFLICT DO NOTHING", tab.quoted(), quote(tab.BaseTable.Schema, name))
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return run(ctx, conn, fmt.Sprintf("CREATE INDEX %s ON %s (%s)", quote(name), tab.quoted(), strings.Join(columns, ", ")))
	})
	if err != nil {
		return fmt.Errorf("index %s for the replay: %w", tab.name(), err)
	}
	return nil
}

// dropHelpers removes the indexes made by makeHelper.
func (t *Target) dropHelpers(ctx context.Context) error {
	rows, err := t.control.Query(ctx, "DELETE FROM txreel_restore.helpers RETURNING name")
	if err != nil {
		return fmt.Errorf("read the restore's progress: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read the restore's progress: %w", err)
	}
	for _, name := range names {
		if err := run(ctx, t.control, "DROP INDEX "+name); err != nil {
			return fmt.Errorf("drop index %s: %w", name, err)
		}
	}
	return nil
}
