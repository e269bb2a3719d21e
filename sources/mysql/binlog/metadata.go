package binlog

import "txreel/sources/mysql/gtid"

// Metadata is what binlog_row_metadata adds to a TABLE_MAP event, column by column.
// What the server did not say is absent: names, members and keys are there
// with FULL only, and MariaDB says nothing at all with NO_LOG, its default.
type Metadata struct {
	HasSigns    bool
	HasCharsets bool
	HasNames    bool
	Columns     []ColumnMetadata
	// Key lists the columns of the primary key in its order.
	Key []KeyPart
}

// ColumnMetadata is what is added of one column. Its slices alias the event.
type ColumnMetadata struct {
	Name      []byte
	Unsigned  bool
	Collation uint32   // of the values, or of the members; 0 where the server did not say
	Members   [][]byte // of an ENUM or SET
	Geometry  uint32   // the kind of a GEOMETRY column
	Dimension uint32   // of a VECTOR column
	Invisible bool
}

// KeyPart is a column of a primary key.
type KeyPart struct {
	Column uint32
	Prefix uint32 // how many characters or bytes of it; 0 is all of it
}

// The fields of a TABLE_MAP's optional part.
const (
	fieldSignedness = iota + 1
	fieldDefaultCharset
	fieldColumnCharset
	fieldColumnName
	fieldSetMembers
	fieldEnumMembers
	fieldGeometryType
	fieldPrimaryKey
	fieldPrimaryKeyPrefix
	fieldEnumAndSetDefaultCharset
	fieldEnumAndSetColumnCharset
	fieldColumnVisibility
	fieldVectorDimension
)

// ParseMetadata reads the optional part of the event. The error wraps
// ErrMalformed.
func (t *TableMap) ParseMetadata(e *Event) (*Metadata, error) {
	m := &Metadata{Columns: make([]ColumnMetadata, len(t.Columns))}
	character := Column.character
	if t.flavor == gtid.MariaDB {
		character = Column.characterOrGeometry
	}
	r := reader{b: t.Optional}
	for !r.bad && len(r.b) > 0 {
		field := r.u8()
		value := reader{b: r.bytes(r.packed())}
		m.field(field, &value, t.Columns, character)
		r.bad = r.bad || value.bad
	}
	if r.bad {
		return nil, malformed(e)
	}
	return m, nil
}

// field reads one field. Those that are not known are passed over. Character tells which columns
// have a character set: of MariaDB's those with a GEOMETRY as well.
func (m *Metadata) field(field uint8, r *reader, columns []Column, character func(Column) bool) {
	switch field {
	case fieldSignedness:
		m.HasSigns = true
		m.bits(r, columns, Column.numeric, func(c *ColumnMetadata, set bool) { c.Unsigned = set })
	case fieldColumnVisibility:
		m.bits(r, columns, every, func(c *ColumnMetadata, set bool) { c.Invisible = !set })
	case fieldDefaultCharset:
		m.HasCharsets = true
		m.defaultCharset(r, columns, character)
	case fieldEnumAndSetDefaultCharset:
		m.defaultCharset(r, columns, Column.enumOrSet)
	case fieldColumnCharset:
		m.HasCharsets = true
		m.each(r, columns, character, func(c *ColumnMetadata) { c.Collation = uint32(r.packed()) })
	case fieldEnumAndSetColumnCharset:
		m.each(r, columns, Column.enumOrSet, func(c *ColumnMetadata) { c.Collation = uint32(r.packed()) })
	case fieldColumnName:
		m.HasNames = true
		m.each(r, columns, every, func(c *ColumnMetadata) { c.Name = r.bytes(r.packed()) })
	case fieldSetMembers:
		m.each(r, columns, Column.set, func(c *ColumnMetadata) { c.Members = r.strings() })
	case fieldEnumMembers:
		m.each(r, columns, Column.enum, func(c *ColumnMetadata) { c.Members = r.strings() })
	case fieldGeometryType:
		m.each(r, columns, Column.geometry, func(c *ColumnMetadata) { c.Geometry = uint32(r.packed()) })
	case fieldVectorDimension:
		m.each(r, columns, Column.vector, func(c *ColumnMetadata) { c.Dimension = uint32(r.packed()) })
	case fieldPrimaryKey, fieldPrimaryKeyPrefix:
		for !r.bad && len(r.b) > 0 {
			part := KeyPart{Column: uint32(r.packed())}
			if field == fieldPrimaryKeyPrefix {
				part.Prefix = uint32(r.packed())
			}
			if int64(part.Column) >= int64(len(columns)) {
				r.bad = true
			}
			m.Key = append(m.Key, part)
		}
	}
}

// bits reads a bit for every column of a kind, from the highest of the first byte on.
func (m *Metadata) bits(r *reader, columns []Column, kind func(Column) bool, set func(*ColumnMetadata, bool)) {
	n := 0
	for i, c := range columns {
		if !kind(c) {
			continue
		}
		if n/8 >= len(r.b) {
			r.bad = true
			return
		}
		set(&m.Columns[i], r.b[n/8]&(0x80>>(n%8)) != 0)
		n++
	}
}

// each calls read for every column of a kind, as long as there is something to read.
func (m *Metadata) each(r *reader, columns []Column, kind func(Column) bool, read func(*ColumnMetadata)) {
	for i, c := range columns {
		if len(r.b) == 0 {
			return
		}
		if kind(c) {
			read(&m.Columns[i])
		}
	}
}

// defaultCharset reads the collation of all columns of a kind, and of those that have another
// one.
func (m *Metadata) defaultCharset(r *reader, columns []Column, kind func(Column) bool) {
	collation := uint32(r.packed())
	var of []*ColumnMetadata
	for i, c := range columns {
		if kind(c) {
			m.Columns[i].Collation = collation
			of = append(of, &m.Columns[i])
		}
	}
	for !r.bad && len(r.b) > 0 {
		at, other := r.packed(), uint32(r.packed())
		if at >= uint64(len(of)) {
			r.bad = true
			return
		}
		of[at].Collation = other
	}
}

// strings takes a number of strings, each with its length before it.
func (r *reader) strings() [][]byte {
	n := r.packed()
	if n > uint64(len(r.b)) { // each takes a byte at least
		r.bad = true
		return nil
	}
	list := make([][]byte, 0, n)
	for range n {
		list = append(list, r.bytes(r.packed()))
	}
	return list
}

// The kinds of columns that the fields count.
func every(Column) bool { return true }

func (c Column) numeric() bool {
	switch c.Type {
	case ColumnTiny, ColumnShort, ColumnInt24, ColumnLong, ColumnLongLong, ColumnFloat, ColumnDouble, ColumnNewDecimal, ColumnDecimal, ColumnYear:
		return true
	}
	return false
}

func (c Column) character() bool {
	switch real, _ := c.Real(); real {
	case ColumnString, ColumnVarString, ColumnVarchar, ColumnBlob, ColumnTinyBlob, ColumnMediumBlob, ColumnLongBlob,
		ColumnBlobCompressed, ColumnVarcharCompressed:
		return true
	}
	return false
}

func (c Column) characterOrGeometry() bool { return c.character() || c.geometry() }

func (c Column) enum() bool {
	real, _ := c.Real()
	return real == ColumnEnum
}

func (c Column) set() bool {
	real, _ := c.Real()
	return real == ColumnSet
}

func (c Column) enumOrSet() bool { return c.enum() || c.set() }
func (c Column) geometry() bool  { return c.Type == ColumnGeometry }
func (c Column) vector() bool    { return c.Type == ColumnVector }
