package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"txreel/capture"
	"txreel/change"
	"txreel/sources/postgres/lsn"
	"txreel/sources/postgres/pgoutput"
)

// Messages of protocol 2 as the server makes them.

func msgStart(xid uint32, first byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{'S'}, xid), first)
}

func msgStreamCommit(xid uint32, at, end lsn.LSN) []byte {
	b := append(binary.BigEndian.AppendUint32([]byte{'c'}, xid), 0)
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = binary.BigEndian.AppendUint64(b, uint64(end))
	return binary.BigEndian.AppendUint64(b, 1000)
}

func msgAbort(xid, sub uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte{'A'}, xid), sub)
}

// by puts the id of a subtransaction into a message.
func by(xid uint32, m []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{m[0]}, xid), m[1:]...)
}

var msgStop = []byte{'E'}

// valued is a row with a value that tells it from others.
func valued(id uint32, v byte) []byte {
	m := msgRow('I', id)
	m[len(m)-1] = v
	return m
}

// values shows the rows of what came out, and where transactions begin and end.
func values(all []change.Message) string {
	var b strings.Builder
	for _, m := range all {
		switch m.Kind {
		case change.KindBegin:
			b.WriteByte('(')
		case change.KindCommit:
			b.WriteByte(')')
		default:
			b.WriteByte(m.Raw[len(m.Raw)-1])
		}
	}
	return b.String()
}

