package binlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"txreel/sources/mysql/gtid"
)

// TestGroups shows the Grouper streams in short: one word an event, and what it says of
// each by the first letter of its place; "!" means that the open group was torn.
func TestGroups(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"rows", "gtid q:BEGIN map rows xid", "BIIIE"},
		{"statements", "gtid q:BEGIN intvar q:INSERT q:UPDATE q:COMMIT", "BIIIIE"},
		{"no transaction", "gtid q:BEGIN map rows q:ROLLBACK", "BIIIE"},
		{"definition", "gtid q:CREATE_TABLE", "BE"},
		{"definition with a variable", "gtid uservar q:CREATE_TABLE", "BIE"},
		{"definition in a transaction", "gtid q:BEGIN q:CREATE_TABLE map rows xid", "BIIIIE"},
		{"savepoints", "gtid q:BEGIN q:SAVEPOINT map rows q:ROLLBACK_TO_x q:rollback_to_x xid", "BIIIIIIE"},
		{"anonymous", "anonymous q:BEGIN map rows xid anonymous q:DROP", "BIIIEBE"},
		{"tagged", "tagged q:BEGIN xid", "BIE"},
		{"payload", "gtid payload gtid payload", "BEBE"},
		{"xa", "gtid q:XA_START_x map rows q:XA_END_x xaprepare gtid q:XA_COMMIT_x gtid q:XA_ROLLBACK_x", "BIIIIEBEBE"},
		{"load", "gtid q:BEGIN beginload append execload xid", "BIIIIE"},
		{"rows query", "gtid q:BEGIN rowsquery map rows xid", "BIIIIE"},
		{"view change", "gtid context q:BEGIN viewchange q:COMMIT", "BIIIE"},
		{"incident", "incident gtid incident gtid q:BEGIN map incident", "SBEBIIE"},
		{"frame", "rotate format previous gtid q:BEGIN heartbeat heartbeat2 map rows xid stop", "FFFBIFFIIEF"},
		{"unknown", "new gtid q:BEGIN new ignorable xid ignorable q:DROP", "SBIIIESS"},
		{"torn by another", "gtid q:BEGIN map gtid q:DROP", "BIIB!E"},
		{"torn by a new file", "gtid q:BEGIN map format map", "BIIF!S"},
		{"torn by the end of a file", "gtid stop gtid rotate", "BF!BF!"},
		{"torn by what cannot be read", "gtid q:BEGIN short q:DROP", "BIS!?S"},
		{"no text", "gtid q:", "BE"},

		{"mariadb rows", "maria annotate map rows1 xid", "BIIIE"},
		{"mariadb statements", "maria intvar q:INSERT q:COMMIT", "BIIE"},
		{"mariadb without transactions", "maria map rows1 q:COMMIT maria q:ROLLBACK", "BIIEBE"},
		{"mariadb definition", "alone q:CREATE alone intvar uservar rand q:INSERT", "BEBIIIE"},
		{"mariadb create select", "maria q:CREATE annotate map rows1 xid", "BIIIIE"},
		{"mariadb words within", "maria q:commit q:XA_ROLLBACK q:BEGIN q:ROLLBACK_TO_x q:COMMIT", "BIIIIE"},
		{"mariadb compressed", "maria qcompressed xid alone qcompressed", "BIEBE"},
		{"mariadb xa", "maria q:XA_START map rows1 q:XA_END xaprepare alone q:XA_COMMIT", "BIIIIEBE"},
		{"mariadb frame", "format list checkpoint maria checkpoint map xid", "FFFBFIE"},
		{"mariadb load", "maria beginload append execload xid alone beginload append execload", "BIIIEBIIE"},
		{"mariadb torn", "alone alone q:DROP maria format", "BB!EBF!"},
	} {
		var g Grouper
		var got strings.Builder
		for i, word := range strings.Fields(c.in) {
			place, torn, err := g.Next(shortEvent(t, word, uint64(i+1)))
			got.WriteString(strings.ToUpper(place.String()[:1]))
			if torn {
				got.WriteByte('!')
			}
			if err != nil {
				got.WriteByte('?')
			}
			if place == Begins && g.Group.Anonymous != (word == "anonymous") || g.Open() != (place == Begins || place == Inside || place == Frame && g.Open()) {
				t.Errorf("%s: %s: %+v", c.name, word, g)
			}
		}
		if got.String() != c.want {
			t.Errorf("%s: %s is %s, want %s", c.name, c.in, &got, c.want)
		}
		g.Reset()
		if g.Open() {
			t.Error("a group is open behind Reset")
		}
	}
}

