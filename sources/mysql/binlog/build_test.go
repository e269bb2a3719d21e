package binlog

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"txreel/sources/mysql/gtid"
)

// formatEvent builds the FORMAT_DESCRIPTION event of a server.
func formatEvent(version string, sum Checksum) []byte {
	body := binary.LittleEndian.AppendUint16(nil, 4)
	body = append(body, version...)
	body = append(body, make([]byte, 50-len(version))...)
	body = binary.LittleEndian.AppendUint32(body, 1_700_000_000)
	body = append(body, HeaderSize)
	lengths := make([]byte, 172)
	for t, n := range map[Type]byte{TypeTableMap: 8, TypeWriteRowsV1: 8, TypeUpdateRowsV1: 8, TypeDeleteRowsV1: 8, TypeWriteRows: 10, TypeUpdateRows: 10, TypeDeleteRows: 10, TypePartialUpdateRows: 10} {
		lengths[t-1] = n
	}
	body = append(append(body, lengths...), byte(sum))
	return AppendEvent(nil, Header{Type: TypeFormatDescription}, body, ChecksumCRC32)
}

// formatOf parses what formatEvent built.
func formatOf(t testing.TB, version string, sum Checksum) *Format {
	t.Helper()
	e, err := Parse(formatEvent(version, sum), ChecksumNone)
	if err == nil {
		err = e.Verify()
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseFormat(&e)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// event builds an event and parses it.
func event(t testing.TB, f *Format, typ Type, body []byte) *Event {
	t.Helper()
	e, err := f.Parse(AppendEvent(nil, Header{Timestamp: 1_700_000_000, Type: typ, ServerID: 1}, body, f.Checksum))
	if err == nil {
		err = e.Verify()
	}
	if err != nil {
		t.Fatal(err)
	}
	return &e
}

// queryBody builds a QUERY event's body, with flags2 and sql_mode before the text.
func queryBody(schema, text string) []byte {
	vars := append([]byte{varFlags2, 0, 0, 0, 0, varSQLMode}, make([]byte, 8)...)
	b := binary.LittleEndian.AppendUint32(nil, 7)
	b = binary.LittleEndian.AppendUint32(b, 1)
	b = append(b, byte(len(schema)), 0, 0, byte(len(vars)), 0)
	b = append(append(append(b, vars...), schema...), 0)
	return append(b, text...)
}

// gtidBody builds the body of a GTID event of MySQL 8.0.
func gtidBody(sid gtid.UUID, n uint64) []byte {
	b := append([]byte{0}, sid[:]...)
	b = binary.LittleEndian.AppendUint64(b, n)
	b = append(b, 2)
	b = binary.LittleEndian.AppendUint64(b, n-1)
	b = binary.LittleEndian.AppendUint64(b, n)
	b = append(b, 1, 2, 3, 4, 5, 6, 0)
	b = appendPacked(b, 300)
	return binary.LittleEndian.AppendUint32(b, 80400)
}

// mariadbBody builds the body of a GTID event of MariaDB.
func mariadbBody(domain uint32, n uint64, flags uint8, more ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, n)
	b = append(binary.LittleEndian.AppendUint32(b, domain), flags)
	b = append(b, more...)
	for len(b) < 19 {
		b = append(b, 0)
	}
	return b
}

// tableBody builds a TABLE_MAP event's body.
func tableBody(id uint64, schema, name string, columns []Column) []byte {
	b := binary.LittleEndian.AppendUint64(nil, id)[:6]
	b = append(b, 1, 0)
	b = append(append(append(b, byte(len(schema))), schema...), 0)
	b = append(append(append(b, byte(len(name))), name...), 0)
	b = appendPacked(b, uint64(len(columns)))
	var meta []byte
	for _, c := range columns {
		b = append(b, byte(c.Type))
		switch size, bigEndian := c.Type.metaSize(); {
		case bigEndian:
			meta = append(meta, byte(c.Meta>>8), byte(c.Meta))
		case size == 2:
			meta = append(meta, byte(c.Meta), byte(c.Meta>>8))
		case size == 1:
			meta = append(meta, byte(c.Meta))
		}
	}
	b = append(appendPacked(b, uint64(len(meta))), meta...)
	return append(b, make([]byte, (len(columns)+7)/8)...)
}

// rowsBody builds a row event's body: its head, the bitmaps of columns, and the rows.
func rowsBody(t Type, id uint64, width int, rows []byte, bitmaps ...[]byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, id)[:6]
	b = append(b, byte(RowsEndStatement), 0)
	if t.rowsKind().version == 2 {
		b = append(b, 2, 0)
	}
	b = appendPacked(b, uint64(width))
	for _, bitmap := range bitmaps {
		b = append(b, bitmap...)
	}
	return append(b, rows...)
}

// deflated compresses as MariaDB does.
func deflated(b []byte) []byte {
	var out bytes.Buffer
	out.Write([]byte{0x84})
	out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
	z := zlib.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return out.Bytes()
}

// encoder is made once: that takes longer than all it does here.
var encoder = sync.OnceValue(func() *zstd.Encoder {
	z, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	return z
})

// payloadBody builds a TRANSACTION_PAYLOAD event's body of events.
func payloadBody(t testing.TB, algorithm PayloadAlgorithm, events ...[]byte) []byte {
	t.Helper()
	all := bytes.Join(events, nil)
	data := all
	if algorithm == PayloadZstd {
		data = encoder().EncodeAll(all, nil)
	}
	field := func(b []byte, id byte, v uint64) []byte {
		value := appendPacked(nil, v)
		return append(append(b, id, byte(len(value))), value...)
	}
	b := field(nil, payloadAlgorithm, uint64(algorithm))
	b = field(b, payloadSize, uint64(len(all)))
	b = field(b, payloadDataSize, uint64(len(data)))
	return append(append(b, payloadEnd), data...)
}

// ones is a bitmap with n bits set.
func ones(n int) []byte {
	b := bytes.Repeat([]byte{0xff}, (n+7)/8)
	if n%8 != 0 {
		b[len(b)-1] = 1<<(n%8) - 1
	}
	return b
}
