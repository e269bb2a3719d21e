package segment

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"txreel/change"
)

// frameTarget is the size before compression at which a frame is closed. Larger
// frames compress better, smaller ones make reading a single transaction cheaper.
const frameTarget = 1 << 20

// keepMemory is the size up to which Writers and Readers keep their buffers.
const keepMemory = 8 * frameTarget

// Output is where a Writer puts its bytes. Truncate cuts what was written back to
// its first size bytes.
type Output interface {
	io.Writer
	Truncate(size int64) error
}

// Writer writes one segment. It is not safe for concurrent use. After an error
// other than a misuse that the error names, the segment is lost and must be
// written anew.
//
// Full frames are compressed by goroutines of the Writer while the next one fills, and
// written in their order by a later call, which is also the one to fail when the Output
// does; the Output is never touched by any other goroutine than the caller's. When the
// bytes are written depends on the calls alone, and so do the bytes.
//
// Invariant 4: what Close leaves in the Output ends on a commit, whatever was
// written before it.
type Writer struct {
	out    Output
	pipe   pipe
	hash   hash.Hash
	off    int64 // bytes written to out
	target int   // frameTarget, less in tests
	buf    []byte
	frames []Frame // those in the pipe included
	index  indexWriter

	known     map[*change.Definition]struct{} // definitions this segment holds
	order     []*change.Definition            // the same in the order they were met
	lastKnown *change.Definition              // the one met last, to spare a look-up
	tables    map[*change.Table]*tableState
	lastTable *tableState

	next   change.Seq
	open   bool
	txn    change.Txn // Tables unused: the counts are in counts
	counts []tableCount
	start  place // where the open transaction begins
	undo   undo  // what Rollback goes back to
	err    error // ends the segment: an Output that failed, or Close
	// Definition records in the part of buf before the open transaction, and in
	// the open transaction's part of it.
	heldDefs, openDefs bool
	added              []*change.Definition // made known by the open transaction
}

// tableState finds a table's counts in the open transaction without a look-up.
type tableState struct {
	table *change.Table
	id    int        // number in the index; -1 until a transaction that touches it commits
	seq   change.Seq // the transaction that pos belongs to
	pos   int        // index into Writer.counts
}

type tableCount struct {
	state                                *tableState
	inserts, updates, deletes, truncates uint64
}

// place is where a transaction's first record stands.
type place struct {
	frames int // frames before its own
	buf    int // bytes before it in its own
}

// undo is the state at the begin of a transaction of which frames have left the buffer.
type undo struct {
	set    bool
	frames int
	held   []byte // Writer.buf
	defs   bool   // Writer.heldDefs
	off    int64  // when the first of those frames is written, as is hash
	hash   []byte // state of Writer.hash
}

// NewWriter writes the header of a new segment to out, which must be empty.
func NewWriter(out Output, h Header) (*Writer, error) {
	p, err := newPipe()
	if err != nil {
		return nil, err
	}
	w := &Writer{pipe: p, hash: sha256.New(), target: frameTarget}
	if err := w.Reset(out, h); err != nil {
		return nil, err
	}
	return w, nil
}

// Reset starts another segment in out, which must be empty, with the memory of
// the one before it.
func (w *Writer) Reset(out Output, h Header) error {
	if len(h.Engine) > engineSize || strings.ContainsRune(h.Engine, 0) || h.First == 0 {
		return fmt.Errorf("segment of engine %q starting at Seq %s: not a valid header", h.Engine, h.First)
	}
	w.pipe.drop()
	w.hash.Reset()
	w.index.reset()
	*w = Writer{
		out: out, pipe: w.pipe, hash: w.hash, index: w.index, target: w.target, next: h.First,
		buf: w.buf[:0], frames: w.frames[:0],
		order: w.order[:0], counts: w.counts[:0], added: w.added[:0], undo: undo{hash: w.undo.hash, held: w.undo.held},
		known:  make(map[*change.Definition]struct{}),
		tables: make(map[*change.Table]*tableState),
	}
	w.index.latest = h.Latest
	return w.write(h.encode())
}

