package binlog

import (
	"testing"

	"txreel/sources/mysql/gtid"
)

// FuzzEvents shows everything in this package a stream of any bytes. Nothing panics, and what
// can be read twice reads the same.
func FuzzEvents(f *testing.F) {
	f.Add(append(formatEvent("8.4.0", ChecksumNone), workload(f, 1, 3, TypeUpdateRows)...))
	f.Add(append(formatEvent("11.4.0-MariaDB", ChecksumNone), compressedWorkload(f)...))
	seed := formatEvent("9.7.0", ChecksumNone)
	for typ, body := range seedBodies(f) {
		seed = AppendEvent(seed, Header{Type: typ}, body, ChecksumNone)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		format := &Format{}
		counter := NewCounter()
		var grouper Grouper
		for len(b) >= HeaderSize {
			h, err := ParseHeader(b)
			if err != nil || uint64(h.Size) > uint64(len(b)) {
				return
			}
			e, err := format.Parse(b[:h.Size])
			b = b[h.Size:]
			if err != nil {
				continue
			}
			if e.Type == TypeFormatDescription {
				if next, err := ParseFormat(&e); err == nil {
					format = next
				}
			}
			readEverything(t, &e, format)
			_, _, _ = grouper.Next(&e)
			counter.Count(&e, format)
			if moved, err := Parse(AppendMoved(nil, &e, 7), format.Checksum); err == nil && e.Type != TypeFormatDescription && moved.Verify() != nil {
				t.Error("a moved event has a wrong checksum")
			}
		}
	})
}

// FuzzBodies reads any bytes as the body of an event of any type, behind a table map that the event may
// refer to as table 1.
func FuzzBodies(f *testing.F) {
	for typ, body := range seedBodies(f) {
		f.Add(uint8(typ), body)
	}
	format := formatOf(f, "8.4.0", ChecksumNone)
	mapped := event(f, format, TypeTableMap, tableBody(1, "s", "t", seedColumns))
	f.Fuzz(func(t *testing.T, typ uint8, body []byte) {
		if Type(typ) == TypeFormatDescription { // see FuzzEvents
			return
		}
		e := event(t, format, Type(typ), body)
		readEverything(t, e, format)
		var grouper Grouper
		_, _, _ = grouper.Next(e)
		counter := NewCounter()
		counter.Count(mapped, format)
		counter.Count(e, format)
	})
}

var seedColumns = []Column{{ColumnLong, 0}, {ColumnJSON, 4}, {ColumnVarchar, 300}}

// seedBodies are bodies of events of many types.
func seedBodies(t testing.TB) map[Type][]byte {
	inner := &Format{}
	return map[Type][]byte{
		TypeGTID: gtidBody(gtid.UUID{1}, 7), TypeGTIDTagged: taggedBody(gtid.UUID{1}, "tag", 8), TypeMariaDBGTID: mariadbBody(1, 2, FLPreparedXA, 1, 0, 0, 0, 1, 1, 'a', 'b', FLXCommitAlter, 1),
		TypeQuery: queryBody("d", "TRUNCATE t"), TypeQueryCompressed: append(queryBody("d", ""), deflated([]byte("TRUNCATE t"))...), TypeTableMap: append(tableBody(1, "s", "t", seedColumns), 1, 1, 0x80, 4, 6, 1, 'a', 1, 'b', 1, 'c'),
		TypePartialUpdateRows: rowsBody(TypePartialUpdateRows, 1, 3, []byte{0, 1, 0, 0, 0, 0, 1, 0, 0, 'x'}, ones(3), ones(3)),
		TypeWriteRows:         rowsBody(TypeWriteRows, 1, 3, []byte{6, 1, 2, 3, 4}, ones(3)), TypeDeleteRowsCompressedV1: rowsBody(TypeDeleteRowsCompressedV1, 1, 3, deflated([]byte{6, 1, 2, 3, 4}), ones(3)),
		TypeTransactionPayload: payloadBody(t, PayloadZstd, event(t, inner, TypeTableMap, tableBody(1, "s", "t", seedColumns)).Raw, event(t, inner, TypeWriteRows, rowsBody(TypeWriteRows, 1, 3, []byte{6, 1, 2, 3, 4}, ones(3))).Raw),
		TypeHeartbeatV2:        {1, 2, 'a', 'b', 2, 1, 4, 0}, TypeXAPrepare: {1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 'x'}, TypeRotate: append(make([]byte, 8), "b.000001"...),
		TypePreviousGTIDs: make([]byte, 8), TypeGTIDList: make([]byte, 4), TypeIncident: {1, 0, 1, 'x'},
	}
}

// readEverything reads an event as every type.
func readEverything(t *testing.T, e *Event, f *Format) {
	_ = e.Verify()
	_, _ = ParseFormat(e)
	_, _ = Resume(e)
	_, _ = ParseGroup(e)
	_, _ = ParseRotate(e)
	_, _ = ParseHeartbeat(e)
	_, _ = ParsePrevious(e)
	_, _ = ParseIncident(e)
	_, _ = ParseRowsQuery(e)
	_, _ = ParseXID(e)
	_, _ = ParseXAPrepare(e)
	var in Inflater
	if q, err := ParseQuery(e); err == nil {
		if text, err := in.Text(&q, 1<<16); err == nil {
			Redact(text, q.Mode())
			Note(text, string(q.Schema), q.Mode())
		}
	}
	if rows, err := ParseRows(e, f); err == nil {
		if rows.Before != nil && len(rows.Before) != (rows.Width+7)/8 {
			t.Errorf("a bitmap of %d bytes for %d columns", len(rows.Before), rows.Width)
		}
		if rows.Compressed {
			_, _ = in.Append(nil, rows.Data, 1<<16)
		}
	}
	var tm TableMap
	if err := tm.Parse(e, f); err == nil {
		if m, err := tm.ParseMetadata(e); err == nil && len(m.Columns) != len(tm.Columns) {
			t.Error("metadata of another number of columns")
		}
		for _, c := range tm.Columns {
			if n, ok := c.Size(e.Body); ok && n > len(e.Body) {
				t.Errorf("%+v has a value of %d bytes in %d", c, n, len(e.Body))
			}
		}
	}
	if p, err := ParsePayload(e); err == nil {
		var u Unpacker
		if u.Open(&p) == nil {
			for range 100 {
				if _, err := u.Next(1 << 16); err != nil {
					break
				}
			}
		}
	}
}
