package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"

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
// that holds the transaction from, or from zero, from the first one that is kept. Where rollups hold the indexes it reads those: a
// day of one-second segments costs less than 200 requests. A hole in the numbering
// ends it with a *HoleError (Invariant 4); a start behind the tail yields nothing, one in what
// was pruned a *PrunedError.
func (a *Archive) Segments(ctx context.Context, epoch uint64, from change.Seq) iter.Seq2[SegmentIndex, error] {
	return func(yield func(SegmentIndex, error) bool) {
		w := walk{archive: a, epoch: epoch, next: from, yield: yield}
		if err := w.run(ctx); err != nil && !errors.Is(err, errStop) {
			yield(SegmentIndex{}, a.orPruned(ctx, epoch, w.next, err))
		}
	}
}

// errStop unwinds a walk whose caller wants no more.
var errStop = errors.New("stop")

type walk struct {
	archive *Archive
	epoch   uint64
	next    change.Seq // the transaction to be found next
	aligned bool       // a segment must begin with it
	yield   func(SegmentIndex, error) bool
	frames  *segment.FrameReader
	rollups [levels]rollupList // the highest level first
}

func (w *walk) run(ctx context.Context) (err error) {
	if w.frames, err = segment.NewFrameReader(); err != nil {
		return err
	}
	p, err := w.archive.Pruned(ctx, w.epoch)
	switch {
	case err != nil:
		return err
	case w.next == 0:
		w.next = p.From()
	case w.next < p.From():
		return &PrunedError{Pruned: *p, Asked: "transaction " + w.next.String()}
	}
	w.aligned = w.next == 1
	for i := range w.rollups {
		w.rollups[i] = rollupList{archive: w.archive, epoch: w.epoch, level: levels - i}
	}
	for {
		until, found, err := w.fromRollup(ctx)
		if err != nil {
			return err
		}
		if found {
			continue
		}
		if more, err := w.fromSegments(ctx, until); err != nil {
			return err
		} else if !more {
			return w.archive.prunedAt(ctx, w.epoch, w.next) // of an epoch that was pruned as a whole nothing is listed
		}
	}
}

// fromRollup reads the highest rollup that holds the next transaction. When there is
// none it returns found false and where the next rollup begins.
func (w *walk) fromRollup(ctx context.Context) (until change.Seq, found bool, err error) {
	until = math.MaxUint64
	for i := range w.rollups {
		l := &w.rollups[i]
		s, ok, err := l.at(ctx, w.next, !w.aligned)
		if err != nil {
			return 0, false, err
		}
		if ok && s.first > w.next {
			until = min(until, s.first)
		}
		if !ok || s.first > w.next {
			continue
		}
		err = w.archive.readRollup(ctx, s, w.rolled)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, segment.ErrCorrupt) {
			return 0, false, err
		}
		if w.next <= s.last {
			// Derived data that is damaged or gone: the segments themselves decide.
			l.drop()
		}
		return 0, true, nil
	}
	return until, false, nil
}

// rolled hands an entry of a rollup to the caller. One that does not fit where the
// walk stands is the rollup's fault: it proves nothing about the segments.
func (w *walk) rolled(e rolled) error {
	t, err := e.decode(w.frames)
	switch {
	case err != nil:
		return err
	case t.Last() < w.next:
		return nil
	case t.First() > w.next || w.aligned && t.First() != w.next:
		return fmt.Errorf("%w: a rollup holds the index of segment %s where that of %s must be", ErrCorrupt, t.First(), w.next)
	}
	return w.segment(SegmentIndex{Tail: t, Key: SegmentKey(w.epoch, t.First())})
}

// rollupList is the rollups of one level from where a walk stands, page by page.
type rollupList struct {
	archive *Archive
	epoch   uint64
	level   int
	spans   []span
	begun   bool
	all     bool // spans holds the last there is
	after   string
}

// at returns the first rollup that ends at or after next; ok is false when there is
// none. With search it finds one that begins before next, too: a walk needs that
// only where it begins.
func (l *rollupList) at(ctx context.Context, next change.Seq, search bool) (s span, ok bool, err error) {
	if search && !l.begun {
		if l.spans, _, err = l.archive.lastPage(ctx, l.epoch, l.level, 0, next); err != nil {
			return s, false, err
		}
		if n := len(l.spans); n > 0 {
			l.spans = l.spans[n-1:]
			l.after = l.spans[0].key
		}
	}
	l.begun = true
	for {
		for len(l.spans) > 0 && l.spans[0].last < next {
			l.spans = l.spans[1:]
		}
		if len(l.spans) > 0 {
			return l.spans[0], true, nil
		}
		if l.all {
			return s, false, nil
		}
		// Not from where the last page ended: a higher level may have led far beyond.
		l.after = max(l.after, afterKey(l.epoch, l.level, next-1))
		objects, err := l.archive.Store.List(ctx, rollupsKey(l.epoch, l.level), l.after, page)
		if err != nil {
			return s, false, fmt.Errorf("list rollups of epoch %d: %w", l.epoch, err)
		}
		for _, o := range objects {
			l.after = o.Key
			if s, err := parseRollupKey(l.epoch, l.level, o); err == nil {
				l.spans = append(l.spans, s)
			}
		}
		l.all = len(objects) < page
	}
}

// drop forgets the rollup that at has returned.
func (l *rollupList) drop() { l.spans = l.spans[1:] }

// fromSegments reads indexes from the segments themselves, up to the transaction
// until or the tail; more is false at the tail.
func (w *walk) fromSegments(ctx context.Context, until change.Seq) (more bool, err error) {
	begin := w.next
	if !w.aligned {
		if begin, _, err = w.archive.lastSegment(ctx, w.epoch, w.next); err != nil {
			return false, err
		}
	}
	for begin = max(begin, 1); begin != 0; {
		var objects []Object
		if objects, begin, err = w.archive.NextSegments(ctx, w.epoch, begin, math.MaxUint64); err != nil {
			return false, err
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
		}
	}
	return w.next >= until, nil
}

// segment hands x to the caller unless it ends before the start.
func (w *walk) segment(x SegmentIndex) error {
	if x.Last() < w.next {
		return nil
	}
	if x.First() > w.next {
		return &HoleError{Epoch: w.epoch, After: w.next - 1, Next: x.First()}
	}
	if w.aligned && x.First() < w.next {
		return fmt.Errorf("%w: %s begins before the segment before it ends, with %s", ErrCorrupt, x.Key, w.next-1)
	}
	w.next, w.aligned = x.Last()+1, true
	if !w.yield(x, nil) {
		return errStop
	}
	return nil
}