func TestParserOfStreamedTransactions(t *testing.T) {
	t.Parallel()
	rel := msgRelation(7, "a", "id")
	row := func(xid uint32, v byte) []byte { return by(xid, valued(7, v)) }
	said := func(xid uint32, v byte) []byte {
		m := msgMessage(1, 0x8)
		m[len(m)-1] = v
		return by(xid, m)
	}
	commit := msgStreamCommit(5, 0x10, 0x20)
	for _, c := range []struct {
		name    string
		start   lsn.LSN
		empties bool
		in      [][]byte
		want    string
		err     string
	}{
		{name: "pieces", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), msgStop, msgStart(5, 0), row(5, '2'), msgStop, commit}, want: "(12)"},
		{name: "nothing before the commit", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), msgStop}},
		{name: "rolled back", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), msgStop, msgAbort(5, 5), msgStart(5, 1), by(5, rel), row(5, '2'), msgStop, commit}, want: "(2)"},
		{name: "savepoint rolled back", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), row(6, '2'), msgStop, msgAbort(5, 6), msgStart(5, 0), by(5, rel), row(5, '3'), msgStop, commit}, want: "(13)"},
		{name: "and one behind it kept", in: [][]byte{msgStart(5, 1), by(5, rel), row(6, '1'), msgStop, msgAbort(5, 6), msgStart(5, 0), by(7, rel), row(7, '2'), msgStop, commit}, want: "(2)"},
		{name: "nested ones go with it", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), row(6, '2'), row(7, '3'), row(6, '4'), msgStop, msgAbort(5, 7), msgAbort(5, 6), commit}, want: "(1)"},
		{name: "one nested that wrote first", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), row(7, '2'), row(6, '3'), msgStop, msgAbort(5, 7), msgAbort(5, 6), commit}, want: "(1)"},
		{name: "one nested alone", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), row(6, '2'), row(7, '3'), msgStop, msgAbort(5, 7), msgStart(5, 0), by(6, rel), row(6, '4'), msgStop, commit}, want: "(124)"},
		{name: "released into the whole", in: [][]byte{msgStart(5, 1), by(6, rel), row(6, '1'), row(5, '2'), msgStop, commit}, want: "(12)"},
		{name: "ids that wrap", in: [][]byte{msgStart(0xfffffffe, 1), by(0xfffffffe, rel), row(0xfffffffe, '1'), row(0xffffffff, '2'), row(3, '3'), row(0xffffffff, '4'), msgStop,
			msgAbort(0xfffffffe, 3), msgAbort(0xfffffffe, 0xffffffff), msgStreamCommit(0xfffffffe, 0x10, 0x20)}, want: "(1)"},
		{name: "nothing left", in: [][]byte{msgStart(5, 1), by(6, rel), row(6, '1'), msgStop, msgAbort(5, 6), commit}},
		{name: "nothing left, of a server that announces empty ones", empties: true, in: [][]byte{msgStart(5, 1), by(6, rel), row(6, '1'), msgStop, msgAbort(5, 6), commit}, want: "()"},
		{name: "two at once, and one between", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), msgStop, msgStart(6, 1), by(6, rel), row(6, '2'), msgStop,
			msgBegin(0x8, 4), rel, valued(7, '3'), msgCommit(0x8, 0x9), msgStart(5, 0), row(5, '4'), msgStop, msgStreamCommit(6, 0x10, 0x20), msgStreamCommit(5, 0x20, 0x30)}, want: "(3)(2)(14)"},
		{name: "before the tail is a duplicate", start: 0x20, in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), said(5, '2'), msgStop, commit, msgStart(6, 1), by(6, rel), row(6, '3'), msgStop, msgStreamCommit(6, 0x20, 0x30)}, want: "(3)"},
		{name: "a duplicate's description serves what follows", start: 0x20, in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), msgStop, commit, msgBegin(0x20, 6), valued(7, '2'), msgCommit(0x20, 0x30)}, want: "(2)"},
		{name: "rolled back, but never sent", in: [][]byte{msgAbort(5, 6), msgAbort(5, 5)}},
		{name: "a message in a savepoint that is rolled back", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), row(6, '2'), said(5, '3'), msgStop, msgAbort(5, 6), commit}, want: "(1)"},
		{name: "a message before the savepoint", in: [][]byte{msgStart(5, 1), by(5, rel), said(5, '1'), row(5, '2'), row(6, '3'), msgStop, msgAbort(5, 6), commit}, want: "(12)"},
		{name: "a message in doubt", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), said(5, '2'), row(6, '3'), msgStop, msgAbort(5, 6), commit}, err: "rolled back"},
		{name: "a message in doubt, before the description", in: [][]byte{msgStart(5, 1), said(5, '2'), by(6, rel), row(6, '3'), msgStop, msgAbort(5, 6), commit}, err: "rolled back"},
		{name: "a message in doubt, before one nested", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), said(5, '2'), row(7, '3'), row(6, '4'), msgStop, msgAbort(5, 7), msgAbort(5, 6), msgStart(5, 0)}, err: "rolled back"},
		{name: "nothing but a message", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), said(5, '2'), msgStop, msgAbort(5, 6), commit}, err: "rolled back"},
		{name: "a message that goes with what the savepoint is nested in", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), row(6, '2'), said(5, '3'), row(7, '4'), msgStop, msgAbort(5, 7), msgAbort(5, 6), commit}, want: "(1)"},
		{name: "a message behind a savepoint without rows", in: [][]byte{msgStart(5, 1), by(5, rel), row(5, '1'), row(6, '2'), said(5, '3'), msgStop, msgAbort(5, 7), msgAbort(5, 6), commit}, want: "(1)"},
		{name: "two messages in doubt, one of them gone", in: [][]byte{msgStart(5, 1), by(5, rel), said(5, '2'), row(6, '3'), said(5, '4'), row(7, '5'), msgStop, msgAbort(5, 7), msgAbort(5, 6), commit}, err: "rolled back"},
		{name: "of another transaction", in: [][]byte{msgStart(5, 1), said(5, '2'), msgStop, msgAbort(8, 9), commit}, want: "(2)"},
		{name: "a row that the piece's descriptions do not cover", in: [][]byte{msgBegin(0x8, 4), rel, valued(7, '1'), msgCommit(0x8, 0x9), msgStart(5, 1), row(5, '2'), msgStop, commit}, want: "(1)(", err: "before any description"},
		{name: "a piece in a piece", in: [][]byte{msgStart(5, 1), msgStart(6, 1)}, err: "inside one of 5"},
		{name: "a piece in a transaction", in: [][]byte{msgBegin(1, 2), msgStart(6, 1)}, want: "(", err: "inside another"},
		{name: "a piece without the first", in: [][]byte{msgStart(5, 0)}, err: "is missing"},
		{name: "a first piece twice", in: [][]byte{msgStart(5, 1), msgStop, msgStart(5, 1)}, err: "second time"},
		{name: "the end of no piece", in: [][]byte{msgStop}, want: ""},
		{name: "a commit in a piece", in: [][]byte{msgStart(5, 1), commit}, err: "inside a piece"},
		{name: "a commit of nothing", in: [][]byte{commit}, err: "nothing was sent"},
		{name: "short commit", in: [][]byte{commit[:29]}, err: "malformed"},
		{name: "short abort", in: [][]byte{msgAbort(1, 1)[:8]}, err: "malformed"},
		{name: "short start", in: [][]byte{msgStart(1, 1)[:5]}, err: "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &parser{start: c.start, streams: streams{empties: c.empties}}
			got, err := tryParse(p, c.in...)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			if strings.Contains(c.name, "doubt") && !errors.Is(err, ErrPieces) {
				t.Errorf("%v is not ErrPieces", err)
			}
			if values(got) != c.want {
				t.Fatalf("got %s, want %s", values(got), c.want)
			}
		})
	}
}

