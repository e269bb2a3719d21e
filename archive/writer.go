package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"txreel/change"
	"txreel/internal/failpoint"
	"txreel/internal/spill"
	"txreel/segment"
)

// ErrOtherWriter is returned when the archive holds a segment that this writer
// did not write in the place of the one it meant to write: a second capture is
// at work on the same archive (Invariant 3). The command line turns it into exit code 5.
var ErrOtherWriter = errors.New("another writer is at work on this archive")

// spillLimit is how much of a segment stays in memory before it goes to a
// temporary file.
const spillLimit = 16 << 20

// Writer appends transactions to an epoch. One goroutine fills it; the segments
// it seals are shipped by Ship, which may run on another goroutine meanwhile.
type Writer struct {
	archive *Archive
	seg     *segment.Writer
	tail    Tail // what the last sealed segment ends with
	buf     *spill.Buffer
	free    []*spill.Buffer
	all     []*spill.Buffer // in whatever hands
	shipped change.Seq      // last transaction shipped; touched by Ship only
	rollups *roller
}

// NewWriter returns a Writer that continues the epoch behind its tail, which it
// reads from the archive. spillDir is where huge segments are kept until they are
// shipped; "" means the system's temporary folder.
func (a *Archive) NewWriter(ctx context.Context, epoch uint64, spillDir string) (*Writer, error) {
	tail, err := a.Tail(ctx, epoch)
	if err != nil {
		return nil, err
	}
	rollups, err := a.newRoller(ctx, tail)
	if err != nil {
		return nil, err
	}
	w := &Writer{archive: a, tail: tail, shipped: tail.Seq, rollups: rollups}
	for range 2 { // one fills while the other is shipped
		w.all = append(w.all, spill.New(spillDir, a.spill))
	}
	w.free = append(w.free, w.all...)
	if err := w.open(); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *Writer) open() error {
	if len(w.free) == 0 {
		return errors.New("a segment is sealed while two others are not shipped yet")
	}
	w.buf, w.free = w.free[len(w.free)-1], w.free[:len(w.free)-1]
	h := segment.Header{
		Archive: w.archive.id, Engine: w.archive.Identity.Engine, Epoch: w.tail.Epoch,
		First: w.tail.Seq + 1, Prev: segment.Hash(w.tail.Hash), Latest: w.tail.Latest,
	}
	var err error
	if w.seg == nil {
		w.seg, err = segment.NewWriter(w.buf, h)
		return err
	}
	return w.seg.Reset(w.buf, h)
}

// Tail returns what the last sealed segment ends with: where a source that feeds
// this Writer has to be opened.
func (w *Writer) Tail() Tail { return w.tail }

// Size returns the bytes of the segment being filled, compressed.
func (w *Writer) Size() int64 { return w.seg.Size() }

// Txns returns the whole transactions in the segment being filled.
func (w *Writer) Txns() int { return w.seg.Txns() }

// Full reports whether the segment being filled must be sealed whatever its size,
// for the sake of its index.
func (w *Writer) Full() bool { return w.seg.Full() }

// Open reports whether a transaction has begun and not ended.
func (w *Writer) Open() bool { return w.seg.Open() }

// Append takes the next message of the source; KindIdle is ignored. What it
// keeps it copies.
func (w *Writer) Append(m *change.Message) error {
	switch m.Kind {
	case change.KindBegin:
		if err := w.seg.Begin(change.TxnSource); err != nil {
			return err
		}
		return w.seg.Write(m)
	case change.KindData:
		return w.seg.Write(m)
	case change.KindCommit:
		if err := w.seg.Write(m); err != nil {
			return err
		}
		return w.seg.Commit(m)
	}
	return nil
}

// Heartbeat appends a transaction without messages that says: up to position
// nothing else happened, and the source's clock stood at at.
func (w *Writer) Heartbeat(position change.Position, at change.Time) error {
	if err := w.seg.Begin(change.TxnHeartbeat); err != nil {
		return err
	}
	return w.seg.Commit(&change.Message{Kind: change.KindCommit, Position: position, CommitTime: at})
}

