package segment

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"reflect"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"txreel/change"
)

func newHash() hash.Hash { return sha256.New() }

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// plannedTxn is a transaction a test has thought up, and how it ends.
type plannedTxn struct {
	kind     change.TxnKind
	messages []change.Message
	commit   change.Message
	rollback bool
}

func drawTxns(t *rapid.T, target int) []plannedTxn {
	var defs []*change.Definition
	for range rapid.IntRange(1, 4).Draw(t, "definitions") {
		d := &change.Definition{}
		for range rapid.IntRange(0, 3).Draw(t, "messages") {
			d.Messages = append(d.Messages, rapid.SliceOfN(rapid.Byte(), 0, target/2).Draw(t, "definition"))
		}
		defs = append(defs, d)
	}
	var tables []*change.Table
	for i := range rapid.IntRange(1, 4).Draw(t, "tables") {
		tables = append(tables, &change.Table{Schema: "s", Name: fmt.Sprint("t", i), Version: rapid.Uint64().Draw(t, "version")})
	}
	ops := []change.Op{change.OpInsert, change.OpUpdate, change.OpDelete, change.OpTruncate, change.OpMessage}
	seed := byte(0)
	message := func() change.Message {
		size := rapid.OneOf(rapid.Just(0), rapid.IntRange(1, 40), rapid.IntRange(1, target), rapid.IntRange(target, 3*target)).Draw(t, "size")
		seed++
		m := change.Message{Kind: change.KindData, Raw: make([]byte, size)}
		for i := range m.Raw {
			m.Raw[i] = byte(i) * seed
		}
		for range rapid.IntRange(0, 2).Draw(t, "defs") {
			m.Defs = append(m.Defs, rapid.SampledFrom(defs).Draw(t, "def"))
		}
		for range rapid.IntRange(0, 2).Draw(t, "touched") {
			m.Touched = append(m.Touched, change.Touch{
				Table: rapid.SampledFrom(tables).Draw(t, "table"), Op: rapid.SampledFrom(ops).Draw(t, "op"), Rows: rapid.Uint64Range(0, 1000).Draw(t, "rows"),
			})
		}
		return m
	}
	var txns []plannedTxn
	for range rapid.IntRange(1, 8).Draw(t, "transactions") {
		x := plannedTxn{kind: change.TxnSource, rollback: rapid.Bool().Draw(t, "rollback")}
		if rapid.IntRange(0, 4).Draw(t, "heartbeat") == 0 {
			x.kind = change.TxnHeartbeat
		} else {
			for range rapid.IntRange(0, 6).Draw(t, "count") {
				x.messages = append(x.messages, message())
			}
			x.commit.XID = rapid.StringN(0, 12, 40).Draw(t, "xid")
		}
		x.commit.Position = change.Position(rapid.StringN(0, 12, 40).Draw(t, "position"))
		x.commit.CommitTime = change.Time(rapid.Int64().Draw(t, "time"))
		x.commit.Received = change.Time(rapid.OneOf(rapid.Just(int64(0)), rapid.Int64(), rapid.Just(int64(x.commit.CommitTime))).Draw(t, "received"))
		x.commit.Note = rapid.StringN(0, 60, change.MaxNote).Draw(t, "note")
		txns = append(txns, x)
	}
	txns = append(txns, plannedTxn{kind: change.TxnHeartbeat}) // a segment holds one at least
	return txns
}

func write(t rapid.TB, w *Writer, txns []plannedTxn, rolledBack bool) Summary {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range txns {
		x := &txns[i]
		if x.rollback && !rolledBack {
			continue
		}
		must(w.Begin(x.kind))
		for j := range x.messages {
			must(w.Write(&x.messages[j]))
		}
		if x.rollback {
			must(w.Rollback())
		} else {
			must(w.Commit(&x.commit))
		}
	}
	s, err := w.Close("the end")
	must(err)
	return s
}

