package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"txreel/change"
)

// heap is a table that changes are replayed into, as one Relation message describes
// it.
type heap struct {
	relation *change.Relation
	name     string // unquoted
	quoted   string
	only     string // "ONLY " except for a partitioned table
	columns  []heapColumn
	byRow    bool  // no key to find rows by: they are compared whole
	key      []int // columns that find a row by an index
	isKey    []bool
	helper   *helper // when there is none: columns whose hash finds it
	hash     []int
	copySQL  string
	insert   string            // name of the prepared INSERT
	changes  map[string]string // UPDATE and DELETE by pattern: names of prepared statements

	// Rows inserted and not sent yet, in the notation of Bind: per written column
	// an int32 length, -1 for NULL, and the bytes.
	pending     []byte
	pendingRows int64
	lastInsert  op // for errors
}

type heapColumn struct {
	quoted    string
	generated bool   // never written
	equal     string // the operator that an index of the type understands
	cast      string // makes a parameter of the type where the operator is one of another: regclass has oid's
}

// equalOperator is the operator that an index of the type of a column, a, understands. Nothing is found by search_path, and the operators of a
// type from an extension are where the extension is.
const equalOperator = `coalesce((
			SELECT 'OPERATOR(' || quote_ident(n.nspname) || '.' || p.oprname || ')'
			FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_amop m ON m.amopfamily = o.opcfamily AND m.amoplefttype = o.opcintype
			  AND m.amoprighttype = o.opcintype AND m.amopstrategy = 3
			  JOIN pg_catalog.pg_operator p ON p.oid = m.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = p.oprnamespace
			WHERE o.opcmethod = 403 AND o.opcdefault AND n.nspname <> 'pg_catalog'
			  AND o.opcintype = (SELECT coalesce(nullif(y.typbasetype, 0), y.oid) FROM pg_catalog.pg_type y WHERE y.oid = a.atttypid)
			LIMIT 1), '=')`

// newHeap looks the table up in the target. info describes it in the base.
func newHeap(ctx context.Context, conn *pgx.Conn, rel *change.Relation, info *table) (*heap, error) {
	h := &heap{relation: rel, name: rel.String(), quoted: quote(rel.Schema, rel.Name), only: "ONLY ",
		changes: make(map[string]string), isKey: make([]bool, len(rel.Columns))}
	var partitioned, deferrable bool
	err := conn.QueryRow(ctx, `SELECT relkind = 'p', EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conrelid = c.oid AND contype = 'p' AND condeferrable)
		FROM pg_catalog.pg_class c WHERE oid = $1::regclass`, h.quoted).Scan(&partitioned, &deferrable)
	if err != nil {
		return nil, fmt.Errorf("look at table %s: %w", h.name, err)
	}
	if partitioned {
		h.only = ""
	}
	rows, err := conn.Query(ctx, `
		SELECT a.attname::text, a.attgenerated <> '', `+equalOperator+`, coalesce((
			SELECT '::' || pg_catalog.format_type(b.oid, -1)
			FROM pg_catalog.pg_type y JOIN pg_catalog.pg_type b ON b.oid = coalesce(nullif(y.typbasetype, 0), y.oid)
			WHERE y.oid = a.atttypid AND b.typtype IN ('b', 'c') AND b.typcategory <> 'A'
			  AND NOT EXISTS (SELECT FROM pg_catalog.pg_opclass o WHERE o.opcmethod = 403 AND o.opcdefault AND o.opcintype = b.oid)), '')
		FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped`, h.quoted)
	if err != nil {
		return nil, fmt.Errorf("look at table %s: %w", h.name, err)
	}
	found := make(map[string]heapColumn)
	var name string
	var c heapColumn
	if _, err := pgx.ForEachRow(rows, []any{&name, &c.generated, &c.equal, &c.cast}, func() error { found[name] = c; return nil }); err != nil {
		return nil, fmt.Errorf("look at table %s: %w", h.name, err)
	}
	full := true // without columns, too: any row will do
	for _, c := range rel.Columns {
		col, ok := found[c.Name]
		if !ok {
			return nil, fmt.Errorf("table %s of the target has no column %s", h.name, quote(c.Name))
		}
		col.quoted = quote(c.Name)
		h.columns = append(h.columns, col)
		full = full && c.Key
	}
	if err := h.chooseKey(ctx, conn, info, full, deferrable); err != nil {
		return nil, err
	}
	h.copySQL = "COPY " + h.quoted + " (" + h.list() + ") FROM STDIN"
	return h, nil
}

