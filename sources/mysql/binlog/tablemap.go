package binlog

import "txreel/sources/mysql/gtid"

// TableMap is a TABLE_MAP event: what the row events behind it, up to the end of their
// statement, mean by a table id. Its slices alias the event. A table that is
// mapped need not be changed: servers map tables that foreign keys refer to as well.
type TableMap struct {
	ID      uint64 // of this server's current run
	Flags   uint16
	Schema  []byte
	Name    []byte
	Columns []Column
	// Nullable has a bit for every column, from the lowest of the first byte on, which is set
	// if the column may be NULL.
	Nullable []byte
	// Optional is what binlog_row_metadata adds; see ParseMetadata.
	Optional []byte
	flavor   gtid.Flavor
}

// maxColumns is more than any server lets a table have.
const maxColumns = 1 << 16

// Parse reads a TABLE_MAP event. It uses the memory of Columns anew, and allocates
// only if that is too small.
func (t *TableMap) Parse(e *Event, f *Format) error {
	columns := t.Columns[:0]
	*t = TableMap{flavor: f.flavor()}
	r := reader{b: e.Body}
	t.ID = r.tableID(f, TypeTableMap)
	t.Flags = r.u16()
	t.Schema = r.name()
	t.Name = r.name()
	count := r.packed()
	if count > maxColumns {
		return malformed(e)
	}
	types := r.bytes(count)
	meta := reader{b: r.bytes(r.packed())}
	for _, c := range types {
		columns = append(columns, meta.column(ColumnType(c)))
	}
	t.Columns = columns
	t.Nullable = r.bytes((count + 7) / 8)
	t.Optional = r.b
	if r.bad || meta.bad || e.Type != TypeTableMap {
		return malformed(e)
	}
	return nil
}

// column takes a column's metadata.
func (r *reader) column(t ColumnType) Column {
	c := Column{Type: t}
	if t == ColumnTypedArray { // the type of its elements, and their metadata
		c.Meta = uint16(r.u8())
		size, _ := ColumnType(c.Meta).metaSize()
		r.bytes(uint64(size))
		return c
	}
	switch size, bigEndian := t.metaSize(); {
	case bigEndian:
		c.Meta = uint16(r.u8())<<8 | uint16(r.u8())
	case size == 2:
		c.Meta = r.u16()
	case size == 1:
		c.Meta = uint16(r.u8())
	}
	return c
}

// tableID takes a table id, which very old formats have in 4 bytes.
func (r *reader) tableID(f *Format, t Type) uint64 {
	if f.postHeaderSize(t, 8) == 6 {
		return uint64(r.u32())
	}
	return r.uint(6)
}

// name takes a name with its length before it and a zero behind it.
func (r *reader) name() []byte {
	name := r.bytes(r.packed())
	r.u8()
	return name
}

// appendTableKey appends what tells tables apart by name.
func appendTableKey(b, schema, name []byte) []byte {
	return append(append(append(b, schema...), 0), name...)
}