// expect is the model: what a reader must find of the transactions that committed.
func expect(h Header, txns []plannedTxn) (records []Record, index Index) {
	known := map[*change.Definition]bool{}
	seq := h.First
	index.End, index.Latest = "the end", h.Latest
	for i := range txns {
		x := &txns[i]
		if x.rollback {
			continue
		}
		records = append(records, Record{Kind: Begin, Seq: seq, TxnKind: x.kind})
		e := Entry{Txn: change.Txn{Seq: seq, Kind: x.kind, XID: x.commit.XID, Position: x.commit.Position, CommitTime: x.commit.CommitTime, Received: x.commit.Received, Note: x.commit.Note}}
		pos := map[*change.Table]int{}
		for j := range x.messages {
			m := &x.messages[j]
			for _, d := range m.Defs {
				if !known[d] {
					known[d] = true
					for _, raw := range d.Messages {
						records = append(records, Record{Kind: Definition, Raw: raw})
					}
				}
			}
			if len(m.Raw) > 0 {
				records = append(records, Record{Kind: Message, Raw: m.Raw})
				e.Messages++
				e.Bytes += uint64(len(m.Raw))
			}
			for _, touch := range m.Touched {
				p, ok := pos[touch.Table]
				if !ok {
					p = len(e.Tables)
					pos[touch.Table] = p
					e.Tables = append(e.Tables, change.TableCount{Table: touch.Table})
				}
				switch c := &e.Tables[p]; touch.Op {
				case change.OpInsert:
					c.Inserts += touch.Rows
				case change.OpUpdate:
					c.Updates += touch.Rows
				case change.OpDelete:
					c.Deletes += touch.Rows
				case change.OpTruncate:
					c.Truncates++
				}
			}
		}
		c := &x.commit
		records = append(records, Record{Kind: Commit, Seq: seq, TxnKind: x.kind, XID: c.XID, Position: c.Position, CommitTime: c.CommitTime, Received: c.Received, Note: c.Note})
		index.Latest = max(index.Latest, c.CommitTime)
		index.Txns = append(index.Txns, e)
		seq++
	}
	return records, index
}

// TestModel writes random transactions, some rolled back, and demands of the
// segment what the model says, and the very bytes of a writer that never saw
// those that were rolled back.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		target := rapid.SampledFrom([]int{16, 100, 1000}).Draw(t, "target")
		var used memory
		w, err := NewWriter(&used, Header{First: 1})
		if err != nil {
			t.Fatal(err)
		}
		w.target = target
		write(t, w, drawTxns(t, target), true) // so that Reset has something to forget
		if rapid.Bool().Draw(t, "unfinished") {
			if err := w.Reset(&memory{}, Header{First: 7}); err != nil {
				t.Fatal(err)
			}
			_ = w.Begin(change.TxnSource)
			_ = w.Write(&change.Message{Raw: make([]byte, 2*target)})
		}

		h := testHeader
		for range rapid.IntRange(1, 3).Draw(t, "segments") {
			txns := drawTxns(t, target)
			var out, bare memory
			if err := w.Reset(&out, h); err != nil {
				t.Fatal(err)
			}
			sum := write(t, w, txns, true)

			fresh, err := NewWriter(&bare, h)
			if err != nil {
				t.Fatal(err)
			}
			fresh.target = target
			if s := write(t, fresh, txns, false); s != sum || !bytes.Equal(out.b, bare.b) {
				t.Fatalf("a rollback, or the segment before, left a trace:\n%x\n%x", out.b, bare.b)
			}
			records, index := expect(h, txns)
			compare(t, out.b, h, sum, records, &index)
			h.First, h.Prev, h.Latest = sum.Last+1, sum.Hash, sum.Latest
		}
	})
}

