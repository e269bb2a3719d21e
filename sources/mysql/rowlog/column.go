package rowlog

import (
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/rowlog/charset"
	"txreel/sources/mysql/rowlog/sqltext"
)

// kind says how a column's value is stored and what it means.
type kind uint8

const (
	kindUnknown kind = iota // no way to tell how long a value is
	kindNone                // takes no bytes
	kindInt
	kindFloat
	kindDouble
	kindDecimal
	kindYear
	kindDate
	kindTime
	kindDatetime
	kindTimestamp
	kindOldTime
	kindOldDatetime
	kindOldTimestamp
	kindHiresTime     // MariaDB's own, before it took over MySQL's
	kindHiresDatetime // the same
	kindHiresTimestamp
	kindBit
	kindEnum
	kindSet
	kindString
	kindJSON // MySQL's binary one
	kindUUID
	kindInet6
	kindInet4
)

// column is what it takes to read the values of one column of a TABLE_MAP event.
type column struct {
	typ  binlog.ColumnType // ENUM and SET told apart from the CHAR they hide behind
	meta uint16            // what the event says beside the type

	kind   kind
	size   int // bytes of a value; 0 where each has its own length
	prefix int // bytes of that length

	frac       int // digits of a fraction of a second, or behind the point
	precision  int
	unsigned   bool
	signKnown  bool
	zerofill   int // width
	fixed      int // FLOAT(m,d): digits behind the point, plus one
	compressed bool
	text       bool             // of a character set that cs stands for
	bytes      bool             // known to be bytes, not characters
	cs         *charset.Charset // nil: not known, or none
	pad        int              // bytes that trailing zeros have been cut from
	members    [][]byte         // ENUM and SET: their names, in UTF-8
	geometry   uint64           // what a GEOMETRY column takes, by the number of the type
	dimensions uint64           // VECTOR
	declared   string           // the type as the schema names it
}

// newColumn reads what the event itself must say of a column.
func newColumn(from binlog.Column) column {
	c := column{typ: from.Type, meta: from.Meta}
	switch c.typ {
	case binlog.ColumnTiny:
		c.kind, c.size = kindInt, 1
	case binlog.ColumnShort:
		c.kind, c.size = kindInt, 2
	case binlog.ColumnInt24:
		c.kind, c.size = kindInt, 3
	case binlog.ColumnLong:
		c.kind, c.size = kindInt, 4
	case binlog.ColumnLongLong:
		c.kind, c.size = kindInt, 8
	case binlog.ColumnFloat:
		c.kind, c.size = kindFloat, 4
	case binlog.ColumnDouble:
		c.kind, c.size = kindDouble, 8
	case binlog.ColumnNull:
		c.kind = kindNone
	case binlog.ColumnYear:
		c.kind, c.size = kindYear, 1
	case binlog.ColumnNewDecimal:
		c.precision, c.frac = int(c.meta>>8), int(c.meta&0xff)
		if c.size = sqltext.DecimalSize(c.precision, c.frac); c.size > 0 {
			c.kind = kindDecimal
		}
	case binlog.ColumnBit:
		c.kind, c.size = kindBit, int(c.meta>>8)
		if c.meta&0xff > 0 {
			c.size++
		}
	case binlog.ColumnEnum, binlog.ColumnSet:
		c.setMembers(c.typ, int(c.meta&0xff))
	case binlog.ColumnString:
		c.stringColumn(from)
	case binlog.ColumnVarchar, binlog.ColumnVarString:
		c.varying(int(c.meta))
	case binlog.ColumnVarcharCompressed:
		c.varying(int(c.meta))
		c.precision = max(c.precision-1, 0) // one byte tells how it is compressed
		c.compressed = true
	case binlog.ColumnBlobCompressed:
		c.blob()
		c.compressed = true
	case binlog.ColumnBlob, binlog.ColumnTinyBlob, binlog.ColumnMediumBlob, binlog.ColumnLongBlob, binlog.ColumnGeometry, binlog.ColumnVector, binlog.ColumnJSON:
		c.blob()
	default:
		c.temporal()
	}
	return c
}

// temporal reads the types of dates and times.
func (c *column) temporal() {
	fraction := int(c.meta)
	if fraction > 6 {
		return
	}
	switch c.typ {
	case binlog.ColumnDate, binlog.ColumnNewDate:
		c.kind, c.size = kindDate, 3
	case binlog.ColumnTime:
		c.kind, c.size = kindOldTime, 3
	case binlog.ColumnDatetime:
		c.kind, c.size = kindOldDatetime, 8
	case binlog.ColumnTimestamp:
		c.kind, c.size = kindOldTimestamp, 4
	case binlog.ColumnTime2:
		c.kind, c.size, c.frac = kindTime, 3+(fraction+1)/2, fraction
	case binlog.ColumnDatetime2:
		c.kind, c.size, c.frac = kindDatetime, 5+(fraction+1)/2, fraction
	case binlog.ColumnTimestamp2:
		c.kind, c.size, c.frac = kindTimestamp, 4+(fraction+1)/2, fraction
	}
}

// stringColumn reads CHAR and BINARY, which share a type with ENUM and SET.
func (c *column) stringColumn(from binlog.Column) {
	switch real, length := from.Real(); real {
	case binlog.ColumnEnum, binlog.ColumnSet:
		c.setMembers(real, length)
	case binlog.ColumnString:
		c.varying(length)
	}
}

func (c *column) setMembers(typ binlog.ColumnType, size int) {
	c.typ = typ
	if size < 1 || size > 8 || typ == binlog.ColumnEnum && size > 2 {
		return
	}
	c.kind, c.size = kindSet, size
	if typ == binlog.ColumnEnum {
		c.kind = kindEnum
	}
}

// varying reads a value of up to so many bytes.
func (c *column) varying(length int) {
	c.kind, c.precision, c.prefix = kindString, length, 1
	if length > 255 {
		c.prefix = 2
	}
}

func (c *column) blob() {
	if c.meta < 1 || c.meta > 4 {
		return
	}
	c.kind, c.prefix = kindString, int(c.meta)
	c.bytes = c.typ == binlog.ColumnGeometry || c.typ == binlog.ColumnVector
	if c.typ == binlog.ColumnJSON {
		c.kind = kindJSON
	}
}

// character reports whether values may be characters, so that a character set belongs to
// the column.
func (c *column) character() bool {
	return c.kind == kindString && c.typ != binlog.ColumnGeometry && c.typ != binlog.ColumnVector
}

// take takes the bytes of a value off b, without those of its length.
func (c *column) take(b []byte) (v, rest []byte, ok bool) {
	n := uint64(c.size)
	if c.prefix > 0 {
		if len(b) < c.prefix {
			return nil, nil, false
		}
		n = sqltext.Uint(b[:c.prefix])
		b = b[c.prefix:]
	}
	if n > uint64(len(b)) || c.kind == kindUnknown {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}