// shortEvent builds the event that a word of TestGroups stands for.
func shortEvent(t *testing.T, word string, n uint64) *Event {
	t.Helper()
	f := &Format{}
	if text, ok := strings.CutPrefix(word, "q:"); ok {
		return event(t, f, TypeQuery, queryBody("d", strings.ReplaceAll(text, "_", " ")))
	}
	var body []byte
	switch word {
	case "gtid", "anonymous":
		body = gtidBody(gtid.UUID{15: 1}, n)
	case "tagged":
		body = taggedBody(gtid.UUID{0xff, 0x80, 0x7f}, "tag", n)
	case "maria":
		body = mariadbBody(0, n, 0)
	case "alone":
		body = mariadbBody(0, n, FLStandalone)
	}
	types := map[string]Type{"gtid": TypeGTID, "anonymous": TypeAnonymousGTID, "tagged": TypeGTIDTagged, "maria": TypeMariaDBGTID, "alone": TypeMariaDBGTID, "short": TypeGTID,
		"map": TypeTableMap, "rows": TypeWriteRows, "rows1": TypeWriteRowsV1, "xid": TypeXID, "intvar": TypeIntvar, "uservar": TypeUserVar, "rand": TypeRand,
		"payload": TypeTransactionPayload, "xaprepare": TypeXAPrepare, "beginload": TypeBeginLoadQuery, "append": TypeAppendBlock, "execload": TypeExecuteLoadQuery,
		"rowsquery": TypeRowsQuery, "annotate": TypeAnnotateRows, "context": TypeTransactionContext, "viewchange": TypeViewChange, "incident": TypeIncident,
		"rotate": TypeRotate, "format": TypeFormatDescription, "previous": TypePreviousGTIDs, "heartbeat": TypeHeartbeat, "heartbeat2": TypeHeartbeatV2, "stop": TypeStop,
		"new": 99, "ignorable": TypeIgnorable, "qcompressed": TypeQueryCompressed, "list": TypeGTIDList, "checkpoint": TypeBinlogCheckpoint}
	typ, ok := types[word]
	if !ok {
		t.Fatalf("no event %q", word)
	}
	if typ == TypeFormatDescription {
		return &Event{Header: Header{Type: typ}}
	}
	return event(t, f, typ, body)
}

// taggedBody builds a GTID_TAGGED event's body.
func taggedBody(sid gtid.UUID, tag string, n uint64) []byte {
	b := appendVarlen(nil, 1)
	b = append(appendVarlen(b, 99), 11<<1)
	b = append(b, 0<<1, 1<<1, 1<<1)
	for _, c := range sid {
		b = appendVarlen(b, uint64(c))
	}
	b = appendVarlen(append(b, 2<<1), n<<1)
	b = append(append(b, 3<<1, byte(len(tag)<<1)), tag...)
	b = appendVarlen(append(b, 4<<1), 1<<40<<1)
	b = appendVarlen(append(b, 5<<1), 5<<1|1) // -6
	b = appendVarlen(append(b, 6<<1), 1_700_000_000_123_456)
	b = appendVarlen(append(b, 8<<1), 4444)
	return appendVarlen(append(b, 9<<1), 90704)
}

// appendVarlen writes what varlen reads.
func appendVarlen(b []byte, v uint64) []byte {
	n := 1
	for n < 9 && v>>(7*n) != 0 {
		n++
	}
	if n == 9 {
		return binary.LittleEndian.AppendUint64(append(b, 0xff), v)
	}
	return append(b, binary.LittleEndian.AppendUint64(nil, v<<n|(1<<(n-1)-1))[:n]...)
}

