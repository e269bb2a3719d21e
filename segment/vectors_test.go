package segment

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"txreel/change"
)

var update = flag.Bool("update", false, "write the vectors of this version in testdata/segments anew")

const vectorDir = "../testdata/segments"

// vector is one file of testdata/segments: header lines, an empty line, hex.
type vector struct {
	expect  string
	comment string
	list    []string // expect "ok": what a reader finds
	data    []byte
}

func readVector(t testing.TB, path string) (v vector) {
	t.Helper()
	text, err := os.ReadFile(path)
	check(t, err)
	head, body, _ := strings.Cut(string(text), "\n\n")
	for line := range strings.Lines(head) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch {
		case ok && key == "expect":
			v.expect = value
		case ok && key == "comment":
			v.comment = value
		case ok && key == "list":
			v.list = append(v.list, value)
		default:
			t.Fatalf("%s: header line %q", path, line)
		}
	}
	v.data, err = hex.DecodeString(strings.Join(strings.Fields(body), ""))
	check(t, err)
	return v
}

func (v *vector) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "expect: %s\ncomment: %s\n", v.expect, v.comment)
	for _, l := range v.list {
		fmt.Fprintf(&b, "list: %s\n", l)
	}
	b.WriteString("\n")
	for line := range slices.Chunk(v.data, 32) {
		fmt.Fprintf(&b, "%x\n", line)
	}
	return b.String()
}

// list writes down all that a reader finds, one line for each thing.
func (c *contents) list() (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	h := &c.header
	add("header engine=%s archive=%x epoch=%d first=%d prev=%x latest=%d", h.Engine, h.Archive, h.Epoch, h.First, h.Prev, h.Latest)
	for _, r := range c.records {
		switch r.Kind {
		case Definition:
			add("definition %x", r.Raw)
		case Begin:
			add("begin seq=%d kind=%d", r.Seq, r.TxnKind)
		case Message:
			add("message %x", r.Raw)
		case Commit:
			add("commit xid=%s position=%s time=%d%s", r.XID, r.Position, r.CommitTime, c.notes(r.Received, r.Note))
		}
	}
	for i, f := range c.index.Frames {
		add("frame %d stored=%d raw=%d definitions=%t", i, f.Stored, f.Raw, f.Definitions)
	}
	for _, e := range c.index.Txns {
		add("txn seq=%d kind=%d xid=%s position=%s time=%d messages=%d bytes=%d frame=%d offset=%d%s",
			e.Seq, e.Kind, e.XID, e.Position, e.CommitTime, e.Messages, e.Bytes, e.Frame, e.Offset, c.notes(e.Received, e.Note))
		for _, n := range e.Tables {
			add("touched schema=%s name=%s version=%d inserts=%d updates=%d deletes=%d truncates=%d",
				n.Table.Schema, n.Table.Name, n.Table.Version, n.Inserts, n.Updates, n.Deletes, n.Truncates)
		}
	}
	add("end position=%s latest=%d hash=%x", c.index.End, c.index.Latest, c.hash)
	return lines
}

// notes lists what version 2 added.
func (c *contents) notes(received change.Time, note string) string {
	if c.version < versionNotes {
		return ""
	}
	return fmt.Sprintf(" received=%d note=%x", received, note)
}

// TestVectors reads every file of testdata/segments. Those files are the format's:
// a later version of this package must still read them as they say.
func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	paths, err := filepath.Glob(vectorDir + "/*.txt")
	check(t, err)
	if len(paths) < 130 {
		t.Fatalf("%d vectors", len(paths))
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			v := readVector(t, path)
			c, err := readAll(bytes.NewReader(v.data))
			switch v.expect {
			case "ok":
				check(t, err)
				if got := c.list(); !slices.Equal(got, v.list) {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(v.list, "\n"))
				}
			case "truncated", "corrupt":
				checkDamage(t, err, len(v.data))
				if errors.Is(err, ErrTruncated) != (v.expect == "truncated") {
					t.Errorf("expected %s: %v", v.expect, err)
				}
			case "version":
				checkVersionError(t, err)
			default:
				t.Errorf("expect: %q", v.expect)
			}
			t.Log(err)
		})
	}
}

