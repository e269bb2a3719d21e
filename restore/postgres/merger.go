package postgres

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"txreel/restore/postgres/fold"
)

// merger puts what the record comes to into tables that have rows. It is a fold.Merger: what it is given waits in tables of
// schema txreel_restore, until carryOut replaces rows by it. All of that happens in one transaction of its session.
type merger struct {
	ctx    context.Context // of the statements: that of a Fold ends with an error of it, and would end the session
	mu     sync.Mutex      // one statement at a time
	conn   *pgx.Conn
	tables []mergeTable
}

// mergeTable is a table that can be merged into.
type mergeTable struct {
	schema, table string
	source        uint32        // its number in the record; zero: no row has come for it
	columns       []mergeColumn // those that are written
	key           []int         // of columns, in their order
	whole         bool          // the log has its rows whole

	touched, truncated bool
	delta              int64 // rows inserted less those deleted
	expected           int64 // rows that go

	rows, gone, partial int64 // that wait
}

type mergeColumn struct {
	quoted string
	base   string // the type that values have while they wait; empty: the column's
	equal  string // as heapColumn has it
}

func (t *mergeTable) name() string   { return t.schema + "." + t.table }
func (t *mergeTable) quoted() string { return quote(t.schema, t.table) }

// mostColumns is how many a table has at most (documentation, appendix Limits).
const mostColumns = 1600

