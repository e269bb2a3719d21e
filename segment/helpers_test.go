package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"

	"txreel/change"
)

// memory is an Output in memory.
type memory struct{ b []byte }

func (m *memory) Write(p []byte) (int, error) { m.b = append(m.b, p...); return len(p), nil }

func (m *memory) Truncate(size int64) error { m.b = m.b[:size]; return nil }

// contents is all a Reader says of a segment.
type contents struct {
	version uint16
	header  Header
	records []Record
	index   *Index
	hash    Hash
}

func readAll(in io.Reader) (contents, error) {
	r, err := NewReader(in)
	if err != nil {
		return contents{}, err
	}
	c := contents{version: r.version, header: r.Header()}
	for {
		rec, err := r.Next()
		if err == io.EOF {
			c.index, c.hash = r.Index(), r.Hash()
			return c, nil
		}
		if err != nil {
			return c, err
		}
		rec.Raw = bytes.Clone(rec.Raw)
		c.records = append(c.records, rec)
	}
}

// readTail asks for a segment's end as a caller with range reads does.
func readTail(seg []byte, guess int) (*Tail, error) {
	f, err := NewFrameReader()
	if err != nil {
		return nil, err
	}
	for n := int64(guess); ; {
		n = min(n, int64(len(seg)))
		t, need, err := f.Tail(seg[int64(len(seg))-n:], int64(len(seg)))
		if err != nil || t != nil {
			return t, err
		}
		if need <= n {
			return nil, errors.New("Tail asks for what it has")
		}
		n = need
	}
}

// checkDamage demands the error that damaged bytes deserve.
func checkDamage(t *testing.T, err error, size int) {
	t.Helper()
	var c *CorruptError
	switch {
	case err == nil:
		t.Fatal("read without an error")
	case !errors.As(err, &c) || !errors.Is(err, ErrCorrupt):
		t.Fatalf("not a CorruptError: %v", err)
	case errors.Is(err, ErrVersion):
		t.Fatalf("damage taken for a version: %v", err)
	case c.Offset < 0 || c.Offset > int64(size):
		t.Fatalf("offset %d in %d bytes: %v", c.Offset, size, err)
	}
}

// parts is a segment taken apart, to be put together again with right checksums
// around whatever a test has changed.
type parts struct {
	header []byte // its checksum is set by join
	frames []part
	index  []byte
	foot   func(*footer) // changes the footer before hash and checksum are made
	after  func([]byte)  // changes the segment last of all
}

type part struct {
	raw    []byte
	stored []byte // raw compressed; nil when raw has changed
	size   uint32 // instead of len(raw)
	flags  uint32
}

func split(t testing.TB, seg []byte) *parts {
	t.Helper()
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	p := &parts{header: bytes.Clone(seg[:headerSize])}
	for off := headerSize; ; {
		h, err := parseFrameHeader(seg[off:], int64(off))
		if err != nil {
			t.Fatal(err)
		}
		end := off + frameHeaderSize + int(h.stored)
		stored := seg[off+frameHeaderSize : end]
		raw, err := dec.DecodeAll(stored, nil)
		if err != nil {
			t.Fatal(err)
		}
		off = end
		if h.flags == flagIndex {
			p.index = raw
			return p
		}
		p.frames = append(p.frames, part{raw: raw, stored: stored, flags: h.flags})
	}
}

func (p *parts) join() []byte {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	defer enc.Close()
	var out memory
	w := &Writer{out: &out, hash: newHash()}
	binary.LittleEndian.PutUint32(p.header[104:], crcOf(p.header[:104]))
	_ = w.write(p.header)
	frame := func(f part) int64 {
		if f.stored == nil {
			f.stored = enc.EncodeAll(f.raw, nil)
		}
		if f.size == 0 {
			f.size = uint32(len(f.raw))
		}
		h := frameHeader{stored: uint32(len(f.stored)), raw: f.size, flags: f.flags}
		h.crc = h.sum(f.stored)
		b := make([]byte, frameHeaderSize)
		h.put(b)
		_ = w.write(append(b, f.stored...))
		return int64(frameHeaderSize + len(f.stored))
	}
	for _, f := range p.frames {
		frame(f)
	}
	f := footer{index: w.off}
	f.length = frame(part{raw: p.index, flags: flagIndex})
	f.size = w.off + footerSize
	if p.foot != nil {
		p.foot(&f)
	}
	w.hash.Write(f.encode()[:24])
	w.hash.Sum(f.hash[:0])
	_ = w.write(f.encode())
	if p.after != nil {
		p.after(out.b)
	}
	return out.b
}

