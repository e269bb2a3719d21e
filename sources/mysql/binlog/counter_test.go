package binlog

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"txreel/change"
)

// columnKinds are columns of every type that a row can hold.
var columnKinds = []Column{
	{ColumnTiny, 0}, {ColumnShort, 0}, {ColumnInt24, 0}, {ColumnLong, 0}, {ColumnLongLong, 0}, {ColumnFloat, 4}, {ColumnDouble, 8}, {ColumnYear, 0},
	{ColumnDate, 0}, {ColumnTime, 0}, {ColumnDatetime, 0}, {ColumnTimestamp, 0}, {ColumnTimestamp2, 3}, {ColumnDatetime2, 6}, {ColumnTime2, 1},
	{ColumnNewDecimal, 65<<8 | 30}, {ColumnNewDecimal, 1 << 8}, {ColumnBit, 1<<8 | 5}, {ColumnBit, 8 << 8}, {ColumnVarchar, 255}, {ColumnVarchar, 256},
	{ColumnVarString, 9}, {ColumnString, uint16(ColumnString)<<8 | 30}, {ColumnString, uint16(ColumnString&^0x10)<<8 | 20}, {ColumnString, uint16(ColumnEnum)<<8 | 2},
	{ColumnString, uint16(ColumnSet)<<8 | 8}, {ColumnBlob, 1}, {ColumnBlob, 2}, {ColumnBlob, 3}, {ColumnBlob, 4}, {ColumnJSON, 4}, {ColumnGeometry, 4},
	{ColumnVector, 4}, {ColumnBlobCompressed, 2}, {ColumnVarcharCompressed, 300},
}

// value draws a value of a column.
func value(t *rapid.T, c Column) []byte {
	w := c.width()
	if w.prefix == 0 {
		return bytes.Repeat([]byte{0xee}, int(w.fixed))
	}
	most := 300
	if w.prefix == 1 {
		most = 255
	}
	n := rapid.IntRange(0, most).Draw(t, "length")
	if w.prefix >= 3 && rapid.IntRange(0, 30).Draw(t, "large") == 0 {
		n = 200_000 // more than the window of a stream
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(n))[:w.prefix]
	return append(b, make([]byte, n)...)
}

// image draws an image of the columns that are set.
func image(t *rapid.T, columns []Column, set []byte) []byte {
	var nulls, values []byte
	k := 0
	for i, c := range columns {
		if !bit(set, i) {
			continue
		}
		if k%8 == 0 {
			nulls = append(nulls, 0)
		}
		if rapid.IntRange(0, 3).Draw(t, "null") == 0 {
			nulls[k/8] |= 1 << (k % 8)
		} else {
			values = append(values, value(t, c)...)
		}
		k++
	}
	return append(nulls, values...)
}

