package reduce

import (
	"encoding/binary"
	"fmt"

	"txreel/change"
	"txreel/segment"
	"txreel/sources/mysql/binlog"
)

// definition is a FORMAT_DESCRIPTION event of MySQL 8.4 with checksums.
func definition() []byte {
	const version = "8.4.0"
	b := binary.LittleEndian.AppendUint16(nil, 4)
	b = append(b, version...)
	b = append(b, make([]byte, 50-len(version)+4)...)
	b = append(b, binlog.HeaderSize)
	sizes := make([]byte, 42)
	for t, n := range map[binlog.Type]byte{binlog.TypeTableMap: 8, binlog.TypeWriteRows: 10, binlog.TypeUpdateRows: 10, binlog.TypeDeleteRows: 10, binlog.TypePartialUpdateRows: 10} {
		sizes[t-1] = n
	}
	b = append(append(b, sizes...), byte(binlog.ChecksumCRC32))
	return binlog.AppendEvent(nil, binlog.Header{Type: binlog.TypeFormatDescription}, b, binlog.ChecksumCRC32)
}

func anEvent(t binlog.Type, body []byte) []byte {
	return binlog.AppendEvent(nil, binlog.Header{Type: t, ServerID: 7}, body, binlog.ChecksumCRC32)
}

func gtidEvent(n uint64) []byte {
	b := append([]byte{0}, make([]byte, 15)...)
	b = append(b, 1)
	return anEvent(binlog.TypeGTID, binary.LittleEndian.AppendUint64(b, n))
}

func queryEvent(text string) []byte {
	return anEvent(binlog.TypeQuery, append(make([]byte, 14), text...))
}

func xidEvent(n uint64) []byte {
	return anEvent(binlog.TypeXID, binary.LittleEndian.AppendUint64(nil, n))
}

// A tuple is a row of the tables that tests know: id int, u int, v varchar(300), w int; u and v may be NULL.
type tuple struct {
	id int32
	u  int32 // zero is NULL
	v  string
	w  int32
}

// The table that updates may be left out of has a key and a unique column.
var known = Tables{TableKey("d", "t"): {Columns: 4, Guarded: []int{0, 1}, Key: []int{0}}}

func mapEvent(number byte, table string) []byte {
	b := []byte{number, 0, 0, 0, 0, 0, 1, 0, 1, 'd', 0, byte(len(table))}
	b = append(append(b, table...), 0, 4, byte(binlog.ColumnLong), byte(binlog.ColumnLong), byte(binlog.ColumnVarchar), byte(binlog.ColumnLong))
	b = append(b, 2, 300&0xff, 300>>8, 0b0110)
	return anEvent(binlog.TypeTableMap, b)
}

func (r tuple) append(b []byte) []byte {
	nulls := byte(0)
	if r.u == 0 {
		nulls |= 2
	}
	if r.v == "" {
		nulls |= 4
	}
	b = binary.LittleEndian.AppendUint32(append(b, nulls), uint32(r.id))
	if r.u != 0 {
		b = binary.LittleEndian.AppendUint32(b, uint32(r.u))
	}
	if r.v != "" {
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(r.v))), r.v...)
	}
	return binary.LittleEndian.AppendUint32(b, uint32(r.w))
}

// tupleOf reads what append wrote.
func tupleOf(b []byte) (r tuple, rest []byte) {
	nulls := b[0]
	r.id, b = int32(binary.LittleEndian.Uint32(b[1:])), b[5:]
	if nulls&2 == 0 {
		r.u, b = int32(binary.LittleEndian.Uint32(b)), b[4:]
	}
	if nulls&4 == 0 {
		n := int(binary.LittleEndian.Uint16(b))
		r.v, b = string(b[2:2+n]), b[2+n:]
	}
	r.w = int32(binary.LittleEndian.Uint32(b))
	return r, b[4:]
}

// rowsEvent holds rows; of an update the images before and after by turns.
func rowsEvent(t binlog.Type, number byte, ends bool, rows ...tuple) []byte {
	b := []byte{number, 0, 0, 0, 0, 0, 0, 0, 2, 0, 4, 0xff}
	if ends {
		b[6] = 1
	}
	if t != binlog.TypeWriteRows && t != binlog.TypeDeleteRows {
		b = append(b, 0xff)
	}
	for _, r := range rows {
		b = r.append(b)
	}
	return anEvent(t, b)
}

// records is a Source.
type records struct {
	list []segment.Record
	err  error // behind them
}

func (r *records) Next() (segment.Record, error) {
	if len(r.list) == 0 {
		return segment.Record{}, r.err
	}
	rec := r.list[0]
	r.list = r.list[1:]
	return rec, nil
}

// transaction makes the records of a transaction from its messages.
func transaction(seq change.Seq, xid string, messages ...[]byte) []segment.Record {
	list := []segment.Record{{Kind: segment.Begin, Seq: seq, TxnKind: change.TxnSource}}
	for _, m := range messages {
		list = append(list, segment.Record{Kind: segment.Message, Raw: m})
	}
	return append(list, segment.Record{Kind: segment.Commit, Seq: seq, XID: xid})
}

func xidOf(n uint64) string { return fmt.Sprintf("00000000-0000-0000-0000-000000000001:%d", n) }
