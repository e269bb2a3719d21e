package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"sort"

	"txreel/change"
	"txreel/segment"
)

// SegmentIndex is the index of one segment and where it stands.
type SegmentIndex struct {
	*segment.Tail
	Key string
}

// HoleError reports that transactions are missing between two segments.
type HoleError struct {
	Epoch       uint64
	After, Next change.Seq // the last one held before the hole, the first one held behind it
}

// Error implements error.
func (e *HoleError) Error() string {
	return fmt.Sprintf("epoch %d: transactions %s to %s are missing", e.Epoch, e.After+1, e.Next-1)
}

// Unwrap makes a hole an ErrCorrupt.
func (e *HoleError) Unwrap() error { return ErrCorrupt }

// Segments yields the index of every segment of the epoch in order, from the one
// that holds the transaction from. Where rollups hold the indexes it reads those: a
// day of one-second segments costs less than 200 requests. A hole in the numbering
// ends it with a *HoleError (Invariant 4); a start behind the tail yields nothing.
func (a *Archive) Segments(ctx context.Context, epoch uint64, from change.Seq) iter.Seq2[SegmentIndex, error] {
	return func(yield func(SegmentIndex, error) bool) {
		w := walk{archive: a, epoch: epoch, next: max(from, 1), yield: yield}
		if err := w.run(ctx); err != nil && !errors.Is(err, errStop) {
			yield(SegmentIndex{}, err)
		}
	}
}

// errStop unwinds a walk whose caller wants no more.
var errStop = errors.New("stop")

type walk struct {
	archive *Archive
	epoch   uint64
	next    change.Seq // the transaction to be found next
	yield   func(SegmentIndex, error) bool
	frames  *segment.FrameReader
	upper   []span // rollups of level 2
	lower   []span // rollups of level 1, read when a level 2 does not help
	asked   bool   // lower has been read
}

func (w *walk) run(ctx context.Context) (err error) {
	if w.frames, err = segment.NewFrameReader(); err != nil {
		return err
	}
	if w.upper, err = w.archive.rollups(ctx, w.epoch, 2, 0); err != nil {
		return err
	}
	for {
		list := &w.upper
		i := covering(*list, w.next)
		if i < 0 {
			if err := w.readLower(ctx); err != nil {
				return err
			}
			list = &w.lower
			i = covering(*list, w.next)
		}
		if i < 0 {
			if more, err := w.segments(ctx); err != nil || !more {
				return err
			}
			continue
		}
		s := (*list)[i]
		err := w.archive.readRollup(ctx, s, func(e rolled) error {
			t, err := e.decode(w.frames)
			if err != nil {
				return err
			}
			return w.segment(SegmentIndex{Tail: t, Key: SegmentKey(w.epoch, t.First())})
		})
		var hole *HoleError
		switch {
		case err == nil && w.next > s.last:
		case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrCorrupt) && !errors.As(err, &hole), errors.Is(err, segment.ErrCorrupt):
			// Derived data that is damaged or gone: the segments themselves decide.
			*list = append((*list)[:i:i], (*list)[i+1:]...)
		default:
			return err
		}
	}
}

// covering returns the number of the span that holds seq, or -1.
func covering(spans []span, seq change.Seq) int {
	i := sort.Search(len(spans), func(i int) bool { return spans[i].last >= seq })
	if i < len(spans) && spans[i].first <= seq {
		return i
	}
	return -1
}

// readLower lists the rollups of level 1 that no rollup of level 2 before the
// current place holds.
func (w *walk) readLower(ctx context.Context) (err error) {
	if w.asked {
		return nil
	}
	w.asked = true
	var after change.Seq
	for _, s := range w.upper {
		if s.last < w.next {
			after = s.last
		}
	}
	w.lower, err = w.archive.rollups(ctx, w.epoch, 1, after)
	return err
}

// segments reads indexes from the segments themselves, up to the next rollup or
// the tail; more is false at the tail.
func (w *walk) segments(ctx context.Context) (more bool, err error) {
	until := change.Seq(math.MaxUint64)
	for _, spans := range [][]span{w.upper, w.lower} {
		if i := sort.Search(len(spans), func(i int) bool { return spans[i].first > w.next }); i < len(spans) {
			until = min(until, spans[i].first)
		}
	}
	seq, _, err := w.archive.lastSegment(ctx, w.epoch, w.next)
	if err != nil {
		return false, err
	}
	after := ""
	if seq > 1 {
		after = SegmentKey(w.epoch, seq-1)
	}
	for {
		objects, err := w.archive.Store.List(ctx, segmentsKey(w.epoch), after, page)
		if err != nil {
			return false, fmt.Errorf("list segments of epoch %d: %w", w.epoch, err)
		}
		for _, o := range objects {
			if w.next >= until {
				return true, nil
			}
			seq, err := parseSegmentKey(w.epoch, o.Key)
			if err != nil {
				return false, err
			}
			t, err := w.archive.segmentTail(ctx, w.frames, w.epoch, seq, o.Size)
			if err != nil {
				return false, notFoundIsCorrupt(err)
			}
			if err := w.segment(SegmentIndex{Tail: t, Key: o.Key}); err != nil {
				return false, err
			}
			after = o.Key
		}
		if len(objects) < page {
			return w.next >= until, nil
		}
	}
}

// segment hands x to the caller unless it ends before the start.
func (w *walk) segment(x SegmentIndex) error {
	if x.Last() < w.next {
		return nil
	}
	if x.First() > w.next {
		return &HoleError{Epoch: w.epoch, After: w.next - 1, Next: x.First()}
	}
	w.next = x.Last() + 1
	if !w.yield(x, nil) {
		return errStop
	}
	return nil
}
