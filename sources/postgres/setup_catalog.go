package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// tableName names a relation.
type tableName struct {
	oid          uint32
	schema, name string
}

func (t tableName) quoted() string { return quoteIdent(t.schema, t.name) }

// oids is nil for no tables, which stands for all.
func oids(tables []tableName) []uint32 {
	var list []uint32
	for _, t := range tables {
		list = append(list, t.oid)
	}
	return list
}

// resolveTables looks names up as the user wrote them.
func resolveTables(ctx context.Context, conn *pgx.Conn, names []string) ([]tableName, error) {
	var tables []tableName
	for _, name := range names {
		var t tableName
		var kind, persistence string
		err := conn.QueryRow(ctx, `
			SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1::text)`,
			name).Scan(&t.oid, &t.schema, &t.name, &kind, &persistence)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return nil, fmt.Errorf("there is no table %s: name it with its schema, and quote it as in SQL, such as public.orders", name)
		case err != nil:
			return nil, fmt.Errorf("look up table %s: %w", name, err)
		case kind != "r" && kind != "p":
			return nil, fmt.Errorf("%s is not a table", name)
		case persistence != "p":
			return nil, fmt.Errorf("table %s is unlogged or temporary: its changes are not in the log, so they cannot be recorded", name)
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// keylessTable is a table on which a publication of updates and deletes makes them fail.
type keylessTable struct {
	tableName
	identity    byte   // pg_class.relreplident: d, n, i; f with a virtual column
	uniqueIndex string // one that could serve as identity, or empty
	virtual     string // a generated column that is not stored, or empty: see unpublishable
	index       string // its identity all the same, but for generated: nothing fails, and rows cannot be told apart
	generated   string // the generated column of index, which no publication has
}

// recordedTables is the condition, and the CTE before it, that picks from pg_class c what a publication of $1, an
// array of oids or NULL for all, would publish by itself: tables that hold rows, each partition for itself.
const (
	recordedWith = `WITH RECURSIVE chosen AS (
			SELECT unnest($1::oid[]) AS oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN chosen ON i.inhparent = chosen.oid)`
	recordedTables = `c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384
		AND ($1::oid[] IS NULL OR c.oid IN (SELECT oid FROM chosen))`
	// virtualColumn is one that no publication can hold, and so no identity FULL either.
	virtualColumn = `SELECT min(a.attname::text) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v' AND NOT a.attisdropped`
	// noIdentity is one that nobody can update, or one whose rows the stream does not tell apart.
	noIdentity = `(c.relreplident <> 'f' OR (` + virtualColumn + `) IS NOT NULL) AND NOT EXISTS (
			SELECT FROM pg_index i WHERE ` + identityIndex + ` AND (` + unpublishedColumn + `) IS NULL)`
	// identityIndex follows the server's RelationGetIndexList: a deferrable, partial or invalid index identifies nothing.
	identityIndex = `i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
			AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)`
	// unpublishedColumn is one of index i that no publication has before generatedSince.
	unpublishedColumn = `SELECT min(a.attname::text) FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attgenerated <> ''
			AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts-1]) AND current_setting('server_version_num')::int < 180000`
)

// keylessTables finds the tables without a usable replica identity among the chosen and what inherits from them; nil
// means all.
func keylessTables(ctx context.Context, conn *pgx.Conn, chosen []uint32) ([]keylessTable, error) {
	rows, err := conn.Query(ctx, recordedWith+`
		SELECT c.oid, n.nspname::text, c.relname::text, c.relreplident::text, COALESCE((
			SELECT x.relname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
			WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
			  AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attnotnull
			      AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts-1])) AND (`+unpublishedColumn+`) IS NULL
			ORDER BY i.indnatts, x.relname LIMIT 1), ''),
			COALESCE((`+virtualColumn+`), ''), COALESCE(k.name, ''), COALESCE(k.generated, '')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN LATERAL (SELECT x.relname::text AS name, (`+unpublishedColumn+`) AS generated FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
			WHERE `+identityIndex+`) k ON true
		WHERE `+recordedTables+` AND `+noIdentity+`
		ORDER BY n.nspname, c.relname`, chosen)
	if err != nil {
		return nil, fmt.Errorf("look for tables without a key: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (keylessTable, error) {
		var k keylessTable
		var identity string
		err := row.Scan(&k.oid, &k.schema, &k.name, &identity, &k.uniqueIndex, &k.virtual, &k.index, &k.generated)
		if err == nil {
			k.identity = identity[0]
		}
		return k, err
	})
	if err != nil {
		return nil, fmt.Errorf("look for tables without a key: %w", err)
	}
	return found, nil
}

// publicationFacts is what matters of one.
type publicationFacts struct {
	allTables, insert, update, delete, truncate, viaRoot bool
	noGenerated                                          bool // leaves out stored generated columns, where that is a choice

	tables   map[uint32]bool // listed by name
	filtered int             // tables with a row filter or a column list
	schemas  int             // whole schemas listed
}

func (p *publicationFacts) complete() bool { return p.publishesAll() && !p.noGenerated }

func (p *publicationFacts) publishesAll() bool {
	return p.insert && p.update && p.delete && p.truncate && !p.viaRoot
}

// describe says what stands in the way of recording everything with it.
func (p *publicationFacts) describe() string {
	var faults []string
	for _, f := range []struct {
		bad  bool
		text string
	}{
		{!p.insert, "no INSERT"}, {!p.update, "no UPDATE"}, {!p.delete, "no DELETE"}, {!p.truncate, "no TRUNCATE"},
		{p.viaRoot, "partitions under their root's name"}, {p.noGenerated, "no generated columns"}, {p.filtered > 0, fmt.Sprintf("%d tables with row filters or column lists", p.filtered)},
		{p.schemas > 0, fmt.Sprintf("%d whole schemas", p.schemas)}, {p.allTables, "all tables"}, {!p.allTables, fmt.Sprintf("%d tables by name", len(p.tables))},
	} {
		if f.bad {
			faults = append(faults, f.text)
		}
	}
	return strings.Join(faults, ", ")
}

// readPublication returns nil when there is none of that name.
func readPublication(ctx context.Context, conn *pgx.Conn, name string) (*publicationFacts, error) {
	p := publicationFacts{tables: map[uint32]bool{}}
	var oid uint32
	var listed []uint32
	err := conn.QueryRow(ctx, `
		SELECT oid, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, COALESCE(to_jsonb(p) ->> 'pubgencols' <> 's', false),
		       ARRAY(SELECT prrelid FROM pg_publication_rel r WHERE r.prpubid = p.oid)
		FROM pg_publication p WHERE pubname = $1::text`, name).
		Scan(&oid, &p.allTables, &p.insert, &p.update, &p.delete, &p.truncate, &p.viaRoot, &p.noGenerated, &listed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err == nil && majorVersion(conn.PgConn()) >= 15 {
		err = conn.QueryRow(ctx, `
			SELECT (SELECT count(*) FROM pg_publication_rel WHERE prpubid = $1 AND (prqual IS NOT NULL OR prattrs IS NOT NULL)),
			       (SELECT count(*) FROM pg_publication_namespace WHERE pnpubid = $1)`, oid).Scan(&p.filtered, &p.schemas)
	}
	if err != nil {
		return nil, fmt.Errorf("read publication %q: %w", name, err)
	}
	for _, o := range listed {
		p.tables[o] = true
	}
	return &p, nil
}

// slotFacts is what matters of a replication slot.
type slotFacts struct {
	plugin, database, walStatus string
	twoPhase                    bool
	user                        string // who reads it now, or empty
	retained                    int64  // bytes of WAL kept for it
	lostWhy                     string // 17 and later
}

// inspectSlot returns nil when there is none of that name.
func inspectSlot(ctx context.Context, conn *pgx.Conn, name string) (*slotFacts, error) {
	var s slotFacts
	why := "''"
	if majorVersion(conn.PgConn()) >= 17 {
		why = "COALESCE(s.invalidation_reason::text, '')"
	}
	err := conn.QueryRow(ctx, `
		SELECT COALESCE(s.plugin::text, ''), COALESCE(s.database::text, ''), COALESCE(s.wal_status::text, ''), s.two_phase,
		       CASE WHEN s.active_pid IS NULL THEN '' ELSE 'process ' || s.active_pid || COALESCE(', ' || NULLIF(a.application_name, ''), '')
		            || COALESCE(' from ' || host(a.client_addr), '') END,
		       CASE WHEN pg_is_in_recovery() THEN 0 ELSE COALESCE(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::int8 END, `+why+`
		FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1::text`, name).
		Scan(&s.plugin, &s.database, &s.walStatus, &s.twoPhase, &s.user, &s.retained, &s.lostWhy)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read slot %q: %w", name, err)
	}
	return &s, nil
}