func (w *Writer) write(p []byte) error {
	if _, err := w.out.Write(p); err != nil {
		w.err = err
		return err
	}
	w.hash.Write(p)
	w.off += int64(len(p))
	return nil
}

// Size returns the bytes written so far, those being compressed included, which are
// estimated by the frame before them. The frame being filled does not count.
func (w *Writer) Size() int64 {
	size, first := w.off, len(w.frames)-w.pipe.busy
	for _, f := range w.frames[first:] {
		if first > 0 {
			size += int64(f.Raw) * int64(w.frames[first-1].Stored) / int64(w.frames[first-1].Raw)
		} else {
			size += int64(f.Raw)
		}
	}
	return size
}

// Txns returns the number of transactions that are whole.
func (w *Writer) Txns() int { return w.index.txns }

// Full reports that the segment comes near a limit of the format and should be
// closed before another transaction begins, whatever its size.
func (w *Writer) Full() bool {
	return w.index.names > maxNames/2 || len(w.index.body) > maxIndex/2
}

// Open reports whether a transaction has begun and not ended.
func (w *Writer) Open() bool { return w.open }

// Held returns the bytes of the open transaction while all of it can still be
// moved to the next segment (see Detach), and zero when it cannot.
func (w *Writer) Held() int {
	if !w.open || w.undo.set {
		return 0
	}
	return len(w.buf) - w.start.buf
}

// Next returns the Seq of the transaction that is open, or begins next.
func (w *Writer) Next() change.Seq { return w.next }

// Begin opens a transaction of the given kind.
func (w *Writer) Begin(kind change.TxnKind) error {
	switch {
	case w.err != nil:
		return w.err
	case w.open:
		return fmt.Errorf("begin of transaction %s, which is open already", w.next)
	case !knownKind(kind):
		return fmt.Errorf("begin of transaction %s of unknown kind %d", w.next, kind)
	}
	w.open = true
	w.txn = change.Txn{Seq: w.next, Kind: kind}
	w.start, w.undo.set = place{frames: len(w.frames), buf: len(w.buf)}, false
	w.counts, w.added, w.openDefs = w.counts[:0], w.added[:0], false
	w.buf = append(w.buf, recordBegin)
	w.buf = binary.AppendUvarint(w.buf, uint64(uvarintLen(uint64(w.next))+1))
	w.buf = binary.AppendUvarint(w.buf, uint64(w.next))
	w.buf = append(w.buf, byte(kind))
	return nil
}

// Write adds a message to the open transaction, and before it those of its
// definitions that the segment does not hold yet. It copies what it keeps.
func (w *Writer) Write(m *change.Message) error {
	switch {
	case w.err != nil:
		return w.err
	case !w.open:
		return fmt.Errorf("message outside a transaction, before %s", w.next)
	case w.txn.Kind == change.TxnHeartbeat:
		return fmt.Errorf("message in heartbeat %s", w.next)
	}
	for _, d := range m.Defs {
		if d != w.lastKnown {
			if err := w.define(d); err != nil {
				return err
			}
		}
	}
	for i := range m.Touched {
		w.touch(&m.Touched[i])
	}
	if len(m.Raw) == 0 {
		return nil
	}
	w.txn.Messages++
	w.txn.Bytes += uint64(len(m.Raw))
	return w.record(recordMessage, m.Raw)
}

