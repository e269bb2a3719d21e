package segment

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"txreel/change"
)

// TestHostile reads segments whose checksums are right and whose content is not.
// None may cost more memory than bound.
func TestHostile(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	check(t, err)
	defer enc.Close()
	zeros := enc.EncodeAll(make([]byte, 64<<20), nil) // a bomb of a few KiB
	const usual = 1 << 20

	uvarints := func(v ...uint64) (b []byte) {
		for _, v := range v {
			b = binary.AppendUvarint(b, v)
		}
		return b
	}
	frame := func(stored, raw, flags uint32, body ...byte) func(*parts) {
		return func(p *parts) {
			p.after = func(b []byte) {
				h := frameHeader{stored: stored, raw: raw, flags: flags}
				h.crc = h.sum(body)
				h.put(b[headerSize:])
				copy(b[headerSize+frameHeaderSize:], body)
			}
		}
	}
	index := func(b []byte) func(*parts) { return func(p *parts) { p.index = b } }
	for _, c := range []struct {
		name  string
		bound uint64
		spoil func(*parts)
	}{
		{"frame of 1 GiB with little behind it", usual, frame(1<<30, 1<<30, 0)},
		{"frame beyond the limit", usual, frame(maxStored+1, 1<<20, 0)},
		{"frame raw beyond the limit", usual, frame(1<<20, maxRaw+1, 0)},
		{"frame of 1 GiB from 10 bytes", usual, frame(10, 1<<30, 0, make([]byte, 10)...)},
		{"empty frame", usual, frame(0, 0, 0)},
		{"flags of index and definitions in one", usual, frame(10, 10, flagIndex|flagDefinitions)},
		{"bomb that says it is small", usual, func(p *parts) { p.frames[0].stored, p.frames[0].size = zeros, 100 }},
		{"bomb that says it is large", 80 << 20, func(p *parts) { p.frames[0].stored, p.frames[0].size = zeros, 64<<20 }},
		{"bomb of many small ones", usual, func(p *parts) {
			p.frames[0].stored, p.frames[0].size = bytes.Repeat(enc.EncodeAll(make([]byte, 1000), nil), 50), 1000
		}},
		{"bomb as index", usual, func(p *parts) { p.index = make([]byte, maxIndex+1) }},
		{"no compressed data", usual, func(p *parts) { p.frames[0].stored, p.frames[0].size = []byte("no zstd at all"), 100 }},
		{"index of zeros", 150 << 20, index(make([]byte, maxIndex))},
		{"index count of frames", usual, index(append([]byte{0, 0}, uvarints(1<<62)...))},
		{"index count of frames, first one bad", 4 << 20, index(append(append([]byte{0, 0}, uvarints(30_000)...), make([]byte, 90_000)...))},
		{"index count of tables", usual, index(append([]byte{0, 0, 0}, uvarints(1<<40)...))},
		{"index count of transactions", usual, index(append([]byte{0, 0, 0, 0, 1}, uvarints(1<<63)...))},
		{"index without transactions", usual, func(p *parts) { p.reindex(func(x *Index) { x.Txns = nil }) }},
		{"index string", usual, index(uvarints(1 << 63))},
		{"index end", usual + 2*maxPosition, func(p *parts) {
			p.reindex(func(x *Index) { x.End = change.Position(strings.Repeat("x", maxPosition+1)) })
		}},
		{"index ids that multiply", maxNames + 200<<20, func(p *parts) {
			const txns = maxNames/maxPosition + 100 // 1 MiB each in memory, a few bytes in the file
			b := append([]byte{0, 0, 1}, uvarints(100, maxRaw)...)
			b = append(append(b, 0, 0), uvarints(1, txns)...)
			for i := range uint64(txns) {
				b = append(append(b, 1, 0), uvarints(i)...)
				if b = append(b, 0, 0); i == 0 {
					b = append(append(b, 0), uvarints(maxPosition)...)
					b = append(b, strings.Repeat("x", maxPosition)...)
				} else {
					b = append(append(b, uvarints(maxPosition-1)...), 1, byte(i))
				}
				b = append(b, 0, 0, 0, 0, 0, 0, 0)
			}
			p.index = b
		}},
		{"index notes that multiply", maxNames + 400<<20, func(p *parts) {
			const txns = maxNames/change.MaxNote + 100
			b := append([]byte{0, 0, 1}, uvarints(100, maxRaw)...)
			b = append(append(b, 0, 0), uvarints(1, txns)...)
			for i := range uint64(txns) {
				b = append(append(b, 1, 0), uvarints(i)...)
				if b = append(b, 0, 0, 0, 0, 0, 0); i == 0 {
					b = append(append(b, 0), uvarints(change.MaxNote)...)
					b = append(b, strings.Repeat("x", change.MaxNote)...)
				} else {
					b = append(append(b, uvarints(change.MaxNote-1)...), 1, byte(i))
				}
				b = append(b, 0, 0, 0)
			}
			p.index = b
		}},
		{"index table out of range", usual, func(p *parts) {
			p.reindex(func(x *Index) { x.Tables = x.Tables[:1] })
		}},
		{"footer of another size", usual, func(p *parts) { p.foot = func(f *footer) { f.size++ } }},
		{"footer with a negative index", usual, func(p *parts) { p.foot = func(f *footer) { f.index, f.length = -1, 1<<62 } }},
		{"footer over the header", usual, func(p *parts) { p.foot = func(f *footer) { f.length += f.index; f.index = 0 } }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := split(t, sample(t))
			c.spoil(p)
			seg := p.join()
			used := allocated(func() {
				_, err = readAll(bytes.NewReader(seg))
			})
			checkDamage(t, err, len(seg))
			if used > c.bound {
				t.Errorf("reading took %d bytes of memory, %v", used, err)
			}
			used = allocated(func() { _, err = readTail(seg, TailGuess) })
			if strings.Contains(c.name, "multiply") && !strings.Contains(err.Error(), "ids, positions and notes") {
				t.Errorf("refused for another reason: %v", err)
			}
			if strings.HasPrefix(c.name, "index") || strings.HasPrefix(c.name, "footer") {
				checkDamage(t, err, len(seg))
			}
			if used > c.bound {
				t.Errorf("reading the tail took %d bytes of memory, %v", used, err)
			}
		})
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestReaderAllocatesNothingPerMessage(t *testing.T) {
	var out memory
	w, err := NewWriter(&out, testHeader)
	check(t, err)
	check(t, w.Begin(change.TxnSource))
	for range 5000 {
		check(t, w.Write(&change.Message{Raw: make([]byte, 100)}))
	}
	check(t, w.Commit(&change.Message{XID: "1"}))
	_, err = w.Close("")
	check(t, err)
	r, err := NewReader(bytes.NewReader(out.b))
	check(t, err)
	_, err = r.Next() // the first call decompresses the frame
	check(t, err)
	if n := testing.AllocsPerRun(4000, func() {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per message", n)
	}
}

func TestWriterAllocatesNothingPerMessage(t *testing.T) {
	w, err := NewWriter(discard{}, testHeader)
	check(t, err)
	row := &change.Message{
		Raw:     make([]byte, 120),
		Defs:    []*change.Definition{{Messages: [][]byte{[]byte("R")}}, {Messages: [][]byte{[]byte("Y")}}},
		Touched: []change.Touch{{Table: &change.Table{Name: "a"}, Op: change.OpUpdate, Rows: 1}, {Table: &change.Table{Name: "b"}, Op: change.OpInsert, Rows: 1}},
	}
	check(t, w.Begin(change.TxnSource))
	for range 3 * frameTarget / 120 { // until the buffers have their size
		check(t, w.Write(row))
	}
	if n := testing.AllocsPerRun(20_000, func() {
		if err := w.Write(row); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per message", n)
	}
}

// discard is an Output that keeps nothing.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Truncate(int64) error        { return nil }
