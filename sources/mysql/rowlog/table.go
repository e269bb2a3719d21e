package rowlog

import (
	"bytes"
	"fmt"
	"strconv"

	"txreel/change"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/rowlog/charset"
)

// table is a table as a TABLE_MAP event and what else is known describe it.
type table struct {
	rel     *change.Relation
	columns []column
	json    int // columns of binary JSON: partial updates count them

	declared bool // the schema had a part in it
}

// The bounds of what is kept of tables. Between transactions all may be forgotten, since
// each maps its tables again; within one that is refused beyond what no server sends.
const (
	maxTables  = 1024
	maxColumns = 1 << 16
)

// tableMap takes up a TABLE_MAP event. The same event gives the same table as long as what
// is known beside it stays the same.
func (d *Decoder) tableMap(e *binlog.Event) error {
	if err := d.mapped.Parse(e, d.format); err != nil {
		return err
	}
	key := e.Body[min(idSize, len(e.Body)):]
	t := d.known[string(key)]
	if t == nil {
		if d.kept += len(d.mapped.Columns) + len(key)>>8; d.kept > 4*maxColumns {
			return fmt.Errorf("%w: a transaction maps %d tables with more columns than this build keeps", binlog.ErrMalformed, len(d.tables))
		}
		t = d.newTable(e)
		d.known[string(key)] = t
	}
	d.tables[d.mapped.ID] = t
	return nil
}

// tidy forgets tables at the beginning of a transaction, if there are many.
func (d *Decoder) tidy() {
	if len(d.tables) > maxTables {
		clear(d.tables)
	}
	if len(d.known) > maxTables || d.kept > maxColumns {
		clear(d.known)
		clear(d.tables)
		d.kept = 0
	}
}

// idSize is the size of the table id that a TABLE_MAP's body begins with: the rest says
// what the table is.
const idSize = 6

func (d *Decoder) newTable(e *binlog.Event) *table {
	m := &d.mapped
	meta, err := m.ParseMetadata(e)
	if err != nil { // rows can be read without it
		meta = &binlog.Metadata{Columns: make([]binlog.ColumnMetadata, len(m.Columns))}
	}
	t := &table{
		rel: &change.Relation{ID: uint32(m.ID), Schema: string(m.Schema), Name: string(m.Name),
			Columns: make([]change.Column, len(m.Columns))},
		columns: make([]column, len(m.Columns)),
	}
	for i := range m.Columns {
		c := newColumn(m.Columns[i])
		d.describe(&c, &meta.Columns[i], meta)
		if c.kind == kindJSON {
			t.json++
		}
		t.columns[i] = c
		t.rel.Columns[i].Name = string(meta.Columns[i].Name)
		if !meta.HasNames {
			t.rel.Columns[i].Name = "@" + strconv.Itoa(i+1)
		}
	}
	for _, part := range meta.Key {
		t.rel.Columns[part.Column].Key = true
	}
	d.declare(t, meta)
	for i := range t.columns {
		t.rel.Columns[i].Type = t.columns[i].name()
	}
	return t
}

// describe takes over what binlog_row_metadata adds.
func (d *Decoder) describe(c *column, m *binlog.ColumnMetadata, all *binlog.Metadata) {
	if all.HasSigns {
		c.unsigned, c.signKnown = m.Unsigned, true
	}
	c.geometry, c.dimensions = uint64(m.Geometry), uint64(m.Dimension)
	set := d.charset(charset.Of(uint64(m.Collation)))
	if c.character() && all.HasCharsets && m.Collation != 0 {
		c.setCharset(charset.Of(uint64(m.Collation)), set)
	}
	for _, name := range m.Members {
		if set != nil {
			if text, ok := set.Append(nil, name); ok {
				name = text
			}
		}
		c.members = append(c.members, bytes.Clone(name))
	}
}

// setCharset settles what the bytes of a string are.
func (c *column) setCharset(name string, set *charset.Charset) {
	c.cs, c.text, c.bytes = set, name != "binary" && name != "", name == "binary"
	if c.bytes && c.typ == binlog.ColumnString {
		c.pad = c.precision
	}
}

// charset returns a character set by its name; nil if it is none.
func (d *Decoder) charset(name string) *charset.Charset {
	set, ok := d.charsets[name]
	if !ok {
		set = charset.Named(name)
		d.charsets[name] = set
	}
	return set
}

// declare lays what the schema says over the table, if it can be the same table: as many
// columns, of the same types, and of the same names where the log has names.
func (d *Decoder) declare(t *table, meta *binlog.Metadata) {
	declared, ok := d.lookup(t.rel)
	if !ok || len(declared) != len(t.columns) {
		return
	}
	columns := make([]column, len(t.columns))
	copy(columns, t.columns)
	for i := range columns {
		if meta.HasNames && declared[i].Name != t.rel.Columns[i].Name || !columns[i].fits(declared[i], d.charset) {
			return
		}
	}
	t.columns, t.declared = columns, true
	for i := range declared {
		t.rel.Columns[i].Name = declared[i].Name
		if !meta.HasNames {
			t.rel.Columns[i].Key = declared[i].Key
		}
	}
}
