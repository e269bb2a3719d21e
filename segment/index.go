package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"txreel/change"
)

// Frame describes one frame of records.
type Frame struct {
	Stored      int  // bytes in the segment, frame header included
	Raw         int  // bytes after decompression
	Definitions bool // holds definition records
}

// Index is what a reader learns of a segment without reading its records.
type Index struct {
	End    change.Position // where the source's log continues after the segment
	Latest change.Time     // the latest commit time in the epoch, this segment included
	Frames []Frame         // in file order, the first one behind the header
	Tables []change.Table  // every table its transactions touched
	Txns   []Entry

	version uint16 // of the segment's format
}

// Entry is a transaction and the place of its first record. Neighbours may share Tables: it is not to be written to.
type Entry struct {
	change.Txn
	Frame  int // number of the frame
	Offset int // bytes into the decompressed frame
}

// FrameOffset returns where frame i begins in the segment.
func (x *Index) FrameOffset(i int) int64 {
	off := int64(headerSize)
	for _, f := range x.Frames[:i] {
		off += int64(f.Stored)
	}
	return off
}

// First returns the Seq of the first transaction.
func (x *Index) First() change.Seq { return x.Txns[0].Seq }

// Last returns the Seq of the last transaction.
func (x *Index) Last() change.Seq { return x.Txns[len(x.Txns)-1].Seq }

// indexWriter encodes entries as transactions commit, so that the index costs
// bytes and not structures while a segment fills.
type indexWriter struct {
	txns   int
	tables []*change.Table
	body   []byte
	xid    string
	pos    string
	note   string
	frame  int
	first  change.Seq
	names  int // bytes of all ids, positions and notes

	time, received, latest change.Time
}

func (x *indexWriter) reset() { *x = indexWriter{tables: x.tables[:0], body: x.body[:0]} }

func (x *indexWriter) add(t *change.Txn, frame, offset int, counts []tableCount) {
	if x.txns == 0 {
		x.first = t.Seq
	}
	x.txns++
	x.latest = max(x.latest, t.CommitTime)
	b := append(x.body, byte(t.Kind))
	b = binary.AppendUvarint(b, uint64(frame-x.frame))
	b = binary.AppendUvarint(b, uint64(offset))
	b = appendShared(b, x.xid, t.XID)
	b = appendShared(b, x.pos, string(t.Position))
	b = binary.AppendVarint(b, int64(t.CommitTime-x.time))
	b = binary.AppendVarint(b, int64(t.Received-x.received))
	b = appendShared(b, x.note, t.Note)
	b = binary.AppendUvarint(b, t.Messages)
	b = binary.AppendUvarint(b, t.Bytes)
	b = binary.AppendUvarint(b, uint64(len(counts)))
	for i := range counts {
		c := &counts[i]
		if c.state.id < 0 {
			c.state.id = len(x.tables)
			x.tables = append(x.tables, c.state.table)
		}
		b = binary.AppendUvarint(b, uint64(c.state.id))
		b = binary.AppendUvarint(b, c.inserts)
		b = binary.AppendUvarint(b, c.updates)
		b = binary.AppendUvarint(b, c.deletes)
		b = binary.AppendUvarint(b, c.truncates)
	}
	x.names += len(t.XID) + len(t.Position) + len(t.Note)
	x.body, x.xid, x.pos, x.time, x.note, x.frame = b, t.XID, string(t.Position), t.CommitTime, t.Note, frame
	x.received = t.Received
}

// keepTables puts the tables numbered so far back into m, after a rollback.
func (x *indexWriter) keepTables(m map[*change.Table]*tableState) {
	for id, t := range x.tables {
		m[t] = &tableState{table: t, id: id}
	}
}

func (x *indexWriter) encode(end change.Position, frames []Frame) []byte {
	b := appendString(make([]byte, 0, len(x.body)+64*len(x.tables)+8*len(frames)+256), string(end))
	b = binary.AppendVarint(b, int64(x.latest))
	b = binary.AppendUvarint(b, uint64(len(frames)))
	for _, f := range frames {
		b = binary.AppendUvarint(b, uint64(f.Stored))
		b = binary.AppendUvarint(b, uint64(f.Raw))
		if f.Definitions {
			b = append(b, flagDefinitions)
		} else {
			b = append(b, 0)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(x.tables)))
	for _, t := range x.tables {
		b = appendString(b, t.Schema)
		b = appendString(b, t.Name)
		b = binary.LittleEndian.AppendUint64(b, t.Version)
	}
	b = binary.AppendUvarint(b, uint64(x.first))
	b = binary.AppendUvarint(b, uint64(x.txns))
	return append(b, x.body...)
}