func (w *Writer) define(d *change.Definition) error {
	w.lastKnown = d
	if _, ok := w.known[d]; ok {
		return nil
	}
	w.known[d] = struct{}{}
	w.added, w.order = append(w.added, d), append(w.order, d)
	for _, raw := range d.Messages {
		w.openDefs = true
		if err := w.record(recordDefinition, raw); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) touch(t *change.Touch) {
	if t.Table == nil {
		return // nothing the index could name
	}
	s := w.lastTable
	if s == nil || s.table != t.Table {
		if s = w.tables[t.Table]; s == nil {
			s = &tableState{table: t.Table, id: -1}
			w.tables[t.Table] = s
		}
		w.lastTable = s
	}
	if s.seq != w.next {
		s.seq, s.pos = w.next, len(w.counts)
		w.counts = append(w.counts, tableCount{state: s})
	}
	switch c := &w.counts[s.pos]; t.Op {
	case change.OpInsert:
		c.inserts += t.Rows
	case change.OpUpdate:
		c.updates += t.Rows
	case change.OpDelete:
		c.deletes += t.Rows
	case change.OpTruncate:
		c.truncates++
	}
}

func (w *Writer) record(kind byte, p []byte) error {
	if len(p) > maxMessage {
		w.err = fmt.Errorf("message of %d bytes in transaction %s: a segment holds messages of up to %d", len(p), w.next, maxMessage)
		return w.err
	}
	w.buf = append(w.buf, kind)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(p)))
	w.buf = append(w.buf, p...)
	if len(w.buf) < w.target {
		return nil
	}
	return w.flushOpen()
}

// flushOpen writes full frames in the middle of a transaction. What stands before
// the transaction gets a frame of its own, and is kept until the transaction's end, so
// that Rollback can undo that too.
func (w *Writer) flushOpen() error {
	if !w.undo.set {
		w.mark()
		if n := w.start.buf; n > 0 {
			if err := w.frame(n, w.heldDefs); err != nil {
				return err
			}
			w.heldDefs = false
			w.start = place{frames: len(w.frames)}
			if len(w.buf) < w.target {
				return nil
			}
		}
	}
	err := w.frame(len(w.buf), w.openDefs)
	w.openDefs = false
	return err
}

// mark notes the state at the begin of the open transaction, of which nothing has
// left the buffer yet.
func (w *Writer) mark() {
	w.undo = undo{
		set: true, frames: len(w.frames), hash: w.undo.hash[:0],
		held: append(w.undo.held[:0], w.buf[:w.start.buf]...), defs: w.heldDefs,
	}
}

// Commit ends the open transaction with the XID, Position, CommitTime, Received and
// Note of m, whose Raw, if any, has been given to Write.
func (w *Writer) Commit(m *change.Message) error {
	switch {
	case w.err != nil:
		return w.err
	case !w.open:
		return fmt.Errorf("commit outside a transaction, before %s", w.next)
	case w.txn.Kind == change.TxnHeartbeat && m.XID != "":
		return fmt.Errorf("heartbeat %s with the id %q", w.next, m.XID)
	case len(m.XID) > maxXID || len(m.Position) > maxPosition:
		return fmt.Errorf("transaction %s: id of %d and position of %d bytes, the limits are %d and %d", w.next, len(m.XID), len(m.Position), maxXID, maxPosition)
	case len(m.Note) > change.MaxNote:
		return fmt.Errorf("transaction %s: note of %d bytes, the limit is %d", w.next, len(m.Note), change.MaxNote)
	case w.index.names+len(m.XID)+len(m.Position)+len(m.Note) > maxNames:
		return fmt.Errorf("transaction %s: the ids, positions and notes of one segment may take %d bytes, which are used up", w.next, maxNames)
	}
	w.buf = append(w.buf, recordCommit)
	w.buf = binary.AppendUvarint(w.buf, uint64(stringLen(m.XID)+stringLen(string(m.Position))+varintLen(int64(m.CommitTime))+varintLen(int64(m.Received))+stringLen(m.Note)))
	w.buf = appendString(w.buf, m.XID)
	w.buf = appendString(w.buf, string(m.Position))
	w.buf = binary.AppendVarint(w.buf, int64(m.CommitTime))
	// The whole time, where its distance from the commit time would be shorter: it is the
	// same for all that came in one batch, and compresses to a tenth of what distances do.
	w.buf = binary.AppendVarint(w.buf, int64(m.Received))
	w.buf = appendString(w.buf, m.Note)

	w.txn.XID, w.txn.Position, w.txn.CommitTime, w.txn.Received, w.txn.Note = m.XID, m.Position, m.CommitTime, m.Received, m.Note
	w.index.add(&w.txn, w.start.frames, w.start.buf, w.counts)
	w.open = false
	w.next++
	w.heldDefs = w.heldDefs || w.openDefs
	if len(w.buf) < w.target {
		return nil
	}
	return w.flush()
}