// TestCountsRows draws tables, rows and images of some of their columns: every row is counted, in
// events of every type, whether they are compressed or not.
func TestCountsRows(t *testing.T) {
	t.Parallel()
	f := formatOf(t, "8.4.0", ChecksumCRC32)
	inner := &Format{postHeader: f.postHeader}
	c := NewCounter()
	rapid.Check(t, func(rt *rapid.T) {
		columns := rapid.SliceOfN(rapid.SampledFrom(columnKinds), 1, 40).Draw(rt, "columns")
		set := func(name string) []byte {
			b := rapid.SliceOfN(rapid.Byte(), len(ones(len(columns))), len(ones(len(columns)))).Draw(rt, name)
			if rapid.Bool().Draw(rt, name+" all") {
				b = ones(len(columns))
			}
			b[0] |= 1
			return b
		}
		before, after := set("before"), set("after")
		n := rapid.IntRange(0, 20).Draw(rt, "rows")
		typ := rapid.SampledFrom([]Type{TypeWriteRows, TypeUpdateRows, TypeDeleteRows, TypePartialUpdateRows, TypeWriteRowsV1, TypeUpdateRowsV1, TypeDeleteRowsV1,
			TypeWriteRowsCompressedV1, TypeUpdateRowsCompressedV1, TypeDeleteRowsCompressed}).Draw(rt, "type")
		kind := typ.rowsKind()
		bitmaps := [][]byte{after}
		switch kind.op {
		case change.OpDelete:
			bitmaps = [][]byte{before}
		case change.OpUpdate:
			bitmaps = [][]byte{before, after}
		}
		jsons := 0
		for _, col := range columns {
			if col.Type == ColumnJSON {
				jsons++
			}
		}
		var rows []byte
		for range n {
			for i, bitmap := range bitmaps {
				if kind.partial && i == 1 {
					if partial := rapid.Bool().Draw(rt, "partial"); partial {
						rows = append(append(rows, 1), make([]byte, (jsons+7)/8)...)
					} else {
						rows = append(rows, 0)
					}
				}
				rows = append(rows, image(rt, columns, bitmap)...)
			}
		}
		if kind.compressed {
			rows = deflated(rows)
		}
		id := rapid.Uint64Range(1, 3).Draw(rt, "id")
		mapBody := tableBody(id, "s", rapid.SampledFrom([]string{"t", "u"}).Draw(rt, "name"), columns)
		rowBody := rowsBody(typ, id, len(columns), rows, bitmaps...)

		check := func(what string, touched []change.Touch, whole bool) {
			rt.Helper()
			if !whole || n == 0 && len(touched) != 0 || n > 0 && (len(touched) != 1 || touched[0].Rows != uint64(n) || touched[0].Op != kind.op || touched[0].Table.Schema != "s") {
				rt.Fatalf("%s: %v, whole %v; want %d rows", what, touched, whole, n)
			}
		}
		c.Count(event(t, f, TypeTableMap, mapBody), f)
		touched, whole := c.Count(event(t, f, typ, rowBody), f)
		check("plain", touched, whole)
		inPieces := func(e *Event) ([]change.Touch, bool) {
			cut := func(b []byte) int { return rapid.IntRange(0, min(len(b), 30000)).Draw(rt, "piece") }
			at := HeaderSize + cut(e.Raw[HeaderSize:len(e.Raw)-1])
			c.CountFirst(&Event{Header: e.Header, Raw: e.Raw[:at], Body: e.Raw[HeaderSize:at]}, f)
			for {
				piece := bytes.Clone(e.Raw[at:])
				if len(piece) > 1 {
					piece = piece[:max(1, cut(piece))]
				}
				touched, whole, done := c.CountMore(piece)
				clear(piece) // it is the caller's again
				at += len(piece)
				if done != (at == len(e.Raw)) {
					rt.Fatalf("done: %v at %d of %d", done, at, len(e.Raw))
				}
				if done {
					return touched, whole
				}
			}
		}
		touched, whole = inPieces(event(t, f, typ, rowBody))
		check("in pieces", touched, whole)
		if kind.compressed {
			return
		}
		for _, algorithm := range []PayloadAlgorithm{PayloadZstd, PayloadNone} {
			clear(c.tables)
			e := event(t, f, TypeTransactionPayload, payloadBody(t, algorithm,
				event(t, inner, TypeQuery, queryBody("s", "BEGIN")).Raw, event(t, inner, TypeTableMap, mapBody).Raw,
				event(t, inner, typ, rowBody).Raw, event(t, inner, TypeXID, make([]byte, 8)).Raw))
			touched, whole := c.Count(e, f)
			check("payload", touched, whole)
			clear(c.tables)
			touched, whole = inPieces(e)
			check("payload in pieces", touched, whole)
		}
	})
}

