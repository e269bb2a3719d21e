package postgres

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"txreel/change"
	"txreel/sources/postgres/lsn"
	"txreel/sources/postgres/pgoutput"
)

// Messages as the server makes them.

func msgBegin(final lsn.LSN, xid uint32) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'B'}, uint64(final))
	b = binary.BigEndian.AppendUint64(b, 0)
	return binary.BigEndian.AppendUint32(b, xid)
}

func msgCommit(at, end lsn.LSN) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'C', 0}, uint64(at))
	b = binary.BigEndian.AppendUint64(b, uint64(end))
	return binary.BigEndian.AppendUint64(b, 1000)
}

func msgRelation(id uint32, name string, columns ...string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{'R'}, id)
	b = append(append(append(b, "public\x00"...), name...), 0, 'd')
	b = binary.BigEndian.AppendUint16(b, uint16(len(columns)))
	for _, c := range columns {
		b = append(append(append(b, 0), c...), 0)
		b = append(b, 0, 0, 0, 23, 0xff, 0xff, 0xff, 0xff)
	}
	return b
}

func msgType(id uint32, name string) []byte {
	return append(append(binary.BigEndian.AppendUint32([]byte{'Y'}, id), "public\x00"+name...), 0)
}

func msgRow(tag byte, id uint32) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{tag}, id), 'N', 0, 1, 't', 0, 0, 0, 1, '7')
}

func msgTruncate(ids ...uint32) []byte {
	b := append(binary.BigEndian.AppendUint32([]byte{'T'}, uint32(len(ids))), 0)
	for _, id := range ids {
		b = binary.BigEndian.AppendUint32(b, id)
	}
	return b
}

func msgMessage(transactional byte, at lsn.LSN) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'M', transactional}, uint64(at))
	return append(append(b, "p\x00"...), 0, 0, 0, 1, 'x')
}

