package archive

import (
	"context"
	"fmt"
	"math"

	"txreel/change"
	"txreel/segment"
)

// FirstAfter returns the first transaction of the epoch that committed later than
// t, in commit order; ok is false when none did. Commit times may go backwards;
// the search bisects the running maximum that each segment carries, so the answer
// is exact, in O(log n) requests.
func (a *Archive) FirstAfter(ctx context.Context, epoch uint64, t change.Time) (found segment.Entry, ok bool, err error) {
	x, err := a.firstSegment(ctx, epoch, func(x *segment.Tail) (bool, error) { return x.Latest > t, nil })
	if err != nil || x == nil {
		return found, false, err
	}
	for _, e := range x.Txns {
		if e.CommitTime > t {
			return e, true, nil
		}
	}
	return found, false, fmt.Errorf("%w: %s: no transaction as late as its index says", ErrCorrupt, SegmentKey(epoch, x.First()))
}

// FirstBehind returns the first transaction of the epoch for which behind is true;
// ok is false when there is none. behind must be false for all transactions up to
// some point and true for all after it, as a comparison of positions is. It takes
// O(log n) requests.
func (a *Archive) FirstBehind(ctx context.Context, epoch uint64, behind func(*change.Txn) (bool, error)) (found segment.Entry, ok bool, err error) {
	x, err := a.firstSegment(ctx, epoch, func(x *segment.Tail) (bool, error) { return behind(&x.Txns[len(x.Txns)-1].Txn) })
	if err != nil || x == nil {
		return found, false, err
	}
	for _, e := range x.Txns {
		if ok, err := behind(&e.Txn); ok || err != nil {
			return e, ok, err
		}
	}
	return found, false, fmt.Errorf("%w: %s: transactions out of order", ErrCorrupt, SegmentKey(epoch, x.First()))
}

// firstSegment returns the first segment for which past is true, or nil. past
// must be false up to some segment and true behind it.
func (a *Archive) firstSegment(ctx context.Context, epoch uint64, past func(*segment.Tail) (bool, error)) (*segment.Tail, error) {
	frames, err := segment.NewFrameReader()
	if err != nil {
		return nil, err
	}
	read := func(seq change.Seq, size int64) (*segment.Tail, bool, error) {
		x, err := a.segmentTail(ctx, frames, epoch, seq, size)
		if err != nil {
			return nil, false, notFoundIsCorrupt(err)
		}
		ok, err := past(x)
		return x, ok, err
	}
	tail, size, err := a.lastSegment(ctx, epoch, math.MaxUint64)
	if err != nil || tail == 0 {
		return nil, err
	}
	best, ok, err := read(tail, size)
	if err != nil || !ok {
		return nil, err
	}
	// Invariant of the search: best is past; every segment that begins at or before
	// low is not; none but best and those before it begins behind high.
	low, high := change.Seq(0), tail
	for low < high {
		mid := low + (high-low)/2
		after := ""
		if mid > 0 {
			after = SegmentKey(epoch, mid)
		}
		objects, err := a.Store.List(ctx, segmentsKey(epoch), after, 1)
		if err != nil {
			return nil, fmt.Errorf("list segments of epoch %d: %w", epoch, err)
		}
		if len(objects) == 0 {
			return nil, fmt.Errorf("%w: epoch %d has lost its tail", ErrCorrupt, epoch)
		}
		seq, err := parseSegmentKey(epoch, objects[0].Key)
		if err != nil {
			return nil, err
		}
		if seq >= best.First() { // nothing begins between mid and best
			high = mid
			continue
		}
		x, ok, err := read(seq, objects[0].Size)
		switch {
		case err != nil:
			return nil, err
		case ok:
			best, high = x, mid
		default:
			low = seq
		}
	}
	return best, nil
}

// Lookup returns the index entry of one transaction; ok is false when the epoch
// does not hold it.
func (a *Archive) Lookup(ctx context.Context, epoch uint64, seq change.Seq) (e segment.Entry, ok bool, err error) {
	first, size, err := a.lastSegment(ctx, epoch, seq)
	if err != nil || first == 0 {
		return e, false, err
	}
	frames, err := segment.NewFrameReader()
	if err != nil {
		return e, false, err
	}
	t, err := a.segmentTail(ctx, frames, epoch, first, size)
	if err != nil || seq > t.Last() {
		return e, false, notFoundIsCorrupt(err)
	}
	return t.Txns[seq-first], true, nil
}