// Rollback forgets the open transaction; without one it does nothing. The segment
// then becomes what it would have become without the transaction, byte for byte.
func (w *Writer) Rollback() error {
	switch {
	case !w.open:
		return nil
	case w.err != nil:
		return w.err
	}
	w.open = false
	for _, d := range w.added {
		delete(w.known, d)
	}
	w.order = w.order[:len(w.order)-len(w.added)]
	w.lastKnown, w.lastTable = nil, nil
	clear(w.tables) // the counts of a Seq that will be used again must not be found
	w.index.keepTables(w.tables)
	if !w.undo.set { // nothing of it left the buffer
		w.buf = w.buf[:w.start.buf]
		return nil
	}
	if err := w.drain(); err != nil { // the first frame of the transaction notes where it is
		return err
	}
	w.buf, w.heldDefs = append(w.buf[:0], w.undo.held...), w.undo.defs
	w.frames, w.off = w.frames[:w.undo.frames], w.undo.off
	w.err = w.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(w.undo.hash)
	if w.err == nil {
		w.err = w.out.Truncate(w.off)
	}
	return w.err
}

func (w *Writer) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	err := w.frame(len(w.buf), w.heldDefs)
	w.heldDefs = false
	return err
}

var errClosed = errors.New("the segment is closed: Reset begins another")

// Summary says what Close has written.
type Summary struct {
	First, Last change.Seq
	End         change.Position // the source's log continues here
	Latest      change.Time     // the latest commit time in the epoch so far
	Size        int64           // bytes of the segment
	Packed      int             // how many of them, at its end, are index and footer
	Hash        Hash
}

// Close rolls an open transaction back, writes index and footer, and ends the
// segment. end is where the source's log continues after it. The segment must hold at
// least one transaction.
func (w *Writer) Close(end change.Position) (Summary, error) {
	if w.err != nil {
		w.pipe.drop()
		return Summary{}, w.err
	}
	if err := w.Rollback(); err != nil {
		return Summary{}, err
	}
	if len(end) > maxPosition {
		return Summary{}, fmt.Errorf("close of a segment at a position of %d bytes, the limit is %d", len(end), maxPosition)
	}
	if w.index.txns == 0 {
		return Summary{}, fmt.Errorf("close of a segment without transactions, before %s", w.next)
	}
	err := w.flush()
	if err == nil {
		err = w.drain()
	}
	if err != nil {
		return Summary{}, err
	}
	raw := w.index.encode(end, w.frames)
	if len(raw) > maxIndex {
		return Summary{}, fmt.Errorf("segment index of %d bytes before %s: the limit is %d", len(raw), w.next, maxIndex)
	}
	f := footer{index: w.off}
	packed := w.pipe.pack(flagIndex, raw)
	if err := w.write(packed); err != nil {
		return Summary{}, err
	}
	f.length, f.size = int64(len(packed)), w.off+footerSize
	// The hash covers the footer up to the hash itself: sizes included.
	w.hash.Write(f.encode()[:24])
	w.hash.Sum(f.hash[:0])
	if _, err := w.out.Write(f.encode()); err != nil {
		w.err = err
		return Summary{}, err
	}
	w.err = errClosed
	return Summary{First: w.next - change.Seq(w.index.txns), Last: w.next - 1, End: end, Latest: w.index.latest, Size: f.size, Packed: len(packed) + footerSize, Hash: f.hash}, nil
}
