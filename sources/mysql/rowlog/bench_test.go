package rowlog

import (
	"encoding/binary"
	"strings"
	"testing"

	"txreel/change"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
)

// workload is a table and an event with many rows of it.
type workload struct {
	name   string
	flavor gtid.Flavor
	table  []byte
	rows   []byte
	n      int
}

func workloads() []workload {
	const n = 100
	head := "\x07\x00\x00\x00\x00\x00\x01\x00"
	var narrow, wide, partial strings.Builder
	for i := range n {
		id := string(binary.LittleEndian.AppendUint32(nil, uint32(i)))
		// sysbench: id int, k int, c char(120), pad char(60)
		image := "\x00" + id + id + "\x77" + strings.Repeat("01234567-", 13) + "01" + "\x3b" + strings.Repeat("01234-6789-", 5) + "0123"
		narrow.WriteString(image + image)
		// int, decimal(10,2), double, datetime(6), timestamp(3), varchar latin1, enum, json
		wide.WriteString("\x00" + id + "\x80\x00\x01\xe2\x28" + "\x9a\x99\x99\x99\x99\x99\xf1\x3f" + "\x99\xb4\x3a\x19\x37\x0c\x0a\x14" + "\x65\xe0\x79\xf0\x1e\xd2" +
			"\x05caf\xe9s" + "\x02" + "\x11\x00\x00\x00" + "\x00\x01\x00\x10\x00\x0b\x00\x05\x00\x05\x2a\x00price")
		partial.WriteString("\x00" + id + "\x11\x00\x00\x00" + "\x00\x01\x00\x10\x00\x0b\x00\x05\x00\x05\x2a\x00price" +
			"\x01\x01\x00" + id + "\x0d\x00\x00\x00" + "\x00\x07$.price\x03\x05" + "\x07\x00")
	}
	return []workload{
		{"update of sysbench rows", gtid.MySQL, event(binlog.TypeTableMap, head+"\x02sb\x00\x07sbtest1\x00\x04\x03\x03\xfe\xfe\x04\xfe\x78\xfe\x3c\x00\x01\x01\x00\x02\x01\x2d"),
			event(binlog.TypeUpdateRows, head+"\x02\x00\x04\x0f\x0f"+narrow.String()), n},
		{"insert of many types", gtid.MySQL, event(binlog.TypeTableMap, head+"\x01t\x00\x01w\x00\x08\x03\xf6\x05\x12\x11\x0f\xfe\xf5\x0a\x0a\x02\x08\x06\x03\x14\x00\xf7\x01\x04\xff\x02\x01\x08\x06\x05\x02\x01a\x01b"),
			event(binlog.TypeWriteRows, head+"\x02\x00\x08\xff"+wide.String()), n},
		{"partial update of JSON", gtid.MySQL, event(binlog.TypeTableMap, head+"\x01t\x00\x01p\x00\x02\x03\xf5\x01\x04\x03"),
			event(binlog.TypePartialUpdateRows, head+"\x02\x00\x02\x03\x03"+partial.String()), n},
		{"MariaDB, with compressed columns", gtid.MariaDB, event(binlog.TypeTableMap, mariadbTable()), event(binlog.TypeWriteRowsV1, mariadbRows()), 2},
	}
}

// decodeOnce decodes a workload and returns the number of rows.
func (w *workload) decodeOnce(t testing.TB, d *Decoder, ev *change.Event) (n int) {
	if err := d.Decode(w.table); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(w.rows); err != nil {
		t.Fatal(err)
	}
	for {
		is, err := d.Next(ev)
		if err != nil {
			t.Fatal(err)
		}
		if !is {
			return n
		}
		n++
	}
}

func TestAllocations(t *testing.T) {
	for _, w := range workloads() {
		d := newTestDecoder(w.flavor, nil)
		var ev change.Event
		if n := w.decodeOnce(t, d, &ev); n != w.n {
			t.Fatalf("%s: %d rows, want %d", w.name, n, w.n)
		}
		if got := testing.AllocsPerRun(50, func() { w.decodeOnce(t, d, &ev) }); got > 0 {
			t.Errorf("%s: %v allocations for %d rows", w.name, got, w.n)
		}
		if n := cap(d.text) + cap(d.columns.buf) + cap(d.inflated); n > 16<<10 {
			t.Errorf("%s: %d bytes are kept for rows of a few", w.name, n)
		}
	}
}

// TestWorkloads shows one row of each.
func TestWorkloads(t *testing.T) {
	for i, want := range []string{
		"update @1=text \"0\" @2=text \"0\" @3=text \"01234567-01234567-",
		"insert -> @1=text \"0\" @2=text \"482.40\" @3=text \"1.1\" @4=text \"2024-08-29 01:36:55.789012\" @5=text \"2024-02-29 12:34:56.789\" @6=text \"cafés\" @7=text \"b\" @8=text \"{\\\"price\\\": 42}\"",
		"update @1=text \"0\" @2=text \"{\\\"price\\\": 42}\" -> @1=text \"0\" @2=text \"{\\\"price\\\": 7}\"",
	} {
		w := workloads()[i]
		if got := all(t, newTestDecoder(w.flavor, nil), w.table, w.rows); !strings.HasPrefix(got[0], want) {
			t.Errorf("%s: got %s\nwant %s", w.name, got[0], want)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, w := range workloads() {
		b.Run(w.name, func(b *testing.B) {
			d := newTestDecoder(w.flavor, nil)
			var ev change.Event
			rows := 0
			b.SetBytes(int64(len(w.table) + len(w.rows)))
			b.ReportAllocs()
			for b.Loop() {
				rows += w.decodeOnce(b, d, &ev)
			}
			b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