func TestCountsWhatItCan(t *testing.T) {
	t.Parallel()
	f := formatOf(t, "11.4.2-MariaDB", ChecksumCRC32)
	c := NewCounter()
	count := func(typ Type, body []byte) ([]change.Touch, bool) { return c.Count(event(t, f, typ, body), f) }
	columns := []Column{{ColumnLong, 0}, {ColumnVarchar, 20}}
	row := []byte{0, 1, 2, 3, 4, 2, 'a', 'b'}
	mapped := tableBody(9, "s", "t", columns)
	count(TypeTableMap, mapped)
	three := bytes.Repeat(row, 3)

	for name, tc := range map[string]struct {
		typ  Type
		body []byte
		rows uint64
	}{
		"cut off within a row":      {TypeWriteRows, rowsBody(TypeWriteRows, 9, 2, three[:len(three)-1], ones(2)), 2},
		"half an update":            {TypeUpdateRows, rowsBody(TypeUpdateRows, 9, 2, three, ones(2), ones(2)), 1},
		"another number of columns": {TypeWriteRows, rowsBody(TypeWriteRows, 9, 3, three, ones(3)), 0},
		"no columns at all":         {TypeWriteRows, rowsBody(TypeWriteRows, 9, 2, three, []byte{0}), 0},
		"a table nobody mapped":     {TypeWriteRows, rowsBody(TypeWriteRows, 10, 2, three, ones(2)), 0},
		"a width beyond the body":   {TypeWriteRows, rowsBody(TypeWriteRows, 9, 60000, nil), 0},
		"no compression":            {TypeWriteRowsCompressedV1, rowsBody(TypeWriteRowsCompressedV1, 9, 2, three, ones(2)), 0},
		"compression cut off":       {TypeWriteRowsCompressedV1, rowsBody(TypeWriteRowsCompressedV1, 9, 2, deflated(bytes.Repeat(row, 9000))[:100], ones(2)), 8191},
		"a piece of a row event":    {TypePartialRowData, []byte{1, 2, 3}, 0},
		"a broken table map":        {TypeTableMap, mapped[:20], 0},
		"a payload cut off":         {TypeTransactionPayload, payloadBody(t, PayloadZstd, []byte("none"))[:5], 0},
		"a payload of no events":    {TypeTransactionPayload, payloadBody(t, PayloadZstd, []byte("none")), 0},
		"an unknown algorithm":      {TypeTransactionPayload, payloadBody(t, 7, []byte("none")), 0},
	} {
		count(TypeTableMap, mapped)
		touched, whole := count(tc.typ, tc.body)
		var rows uint64
		for _, touch := range touched {
			rows += touch.Rows
		}
		if whole || name != "compression cut off" && rows != tc.rows || rows > tc.rows {
			t.Errorf("%s: whole %v, %d rows, want %d", name, whole, rows, tc.rows)
		}
	}

	// A column of a type yet unknown: rows in which it is NULL are counted all the same.
	count(TypeTableMap, tableBody(11, "s", "new", []Column{{ColumnLong, 0}, {Type: 200}}))
	if touched, whole := count(TypeWriteRows, rowsBody(TypeWriteRows, 11, 2, []byte{2, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5}, ones(2))); whole || len(touched) != 1 || touched[0].Rows != 1 {
		t.Errorf("an unknown type: %v, whole %v", touched, whole)
	}

	if touched, whole := count(TypeWriteRows, rowsBody(TypeWriteRows, 11, 2, make([]byte, 5+255), ones(2))); whole || len(touched) != 0 {
		t.Errorf("an unknown type that is not NULL: %v, whole %v", touched, whole)
	}

	// The event that only ends a statement, and events that hold no rows.
	if touched, whole := count(TypeWriteRows, rowsBody(TypeWriteRows, dummyTable, 0, nil)); !whole || len(touched) != 0 {
		t.Errorf("a dummy: %v, whole %v", touched, whole)
	}
	for _, typ := range []Type{TypeXID, TypeGTID, TypeRotate, TypeIncident, 200} {
		if touched, whole := count(typ, nil); !whole || len(touched) != 0 {
			t.Errorf("%s: %v, whole %v", typ, touched, whole)
		}
	}
}

func TestCounterTables(t *testing.T) {
	t.Parallel()
	f := formatOf(t, "8.0.36", ChecksumNone)
	c := NewCounter()
	insert := func(id uint64) *change.Table {
		t.Helper()
		touched, whole := c.Count(event(t, f, TypeWriteRows, rowsBody(TypeWriteRows, id, 1, []byte{0, 7}, ones(1))), f)
		if !whole || len(touched) != 1 {
			t.Fatalf("%v, whole %v", touched, whole)
		}
		return touched[0].Table
	}
	mapTable := func(id uint64, schema, name string, columns ...Column) {
		c.Count(event(t, f, TypeTableMap, tableBody(id, schema, name, columns)), f)
	}
	tiny := Column{ColumnTiny, 0}
	mapTable(1, "s", "t", tiny)
	first := insert(1)
	mapTable(2, "s", "t", tiny)
	if insert(2) != first || first.Version != 0 || first.String() != "s.t" {
		t.Error("the same table is another one under another id")
	}
	mapTable(1, "s", "other", tiny)
	if insert(1) == first {
		t.Error("another table under the same id is the same one")
	}
	mapTable(1, "s", "t", Column{ColumnVarchar, 9})
	if touched, whole := c.Count(event(t, f, TypeWriteRows, rowsBody(TypeWriteRows, 1, 1, []byte{0, 2, 'a', 'b'}, ones(1))), f); !whole || touched[0].Table != first {
		t.Error("the same table with other columns is another one")
	}

	// A new file may begin a new run of the server, whose ids mean other tables.
	e, err := Parse(formatEvent("8.0.36", ChecksumNone), ChecksumNone)
	if err != nil {
		t.Fatal(err)
	}
	c.Count(&e, f)
	if touched, whole := c.Count(event(t, f, TypeWriteRows, rowsBody(TypeWriteRows, 2, 1, []byte{0, 7}, ones(1))), f); whole || len(touched) != 0 {
		t.Error("an id outlived its server")
	}
	for id := range uint64(maxTables + 10) {
		mapTable(id, "s", "t", tiny)
	}
	if len(c.tables) > maxTables || insert(maxTables+9) != first {
		t.Errorf("%d tables are kept", len(c.tables))
	}

	touched, whole := c.Count(event(t, f, TypeQuery, queryBody("def", "TRUNCATE t")), f)
	if !whole || !slices.Equal(touched, []change.Touch{{Table: touched[0].Table, Op: change.OpTruncate, Rows: 1}}) || touched[0].Table.String() != "def.t" {
		t.Errorf("TRUNCATE: %v, whole %v", touched, whole)
	}
	compressed := queryBody("def", "")
	compressed = append(compressed, deflated([]byte("TRUNCATE s.t /* "+strings.Repeat("x", 9000)+" */"))...)
	if touched, whole := c.Count(event(t, f, TypeQueryCompressed, compressed), f); !whole || len(touched) != 1 || touched[0].Table != first {
		t.Errorf("compressed TRUNCATE: %v, whole %v", touched, whole)
	}
}