// Sealed is a finished segment on its way to the store.
type Sealed struct {
	segment.Summary
	Key    string
	Packed []byte // index and footer, for the rollup
	buf    *spill.Buffer
}

// Held returns the bytes of the open transaction while Seal can still carry it
// over, and zero when it cannot.
func (w *Writer) Held() int { return w.seg.Held() }

// Seal ends the segment being filled at its last commit and opens the next one. A
// transaction that is open is carried over while Held is not zero, and else dropped
// (Invariant 4): the source delivers it again. end is where the source's log
// continues.
func (w *Writer) Seal(end change.Position) (*Sealed, error) {
	first := w.tail.Seq + 1
	carry, err := w.seg.Detach()
	if err != nil {
		return nil, err
	}
	sum, err := w.seg.Close(end)
	if err != nil {
		return nil, err
	}
	s := &Sealed{Summary: sum, Key: SegmentKey(w.tail.Epoch, first), buf: w.buf}
	w.tail = Tail{Epoch: w.tail.Epoch, Segment: first, Seq: sum.Last, Position: end, Latest: sum.Latest, Hash: HexHash(sum.Hash)}
	s.Packed = make([]byte, sum.Packed)
	if _, err := s.buf.ReadAt(s.Packed, sum.Size-int64(sum.Packed)); err != nil && err != io.EOF {
		return nil, err
	}
	if err := w.open(); err != nil || carry == nil {
		return s, err
	}
	return s, w.seg.Attach(carry)
}

// Ship stores a sealed segment and returns once it is durable. Segments must be
// shipped in the order they were sealed, one at a time. After an error the Writer is
// of no more use: open a new one, which reads the tail again.
func (w *Writer) Ship(ctx context.Context, s *Sealed) error {
	// Invariant 4: no segment follows one that is not held, so a failure is final.
	if s.First != w.shipped+1 {
		return fmt.Errorf("ship %s: the segment before it, which ends with %s, was not shipped", s.Key, s.First-1)
	}
	failpoint.Hit(failpoint.SegmentCreating)
	err := w.archive.Store.Create(ctx, s.Key, s.buf, s.Size)
	if errors.Is(err, fs.ErrExist) {
		// Either a create took effect although its answer was lost, or a second
		// writer was faster: then the bytes differ.
		var same bool
		same, err = sameObject(ctx, w.archive.Store, s.Key, s.buf, s.Size)
		if err == nil && !same {
			err = ErrOtherWriter
		}
	}
	if err != nil {
		return fmt.Errorf("ship %s: %w", s.Key, err)
	}
	failpoint.Hit(failpoint.SegmentCreated)
	w.shipped = s.Last
	return nil
}

// Release gives the memory of a shipped segment back for the next one. It must be
// called on the goroutine that fills the Writer.
func (w *Writer) Release(s *Sealed) {
	s.buf.Reset()
	w.free = append(w.free, s.buf)
	s.buf = nil
}

// RollUp writes the rollups that have become due with s, which has been shipped.
// Rollups are derived data: an error costs readers time, never truth.
func (w *Writer) RollUp(ctx context.Context, s *Sealed) error {
	return w.rollups.add(ctx, rolled{first: s.First, last: s.Last, size: s.Size, packed: s.Packed})
}

// Close drops what is not shipped and gives temporary files back. Nothing may be on
// its way any more.
func (w *Writer) Close() {
	for _, b := range w.all {
		b.Reset()
	}
}

// Index decodes the segment's index.
func (s *Sealed) Index() (*segment.Index, error) {
	frames, err := segment.NewFrameReader()
	if err != nil {
		return nil, err
	}
	t, _, err := frames.Tail(s.Packed, s.Size)
	if err != nil {
		return nil, err
	}
	return t.Index, nil
}
