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
	frames, err := segment.NewFrameReader()
	if err != nil {
		return found, false, err
	}
	// Invariant: every segment that begins at or before low has Latest <= t; the
	// segment best, if set, has Latest > t, and none that begins after high matters.
	tail, size, err := a.lastSegment(ctx, epoch, math.MaxUint64)
	if err != nil || tail == 0 {
		return found, false, err
	}
	best, err := a.segmentTail(ctx, frames, epoch, tail, size)
	if err != nil {
		return found, false, notFoundIsCorrupt(err)
	}
	if best.Latest <= t {
		return found, false, nil
	}
	low, high := change.Seq(0), tail
	for low < high {
		mid := low + (high-low)/2
		after := ""
		if mid > 0 {
			after = SegmentKey(epoch, mid)
		}
		objects, err := a.Store.List(ctx, segmentsKey(epoch), after, 1)
		if err != nil {
			return found, false, fmt.Errorf("list segments of epoch %d: %w", epoch, err)
		}
		if len(objects) == 0 { // cannot be: the tail begins after mid
			return found, false, fmt.Errorf("%w: epoch %d has lost its tail", ErrCorrupt, epoch)
		}
		seq, err := parseSegmentKey(epoch, objects[0].Key)
		if err != nil {
			return found, false, err
		}
		if seq >= high { // the segments that begin in (mid, high] are just the one at high
			high = mid
			continue
		}
		x, err := a.segmentTail(ctx, frames, epoch, seq, objects[0].Size)
		if err != nil {
			return found, false, notFoundIsCorrupt(err)
		}
		if x.Latest > t {
			best, high = x, mid
		} else {
			low = seq
		}
	}
	for _, e := range best.Txns {
		if e.CommitTime > t {
			return e, true, nil
		}
	}
	return found, false, fmt.Errorf("%w: %s: no transaction as late as its index says", ErrCorrupt, SegmentKey(epoch, best.First()))
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