// TestColumnSize compares the two ways to find a value's end.
func TestColumnSize(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.SampledFrom(columnKinds).Draw(t, "column")
		v := value(t, c)
		if n, ok := c.Size(append(slices.Clone(v), 1, 2, 3)); !ok || n != len(v) {
			t.Fatalf("%+v: a value of %d bytes has %d, %v", c, len(v), n, ok)
		}
		if n, ok := c.Size(v[:len(v)-1]); ok && len(v) > 0 {
			t.Fatalf("%+v: a value cut off has %d bytes", c, n)
		}
	})
}

func TestPiecesThatDoNotCome(t *testing.T) {
	t.Parallel()
	f := formatOf(t, "8.4.0", ChecksumCRC32)
	c := NewCounter()
	c.Count(event(t, f, TypeTableMap, tableBody(9, "s", "t", []Column{{ColumnTiny, 0}})), f)
	e := event(t, f, TypeWriteRows, rowsBody(TypeWriteRows, 9, 1, bytes.Repeat([]byte{0, 7}, 1000), ones(1)))
	first := &Event{Header: e.Header, Raw: e.Raw[:100], Body: e.Raw[HeaderSize:100]}

	if touched, whole, done := c.CountMore(nil); touched != nil || whole || !done {
		t.Error("a piece of nothing")
	}
	if touched, whole := c.Count(first, f); whole || len(touched) != 1 || touched[0].Rows != 35 { // 69 bytes of rows of 2
		t.Errorf("the first piece alone: %v, whole %v", touched, whole)
	}
	c.CountFirst(e, f) // is whole
	if _, _, done := c.CountMore(nil); !done {
		t.Error("a piece of a whole event")
	}
	c.CountFirst(first, f)
	c.CountAbandon()
	c.CountAbandon()
	c.CountFirst(first, f)
	c.CountFirst(first, f) // another connection
	if _, _, done := c.CountMore(e.Raw[100:200]); done {
		t.Error("done too early")
	}
	touched, whole, done := c.CountMore(e.Raw[200:])
	if !done || !whole || len(touched) != 1 || touched[0].Rows != 1000 {
		t.Errorf("%v, whole %v, done %v", touched, whole, done)
	}
	// More than the event has, and rows that end within one.
	c.CountFirst(first, f)
	if touched, whole, done = c.CountMore(append(bytes.Clone(e.Raw[100:]), 0)); !done || whole || len(touched) != 1 {
		t.Errorf("%v, whole %v, done %v", touched, whole, done)
	}
	odd := event(t, f, TypeWriteRows, rowsBody(TypeWriteRows, 9, 1, bytes.Repeat([]byte{0}, 1001), ones(1)))
	c.CountFirst(&Event{Header: odd.Header, Raw: odd.Raw[:50], Body: odd.Raw[HeaderSize:50]}, f)
	if touched, whole, done = c.CountMore(odd.Raw[50:]); !done || whole || len(touched) != 1 || touched[0].Rows != 500 {
		t.Errorf("%v, whole %v, done %v", touched, whole, done)
	}
}