// A transaction that was streamed is stored as the messages of one that came in one piece.
func TestParserStoresStreamedAsWhole(t *testing.T) {
	t.Parallel()
	rel := msgRelation(7, "a", "id")
	typ := msgType(600, "mood")
	data := [][]byte{msgRow('I', 7), msgRow('U', 7), msgRow('D', 7), msgTruncate(7), msgMessage(1, 0x8)}
	p := &parser{xid: 1 << 32}
	whole := parse(t, p, slices.Concat([][]byte{msgBegin(0x10, 5), typ, rel}, data, [][]byte{msgCommit(0x10, 0x20)})...)
	in := [][]byte{msgStart(5, 1), by(5, typ), by(5, rel)}
	for _, m := range data {
		in = append(in, by(5, m))
	}
	q := &parser{xid: 1 << 32}
	streamed := parse(t, q, append(in, msgStop, msgStreamCommit(5, 0x10, 0x20))...)
	if len(whole) != len(streamed) {
		t.Fatalf("%d messages, want %d", len(streamed), len(whole))
	}
	for i, w := range whole {
		s := streamed[i]
		if w.Kind == change.KindBegin { // the server says the commit time in both
			binary.BigEndian.PutUint64(w.Raw[9:], 1000)
		}
		if s.Kind != w.Kind || !bytes.Equal(s.Raw, w.Raw) || s.XID != w.XID || s.Position != w.Position || s.CommitTime != w.CommitTime || len(s.Defs) != len(w.Defs) || len(s.Touched) != len(w.Touched) {
			t.Errorf("message %d is %+v, want %+v", i, s, w)
		}
		for j := range w.Defs {
			if !equalMessages(s.Defs[j].Messages, w.Defs[j].Messages) || s.Touched[j].Op != w.Touched[j].Op || *s.Touched[j].Table != *w.Touched[j].Table {
				t.Errorf("message %d is %+v, want %+v", i, s, w)
			}
		}
	}
}

// Which description rows mean follows the order in which the server sent the descriptions, not that of the
// commits, and a segment holds it again when it comes back.
func TestParserOfStreamedDefinitions(t *testing.T) {
	t.Parallel()
	old, fresh := msgRelation(7, "a", "id"), msgRelation(7, "a", "id", "n")
	last := func(p *parser, list ...[]byte) change.Message {
		t.Helper()
		all := parse(t, p, list...)
		return all[len(all)-2] // before the commit
	}
	columns := func(m change.Message) int {
		r, err := pgoutput.ParseRelation(m.Defs[0].Messages[0])
		if err != nil {
			t.Fatal(err)
		}
		return len(r.Columns)
	}
	row := msgRow('I', 7)
	p := &parser{}
	a := last(p, msgStart(5, 1), by(5, old), by(5, row), msgStop, msgBegin(0x10, 6), fresh, row, msgCommit(0x10, 0x20))
	b := last(p, msgStreamCommit(5, 0x20, 0x30))
	c := last(p, msgBegin(0x30, 8), row, msgCommit(0x30, 0x40))
	if columns(a) != 2 || columns(b) != 1 || columns(c) != 2 {
		t.Errorf("%d, %d, %d columns; want 2, 1, 2", columns(a), columns(b), columns(c))
	}
	if c.Defs[0] == a.Defs[0] {
		t.Error("a definition that comes back is not stored again")
	}
	if c.Touched[0].Table != a.Touched[0].Table {
		t.Error("another table for the same definition")
	}
	// One that the server sent after all others counts once it has committed, and one that says the same changes nothing.
	d := last(p, msgStart(9, 1), by(9, old), by(9, row), msgStop, msgStreamCommit(9, 0x40, 0x50))
	e := last(p, msgBegin(0x50, 10), row, msgCommit(0x50, 0x60))
	f := last(p, msgStart(11, 1), by(11, old), by(11, row), msgStop, msgStreamCommit(11, 0x60, 0x70))
	if columns(d) != 1 || e.Defs[0] != d.Defs[0] || f.Defs[0] != d.Defs[0] {
		t.Errorf("%d columns, %v, %v", columns(d), e.Defs[0] == d.Defs[0], f.Defs[0] == d.Defs[0])
	}
	// What is rolled back describes nothing.
	g := last(p, msgStart(12, 1), by(12, fresh), by(12, row), msgStop, msgAbort(12, 12), msgBegin(0x70, 13), row, msgCommit(0x70, 0x80))
	h := last(p, msgStart(14, 1), by(15, fresh), by(15, row), msgStop, msgAbort(14, 15), msgStart(14, 0), by(14, old), by(14, row), msgStop, msgStreamCommit(14, 0x80, 0x90))
	if g.Defs[0] != d.Defs[0] || h.Defs[0] != d.Defs[0] {
		t.Error("a description that was rolled back counts")
	}
}