// reindex changes the decoded index and encodes it again.
func (p *parts) reindex(change func(*Index)) {
	x, err := decodeIndex(p.index, Version)
	if err != nil {
		panic(err)
	}
	change(x)
	p.index = encodeIndex(x)
}

// relocate makes the index speak of the frames as they are now stored.
func (p *parts) relocate() {
	p.reindex(func(x *Index) {
		seg := p.join()
		x.Frames = nil
		for off := int64(headerSize); ; {
			h, _ := parseFrameHeader(seg[off:], off)
			if h.flags == flagIndex {
				return
			}
			f := Frame{Stored: int(h.stored) + frameHeaderSize, Raw: int(h.raw), Definitions: h.flags&flagDefinitions != 0}
			x.Frames = append(x.Frames, f)
			off += int64(f.Stored)
		}
	})
}

func encodeIndex(x *Index) []byte {
	w := indexWriter{latest: x.Latest, first: 1}
	if len(x.Txns) > 0 {
		w.first = x.Txns[0].Seq
	}
	states := map[*change.Table]*tableState{}
	for i := range x.Tables {
		states[&x.Tables[i]] = &tableState{table: &x.Tables[i], id: i}
		w.tables = append(w.tables, &x.Tables[i])
	}
	latest := x.Latest
	for i := range x.Txns {
		e := &x.Txns[i]
		var counts []tableCount
		for _, c := range e.Tables {
			if states[c.Table] == nil { // one that the test took out of the list
				states[c.Table] = &tableState{id: len(x.Tables)}
			}
			counts = append(counts, tableCount{states[c.Table], c.Inserts, c.Updates, c.Deletes, c.Truncates})
		}
		first := w.first
		w.add(&e.Txn, e.Frame, e.Offset, counts)
		w.first = first
	}
	w.latest = latest
	return w.encode(x.End, x.Frames)
}

func record(kind byte, body ...byte) []byte {
	return append(binary.AppendUvarint([]byte{kind}, uint64(len(body))), body...)
}

var testHeader = Header{
	Archive: [16]byte{0: 1, 15: 2}, Engine: "postgres", Epoch: 3, First: 41, Prev: Hash{0: 9, 31: 8}, Latest: 1_000_000,
}

// sample is a segment of a few hundred bytes: three transactions in two frames,
// the second over both, with definitions in each.
func sample(t testing.TB) []byte {
	t.Helper()
	var out memory
	w, err := NewWriter(&out, testHeader)
	check(t, err)
	w.target = 200
	table := &change.Table{Schema: "public", Name: "accounts", Version: 7}
	other := &change.Table{Schema: "public", Name: "history"}
	def := &change.Definition{Messages: [][]byte{[]byte("R: accounts(id, balance)")}}
	late := &change.Definition{Messages: [][]byte{[]byte("Y: money"), []byte("R: history(delta money)")}}
	check(t, w.Begin(change.TxnSource))
	check(t, w.Write(&change.Message{Raw: []byte("B 1")}))
	check(t, w.Write(&change.Message{Raw: []byte("U accounts 17"), Defs: []*change.Definition{def}, Touched: []change.Touch{{Table: table, Op: change.OpUpdate, Rows: 1}}}))
	check(t, w.Write(&change.Message{Raw: []byte("C 1")}))
	check(t, w.Commit(&change.Message{XID: "744", Position: "0/15D6A38", CommitTime: 1_700_000_000_000_000, Received: 1_700_000_000_004_321}))
	check(t, w.Begin(change.TxnSource))
	for i := range 6 {
		check(t, w.Write(&change.Message{
			Raw: []byte("I history, a row that is thirty bytes or so: " + string(rune('a'+i))), Defs: []*change.Definition{def, late},
			Touched: []change.Touch{{Table: other, Op: change.OpInsert, Rows: 1}, {Table: table, Op: change.OpDelete, Rows: 2}},
		}))
	}
	check(t, w.Commit(&change.Message{XID: "745", Position: "0/15D6B70", CommitTime: 1_699_999_999_999_999, Received: 1_700_000_000_004_321, Note: "alter table history add delta money"}))
	check(t, w.Begin(change.TxnHeartbeat))
	check(t, w.Commit(&change.Message{Position: "0/15D6C00", CommitTime: 1_700_000_000_500_000}))
	_, err = w.Close("0/15D6C00")
	check(t, err)
	return out.b
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
