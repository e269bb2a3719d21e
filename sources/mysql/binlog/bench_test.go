package binlog

import (
	"bytes"
	"testing"

	"txreel/sources/mysql/gtid"
)

// workload builds a stream of groups of n rows each, in row events of up to about 8 KB as the
// servers make them.
func workload(t testing.TB, groups, rows int, typ Type) []byte {
	columns := []Column{{ColumnLong, 0}, {ColumnLong, 0}, {ColumnString, uint16(ColumnString)<<8 | 120}, {ColumnString, uint16(ColumnString)<<8 | 60}}
	row := append([]byte{0, 1, 0, 0, 0, 2, 0, 0, 0, 90}, bytes.Repeat([]byte("c"), 90)...)
	row = append(append(row, 40), bytes.Repeat([]byte("p"), 40)...)
	bitmaps := [][]byte{ones(4)}
	if typ == TypeUpdateRows {
		row, bitmaps = append(row, row...), append(bitmaps, ones(4))
	}
	perEvent := max(1, 8000/len(row))
	var b []byte
	add := func(typ Type, body []byte) {
		b = AppendEvent(b, Header{Timestamp: 1_700_000_000, Type: typ, ServerID: 1}, body, ChecksumCRC32)
	}
	for g := range groups {
		add(TypeGTID, gtidBody(gtid.UUID{1}, uint64(g+1)))
		add(TypeQuery, queryBody("sbtest", "BEGIN"))
		add(TypeTableMap, tableBody(99, "sbtest", "sbtest1", columns))
		for left := rows; left > 0; left -= perEvent {
			add(typ, rowsBody(typ, 99, 4, bytes.Repeat(row, min(left, perEvent)), bitmaps...))
		}
		add(TypeXID, make([]byte, 8))
	}
	return b
}

// reader of a workload: what capture does with every event.
type consumer struct {
	f      *Format
	g      Grouper
	c      *Counter
	held   *gtid.Set
	groups int
	rows   uint64
}

func (c *consumer) read(t testing.TB, b []byte) (events int) {
	for len(b) > 0 {
		h, err := ParseHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		e, err := c.f.Parse(b[:h.Size])
		if err == nil {
			err = e.Verify()
		}
		if err != nil {
			t.Fatal(err)
		}
		place, torn, err := c.g.Next(&e)
		if err != nil || torn {
			t.Fatal(err)
		}
		touched, whole := c.c.Count(&e, c.f)
		if !whole {
			t.Fatal("not counted")
		}
		for i := range touched {
			c.rows += touched[i].Rows
		}
		if place == Ends {
			c.groups++
			c.held.Add(c.g.Group.GTID)
		}
		b = b[h.Size:]
		events++
	}
	return events
}

func benchmark(b *testing.B, groups, rows int, typ Type) {
	stream := workload(b, groups, rows, typ)
	c := &consumer{f: formatOf(b, "8.4.0", ChecksumCRC32), c: NewCounter(), held: gtid.New(gtid.MySQL)}
	events := c.read(b, stream)
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		c.read(b, stream)
	}
	b.ReportMetric(float64(events)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkSmallTransactions(b *testing.B) { benchmark(b, 5000, 1, TypeWriteRows) }
func BenchmarkUpdatesOf10Rows(b *testing.B)   { benchmark(b, 1000, 10, TypeUpdateRows) }
func BenchmarkBulkRows(b *testing.B)          { benchmark(b, 5, 10000, TypeWriteRows) }

// TestAllocatesNothing holds the path of every event to no allocation: frame, checksum, group, GTID
// set, counts, also through a payload and what MariaDB compresses.
func TestAllocatesNothing(t *testing.T) {
	f := formatOf(t, "8.4.0", ChecksumCRC32)
	for name, stream := range map[string][]byte{
		"rows":       workload(t, 10, 100, TypeUpdateRows),
		"payload":    AppendEvent(nil, Header{Type: TypeTransactionPayload}, payloadBody(t, PayloadZstd, plainWorkload(t)...), ChecksumCRC32),
		"tagged":     AppendEvent(nil, Header{Type: TypeGTIDTagged}, taggedBody(gtid.UUID{1}, "tag", 1), ChecksumCRC32),
		"truncate":   AppendEvent(nil, Header{Type: TypeQuery}, queryBody("d", "TRUNCATE TABLE t"), ChecksumCRC32),
		"compressed": compressedWorkload(t),
	} {
		c := &consumer{f: f, c: NewCounter(), held: gtid.New(gtid.MySQL)}
		c.read(t, stream)
		if n := testing.AllocsPerRun(20, func() { c.g.Reset(); c.read(t, stream) }); n != 0 && (!raced || name != "payload") {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// plainWorkload is a workload as a payload holds it: without GTID and checksums.
func plainWorkload(t testing.TB) [][]byte {
	f := formatOf(t, "8.4.0", ChecksumCRC32)
	var events [][]byte
	for b := workload(t, 1, 500, TypeUpdateRows); len(b) > 0; {
		h, err := ParseHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		e, err := f.Parse(b[:h.Size])
		if err != nil {
			t.Fatal(err)
		}
		if !e.Type.Begins() {
			events = append(events, AppendEvent(nil, e.Header, e.Body, ChecksumNone))
		}
		b = b[h.Size:]
	}
	return events
}

func compressedWorkload(t testing.TB) []byte {
	columns := []Column{{ColumnLong, 0}, {ColumnVarchar, 90}}
	b := AppendEvent(nil, Header{Type: TypeTableMap}, tableBody(1, "s", "t", columns), ChecksumCRC32)
	rows := deflated(bytes.Repeat([]byte{0, 1, 2, 3, 4, 2, 'a', 'b'}, 3000))
	return AppendEvent(b, Header{Type: TypeWriteRowsCompressedV1}, rowsBody(TypeWriteRowsCompressedV1, 1, 2, rows, ones(2)), ChecksumCRC32)
}