func TestParseGroup(t *testing.T) {
	t.Parallel()
	f := &Format{}
	sid := gtid.UUID{0x3e, 0x11, 0xff, 0x80, 15: 0xc0}
	tag, _ := gtid.ParseTag("tag")
	parse := func(typ Type, body []byte) Group {
		t.Helper()
		g, err := ParseGroup(event(t, f, typ, body))
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	same := func(got, want Group) {
		t.Helper()
		if want.Timestamp = 1_700_000_000; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v\nwant %+v", got, want)
		}
	}
	id := gtid.GTID{Flavor: gtid.MySQL, SID: sid, N: 9}
	full := Group{GTID: id, LastCommitted: 8, SequenceNumber: 9, ImmediateCommit: 0x060504030201, OriginalCommit: 0x060504030201, Length: 300, ServerVersion: 80400, OriginalVersion: 80400}
	same(parse(TypeGTID, gtidBody(sid, 9)), full)
	same(parse(TypeGTID, gtidBody(sid, 9)[:25]), Group{GTID: id})
	same(parse(TypeGTID, gtidBody(sid, 9)[:42]), Group{GTID: id, LastCommitted: 8, SequenceNumber: 9})
	anonymous := full
	anonymous.GTID, anonymous.Anonymous = gtid.GTID{}, true
	same(parse(TypeAnonymousGTID, gtidBody(sid, 9)), anonymous)

	// A transaction that was replicated has two times and two versions.
	b := gtidBody(sid, 9)
	b[48] |= 0x80
	b = append(b[:49:49], 7, 0, 0, 0, 0, 0, 0, 10, 0x10, 0x27, 0, 0x80, 0x11, 0x27, 0, 0)
	replicated := full
	replicated.OriginalCommit, replicated.Length, replicated.ServerVersion, replicated.OriginalVersion = 7, 10, 10000, 10001
	same(parse(TypeGTID, b), replicated)

	same(parse(TypeGTIDTagged, taggedBody(sid, "Tag", 9)), Group{GTID: gtid.GTID{Flavor: gtid.MySQL, SID: sid, Tag: tag, N: 9}, MayBeStatements: true,
		LastCommitted: 1 << 40, SequenceNumber: -6, ImmediateCommit: 1_700_000_000_123_456, OriginalCommit: 1_700_000_000_123_456, Length: 4444, ServerVersion: 90704, OriginalVersion: 90704})
	// Fields of a later server may follow.
	same(parse(TypeGTIDTagged, append(taggedBody(sid, "tag", 1<<62), 40<<1, 1, 2, 3)), Group{GTID: gtid.GTID{Flavor: gtid.MySQL, SID: sid, Tag: tag, N: 1 << 62}, MayBeStatements: true,
		LastCommitted: 1 << 40, SequenceNumber: -6, ImmediateCommit: 1_700_000_000_123_456, OriginalCommit: 1_700_000_000_123_456, Length: 4444, ServerVersion: 90704, OriginalVersion: 90704})

	maria := gtid.GTID{Flavor: gtid.MariaDB, Domain: 3, Server: 1, N: 42}
	same(parse(TypeMariaDBGTID, mariadbBody(3, 42, FLDDL|FLStandalone)), Group{GTID: maria, Flags: FLDDL | FLStandalone})
	same(parse(TypeMariaDBGTID, mariadbBody(3, 42, FLGroupCommitID, 1, 2, 0, 0, 0, 0, 0, 0)), Group{GTID: maria, Flags: FLGroupCommitID, CommitID: 513})
	same(parse(TypeMariaDBGTID, mariadbBody(3, 42, FLPreparedXA|FLGroupCommitID, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 1, 'x', '1', 'b')),
		Group{GTID: maria, Flags: FLPreparedXA | FLGroupCommitID, CommitID: 5, XAID: XAID{Format: 1, Global: []byte("x1"), Branch: []byte("b")}})
	same(parse(TypeMariaDBGTID, mariadbBody(3, 42, FLDDL, FLXMultiEngine|FLXCommitAlter|FLXThreadID, 2, 41, 0, 0, 0, 0, 0, 0, 0, 77, 1, 0, 0)),
		Group{GTID: maria, Flags: FLDDL, FlagsMore: FLXMultiEngine | FLXCommitAlter | FLXThreadID, AlterID: 41, ThreadID: 333})

	for name, e := range map[string]*Event{
		"another type":     event(t, f, TypeXID, gtidBody(sid, 9)),
		"short":            event(t, f, TypeGTID, gtidBody(sid, 9)[:24]),
		"number 0":         event(t, f, TypeGTID, gtidBody(sid, 0)),
		"number too large": event(t, f, TypeGTID, gtidBody(sid, 1<<63-1)),
		"cut off":          event(t, f, TypeGTIDTagged, taggedBody(sid, "tag", 9)[:30]),
		"a long tag":       event(t, f, TypeGTIDTagged, taggedBody(sid, strings.Repeat("x", 33), 9)),
		"an odd tag":       event(t, f, TypeGTIDTagged, taggedBody(sid, "a-b", 9)),
		"no number":        event(t, f, TypeGTIDTagged, taggedBody(sid, "tag", 9)[:25]),
		"a later encoding": event(t, f, TypeGTIDTagged, appendVarlen(nil, 2)),
		"an unknown field": event(t, f, TypeGTIDTagged, append([]byte{1 << 1, 1 << 1, 60 << 1}, 50<<1)),
		"short, mariadb":   event(t, f, TypeMariaDBGTID, mariadbBody(0, 1, 0)[:12]),
		"short xid":        event(t, f, TypeMariaDBGTID, mariadbBody(0, 1, FLPreparedXA, 1, 0, 0, 0, 200, 0, 0)),
	} {
		if g, err := ParseGroup(e); !errors.Is(err, ErrMalformed) || fmt.Sprint(g) != fmt.Sprint(Group{}) {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
}
