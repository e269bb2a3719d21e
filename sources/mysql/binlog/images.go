package binlog

import "encoding/binary"

// Shape tells where the values are in the images of a table's rows. The zero value is that of no columns.
type Shape struct{ widths []width }

// Set makes it the shape of a table with these columns. It is false for columns whose values cannot be told apart.
func (s *Shape) Set(columns []Column) bool {
	s.widths = s.widths[:0]
	for _, c := range columns {
		w := c.width()
		if w.prefix == noWidth {
			return false
		}
		s.widths = append(s.widths, w)
	}
	return len(columns) > 0
}

// Equal reports whether two shapes find the same values.
func (s *Shape) Equal(columns []Column) bool {
	if len(columns) != len(s.widths) {
		return false
	}
	for i, c := range columns {
		if c.width() != s.widths[i] {
			return false
		}
	}
	return true
}

// Whole reports whether an image with this bitmap holds every column.
func (s *Shape) Whole(bitmap []byte) bool { return present(bitmap, len(s.widths)) == len(s.widths) }

// Image finds values in the image that b begins with, which must hold every column: the bytes of those at the wanted positions, which
// ascend, with the bytes of their lengths; an empty one is NULL. The values alias b. It returns the size of the image, and false if b holds none.
func (s *Shape) Image(b []byte, wanted []int, values [][]byte) (size int, ok bool) {
	return s.walk(b, len(s.widths), wanted, values)
}

// Values is Image for who needs no size, and so stops behind the last value.
func (s *Shape) Values(b []byte, wanted []int, values [][]byte) bool {
	_, ok := s.walk(b, wanted[len(wanted)-1]+1, wanted, values)
	return ok
}

// walk looks at the first columns of an image.
func (s *Shape) walk(b []byte, columns int, wanted []int, values [][]byte) (at int, ok bool) {
	at = (len(s.widths) + 7) / 8
	if at > len(b) {
		return 0, false
	}
	nulls, k := b[:at], 0
	for i, w := range s.widths[:columns] {
		from := at
		if !bit(nulls, i) {
			n := uint64(w.fixed)
			if w.prefix > 0 {
				if len(b)-at < int(w.prefix) {
					return 0, false
				}
				n = uint64(w.prefix) + length(b[at:], w.prefix)
			}
			if n > uint64(len(b)-at) {
				return 0, false
			}
			at += int(n)
		}
		if k < len(wanted) && wanted[k] == i {
			values[k] = b[from:at]
			k++
		}
	}
	return at, k == len(wanted)
}

// length reads a value's length, of 1 to 4 bytes.
func length(b []byte, bytes uint8) uint64 {
	switch bytes {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 3:
		return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16
	}
	return uint64(binary.LittleEndian.Uint32(b))
}

// EndsStatement reports whether a row event is the last one of its statement.
func EndsStatement(raw []byte, f *Format) bool {
	return raw[rowsFlagsAt(raw, f)]&byte(RowsEndStatement) != 0
}

// EndStatement makes a row event the last one of its statement. Seal must follow.
func EndStatement(raw []byte, f *Format) { raw[rowsFlagsAt(raw, f)] |= byte(RowsEndStatement) }

// rowsFlagsAt returns where the flags of a row event that ParseRows accepts stand.
func rowsFlagsAt(raw []byte, f *Format) int {
	if f.postHeaderSize(Type(raw[4]), 8) == 6 {
		return HeaderSize + 4
	}
	return HeaderSize + 6
}

// Seal writes size and checksum into an event that was changed in place; the checksum's bytes are the last ones of raw.
func Seal(raw []byte, sum Checksum) {
	finish(raw[:len(raw)-sum.Size()], 0, sum)
}

// IsControl reports whether a QUERY event only begins, divides or ends a transaction.
func IsControl(e *Event) bool { return isControl(queryText(e)) }

// IsBegin reports whether a QUERY event only begins a transaction.
func IsBegin(e *Event) bool { return string(queryText(e)) == "BEGIN" }
