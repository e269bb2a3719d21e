package binlog

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"txreel/sources/mysql/gtid"
)

func TestFrame(t *testing.T) {
	t.Parallel()
	h := Header{Timestamp: 1, ServerID: 2, LogPos: 3, Flags: FlagArtificial}
	held, err := gtid.Parse(gtid.MySQL, "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:tag:7")
	if err != nil {
		t.Fatal(err)
	}
	domains, err := gtid.Parse(gtid.MariaDB, "0-1-42,3-2-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, sum := range []Checksum{ChecksumNone, ChecksumCRC32} {
		parse := func(typ Type, b []byte) *Event {
			t.Helper()
			e, err := Parse(b[3:], sum)
			if err == nil {
				err = e.Verify()
			}
			want := h
			want.Type, want.Size = typ, uint32(len(b)-3)
			if err != nil || e.Header != want || string(b[:3]) != "abc" {
				t.Fatalf("%+v, %v; want %+v", e.Header, err, want)
			}
			return &e
		}
		before := []byte("abc")
		if r, err := ParseRotate(parse(TypeRotate, AppendRotate(before, h, Rotate{Position: 1 << 40, Name: []byte("binlog.000007")}, sum))); err != nil || r.Position != 1<<40 || string(r.Name) != "binlog.000007" {
			t.Errorf("%+v, %v", r, err)
		}
		if hb, err := ParseHeartbeat(parse(TypeHeartbeat, AppendHeartbeat(before, h, "b.000001", sum))); err != nil || hb.Position != 3 || string(hb.Name) != "b.000001" {
			t.Errorf("%+v, %v", hb, err)
		}
		for _, position := range []uint64{4, 251, 1 << 16, 1 << 24, 5 << 32} {
			if hb, err := ParseHeartbeat(parse(TypeHeartbeatV2, AppendHeartbeatV2(before, h, strings.Repeat("n", 300), position, sum))); err != nil || hb.Position != position || len(hb.Name) != 300 {
				t.Errorf("%+v, %v", hb, err)
			}
		}
		for typ, set := range map[Type]*gtid.Set{TypePreviousGTIDs: held, TypeGTIDList: domains} {
			if got, err := ParsePrevious(parse(typ, AppendPrevious(before, h, set, sum))); err != nil || !got.Equal(set) {
				t.Errorf("%s, %v", got, err)
			}
		}
		if e := parse(TypeStop, AppendStop(before, h, sum)); len(e.Body) != 0 {
			t.Errorf("%+v", e)
		}
		if i, err := ParseIncident(parse(TypeIncident, AppendEvent(before, Header{Timestamp: 1, Type: TypeIncident, ServerID: 2, LogPos: 3, Flags: FlagArtificial}, []byte("\x01\x00\x04lost"), sum))); err != nil || i.Number != 1 || string(i.Message) != "lost" {
			t.Errorf("%+v, %v", i, err)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	good := AppendEvent(nil, Header{Type: TypeXID, Flags: FlagIgnorable}, make([]byte, 8), ChecksumCRC32)
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"half a header":   good[:18],
		"cut off":         good[:len(good)-1],
		"too long":        append(bytes.Clone(good), 0),
		"size below":      {9: 18, 18: 0},
		"size beyond":     {9: 0xff, 10: 0xff, 11: 0xff, 12: 0xff, 18: 0},
		"no checksum":     AppendEvent(nil, Header{Type: TypeStop}, []byte("abc"), ChecksumNone),
		"a short format":  AppendEvent(nil, Header{Type: TypeFormatDescription}, make([]byte, 40), ChecksumNone),
		"no algorithm":    formatEvent("8.0.0", ChecksumCRC32)[:19+57+2],
		"a format, empty": AppendEvent(nil, Header{Type: TypeFormatDescription}, nil, ChecksumNone),
	} {
		if e, err := Parse(b, ChecksumCRC32); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 4
		e, err := Parse(b, ChecksumCRC32)
		if err == nil {
			err = e.Verify()
		}
		if err == nil || errors.Is(err, ErrChecksum) == (i >= 9 && i < 13) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	e, err := Parse(good, ChecksumCRC32)
	if err != nil || !e.Has(FlagIgnorable) || e.Has(FlagArtificial) || TypeXID.String() != "XID" || Type(99).String() != "event type 99" || Type(99).Known() || !TypeXID.Known() || TypeUnknown.Known() {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		version string
		sum     Checksum
		flavor  gtid.Flavor
	}{
		{"9.7.4-2", ChecksumCRC32, gtid.MySQL},
		{"8.0.36-log", ChecksumNone, gtid.MySQL},
		{"10.11.18-MariaDB-0+deb12u1-log", ChecksumCRC32, gtid.MariaDB},
		{"5.5.5-10.11.18-MariaDB", ChecksumNone, gtid.MariaDB},
		{"5.3.0-MariaDB", ChecksumCRC32, gtid.MariaDB},
	} {
		f := formatOf(t, c.version, c.sum)
		if f.Flavor != c.flavor || f.Version != c.version || f.Checksum != c.sum || f.Created != 1_700_000_000 || f.postHeaderSize(TypeWriteRows, 0) != 10 || f.postHeaderSize(255, 7) != 7 {
			t.Errorf("%s: %+v", c.version, f)
		}
	}

	// The flag that the file is open is not under the checksum.
	open := formatEvent("8.0.36", ChecksumCRC32)
	open[17] |= byte(FlagInUse)
	e, err := Parse(open, ChecksumNone)
	if err == nil {
		err = e.Verify()
	}
	if err != nil || !e.Has(FlagInUse) {
		t.Errorf("an open file: %+v, %v", e.Header, err)
	}
	closed := AppendMoved(nil, &e, e.LogPos)
	if !bytes.Equal(closed, formatEvent("8.0.36", ChecksumCRC32)) {
		t.Error("a file once closed has another format")
	}
	resumed, err := Resume(&e)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(resumed, ChecksumNone)
	if err == nil {
		err = again.Verify()
	}
	if f, err2 := ParseFormat(&again); err != nil || err2 != nil || f.Created != 0 || f.Checksum != ChecksumCRC32 || again.Flags != FlagArtificial {
		t.Errorf("resumed: %+v, %v, %v", again.Header, err, err2)
	}

	// Servers without checksums, and formats this build does not read.
	old := bytes.Clone(formatEvent("5.5.62", ChecksumNone))
	if e, err = Parse(old, ChecksumCRC32); err != nil || len(e.Body) != len(old)-HeaderSize {
		t.Errorf("an old server: %v", err)
	}
	for at, b := range map[int]byte{19: 3, 19 + 56: 27, len(open) - 5: 9, 4: byte(TypeXID)} {
		broken := bytes.Clone(open)
		broken[at] = b
		e, err := Parse(broken, ChecksumCRC32)
		if err == nil {
			_, err = ParseFormat(&e)
		}
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("byte %d is %d: %v", at, b, err)
		}
	}
}

func TestInflater(t *testing.T) {
	t.Parallel()
	var in Inflater
	text := strings.Repeat("INSERT INTO t VALUES (1) ", 100)
	for range 2 { // with the memory of the first time
		got, err := in.Append([]byte("> "), deflated([]byte(text)), 1<<20)
		if err != nil || string(got) != "> "+text {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	q := Query{Text: deflated([]byte(text)), Compressed: true}
	if got, err := in.Text(&q, 1<<20); err != nil || string(got) != text {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for name, b := range map[string][]byte{"empty": nil, "no mark": {4, 0, 0, 0, 1}, "another algorithm": {0x94, 0, 0, 0, 1}, "no size": {0x84, 0, 0}, "size of 5 bytes": {0x85, 0, 0, 0, 0, 1},
		"not zlib": {0x81, 9, 1, 2, 3}, "too large": deflated(make([]byte, 5000)), "cut off": deflated([]byte(text))[:40], "fewer than claimed": append([]byte{0x82, 0x0f, 0xff}, deflated([]byte("x"))[5:]...)} {
		if got, err := in.Append(nil, b, 4096); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestUnpacker(t *testing.T) {
	t.Parallel()
	f, inner := formatOf(t, "8.4.0", ChecksumCRC32), &Format{}
	one, two := event(t, inner, TypeXID, make([]byte, 8)).Raw, event(t, inner, TypeQuery, queryBody("d", strings.Repeat("q", 3<<20))).Raw
	var u Unpacker
	if _, err := u.Next(1 << 20); err != io.EOF {
		t.Errorf("before Open: %v", err)
	}
	for _, algorithm := range []PayloadAlgorithm{PayloadZstd, PayloadNone} {
		p, err := ParsePayload(event(t, f, TypeTransactionPayload, payloadBody(t, algorithm, one, two)))
		if err == nil {
			err = u.Open(&p)
		}
		if err != nil {
			t.Fatal(err)
		}
		a, err := u.Next(MaxEventSize)
		if err != nil || !bytes.Equal(a.Raw, one) {
			t.Fatalf("%+v, %v", a, err)
		}
		if b, err := u.Next(MaxEventSize); err != nil || !bytes.Equal(b.Raw, two) {
			t.Fatalf("%v", err)
		}
		if _, err := u.Next(MaxEventSize); err != io.EOF {
			t.Errorf("behind the last event: %v", err)
		}
		if err := u.Open(&p); err != nil {
			t.Fatal(err)
		}
		if _, err = u.Next(20); !errors.Is(err, ErrMalformed) {
			t.Errorf("an event beyond the limit: %v", err)
		}
		for _, cut := range []int{1, 10, len(one) - 1} {
			p := Payload{Algorithm: PayloadNone, Data: one[:cut]}
			if err := u.Open(&p); err != nil {
				t.Fatal(err)
			}
			if _, err = u.Next(MaxEventSize); !errors.Is(err, ErrMalformed) {
				t.Errorf("cut off behind %d bytes: %v", cut, err)
			}
		}
	}
}

func TestMetadataOfEveryKind(t *testing.T) {
	t.Parallel()
	columns := []Column{{ColumnLong, 0}, {ColumnVarchar, 9}, {ColumnString, uint16(ColumnEnum)<<8 | 1}, {ColumnBlob, 2}, {ColumnString, uint16(ColumnSet)<<8 | 1}, {ColumnLongLong, 0}, {ColumnGeometry, 4}, {ColumnVector, 4}}
	field := func(id byte, value ...byte) []byte { return append([]byte{id, byte(len(value))}, value...) }
	body := tableBody(1, "s", "t", columns)
	for _, b := range [][]byte{field(fieldSignedness, 0x40), field(fieldDefaultCharset, 45, 1, 63), field(fieldEnumAndSetColumnCharset, 8, 252, 44, 1), field(fieldColumnName, 1, 'a', 1, 'b', 1, 'c', 1, 'd', 1, 'e', 1, 'f', 1, 'g', 1, 'h'),
		field(fieldSetMembers, 2, 1, 'x', 0), field(fieldEnumMembers, 1, 2, 'y', 'z'), field(fieldGeometryType, 4), field(fieldPrimaryKeyPrefix, 1, 5, 0, 0), field(fieldColumnVisibility, 0xbf), field(fieldVectorDimension, 252, 0, 1), field(77, 1, 2, 3)} {
		body = append(body, b...)
	}
	f := &Format{}
	var tm TableMap
	e := event(t, f, TypeTableMap, body)
	if err := tm.Parse(e, f); err != nil {
		t.Fatal(err)
	}
	got, err := tm.ParseMetadata(e)
	want := &Metadata{HasSigns: true, HasCharsets: true, HasNames: true, Key: []KeyPart{{1, 5}, {0, 0}}, Columns: []ColumnMetadata{
		{Name: []byte("a")}, {Name: []byte("b"), Collation: 45, Invisible: true}, {Name: []byte("c"), Collation: 8, Members: [][]byte{[]byte("yz")}}, {Name: []byte("d"), Collation: 63},
		{Name: []byte("e"), Collation: 300, Members: [][]byte{[]byte("x"), {}}}, {Name: []byte("f"), Unsigned: true}, {Name: []byte("g"), Geometry: 4}, {Name: []byte("h"), Dimension: 256}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	for cut := range len(tm.Optional) {
		short := tm
		short.Optional = tm.Optional[:cut]
		if m, err := short.ParseMetadata(e); err != nil && (!errors.Is(err, ErrMalformed) || m != nil) {
			t.Errorf("cut off behind %d bytes: %v", cut, err)
		}
	}
	for name, b := range map[string][]byte{"a key of no column": field(fieldPrimaryKey, 8), "a charset of no column": field(fieldDefaultCharset, 45, 2, 63), "too few signs": field(fieldSignedness), "members without end": field(fieldEnumMembers, 200, 1)} {
		short := tm
		short.Optional = b
		if m, err := short.ParseMetadata(e); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}
