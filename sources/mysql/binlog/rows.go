package binlog

import (
	"math/bits"

	"txreel/change"
)

// Rows is a row event: what one statement, or a part of it, did to one table. Its
// slices alias the event.
type Rows struct {
	TableID uint64
	Flags   uint16
	Op      change.Op // insert, update or delete
	Width   int       // the number of the table's columns
	// Before and After have a bit for every column, from the lowest of the first byte on, which
	// is set if the image holds the column. They are nil where there is no such image.
	Before, After []byte
	// Data is the images, of an update by turns the one before and the one after: a bit for
	// every column that the image holds, which is set if it is NULL, then the values of the rest. In a
	// compressed event it is compressed: an Inflater brings it back.
	Data       []byte
	Compressed bool
	// Partial means that images after an update begin with options, and may hold differences
	// in place of JSON documents (PARTIAL_UPDATE_ROWS).
	Partial bool
	Extra   []byte // what version 2 adds of partitions
}

// Flags of a row event.
const (
	RowsEndStatement      uint16 = 1 << iota // the last event of its statement
	RowsNoForeignKeys                        // foreign_key_checks was off
	RowsRelaxedUnique                        // unique_checks was off
	RowsComplete                             // rows hold all columns
	RowsForeignKeysLogged                    // MySQL 9.6: what foreign keys did is logged as rows of its own
)

// rowsKind says what a type of row events does, and how it is laid out.
type rowsKind struct {
	op         change.Op
	version    uint8
	compressed bool
	partial    bool
}

// rowsKind returns what a type does to rows; the operation is zero if it does nothing.
func (t Type) rowsKind() rowsKind {
	switch t {
	case TypeWriteRows:
		return rowsKind{op: change.OpInsert, version: 2}
	case TypeUpdateRows:
		return rowsKind{op: change.OpUpdate, version: 2}
	case TypeDeleteRows:
		return rowsKind{op: change.OpDelete, version: 2}
	case TypePartialUpdateRows:
		return rowsKind{op: change.OpUpdate, version: 2, partial: true}
	case TypeWriteRowsV1:
		return rowsKind{op: change.OpInsert, version: 1}
	case TypeUpdateRowsV1:
		return rowsKind{op: change.OpUpdate, version: 1}
	case TypeDeleteRowsV1:
		return rowsKind{op: change.OpDelete, version: 1}
	case TypeWriteRowsCompressedV1:
		return rowsKind{op: change.OpInsert, version: 1, compressed: true}
	case TypeUpdateRowsCompressedV1:
		return rowsKind{op: change.OpUpdate, version: 1, compressed: true}
	case TypeDeleteRowsCompressedV1:
		return rowsKind{op: change.OpDelete, version: 1, compressed: true}
	case TypeWriteRowsCompressed:
		return rowsKind{op: change.OpInsert, version: 2, compressed: true}
	case TypeUpdateRowsCompressed:
		return rowsKind{op: change.OpUpdate, version: 2, compressed: true}
	case TypeDeleteRowsCompressed:
		return rowsKind{op: change.OpDelete, version: 2, compressed: true}
	}
	return rowsKind{}
}

// HoldsRows reports whether events of this type hold rows.
func (t Type) HoldsRows() bool { return t.rowsKind().op != 0 }

// dummyTable is the table id of a row event that only ends a statement.
const dummyTable = 0x00ffffff

// ParseRows reads a row event, not its rows. It allocates nothing.
func ParseRows(e *Event, f *Format) (Rows, error) {
	kind := e.Type.rowsKind()
	r := reader{b: e.Body}
	rows := Rows{Op: kind.op, Compressed: kind.compressed, Partial: kind.partial}
	rows.TableID = r.tableID(f, e.Type)
	rows.Flags = r.u16()
	if kind.version == 2 {
		size := uint64(r.u16()) // its own two bytes included
		if size < 2 {
			return Rows{}, malformed(e)
		}
		rows.Extra = r.bytes(size - 2)
	}
	width := r.packed()
	if width > maxColumns || kind.op == 0 {
		return Rows{}, malformed(e)
	}
	rows.Width = int(width)
	first := r.bytes((width + 7) / 8)
	switch kind.op {
	case change.OpInsert:
		rows.After = first
	case change.OpDelete:
		rows.Before = first
	default:
		rows.Before, rows.After = first, r.bytes((width+7)/8)
	}
	rows.Data = r.b
	if r.bad {
		return Rows{}, malformed(e)
	}
	return rows, nil
}

// present counts the columns that an image holds. Bits behind the last column count for
// nothing.
func present(bitmap []byte, width int) int {
	n := 0
	for i, b := range bitmap {
		if rest := width - 8*i; rest < 8 {
			b &= 1<<rest - 1
		}
		n += bits.OnesCount8(b)
	}
	return n
}

// bit reports whether a bit of a bitmap is set.
func bit(bitmap []byte, i int) bool { return bitmap[i>>3]&(1<<(i&7)) != 0 }