func compare(t rapid.TB, seg []byte, h Header, sum Summary, records []Record, index *Index) {
	for _, wrap := range []func(io.Reader) io.Reader{
		func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader,
	} {
		c, err := readAll(wrap(bytes.NewReader(seg)))
		if err != nil {
			t.Fatal(err)
		}
		if c.header != h || c.hash != sum.Hash || sum.Size != int64(len(seg)) || sum.End != index.End || sum.Latest != index.Latest ||
			sum.First != c.index.First() || sum.Last != c.index.Last() {
			t.Fatalf("header %+v, hash %x, index %+v, summary %+v of %d bytes", c.header, c.hash, c.index, sum, len(seg))
		}
		if len(c.records) != len(records) {
			t.Fatalf("%d records, want %d", len(c.records), len(records))
		}
		for i := range records {
			a, b := c.records[i], records[i]
			if !bytes.Equal(a.Raw, b.Raw) {
				t.Fatalf("record %d holds %x, want %x", i, a.Raw, b.Raw)
			}
			if a.Raw, b.Raw = nil, nil; !reflect.DeepEqual(a, b) {
				t.Fatalf("record %d is %+v, want %+v", i, a, b)
			}
		}
		compareIndex(t, c.index, index)
		tail, err := readTail(seg, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(tail.Index, c.index) || tail.Hash != c.hash || tail.Size != sum.Size {
			t.Fatalf("tail %+v, want %+v", tail, c)
		}
		f, err := NewFrameReader()
		if err != nil {
			t.Fatal(err)
		}
		again, need, err := f.Tail(tail.Packed, tail.Size)
		if err != nil || need != 0 || !reflect.DeepEqual(again.Index, c.index) {
			t.Fatalf("packed tail: %v", err)
		}
		compareFrames(t, seg, c)
	}
}

// compareIndex compares what the model knows of an index: all but frames and
// offsets, which compareFrames checks.
func compareIndex(t rapid.TB, got, want *Index) {
	if got.End != want.End || got.Latest != want.Latest || len(got.Txns) != len(want.Txns) {
		t.Fatalf("index %+v, want %+v", got, want)
	}
	for i := range want.Txns {
		a, b := got.Txns[i].Txn, want.Txns[i].Txn
		if len(a.Tables) != len(b.Tables) {
			t.Fatalf("transaction %s touched %d tables, want %d", b.Seq, len(a.Tables), len(b.Tables))
		}
		for j := range b.Tables {
			if *a.Tables[j].Table != *b.Tables[j].Table {
				t.Fatalf("transaction %s touched %v, want %v", b.Seq, a.Tables[j].Table, b.Tables[j].Table)
			}
			x, y := a.Tables[j], b.Tables[j]
			if x.Table, y.Table = nil, nil; x != y {
				t.Fatalf("transaction %s counts %+v, want %+v", b.Seq, x, y)
			}
		}
		if a.Tables, b.Tables = nil, nil; !reflect.DeepEqual(a, b) {
			t.Fatalf("transaction %+v, want %+v", a, b)
		}
	}
}

// compareFrames reads every frame alone and looks for each transaction where the
// index places it, its definitions in frames that say they have some.
func compareFrames(t rapid.TB, seg []byte, c contents) {
	f, err := NewFrameReader()
	if err != nil {
		t.Fatal(err)
	}
	var records []Record
	begins := map[[2]int]change.Seq{}
	for i := range c.index.Frames {
		definitions := false
		err := f.ReadFrame(bytes.NewReader(seg[c.index.FrameOffset(i):]), c.index, i, func(off int, rec Record) error {
			if rec.Kind == Begin {
				begins[[2]int{i, off}] = rec.Seq
			}
			definitions = definitions || rec.Kind == Definition
			rec.Raw = bytes.Clone(rec.Raw)
			records = append(records, rec)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if definitions != c.index.Frames[i].Definitions {
			t.Fatalf("frame %d: definitions %t, flag %t", i, definitions, c.index.Frames[i].Definitions)
		}
	}
	if len(records) != len(c.records) {
		t.Fatalf("%d records by frame, want %d", len(records), len(c.records))
	}
	for i, r := range records {
		if r.Kind != c.records[i].Kind || !bytes.Equal(r.Raw, c.records[i].Raw) {
			t.Fatalf("record %d by frame is %+v, want %+v", i, r, c.records[i])
		}
	}
	for _, e := range c.index.Txns {
		if begins[[2]int{e.Frame, e.Offset}] != e.Seq {
			t.Fatalf("transaction %s does not begin at frame %d, byte %d", e.Seq, e.Frame, e.Offset)
		}
	}
}