func writeVectors(t *testing.T) {
	written := map[string]bool{}
	for _, v := range vectors(t) {
		if v.expect == "ok" {
			c, err := readAll(bytes.NewReader(v.data))
			if err != nil {
				t.Fatalf("%s: %v", v.name, err)
			}
			v.list = c.list()
		}
		if written[v.name] {
			t.Fatalf("two vectors %s", v.name)
		}
		written[v.name] = true
		check(t, os.WriteFile(filepath.Join(vectorDir, fmt.Sprintf("v%d-%s.txt", Version, v.name)), []byte(v.String()), 0o644))
	}
}

type namedVector struct {
	name string
	vector
}

// build writes a segment of the transactions that fill adds.
func build(t testing.TB, h Header, target int, end change.Position, fill func(*Writer)) []byte {
	t.Helper()
	var out memory
	w, err := NewWriter(&out, h)
	check(t, err)
	w.target = target
	fill(w)
	_, err = w.Close(end)
	check(t, err)
	return out.b
}

// vectors makes those of this version. Those of the versions before are kept as they
// were written.
func vectors(t testing.TB) (list []namedVector) {
	add := func(expect, name, comment string, data []byte) {
		list = append(list, namedVector{name, vector{expect: expect, comment: comment, data: data}})
	}
	id := [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	first := Header{Archive: id, Engine: "postgres", Epoch: 1, First: 1}

	// One transaction as PostgreSQL 15 sends it: create table t(id int primary key, v text);
	// insert into t values (1, 'one').
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		check(t, err)
		return b
	}
	table := &change.Table{Schema: "public", Name: "t", Version: 1}
	relation := &change.Definition{Messages: [][]byte{unhex("52 00004001 7075626c696300 7400 64 0002 01 696400 00000017 ffffffff 00 7600 00000019 ffffffff")}}
	insert := &change.Message{
		Raw: unhex("49 00004001 4e 0002 74 00000001 31 74 00000003 6f6e65"), Defs: []*change.Definition{relation},
		Touched: []change.Touch{{Table: table, Op: change.OpInsert, Rows: 1}},
	}
	one := build(t, first, frameTarget, "0/1532F70", func(w *Writer) {
		check(t, w.Begin(change.TxnSource))
		check(t, w.Write(&change.Message{Raw: unhex("42 0000000001532f40 0002da5e9a2c8e40 000002e7")}))
		check(t, w.Write(insert))
		check(t, w.Write(&change.Message{Raw: unhex("43 00 0000000001532f40 0000000001532f70 0002da5e9a2c8e40")}))
		check(t, w.Commit(&change.Message{XID: "743", Position: "0/1532F70", CommitTime: 1750000000000000, Received: 1750000000001234}))
	})
	add("ok", "one-insert", "one transaction of PostgreSQL with one insert and the Relation message it needs", one)

	heartbeat := func(w *Writer, pos change.Position, at change.Time) {
		check(t, w.Begin(change.TxnHeartbeat))
		check(t, w.Commit(&change.Message{Position: pos, CommitTime: at}))
	}
	beat := first
	beat.First, beat.Prev, beat.Latest = 2, Hash(one[len(one)-48:len(one)-16]), 1750000000000000
	add("ok", "heartbeat", "a heartbeat and nothing else; it follows v2-one-insert in the chain",
		build(t, beat, frameTarget, "0/1533000", func(w *Writer) { heartbeat(w, "0/1532FA8", 1750000060000000) }))

	text := func(s string) *change.Message { return &change.Message{Raw: []byte(s)} }
	add("ok", "several-transactions", "ids, positions and times of neighbours share their beginning; no message is interpreted",
		build(t, first, frameTarget, "0/AA", func(w *Writer) {
			for i := range 4 {
				check(t, w.Begin(change.TxnSource))
				for range i {
					check(t, w.Write(text("hello")))
				}
				check(t, w.Commit(&change.Message{XID: fmt.Sprint(998 + i), Position: change.Position(fmt.Sprintf("0/%X", 160+i)), CommitTime: change.Time(1750000000000000 + i)}))
			}
		}))
	several := sample(t)
	add("ok", "several-frames", "a transaction that goes over two frames, definitions in both, a heartbeat after it", several)
	add("ok", "mysql", "ids and positions of MySQL; bytes that are no text",
		build(t, Header{Archive: id, Engine: "mysql", Epoch: 2, First: 0x1000, Latest: 5}, frameTarget, "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-24", func(w *Writer) {
			for i := range 2 {
				check(t, w.Begin(change.TxnSource))
				check(t, w.Write(&change.Message{Raw: []byte{0, 0xff, 0xfe, 10, 13, byte(i)}}))
				check(t, w.Commit(&change.Message{
					XID: fmt.Sprint("3e11fa47-71ca-11e1-9e33-c80aa9429562:", 23+i), Position: change.Position(fmt.Sprint("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-", 23+i)), CommitTime: 1750000000000000,
				}))
			}
		}))
	add("ok", "times-backwards", "commit times that go backwards, one before 1970; the latest is that of the header",
		build(t, Header{Archive: id, Engine: "postgres", Epoch: 1, First: 9, Prev: Hash{1}, Latest: 1750000000000000}, frameTarget, "0/3", func(w *Writer) {
			heartbeat(w, "0/1", 1750000000000000-1)
			heartbeat(w, "0/2", -1)
			heartbeat(w, "0/3", 1700000000000000)
		}))
	add("ok", "many-tables", "counts of several tables, a definition without bytes, no engine",
		build(t, Header{First: 1}, frameTarget, "", func(w *Writer) {
			a, b := &change.Table{Schema: "a", Name: "ä b", Version: 1 << 63}, &change.Table{}
			check(t, w.Begin(change.TxnSource))
			check(t, w.Write(&change.Message{Raw: []byte("x"), Defs: []*change.Definition{{Messages: [][]byte{{}}}}, Touched: []change.Touch{
				{Table: a, Op: change.OpInsert, Rows: 300}, {Table: b, Op: change.OpDelete, Rows: 1}, {Table: b, Op: change.OpTruncate}, {Table: a, Op: change.OpUpdate, Rows: 1},
			}}))
			check(t, w.Commit(&change.Message{}))
			check(t, w.Begin(change.TxnSource))
			check(t, w.Write(&change.Message{Raw: []byte("y"), Touched: []change.Touch{{Table: b, Op: change.OpInsert, Rows: 2}}}))
			check(t, w.Commit(&change.Message{}))
		}))

	spoil := func(expect, name, comment string, change func(*parts)) {
		p := split(t, one)
		change(p)
		add(expect, name, "v2-one-insert, but "+comment, p.join())
	}
	const alter = "ALTER TABLE `shop`.`orders` ADD COLUMN "
	add("ok", "note", "notes that share their beginning, one of 256 bytes, one of no text, and none",
		build(t, Header{Archive: id, Engine: "mysql", Epoch: 1, First: 7}, frameTarget, "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5", func(w *Writer) {
			for i, note := range []string{alter + "a INT", alter + "b INT", strings.Repeat("x", change.MaxNote), "\xff\x00", ""} {
				check(t, w.Begin(change.TxnSource))
				check(t, w.Write(text("query")))
				check(t, w.Commit(&change.Message{
					XID: fmt.Sprint("3e11fa47-71ca-11e1-9e33-c80aa9429562:", 1+i), Position: change.Position(fmt.Sprint("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-", 1+i)), CommitTime: 1750000000000000, Note: note,
				}))
			}
		}))
	add("ok", "received", "times of receipt: one for two transactions, none, before the commit, at it, before 1970, the first and the last there are",
		build(t, first, frameTarget, "0/9", func(w *Writer) {
			for _, r := range []change.Time{1750000000000500, 1750000000000500, 0, 1749999999000000, 1750000000000000, -1, math.MinInt64, math.MaxInt64} {
				check(t, w.Begin(change.TxnSource))
				check(t, w.Commit(&change.Message{XID: "1", Position: "0/9", CommitTime: 1750000000000000, Received: r}))
			}
		}))

	spoil("ok", "definition-outside", "the definition stands before the transaction", func(p *parts) {
		raw := p.frames[0].raw
		begin, rest := raw[:4], raw[4:]
		_, n, err := parseRecord(rest, Version)
		check(t, err) // the message before the definition
		_, m, err := parseRecord(rest[n:], Version)
		check(t, err)
		p.frames[0] = part{raw: slices.Concat(rest[n:n+m], begin, rest[:n], rest[n+m:]), flags: flagDefinitions}
		p.relocate()
		p.reindex(func(x *Index) { x.Txns[0].Offset = m })
	})

	tail, err := readTail(one, TailGuess)
	check(t, err)
	index := int(tail.FrameOffset(len(tail.Frames)))
	for _, c := range []struct {
		name, comment string
		size          int
	}{
		{"truncated-empty", "without a byte", 0},
		{"truncated-header", "it ends inside the header", 60},
		{"truncated-frames", "it ends behind the header", headerSize},
		{"truncated-frame-header", "it ends inside the first frame header", headerSize + 9},
		{"truncated-frame", "it ends inside the first frame", headerSize + 50},
		{"truncated-no-index", "it ends where the index should begin", index},
		{"truncated-index", "it ends inside the index", index + 30},
		{"truncated-no-footer", "it ends where the footer should begin", len(one) - footerSize},
		{"truncated-footer", "its last byte is missing", len(one) - 1},
	} {
		add("truncated", c.name, "v2-one-insert, but "+c.comment, one[:c.size])
	}
	flip := func(name, comment string, at int, mask byte) {
		b := bytes.Clone(one)
		b[at] ^= mask
		add("corrupt", name, "v2-one-insert, but "+comment, b)
	}
	flip("flipped-magic", "a bit of the magic is flipped", 3, 0x20)
	flip("flipped-version", "a bit of the version is flipped and the checksum is not made to match", 8, 1)
	flip("flipped-header", "a bit of the archive's id is flipped", 20, 1)
	flip("flipped-frame-length", "a bit of the frame's stored length is flipped", headerSize, 1)
	flip("flipped-frame", "a bit of the frame's stored bytes is flipped", headerSize+40, 0x80)
	flip("flipped-index", "a bit of the index is flipped", index+20, 4)
	flip("flipped-footer", "a bit of the footer is flipped", len(one)-footerSize+16, 1)
	flip("flipped-end-marker", "a bit of the end marker is flipped", len(one)-1, 1)
	add("corrupt", "bytes-after-end", "v2-one-insert, but a byte follows the end marker", append(bytes.Clone(one), 0))

	spoil("corrupt", "version-zero", "it says version 0", func(p *parts) { p.header[8] = 0 })
	spoil("corrupt", "header-size", "its header says another header size", func(p *parts) { p.header[10] = 100 })
	spoil("corrupt", "header-flags", "its header has an unknown flag", func(p *parts) { p.header[12] = 1 })
	spoil("corrupt", "header-engine", "there are bytes behind the end of the engine's name", func(p *parts) { p.header[95] = 'x' })
	spoil("corrupt", "first-seq-zero", "its first Seq is zero", func(p *parts) { p.header[40] = 0 })
	spoil("corrupt", "frame-flags", "its frame has an unknown flag", func(p *parts) { p.frames[0].flags |= 4 })
	spoil("corrupt", "frame-definitions-missing", "its frame does not say that it holds definitions", func(p *parts) {
		p.frames[0].flags = 0
		p.relocate()
	})
	spoil("corrupt", "frame-size", "its frame says one byte too many", func(p *parts) { p.frames[0].size = uint32(len(p.frames[0].raw) + 1) })
	spoil("corrupt", "frame-not-zstd", "its frame holds no compressed data", func(p *parts) {
		p.frames[0].stored, p.frames[0].size = bytes.Repeat([]byte{0x55}, 40), uint32(len(p.frames[0].raw))
	})
	spoil("corrupt", "frame-empty", "an empty frame stands before the other", func(p *parts) {
		p.frames = append([]part{{stored: unhex("28b52ffd 20 00 010000")}}, p.frames...)
	})
	records := func(name, comment string, change func(raw []byte) []byte) {
		spoil("corrupt", name, comment, func(p *parts) {
			p.frames[0] = part{raw: change(p.frames[0].raw), flags: flagDefinitions}
			p.relocate()
		})
	}
	records("record-kind", "its last record is of an unknown kind", func(raw []byte) []byte { return append(raw, record(5)...) })
	records("record-over-frame", "its last record is longer than what is left of the frame", func(raw []byte) []byte { return append(raw, recordDefinition, 1) })
	records("record-begin-bytes", "its begin record holds a byte too many", func(raw []byte) []byte { return append(record(recordBegin, 1, 1, 0), raw[4:]...) })
	records("record-begin-kind", "its transaction is of an unknown kind", func(raw []byte) []byte { return append(record(recordBegin, 1, 3), raw[4:]...) })
	records("record-wrong-seq", "its transaction has Seq 2 where the header says 1", func(raw []byte) []byte { return append(record(recordBegin, 2, 1), raw[4:]...) })
	records("record-nested-begin", "a second transaction begins inside the first", func(raw []byte) []byte { return append(record(recordBegin, 1, 1), raw...) })
	records("record-message-outside", "a message follows the commit", func(raw []byte) []byte { return append(raw, record(recordMessage, 'x')...) })
	records("record-commit-outside", "a commit follows the commit", func(raw []byte) []byte { return append(raw, record(recordCommit, 0, 0, 0, 0, 0)...) })
	records("heartbeat-message", "a heartbeat with a message follows", func(raw []byte) []byte {
		return slices.Concat(raw, record(recordBegin, 2, 2), record(recordMessage, 'x'), record(recordCommit, 0, 0, 0, 0, 0))
	})
	records("heartbeat-id", "a heartbeat with an id follows", func(raw []byte) []byte {
		return slices.Concat(raw, record(recordBegin, 2, 2), record(recordCommit, 1, 'x', 0, 0, 0, 0))
	})
	commit := func(rest ...byte) func([]byte) []byte { // what follows the commit time
		return func(raw []byte) []byte {
			at := 0
			for raw[at] != recordCommit {
				_, n, err := parseRecord(raw[at:], Version)
				check(t, err)
				at += n
			}
			body := raw[at+2:]
			return append(raw[:at:at], record(recordCommit, slices.Concat(body[:22], rest)...)...)
		}
	}
	records("record-commit-short", "its commit ends behind the commit time, as in version 1", commit())
	records("record-commit-no-note", "its commit ends behind the time of receipt", commit(0))
	records("record-commit-bytes", "its commit holds a byte too many", commit(0, 0, 0))
	records("record-note-over", "its note goes over the end of the commit", commit(0, 2, 'x'))
	long := strings.Repeat("x", change.MaxNote+1)
	spoil("corrupt", "note-too-long", "it has a note of 257 bytes", func(p *parts) {
		p.frames[0] = part{raw: commit(slices.Concat([]byte{0, 0x81, 2}, []byte(long))...)(p.frames[0].raw), flags: flagDefinitions}
		p.relocate()
		p.reindex(func(x *Index) { x.Txns[0].Note, x.Txns[0].Received = long, 0 })
	})
	records("record-unfinished", "a second transaction begins and never ends", func(raw []byte) []byte { return append(raw, record(recordBegin, 2, 1)...) })

	entry := func(name, comment string, change func(*Index)) {
		spoil("corrupt", name, comment, func(p *parts) { p.reindex(change) })
	}
	entry("index-no-transactions", "its index lists no transaction", func(x *Index) { x.Txns = nil })
	entry("index-missing-transaction", "its records hold a second transaction that the index leaves out", func(*Index) {})
	p := split(t, one)
	p.frames[0] = part{raw: slices.Concat(p.frames[0].raw, record(recordBegin, 2, 1), record(recordCommit, 0, 0, 0, 0, 0)), flags: flagDefinitions}
	p.relocate()
	list[len(list)-1].data = p.join()
	entry("index-seq", "its index counts from Seq 2", func(x *Index) { x.Txns[0].Seq = 2 })
	entry("index-xid", "its index gives the transaction another id", func(x *Index) { x.Txns[0].XID = "744" })
	entry("index-note", "its index gives the transaction a note", func(x *Index) { x.Txns[0].Note = "x" })
	entry("index-received", "its index gives the transaction another time of receipt", func(x *Index) { x.Txns[0].Received++ })
	entry("index-not-received", "its index gives the transaction no time of receipt", func(x *Index) { x.Txns[0].Received = 0 })
	spoil("corrupt", "index-note-shared", "its note shares a byte with the note before the first", func(p *parts) {
		at := bytes.Index(p.index, append(binary.AppendVarint(nil, 1750000000001234), 0, 0))
		p.index[at+8] = 1
	})
	entry("index-messages", "its index counts a message too many", func(x *Index) { x.Txns[0].Messages++ })
	entry("index-offset", "its index places the transaction one byte later", func(x *Index) { x.Txns[0].Offset++ })
	entry("index-frames", "its index speaks of two frames", func(x *Index) { x.Frames = append(x.Frames, x.Frames[0]) })
	entry("index-latest", "its index says a later time than any transaction's", func(x *Index) { x.Latest++ })
	spoil("corrupt", "index-bytes-after", "a byte follows the last transaction of the index", func(p *parts) { p.index = append(p.index, 0) })
	spoil("corrupt", "index-table", "its index counts rows of a table that it does not list", func(p *parts) { p.reindex(func(x *Index) { x.Tables = nil }) })
	spoil("corrupt", "footer-hash", "its hash is another segment's", func(p *parts) {
		p.after = func(b []byte) {
			f := b[len(b)-footerSize:]
			f[24] ^= 1
			binary.LittleEndian.PutUint32(f[60:], crcOf(f[:60]))
		}
	})
	spoil("corrupt", "footer-index", "its footer places the index elsewhere", func(p *parts) { p.foot = func(f *footer) { f.index++; f.length-- } })
	spoil("corrupt", "footer-flags", "its footer has an unknown flag", func(p *parts) {
		p.after = func(b []byte) {
			f := b[len(b)-footerSize:]
			f[58] = 1
			binary.LittleEndian.PutUint32(f[60:], crcOf(f[:60]))
		}
	})
	spoil("corrupt", "header-version-1", "its header says version 1", func(p *parts) { p.header[8] = 1 })
	footer := func(version byte) func(*parts) {
		return func(p *parts) {
			p.after = func(b []byte) {
				f := b[len(b)-footerSize:]
				f[56] = version
				binary.LittleEndian.PutUint32(f[60:], crcOf(f[:60]))
			}
		}
	}
	spoil("corrupt", "footer-version-1", "its footer says version 1", footer(1))
	spoil("version", "version-3", "it says version 3", func(p *parts) { p.header[8] = 3 })
	spoil("version", "footer-version-3", "its footer says version 3", footer(3))
	return list
}
