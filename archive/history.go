package archive

import (
	"context"
	"errors"
	"fmt"
	"io"

	"txreel/change"
	"txreel/segment"
)

// History is a Stream that says of each transaction what the index does, before
// its messages are read. It costs no requests beyond the Stream's: a segment that
// is being read is at hand as a whole.
type History struct {
	*Stream
	frames *segment.FrameReader
	key    string // of the segment that tail belongs to
	tail   *segment.Tail
}

// History opens a History of the transactions from from to to, both included.
// spillDir is as for Stream. It must be closed.
func (a *Archive) History(ctx context.Context, epoch uint64, from, to change.Seq, spillDir string) (*History, error) {
	frames, err := segment.NewFrameReader()
	if err != nil {
		return nil, err
	}
	return &History{Stream: a.Stream(ctx, epoch, from, to, spillDir), frames: frames}, nil
}

// Txn returns what the index says of the transaction seq, which must be in the
// segment that Next is reading: the one whose Begin it has returned last.
func (h *History) Txn(seq change.Seq) (*change.Txn, error) {
	if h.tail == nil || h.key != h.cur.key {
		if err := h.readTail(); err != nil {
			return nil, err
		}
	}
	if seq < h.tail.First() || seq > h.tail.Last() {
		return nil, fmt.Errorf("%w: %s holds transaction %s, its index does not", ErrCorrupt, h.cur.key, seq)
	}
	return &h.tail.Txns[seq-h.tail.First()].Txn, nil
}

func (h *History) readTail() error {
	if !h.open {
		return errors.New("no segment is being read")
	}
	size := h.cur.body.Size()
	for n := min(size, segment.TailGuess); ; {
		b := make([]byte, n)
		if m, err := h.cur.body.ReadAt(b, size-n); m < len(b) {
			return fmt.Errorf("read back %s: %w", h.cur.key, err)
		}
		t, need, err := h.frames.Tail(b, size)
		if err != nil {
			return InObject(h.cur.key, err)
		}
		if t != nil {
			h.tail, h.key = t, h.cur.key
			return nil
		}
		if need <= n || need > size {
			return fmt.Errorf("%w: %s: index of %d bytes not found", ErrCorrupt, h.cur.key, need)
		}
		n = need
	}
}

// Finish reads what the last segment holds behind the last transaction, after Next
// has returned io.EOF, so that all of it is checked: only then is the segment's
// hash known to be that of its bytes. It returns the segment's key and hash.
func (h *History) Finish() (key string, hash segment.Hash, err error) {
	switch {
	case h.err != io.EOF || h.reader == nil: //nolint:errorlint // Next stores it unwrapped
		return "", hash, errors.New("the stream has not been read to its end")
	case !h.open:
		return h.cur.key, *h.prev, nil
	}
	for {
		if _, err := h.reader.Next(); errors.Is(err, io.EOF) {
			return h.cur.key, h.reader.Hash(), nil
		} else if err != nil {
			return "", hash, InObject(h.cur.key, err)
		}
	}
}