// decodeIndex reads what encode wrote. Every count is checked against the bytes
// that are left before memory is taken for it.
func decodeIndex(b []byte, version uint16) (*Index, error) {
	d := decoder{b: b}
	x := &Index{version: version, End: change.Position(d.name(maxPosition)), Latest: change.Time(d.varint())}
	d.frames(x)
	d.tables(x)
	d.txns(x)
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes after the last transaction", len(d.b))
	}
	if d.err != nil {
		return nil, fmt.Errorf("index: %w", d.err)
	}
	return x, nil
}

func (d *decoder) frames(x *Index) {
	n := d.count(3)
	x.Frames = make([]Frame, 0, n)
	for i := range n {
		f := Frame{Stored: d.int(), Raw: d.int()}
		switch d.byte() {
		case 0:
		case flagDefinitions:
			f.Definitions = true
		default:
			d.fail("unknown flags of frame %d", i)
		}
		if f.Stored < frameHeaderSize || f.Stored > maxStored+frameHeaderSize || f.Raw == 0 || f.Raw > maxRaw {
			d.fail("frame %d of %d bytes, %d decompressed", i, f.Stored, f.Raw)
		}
		if d.err != nil {
			return
		}
		x.Frames = append(x.Frames, f)
	}
}

func (d *decoder) tables(x *Index) {
	n := d.count(10)
	x.Tables = make([]change.Table, 0, n)
	for range n {
		t := change.Table{Schema: d.str(), Name: d.str(), Version: d.fixed64()}
		if d.err != nil {
			return
		}
		x.Tables = append(x.Tables, t)
	}
}

func (d *decoder) txns(x *Index) {
	seq := change.Seq(d.uvarint())
	least := 11 // bytes of an entry
	if x.version >= versionNotes {
		least = 14
	}
	n := d.count(least)
	if d.err == nil && (n == 0 || seq == 0 || seq+change.Seq(n) < seq) {
		d.fail("%d transactions from Seq %s", n, seq)
	}
	if d.err != nil {
		return
	}
	x.Txns = make([]Entry, 0, n)
	var e Entry
	var t texts
	names := 0
	for i := range n {
		last := e
		e = Entry{
			Txn:   change.Txn{Seq: seq + change.Seq(i), Kind: change.TxnKind(d.byte())},
			Frame: last.Frame + d.int(), Offset: d.int(),
		}
		t.id, t.position = d.shared(t.id, maxXID), d.shared(t.position, maxPosition)
		e.CommitTime = last.CommitTime + change.Time(d.varint())
		if x.version >= versionNotes {
			e.Received = last.Received + change.Time(d.varint())
			t.note = d.shared(t.note, change.MaxNote)
		}
		e.Messages, e.Bytes = d.uvarint(), d.uvarint()
		e.Tables = d.counts(x.Tables, n-i)
		names += len(t.id) + len(t.position) + len(t.note)
		switch {
		case d.err != nil:
			return
		case !knownKind(e.Kind):
			d.fail("transaction %s is of unknown kind %d", e.Seq, e.Kind)
		case e.Frame < 0 || e.Frame >= len(x.Frames) || e.Offset >= x.Frames[e.Frame].Raw:
			d.fail("transaction %s at frame %d, byte %d", e.Seq, e.Frame, e.Offset)
		case i > 0 && e.Frame == last.Frame && e.Offset <= last.Offset:
			d.fail("transaction %s does not begin after the one before it", e.Seq)
		case names > maxNames:
			d.fail("the ids, positions and notes up to transaction %s take more than %d bytes", e.Seq, maxNames)
		}
		x.Txns = append(x.Txns, e)
		if t.keep(); len(t.ends) == together || len(t.all) > 64*together || i == n-1 {
			t.give(x.Txns[len(x.Txns)-len(t.ends):])
		}
	}
}

// together is how many entries have their texts, and about how many counts of tables lie, in one piece of memory: to keep one of them keeps that. A
// piece for each would take longer than all the rest of decoding.
const together = 256

// texts are the ids, positions and notes of neighbouring entries.
type texts struct {
	id, position, note []byte // of the entry read last
	all                []byte
	ends               [][3]int // in all, of those of each entry
}

// keep takes those of the entry read last.
func (t *texts) keep() {
	var end [3]int
	for i, b := range [...][]byte{t.id, t.position, t.note} {
		t.all = append(t.all, b...)
		end[i] = len(t.all)
	}
	t.ends = append(t.ends, end)
}

