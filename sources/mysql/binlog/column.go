package binlog

// ColumnType is the type of a column as a TABLE_MAP event has it.
type ColumnType uint8

// The types of columns of both vendors.
const (
	ColumnDecimal           ColumnType = 0
	ColumnTiny              ColumnType = 1
	ColumnShort             ColumnType = 2
	ColumnLong              ColumnType = 3
	ColumnFloat             ColumnType = 4
	ColumnDouble            ColumnType = 5
	ColumnNull              ColumnType = 6
	ColumnTimestamp         ColumnType = 7
	ColumnLongLong          ColumnType = 8
	ColumnInt24             ColumnType = 9
	ColumnDate              ColumnType = 10
	ColumnTime              ColumnType = 11
	ColumnDatetime          ColumnType = 12
	ColumnYear              ColumnType = 13
	ColumnNewDate           ColumnType = 14
	ColumnVarchar           ColumnType = 15
	ColumnBit               ColumnType = 16
	ColumnTimestamp2        ColumnType = 17
	ColumnDatetime2         ColumnType = 18
	ColumnTime2             ColumnType = 19
	ColumnTypedArray        ColumnType = 20
	ColumnBlobCompressed    ColumnType = 140 // MariaDB
	ColumnVarcharCompressed ColumnType = 141 // MariaDB
	ColumnVector            ColumnType = 242
	ColumnJSON              ColumnType = 245
	ColumnNewDecimal        ColumnType = 246
	ColumnEnum              ColumnType = 247
	ColumnSet               ColumnType = 248
	ColumnTinyBlob          ColumnType = 249
	ColumnMediumBlob        ColumnType = 250
	ColumnLongBlob          ColumnType = 251
	ColumnBlob              ColumnType = 252
	ColumnVarString         ColumnType = 253
	ColumnString            ColumnType = 254
	ColumnGeometry          ColumnType = 255
)

// Column is what the log must say of a column for its values to be found.
type Column struct {
	Type ColumnType
	// Meta is the type's own metadata: for ColumnString, ColumnEnum, ColumnSet and
	// ColumnNewDecimal its first byte times 256 plus its second, for others
	// the number that it is.
	Meta uint16
}

// Real returns the type that a ColumnString stands for, which may be ColumnEnum or
// ColumnSet, and the most bytes that a value has, without the bytes of its length. Of
// other types it returns the type, and 0 for the length.
func (c Column) Real() (ColumnType, int) {
	if c.Type != ColumnString || c.Meta < 256 {
		return c.Type, 0
	}
	first, second := c.Meta>>8, c.Meta&0xff
	if first&0x30 != 0x30 { // the length needs two bits more
		return ColumnType(first | 0x30), int(second | (first&0x30^0x30)<<4)
	}
	return ColumnType(first), int(second)
}

// width says how many bytes a value has in a row: those of its length, if prefix is
// not zero, and those that the length counts, or else fixed ones.
type width struct {
	fixed  uint32
	prefix uint8
}

// noWidth marks a type whose values cannot be passed over.
const noWidth = 0xff

// width returns how to find a value's end.
func (c Column) width() width {
	switch c.Type {
	case ColumnNull:
		return width{}
	case ColumnTiny, ColumnYear:
		return width{fixed: 1}
	case ColumnShort:
		return width{fixed: 2}
	case ColumnInt24, ColumnDate, ColumnNewDate, ColumnTime:
		return width{fixed: 3}
	case ColumnLong, ColumnFloat, ColumnTimestamp:
		return width{fixed: 4}
	case ColumnLongLong, ColumnDouble, ColumnDatetime:
		return width{fixed: 8}
	case ColumnTimestamp2:
		return fractional(4, c.Meta)
	case ColumnDatetime2:
		return fractional(5, c.Meta)
	case ColumnTime2:
		return fractional(3, c.Meta)
	case ColumnNewDecimal:
		return decimalWidth(int(c.Meta>>8), int(c.Meta&0xff))
	case ColumnBit:
		n := uint32(c.Meta >> 8)
		if c.Meta&0xff != 0 {
			n++
		}
		return width{fixed: n}
	case ColumnEnum, ColumnSet:
		return width{fixed: uint32(c.Meta & 0xff)}
	case ColumnString:
		real, length := c.Real()
		if real == ColumnEnum || real == ColumnSet {
			return width{fixed: uint32(length)}
		}
		return lengthPrefixed(length)
	case ColumnVarchar, ColumnVarString, ColumnVarcharCompressed:
		return lengthPrefixed(int(c.Meta))
	case ColumnBlob, ColumnGeometry, ColumnJSON, ColumnVector, ColumnBlobCompressed, ColumnTinyBlob, ColumnMediumBlob, ColumnLongBlob:
		if c.Meta >= 1 && c.Meta <= 4 {
			return width{prefix: uint8(c.Meta)}
		}
	}
	return width{prefix: noWidth}
}

func lengthPrefixed(most int) width {
	if most > 255 {
		return width{prefix: 2}
	}
	return width{prefix: 1}
}

// fractional returns the width of a temporal type with digits of fractional seconds.
func fractional(base uint32, digits uint16) width {
	if digits > 6 {
		return width{prefix: noWidth}
	}
	return width{fixed: base + uint32(digits+1)/2}
}

// decimalWidth returns the width of a DECIMAL: nine digits take four bytes on either
// side of the point, and fewer take fewer.
func decimalWidth(precision, scale int) width {
	if scale > precision || precision > 65 {
		return width{prefix: noWidth}
	}
	return width{fixed: digitBytes(precision-scale) + digitBytes(scale)}
}

func digitBytes(digits int) uint32 {
	return uint32(digits/9*4 + (digits%9+1)/2)
}

// Size returns how many bytes the value at the beginning of b has, those of its length
// included, and false if that cannot be told or b ends before. NULL takes no bytes and
// is not asked for.
func (c Column) Size(b []byte) (int, bool) {
	w := c.width()
	n := uint64(w.fixed)
	if w.prefix == noWidth || len(b) < int(w.prefix) {
		return 0, false
	}
	for i := range int(w.prefix) {
		n |= uint64(b[i]) << (8 * i)
	}
	n += uint64(w.prefix)
	return int(n), n <= uint64(len(b))
}

// metaSize returns how many bytes of a TABLE_MAP's metadata belong to a type, and
// whether the first of two comes first in Meta as well.
func (t ColumnType) metaSize() (size int, bigEndian bool) {
	switch t {
	case ColumnFloat, ColumnDouble, ColumnBlob, ColumnTinyBlob, ColumnMediumBlob, ColumnLongBlob, ColumnGeometry, ColumnJSON,
		ColumnVector, ColumnBlobCompressed, ColumnTimestamp2, ColumnDatetime2, ColumnTime2:
		return 1, false
	case ColumnVarchar, ColumnVarString, ColumnVarcharCompressed, ColumnBit:
		return 2, false
	case ColumnString, ColumnEnum, ColumnSet, ColumnNewDecimal:
		return 2, true
	}
	return 0, false
}