// parse gives the messages to p and copies what comes out.
func parse(t *testing.T, p *parser, list ...[]byte) []change.Message {
	t.Helper()
	all, err := tryParse(p, list...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func tryParse(p *parser, list ...[]byte) (all []change.Message, err error) {
	for _, raw := range list {
		m, err := p.message(raw)
		if err != nil {
			return all, err
		}
		for m != nil {
			c := *m
			c.Raw, c.Defs, c.Touched = slices.Clone(m.Raw), slices.Clone(m.Defs), slices.Clone(m.Touched)
			all = append(all, c)
			if m, err = p.rest(); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

// kinds shows messages as B, D, C with the commits' ids and positions.
func kinds(all []change.Message) string {
	var b strings.Builder
	for _, m := range all {
		switch m.Kind {
		case change.KindBegin:
			b.WriteByte('B')
		case change.KindData:
			b.WriteByte('D')
		case change.KindCommit:
			b.WriteString("C(" + m.XID + " " + string(m.Position) + ")")
		default:
			b.WriteByte('?')
		}
	}
	return b.String()
}

func TestParserOfTransactions(t *testing.T) {
	t.Parallel()
	rel := msgRelation(7, "a", "id")
	for _, c := range []struct {
		name  string
		start lsn.LSN
		in    [][]byte
		want  string
		err   string
	}{
		{name: "one", in: [][]byte{msgBegin(0x10, 5), rel, msgRow('I', 7), msgCommit(0x10, 0x20)}, want: "BDC(5 0/20)"},
		{name: "before the tail is a duplicate", start: 0x20, in: [][]byte{msgBegin(0x10, 5), rel, msgRow('I', 7), msgTruncate(7), msgMessage(1, 0x8), msgCommit(0x10, 0x20)}},
		{name: "only the commit's start counts", start: 0x1f, in: [][]byte{msgBegin(0x1e, 5), msgCommit(0x1e, 0x30)}},
		{name: "at the tail is new", start: 0x20, in: [][]byte{msgBegin(0x20, 5), rel, msgRow('I', 7), msgCommit(0x20, 0x30)}, want: "BDC(5 0/30)"},
		{name: "a duplicate's description serves what follows", start: 0x20,
			in:   [][]byte{msgBegin(0x10, 5), rel, msgRow('I', 7), msgCommit(0x10, 0x20), msgBegin(0x20, 6), msgRow('D', 7), msgCommit(0x20, 0x30)},
			want: "BDC(6 0/30)"},
		{name: "stray stream abort in a transaction", in: [][]byte{msgBegin(0x10, 5), {'A', 0, 0, 2, 0xf6, 0, 0, 2, 0xf7}, msgCommit(0x10, 0x20)}, want: "BC(5 0/20)"},
		{name: "stray stream abort", in: [][]byte{{'A', 0, 0, 2, 0xf6, 0, 0, 2, 0xf7}, msgBegin(0x10, 5), msgCommit(0x10, 0x20)}, want: "BC(5 0/20)"},
		{name: "unknown tag in a transaction is kept", in: [][]byte{msgBegin(0x10, 5), {'z', 1}, msgCommit(0x10, 0x20)}, want: "BDC(5 0/20)"},
		{name: "unknown tag outside", in: [][]byte{{'z', 1}}},
		{name: "origin", in: [][]byte{msgBegin(0x10, 5), {'O', 0, 0, 0, 0, 0, 0, 0, 1, 'o', 0}, msgCommit(0x10, 0x20)}, want: "BDC(5 0/20)"},
		{name: "message in a transaction", in: [][]byte{msgBegin(0x10, 5), msgMessage(1, 0x8), msgCommit(0x10, 0x20)}, want: "BDC(5 0/20)"},
		{name: "message outside", in: [][]byte{msgMessage(0, 0x10)}, want: "BDC( 0/10)"},
		{name: "message that ends at the tail", start: 0x10, in: [][]byte{msgMessage(0, 0x10)}},
		{name: "message that starts at the tail", start: 0x8, in: [][]byte{msgMessage(0, 0x10)}, want: "BDC( 0/10)"},
		{name: "commit where a message ends", start: 0x10, in: [][]byte{msgMessage(0, 0x10), msgBegin(0x10, 5), msgCommit(0x10, 0x50)}, want: "BC(5 0/50)"},
		{name: "row outside", in: [][]byte{rel, msgRow('I', 7)}, err: "outside a transaction"},
		{name: "truncate outside", in: [][]byte{rel, msgTruncate(7)}, err: "outside a transaction"},
		{name: "row without a description", in: [][]byte{msgBegin(0x10, 5), msgRow('I', 7)}, want: "B", err: "before any description"},
		{name: "begin in a transaction", in: [][]byte{msgBegin(0x10, 5), msgBegin(0x10, 6)}, want: "B", err: "begins inside another"},
		{name: "begin in a duplicate", start: 0x20, in: [][]byte{msgBegin(0x10, 5), msgBegin(0x20, 6)}, err: "begins inside another"},
		{name: "commit outside", in: [][]byte{msgCommit(0x10, 0x20)}, err: "outside a transaction"},
		{name: "empty", in: [][]byte{{}}, err: "empty message"},
		{name: "short begin", in: [][]byte{msgBegin(1, 2)[:20]}, err: "malformed"},
		{name: "short row", in: [][]byte{msgBegin(1, 2), {'I', 0, 0}}, want: "B", err: "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &parser{start: c.start}
			got, err := tryParse(p, c.in...)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			if kinds(got) != c.want {
				t.Fatalf("got %s, want %s", kinds(got), c.want)
			}
		})
	}
}

func TestParserKeepsRawVerbatim(t *testing.T) {
	t.Parallel()
	in := [][]byte{msgBegin(0x10, 5), msgRelation(7, "a", "id"), msgRow('U', 7), {'z', 9, 9}, msgCommit(0x10, 0x20)}
	p := &parser{}
	got := parse(t, p, in...)
	for i, want := range [][]byte{in[0], in[2], in[3], in[4]} {
		if string(got[i].Raw) != string(want) {
			t.Errorf("message %d is %x, want %x", i, got[i].Raw, want)
		}
	}
	if d := got[1].Defs; len(d) != 1 || len(d[0].Messages) != 1 || string(d[0].Messages[0]) != string(in[1]) {
		t.Errorf("definitions %+v", d)
	}
}

func TestParserOfDefinitions(t *testing.T) {
	t.Parallel()
	p := &parser{}
	parse(t, p, msgBegin(0x10, 5))
	one := func(list ...[]byte) change.Message {
		t.Helper()
		all := parse(t, p, list...)
		return all[len(all)-1]
	}
	a := one(msgType(600, "mood"), msgRelation(7, "a", "id"), msgRow('I', 7))
	if len(a.Defs[0].Messages) != 2 || a.Defs[0].Messages[0][0] != 'Y' || a.Touched[0].Table.Name != "a" || a.Touched[0].Op != change.OpInsert {
		t.Fatalf("%+v", a)
	}
	if b := one(msgType(600, "mood"), msgRelation(7, "a", "id"), msgRow('U', 7)); b.Defs[0] != a.Defs[0] || b.Touched[0].Table != a.Touched[0].Table || b.Touched[0].Op != change.OpUpdate {
		t.Errorf("sent again unchanged: %+v", b)
	}
	if b := one(msgType(600, "moods"), msgRelation(7, "a", "id"), msgRow('D', 7)); b.Defs[0] == a.Defs[0] || b.Touched[0].Op != change.OpDelete {
		t.Errorf("type renamed: %+v", b)
	}
	changed := one(msgType(600, "mood"), msgRelation(7, "a", "id", "n"), msgRow('I', 7))
	if changed.Defs[0] == a.Defs[0] || changed.Touched[0].Table == a.Touched[0].Table || changed.Touched[0].Table.Version == a.Touched[0].Table.Version {
		t.Errorf("changed: %+v", changed)
	}
	if len(a.Defs[0].Messages) != 2 {
		t.Error("a definition was altered")
	}
	// The description of another relation in between does not matter.
	one(msgRelation(8, "b", "id"), msgRow('I', 8))
	if b := one(msgRow('I', 7)); b.Defs[0] != changed.Defs[0] {
		t.Errorf("%+v", b)
	}
	both := one(msgTruncate(8, 7))
	if len(both.Defs) != 2 || len(both.Touched) != 2 || both.Touched[0].Table.Name != "b" || both.Touched[1].Table.Name != "a" || both.Touched[0].Op != change.OpTruncate {
		t.Errorf("%+v", both)
	}
	// A table created anew under the name has another version.
	if b := one(msgRelation(9, "a", "id", "n"), msgRow('I', 9)); b.Touched[0].Table.Version == changed.Touched[0].Table.Version {
		t.Errorf("created anew: %+v", b.Touched[0].Table)
	}
}

func TestIdlePositions(t *testing.T) {
	t.Parallel()
	p := &parser{start: 0x100, time: 7}
	expect := func(what string, position change.Position, at change.Time) {
		t.Helper()
		if m := p.idle(); m.Kind != change.KindIdle || m.Position != position || m.CommitTime != at && position != "" {
			t.Errorf("%s: idle at %q, %d; want %q, %d", what, m.Position, m.CommitTime, position, at)
		}
	}
	expect("before anything", "", 0)
	p.keepalive(0x80)
	expect("the server decodes again what the archive holds", "", 0)
	p.pass(&fence{at: 0x50, time: 50})
	p.keepalive(0x100)
	expect("caught up with the tail", "0/100", 7)
	p.keepalive(0x120)
	p.pass(&fence{at: 0x121, time: 60})
	expect("before a fence", "0/120", 7)
	p.pass(&fence{at: 0x120, time: 60})
	expect("at a fence", "0/120", 60)
	p.keepalive(0x110)
	expect("never back", "0/120", 60)
	if _, err := p.message(msgBegin(0x130, 5)); err != nil {
		t.Fatal(err)
	}
	p.keepalive(0x200)
	p.pass(&fence{at: 0, time: 100})
	expect("in a transaction", "", 0)
	if _, err := p.message(msgCommit(0x130, 0x140)); err != nil {
		t.Fatal(err)
	}
	expect("behind a commit", "0/140", max(60, pgoutput.Time(1000)))
	if _, err := p.message(msgMessage(0, 0x150)); err != nil {
		t.Fatal(err)
	}
	p.queue = nil
	expect("behind a message", "0/150", max(60, pgoutput.Time(1000)))
}

// Every commit says when its batch had arrived, also one that the source made of a
// message outside any transaction.
func TestParserOfReceipts(t *testing.T) {
	t.Parallel()
	p := &parser{received: 41}
	all := parse(t, p, msgBegin(0x10, 5), msgCommit(0x10, 0x20))
	p.received = 42
	all = append(all, parse(t, p, msgMessage(0, 0x30))...)
	var got []change.Time
	for _, m := range all {
		if m.Kind == change.KindCommit {
			got = append(got, m.Received)
		} else if m.Received != 0 {
			t.Errorf("%+v says when it was received", m)
		}
	}
	if !slices.Equal(got, []change.Time{41, 42}) {
		t.Errorf("received at %d, want 41 and 42", got)
	}
}

func TestFullXID(t *testing.T) {
	t.Parallel()
	const wrap = 1 << 32
	for _, c := range []struct {
		near uint64
		xid  uint32
		want uint64
	}{
		{1000, 999, 999}, {1000, 1005, 1005}, {3, 3, 3},
		{wrap + 5, 0xfffffff0, wrap - 16}, // began before the wrap, met behind it
		{wrap - 16, 5, wrap + 5},          // the first behind the wrap
		{7*wrap + 3, 0xffffffff, 7*wrap - 1}, {7*wrap - 1, 3, 7*wrap + 3},
		{5 * wrap, 1<<31 - 1, 5*wrap + 1<<31 - 1},
		{5*wrap + 1<<31, 3, 5*wrap + 3},
		{10, 0xfffffff0, 0xfffffff0}, // there is no epoch before the first
	} {
		if got := fullXID(c.near, c.xid); got != c.want {
			t.Errorf("fullXID(%#x, %#x) = %#x, want %#x", c.near, c.xid, got, c.want)
		}
	}
}

func TestParserAllocatesNothingPerRow(t *testing.T) {
	p := &parser{}
	parse(t, p, msgBegin(0x10, 5), msgRelation(7, "a", "id"), msgRelation(8, "b", "id"), msgRow('I', 7))
	rows := [][]byte{msgRow('I', 7), msgRow('U', 7), msgRow('D', 8), msgRow('I', 8)}
	if n := testing.AllocsPerRun(1000, func() {
		for _, r := range rows {
			if m, err := p.message(r); err != nil || m == nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// recorded are messages of a real server, one whole transaction among them.
func recorded(t testing.TB) [][]byte {
	f, err := os.Open("pgoutput/testdata/messages.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list [][]byte
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		if line := in.Text(); !strings.HasPrefix(line, "#") {
			b, err := hex.DecodeString(line)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, b)
		}
	}
	if err := in.Err(); err != nil || len(list) < 20 {
		t.Fatalf("%d messages, %v", len(list), err)
	}
	return list
}

func TestParserOfRecordedMessages(t *testing.T) {
	t.Parallel()
	list := recorded(t)
	var want, got [][]byte
	for _, m := range list {
		if !strings.ContainsRune("RY", rune(m[0])) {
			want = append(want, m)
		}
	}
	p := &parser{}
	counts := map[string]uint64{}
	for _, m := range parse(t, p, list...) {
		if len(m.Raw) > 0 {
			got = append(got, m.Raw)
		}
		for _, x := range m.Touched {
			counts[x.Table.String()] += x.Rows
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%d messages came out, want %d", len(got), len(want))
	}
	if counts["public.ful"] != 5 || counts["public.part1"] != 2 || counts[`Sch.ema.Ta "ble`] != 1 {
		t.Errorf("counts %v", counts)
	}
}

func FuzzParser(f *testing.F) {
	list := recorded(f)
	for _, m := range list {
		f.Add(m, false)
		f.Add(m, true)
	}
	f.Add(msgBegin(1, 2), true)
	f.Add(msgMessage(0, ^lsn.LSN(0)), false)
	f.Fuzz(func(t *testing.T, m []byte, open bool) {
		p := &parser{xid: 1 << 33}
		if open {
			parse(t, p, msgBegin(0x10, 5), msgRelation(7, "a", "id"))
		}
		_, err := tryParse(p, m)
		if err == nil { // what was taken once is taken again
			_, _ = tryParse(p, m, m)
		}
		p.idle()
	})
}