// chooseKey decides how rows are found. With identity FULL that is the primary key,
// if there is one that holds at every moment: a deferrable one may be violated between two
// rows of a transaction.
func (h *heap) chooseKey(ctx context.Context, conn *pgx.Conn, info *table, full, deferrable bool) error {
	var names []string
	switch {
	case !full:
		for i, c := range h.relation.Columns {
			if c.Key {
				names = append(names, h.relation.Columns[i].Name)
			}
		}
	case info != nil && len(info.Key) > 0:
		names, h.byRow = info.Key, deferrable
	default:
		h.byRow = true
		return h.findHelper(ctx, conn)
	}
	for i, c := range h.relation.Columns {
		for _, n := range names {
			if n == c.Name {
				h.key, h.isKey[i] = append(h.key, i), true
			}
		}
	}
	if !h.byRow && len(h.key) < len(names) { // a key with a column that is not recorded
		h.byRow = true
	}
	return nil
}

// findHelper uses the table's helper, if one was made.
func (h *heap) findHelper(ctx context.Context, conn *pgx.Conn) error {
	var made bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM txreel_restore.helpers WHERE tab = $1)", h.quoted).Scan(&made)
	if err != nil {
		return fmt.Errorf("read the restore's progress: %w", err)
	}
	if !made {
		return nil
	}
	if h.helper, err = findHelper(ctx, conn, h.quoted); err != nil {
		return err
	}
	for _, n := range h.helper.columns {
		for i, c := range h.relation.Columns {
			if c.Name == n {
				h.hash = append(h.hash, i)
			}
		}
	}
	if len(h.hash) < len(h.helper.columns) { // a column that is not recorded
		h.helper, h.hash = nil, nil
	}
	return nil
}

// same reports whether a later Relation message describes the table as r does.
func same(a, b *change.Relation) bool {
	if a.ID != b.ID || a.Schema != b.Schema || a.Name != b.Name || len(a.Columns) != len(b.Columns) {
		return false
	}
	for i := range a.Columns {
		if a.Columns[i] != b.Columns[i] {
			return false
		}
	}
	return true
}

// list names the columns that are written.
func (h *heap) list() string {
	var names []string
	for i := range h.columns {
		if !h.columns[i].generated {
			names = append(names, h.columns[i].quoted)
		}
	}
	return strings.Join(names, ", ")
}

func (h *heap) insertSQL() string {
	var params []string
	for i := range h.columns {
		if !h.columns[i].generated {
			params = append(params, fmt.Sprintf("$%d", len(params)+1))
		}
	}
	if len(params) == 0 {
		return "INSERT INTO " + h.quoted + " DEFAULT VALUES"
	}
	return "INSERT INTO " + h.quoted + " (" + h.list() + ") OVERRIDING SYSTEM VALUE VALUES (" + strings.Join(params, ", ") + ")"
}

// add takes an inserted row.
func (h *heap) add(values []change.Value) error {
	for i := range h.columns {
		if h.columns[i].generated {
			continue
		}
		switch v := &values[i]; v.State {
		case change.Null:
			h.pending = append(h.pending, 0xff, 0xff, 0xff, 0xff)
		case change.Text:
			h.pending = binary.BigEndian.AppendUint32(h.pending, uint32(len(v.Bytes)))
			h.pending = append(h.pending, v.Bytes...)
		default:
			return fmt.Errorf("insert into %s: column %s is %s", h.name, h.columns[i].quoted, v.State)
		}
	}
	h.pendingRows++
	return nil
}

// take cuts the next value off pending rows.
func take(b []byte) (value, rest []byte) {
	n := int32(binary.BigEndian.Uint32(b))
	if n < 0 {
		return nil, b[4:]
	}
	return b[4 : 4+n : 4+n], b[4+n:]
}

// appendCopy writes a value in COPY's text format.
func appendCopy(dst, v []byte) []byte {
	if v == nil {
		return append(dst, `\N`...)
	}
	for len(v) > 0 {
		i := bytes.IndexAny(v, "\\\n\r\t")
		if i < 0 {
			return append(dst, v...)
		}
		dst = append(dst, v[:i]...)
		switch v[i] {
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, `\\`...)
		}
		v = v[i+1:]
	}
	return dst
}