// An internal error of the server gets another chance in one piece, and only one.
func TestInternalErrorIsReadAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code          string
		whole, pieces bool
	}{{"XX000", false, true}, {"XX000", true, false}, {"57P01", false, false}, {"42704", false, false}} {
		s := &Source{opts: SourceOptions{Whole: c.whole}}
		err := s.take(&batch{}, &pgproto3.ErrorResponse{Code: c.code, Message: "could not map filenumber"})
		if errors.Is(err, ErrPieces) != c.pieces || errors.Is(err, ErrPieces) && errors.Is(err, capture.ErrGap) {
			t.Errorf("%s, %t: %v", c.code, c.whole, err)
		}
	}
}

func TestIdleBetweenPieces(t *testing.T) {
	t.Parallel()
	p := &parser{start: 0x100}
	p.keepalive(0x100)
	parse(t, p, msgStart(5, 1), by(5, msgRelation(7, "a", "id")), by(5, msgRow('I', 7)))
	p.keepalive(0x150)
	if m := p.idle(); m.Position != "0/100" {
		t.Errorf("idle at %s in the middle of a piece", m.Position)
	}
	parse(t, p, msgStop)
	p.keepalive(0x160) // a transaction that has not ended commits behind that
	if m := p.idle(); m.Position != "0/160" {
		t.Errorf("idle at %s between pieces", m.Position)
	}
	parse(t, p, msgAbort(5, 5))
}

// TestSpool writes random tapes side by side and compares them with what they should hold.
func TestSpool(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	dir := t.TempDir()
	s := &spool{dir: dir, limit: 4}
	defer s.close()
	tapes, want := make([]tape, 6), make([][]byte, 6)
	reader := tapeReader{spool: s}
	most := 0
	for range 3000 {
		i := r.IntN(len(tapes))
		switch r.IntN(12) {
		case 0:
			n := r.Int64N(tapes[i].size + 1)
			s.truncate(&tapes[i], n)
			want[i] = want[i][:n]
		case 1:
			if r.IntN(8) > 0 {
				continue
			}
			reader.reset(tapes[i])
			tapes[i] = tape{}
			for at := 0; at < len(want[i]); {
				n := min(1+r.IntN(3*pageSize), len(want[i])-at)
				if r.IntN(3) > 0 {
					n = min(n, 1+r.IntN(100))
				}
				got, err := reader.next(n)
				if err != nil || !bytes.Equal(got, want[i][at:at+n]) {
					t.Fatalf("read %d bytes at %d of %d: %v, or another content", n, at, len(want[i]), err)
				}
				at += n
			}
			if _, err := reader.next(1); err == nil {
				t.Fatal("more than there is")
			}
			reader.done()
			want[i] = nil
		default:
			b := make([]byte, r.IntN(pageSize)+r.IntN(2)*r.IntN(3*pageSize))
			for j := range b {
				b[j] = byte(r.Uint32())
			}
			if err := s.write(&tapes[i], b); err != nil {
				t.Fatal(err)
			}
			want[i] = append(want[i], b...)
			if r.IntN(2) == 0 {
				if err := s.rest(&tapes[i]); err != nil {
					t.Fatal(err)
				}
			}
		}
		most = max(most, s.held)
		if tapes[i].size != int64(len(want[i])) {
			t.Fatalf("%d bytes, want %d", tapes[i].size, len(want[i]))
		}
	}
	// One tape is written at a time; those that rest keep within the limit, but for the last page of each that was not told to.
	if most > s.limit+1+len(tapes) || most < s.limit {
		t.Errorf("%d pages were in memory, the limit is %d", most, s.limit)
	}
	for i := range tapes {
		s.truncate(&tapes[i], 0)
	}
	st, err := s.file.Stat()
	if err != nil || st.Size() != 0 || s.held != 0 {
		t.Errorf("%d bytes and %d pages are left, %v", st.Size(), s.held, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestReplayAllocatesNothingPerRow(t *testing.T) {
	p := &parser{streams: streams{spool: spool{limit: 10}}}
	defer p.streams.spool.close()
	const rows = 5000
	fill := func() {
		parse(t, p, msgStart(5, 1), by(5, msgRelation(7, "a", "id")))
		row := by(5, msgRow('I', 7))
		for range rows {
			if _, err := p.message(row); err != nil {
				t.Fatal(err)
			}
		}
		parse(t, p, msgStop)
	}
	fill()
	parse(t, p, msgStreamCommit(5, 0x10, 0x20)) // buffers grow once
	if n := testing.AllocsPerRun(5, func() {
		fill()
		m, err := p.message(msgStreamCommit(5, 0x10, 0x20))
		for m != nil && err == nil && m.Kind != change.KindCommit {
			m, err = p.rest()
		}
		if err != nil || m == nil {
			t.Fatal(m, err)
		}
	}); n > rows/50 {
		t.Errorf("%v allocations for %d rows", n, rows)
	}
}