// readMergeable lists the tables whose rows a key tells apart, as they are now: by what their replica identity is, or a primary key that
// holds at every moment where that is all of the row. Values of domains wait as the type beneath, which takes the NULL of one that is missing.
func readMergeable(ctx context.Context, conn *pgx.Conn) ([]mergeTable, error) {
	rows, err := conn.Query(ctx, `
		SELECT n.nspname::text, c.relname::text, coalesce(r.source, 0), c.relreplident = 'f', (i.indkey::int2[])[0:i.indnkeyatts - 1]::int4[],
			array(SELECT a.attnum::int4 FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum),
			array(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum),
			array(SELECT `+equalOperator+` FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum),
			array(SELECT CASE y.typtype WHEN 'd' THEN (
					WITH RECURSIVE d (type, mod) AS (SELECT y.typbasetype, y.typtypmod
						UNION ALL SELECT t.typbasetype, CASE WHEN t.typtypmod >= 0 THEN t.typtypmod ELSE d.mod END FROM d JOIN pg_catalog.pg_type t ON t.oid = d.type WHERE t.typtype = 'd')
					SELECT pg_catalog.format_type(d.type, d.mod) FROM d JOIN pg_catalog.pg_type t ON t.oid = d.type WHERE t.typtype <> 'd') ELSE '' END
				FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
				WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum)
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indimmediate AND (c.relreplident IN ('d', 'f') AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)
		LEFT JOIN txreel_restore.relations r ON r.target = c.oid
		WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', $1)`, bookSchema)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	var all []mergeTable
	var t mergeTable
	var source int64
	var key, numbers []int32
	var names, equal, base []string
	_, err = pgx.ForEachRow(rows, []any{&t.schema, &t.table, &source, &t.whole, &key, &numbers, &names, &equal, &base}, func() error {
		t.source, t.columns, t.key = uint32(source), nil, nil
		for i, n := range numbers {
			t.columns = append(t.columns, mergeColumn{quoted: quote(names[i]), base: base[i], equal: equal[i]})
			if slices.Contains(key, n) {
				t.key = append(t.key, i)
			}
		}
		// A key with a column that is not recorded tells nothing apart.
		if len(t.key) == len(key) && len(t.key)+1+len(t.columns) <= mostColumns {
			all = append(all, t)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	return all, nil
}

// folded describes the tables to a Fold.
func (m *merger) folded() []fold.Table {
	all := make([]fold.Table, len(m.tables))
	for i := range m.tables {
		t := &m.tables[i]
		all[i] = fold.Table{Schema: t.schema, Name: t.table, ID: t.source}
		for k := range t.columns {
			all[i].Columns = append(all[i].Columns, t.columns[k].name())
		}
		if t.whole {
			for _, k := range t.key {
				all[i].Key = append(all[i].Key, t.columns[k].name())
			}
		}
	}
	return all
}

// name is the column's name as the record has it.
func (c *mergeColumn) name() string {
	return strings.ReplaceAll(c.quoted[1:len(c.quoted)-1], `""`, `"`)
}

// learn takes over what a pass through the record tells of the tables.
func (m *merger) learn(f *fold.Fold) error {
	for i := range m.tables {
		t, r := &m.tables[i], f.Result(i)
		if !r.Touched {
			continue
		}
		if len(r.Key) > 0 && !slices.Equal(r.Key, t.key) {
			return fmt.Errorf("%w: the record has another key of table %s than the target", fold.ErrNotFoldable, t.name())
		}
		t.touched, t.source, t.truncated, t.delta = true, r.ID, r.Truncated, r.Delta
		t.expected += r.Expected
	}
	return nil
}

// The tables in which what belongs to a table waits: whole rows, keys whose rows go, and rows that lack values.
func (m *merger) waiting(what string, table int) string {
	return fmt.Sprintf("txreel_restore.%s_%d", what, table)
}

// Rows implements fold.Sink.
func (m *merger) Rows(_ context.Context, _, table int, lines []byte, rows int64) error {
	return m.copy("rows", table, &m.tables[table].rows, lines, rows)
}

// Gone implements fold.Merger.
func (m *merger) Gone(_ context.Context, _, table int, lines []byte, keys int64) error {
	return m.copy("gone", table, &m.tables[table].gone, lines, keys)
}

// Partial implements fold.Merger.
func (m *merger) Partial(_ context.Context, table int, lines []byte, rows int64) error {
	return m.copy("partial", table, &m.tables[table].partial, lines, rows)
}

// copy lets lines wait.
func (m *merger) copy(what string, table int, waiting *int64, lines []byte, rows int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &m.tables[table]
	if *waiting == 0 {
		if err := m.create(what, table); err != nil {
			return err
		}
	}
	tag, err := m.conn.PgConn().CopyFrom(m.ctx, bytes.NewReader(lines), "COPY "+m.waiting(what, table)+" FROM STDIN")
	if err != nil {
		return fmt.Errorf("write rows of the record for %s: %w", t.name(), err)
	}
	if tag.RowsAffected() != rows {
		return fmt.Errorf("write rows of the record for %s: the target took %d of %d", t.name(), tag.RowsAffected(), rows)
	}
	*waiting += rows
	return nil
}

// create makes a table to wait in. Its columns have the types and collations of the table's own, and none of its constraints.
func (m *merger) create(what string, table int) error {
	t := &m.tables[table]
	var columns []string
	add := func(prefix string, k int) {
		c := &t.columns[k]
		value := c.quoted
		if c.base != "" {
			value += "::" + c.base
		}
		columns = append(columns, fmt.Sprintf("%s AS %s%d", value, prefix, k))
	}
	if what != "rows" {
		for _, k := range t.key {
			add("k", k)
		}
	}
	if what == "partial" {
		columns = append(columns, "''::text AS missing")
	}
	if what != "gone" {
		for k := range t.columns {
			add("c", k)
		}
	}
	err := run(m.ctx, m.conn, "CREATE UNLOGGED TABLE "+m.waiting(what, table)+" AS SELECT "+strings.Join(columns, ", ")+" FROM ONLY "+t.quoted()+" WITH NO DATA")
	if err != nil {
		return fmt.Errorf("make room for rows of %s: %w", t.name(), err)
	}
	return nil
}

// carryOut replaces rows by what waits. Other tables than those that are merged hold rows of before, if they have changes.
func (m *merger) carryOut(others bool) error {
	if err := m.truncate(others); err != nil {
		return err
	}
	for i := range m.tables {
		if t := &m.tables[i]; t.touched {
			if err := m.replace(i); err != nil {
				return fmt.Errorf("table %s: %w", t.name(), err)
			}
			if _, err := m.conn.Exec(m.ctx, placeSQL, int64(t.source), t.quoted()); err != nil {
				return fmt.Errorf("note where table %s is: %w", t.name(), err)
			}
		}
	}
	return nil
}

// truncate empties the tables of which nothing remains. The source named those that refer to one another together, and so does this, unless
// others are still to be emptied: where a foreign key comes from one of these, the server refuses TRUNCATE.
func (m *merger) truncate(others bool) error {
	var names []string
	for i := range m.tables {
		if t := &m.tables[i]; t.truncated {
			names = append(names, "ONLY "+t.quoted())
		}
	}
	if len(names) == 0 {
		return nil
	}
	sql := "TRUNCATE " + strings.Join(names, ", ")
	if others {
		sql = "DELETE FROM " + strings.Join(names, "; DELETE FROM ")
	}
	if err := run(m.ctx, m.conn, sql); err != nil {
		return fmt.Errorf("empty tables: %w", err)
	}
	return nil
}

// replace completes rows by what is there, deletes what goes, and then inserts: no key is ever there twice.
func (m *merger) replace(table int) error {
	t := &m.tables[table]
	if t.partial > 0 {
		if err := m.complete(table); err != nil {
			return err
		}
	}
	var deleted int64
	for _, w := range []struct {
		what   string
		prefix string
		rows   int64
	}{{"gone", "k", t.gone}, {"rows", "c", t.rows}} {
		if w.rows == 0 {
			continue
		}
		n, err := m.exec("ANALYZE " + m.waiting(w.what, table) + "; DELETE FROM ONLY " + t.quoted() + " t USING " + m.waiting(w.what, table) + " w WHERE " + t.match(w.prefix))
		if err != nil {
			return fmt.Errorf("delete rows that the record replaces: %w", err)
		}
		deleted += n
	}
	if deleted != t.expected {
		return fmt.Errorf("%w: it changes %d rows that must be there, and %d are", fold.ErrContradiction, t.expected, deleted)
	}
	if t.rows > 0 {
		n, err := m.exec("INSERT INTO " + t.quoted() + " (" + t.list(func(k int) string { return t.columns[k].quoted }) + ") OVERRIDING SYSTEM VALUE SELECT " +
			t.list(func(k int) string { return fmt.Sprintf("c%d", k) }) + " FROM " + m.waiting("rows", table))
		if err == nil && n != t.rows {
			err = fmt.Errorf("the target took %d of %d", n, t.rows)
		}
		if err != nil {
			return fmt.Errorf("insert rows of the record: %w", err)
		}
	}
	for what, rows := range map[string]int64{"rows": t.rows, "gone": t.gone, "partial": t.partial} {
		if rows > 0 {
			if err := run(m.ctx, m.conn, "DROP TABLE "+m.waiting(what, table)); err != nil {
				return err
			}
		}
	}
	return nil
}

// complete makes whole rows of those that lack values.
func (m *merger) complete(table int) error {
	t := &m.tables[table]
	if t.rows == 0 {
		if err := m.create("rows", table); err != nil {
			return err
		}
	}
	n, err := m.exec("ANALYZE " + m.waiting("partial", table) + "; INSERT INTO " + m.waiting("rows", table) + " SELECT " + t.list(func(k int) string {
		own := "t." + t.columns[k].quoted
		if base := t.columns[k].base; base != "" {
			own += "::" + base
		}
		return fmt.Sprintf("CASE WHEN pg_catalog.substr(w.missing, %d, 1) = '1' THEN %s ELSE w.c%d END", k+1, own, k)
	}) + " FROM ONLY " + t.quoted() + " t JOIN " + m.waiting("partial", table) + " w ON " + t.match("k"))
	if err != nil {
		return fmt.Errorf("complete rows of the record: %w", err)
	}
	if n != t.partial {
		return fmt.Errorf("%w: it changes %d rows in part, of which %d are there", fold.ErrContradiction, t.partial, n)
	}
	t.rows += n
	return nil
}

// exec runs statements, and returns how many rows the last of them concerned.
func (m *merger) exec(sql string) (int64, error) {
	results, err := m.conn.PgConn().Exec(m.ctx, sql).ReadAll()
	if err != nil {
		return 0, err
	}
	return results[len(results)-1].CommandTag.RowsAffected(), nil
}

// match compares the keys of t, the table, and w, what waits.
func (t *mergeTable) match(prefix string) string {
	var all []string
	for _, k := range t.key {
		c := &t.columns[k]
		all = append(all, fmt.Sprintf("t.%s %s w.%s%d", c.quoted, c.equal, prefix, k))
	}
	return strings.Join(all, " AND ")
}

// list makes a list of something of each column.
func (t *mergeTable) list(of func(k int) string) string {
	all := make([]string, len(t.columns))
	for k := range all {
		all[k] = of(k)
	}
	return strings.Join(all, ", ")
}