// give gives them to their entries.
func (t *texts) give(entries []Entry) {
	all, from := string(t.all), 0
	for i, end := range t.ends {
		e := &entries[i]
		e.XID, e.Position, e.Note = all[from:end[0]], change.Position(all[end[0]:end[1]]), all[end[1]:end[2]]
		from = end[2]
	}
	t.all, t.ends = t.all[:0], t.ends[:0]
}

// counts reads those of an entry; more says how many entries there are from it on. An application does the same again and again: an entry
// whose counts are written as those of the one before are, which nothing but the same counts is, has them from that one.
func (d *decoder) counts(tables []change.Table, more int) []change.TableCount {
	if len(d.written) > 0 && bytes.HasPrefix(d.b, d.written) {
		d.b = d.b[len(d.written):]
		return d.counted
	}
	from := d.b
	list := d.newCounts(tables, more)
	d.written, d.counted = from[:len(from)-len(d.b)], list
	return list
}

func (d *decoder) newCounts(tables []change.Table, more int) []change.TableCount {
	n := d.count(5)
	if n == 0 {
		return nil
	}
	if len(d.room) < n {
		d.room = make([]change.TableCount, n*min(more, max(1, together/n)))
	}
	list := d.room[:0:n]
	d.room = d.room[n:]
	for range n {
		id := d.int()
		c := change.TableCount{Inserts: d.uvarint(), Updates: d.uvarint(), Deletes: d.uvarint(), Truncates: d.uvarint()}
		if id >= len(tables) {
			d.fail("table number %d of %d", id, len(tables))
		}
		if d.err != nil {
			return nil
		}
		c.Table = &tables[id]
		list = append(list, c)
	}
	return list
}

// knownKind reports whether k is a kind of transaction that this version of the
// format has.
func knownKind(k change.TxnKind) bool { return k == change.TxnSource || k == change.TxnHeartbeat }

// decoder reads the notation of the index and of records. The first error sticks and every later
// call returns zero.
type decoder struct {
	b    []byte
	err  error
	room []change.TableCount // for counts

	written []byte // the counts that were read last
	counted []change.TableCount
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
	d.b = nil
}

func (d *decoder) uvarint() uint64 {
	if len(d.b) > 0 && d.b[0] < 0x80 { // most are
		v := d.b[0]
		d.b = d.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("it ends inside a number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail("it ends inside a number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int {
	v := d.uvarint()
	if v > math.MaxInt32 {
		d.fail("number %d out of range", v)
		return 0
	}
	return int(v)
}

// count reads the number of entries that follow, each of at least size bytes.
func (d *decoder) count(size int) int {
	v := d.uvarint()
	if v > uint64(len(d.b)/size) {
		d.fail("%d entries announced, %d bytes left", v, len(d.b))
		return 0
	}
	return int(v)
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail("it ends early")
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) fixed64() uint64 {
	if len(d.b) < 8 {
		d.fail("it ends early")
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail("%d bytes announced, %d left", n, len(d.b))
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) str() string { return string(d.take(d.uvarint())) }

// name reads a string of at most limit bytes.
func (d *decoder) name(limit int) string {
	s := d.take(d.uvarint())
	if len(s) > limit {
		d.fail("name of %d bytes, the limit is %d", len(s), limit)
		return ""
	}
	return string(s)
}

// shared reads a string of at most limit bytes, of which the first are those of
// prev, whose memory it takes.
func (d *decoder) shared(prev []byte, limit int) []byte {
	n := d.uvarint()
	if n > uint64(len(prev)) {
		d.fail("%d bytes shared with a string of %d", n, len(prev))
		return prev[:0]
	}
	rest := d.take(d.uvarint())
	if int(n)+len(rest) > limit {
		d.fail("name of %d bytes, the limit is %d", int(n)+len(rest), limit)
		return prev[:0]
	}
	return append(prev[:n], rest...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendShared writes s as the length of the prefix it shares with prev and the
// rest: ids and positions of neighbours differ in their last digits.
func appendShared(b []byte, prev, s string) []byte {
	n := 0
	for n < len(prev) && n < len(s) && prev[n] == s[n] {
		n++
	}
	b = binary.AppendUvarint(b, uint64(n))
	return appendString(b, s[n:])
}

func uvarintLen(v uint64) int {
	n := 1
	for v >= 0x80 {
		v >>= 7
		n++
	}
	return n
}

func varintLen(v int64) int { return uvarintLen(uint64(v)<<1 ^ uint64(v>>63)) }

func stringLen(s string) int { return uvarintLen(uint64(len(s))) + len(s) }
