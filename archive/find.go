package archive

import (
	"context"
	"fmt"
	"math"

	"txreel/change"
	"txreel/segment"
)

// FirstAfter returns the first transaction of the epoch that committed later than
// t, in commit order; ok is false when none did. Commit times may go backwards
// (those before 1970 count as 1970, where the running maximum begins);
// the search bisects the running maximum that each segment carries, so the answer
// is exact, in O(log n) requests. A moment before the latest commit of what was pruned is a
// *PrunedError.
func (a *Archive) FirstAfter(ctx context.Context, epoch uint64, t change.Time) (found segment.Entry, ok bool, err error) {
	t = max(t, -1)
	p, err := a.Pruned(ctx, epoch)
	if err != nil {
		return found, false, err
	}
	if p != nil && t < p.Tail.Latest {
		return found, false, &PrunedError{Pruned: *p, Asked: "what was committed after " + t.String()}
	}
	x, err := a.firstSegment(ctx, epoch, p.From(), func(x *segment.Tail) (bool, error) { return x.Latest > t, nil })
	if err != nil || x == nil {
		return found, false, err
	}
	for _, e := range x.Txns {
		if max(e.CommitTime, 0) > t {
			return e, true, nil
		}
	}
	return found, false, fmt.Errorf("%w: %s: no transaction as late as its index says", ErrCorrupt, SegmentKey(epoch, x.First()))
}

// FirstBehind returns the first transaction of the epoch for which behind is true;
// ok is false when there is none. behind must be false for all transactions up to
// some point and true for all after it, as a comparison of positions is. It takes
// O(log n) requests. What was pruned is not looked at.
func (a *Archive) FirstBehind(ctx context.Context, epoch uint64, behind func(*change.Txn) (bool, error)) (found segment.Entry, ok bool, err error) {
	p, err := a.Pruned(ctx, epoch)
	if err != nil {
		return found, false, err
	}
	x, err := a.firstSegment(ctx, epoch, p.From(), func(x *segment.Tail) (bool, error) { return behind(&x.Txns[len(x.Txns)-1].Txn) })
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

// firstSegment returns the first segment from from on for which past is true, or nil. past
// must be false up to some segment and true behind it.
func (a *Archive) firstSegment(ctx context.Context, epoch uint64, from change.Seq, past func(*segment.Tail) (bool, error)) (*segment.Tail, error) {
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
	if err != nil || tail < from {
		return nil, err
	}
	best, ok, err := read(tail, size)
	if err != nil || !ok {
		return nil, err
	}
	// Invariant of the search: best is past; every segment that begins at or before
	// low is not; none begins behind high and before best.
	low, high := from-1, tail-1
	near := false // the segments behind low may fit into one page
	for low < high {
		mid := low
		if !near {
			mid += (high - low) / 2
		}
		some, all, err := a.segmentsBetween(ctx, epoch, mid, best.First())
		if err != nil {
			return nil, err
		}
		near = all && !near
		if len(some) == 0 {
			high = mid
			continue
		}
		x, ok, err := read(some[0].first, some[0].size)
		switch {
		case err != nil:
			return nil, err
		case ok:
			best, high = x, mid
			continue
		case !all:
			low = some[0].first
			continue
		}
		// All that is left is at hand: bisect it without another listing.
		for some = some[1:]; len(some) > 0; {
			m := len(some) / 2
			x, ok, err := read(some[m].first, some[m].size)
			switch {
			case err != nil:
				return nil, err
			case ok:
				best, some = x, some[:m]
			default:
				some = some[m+1:]
			}
		}
		return best, nil
	}
	return best, nil
}

// segmentsBetween lists the segments that begin after low and before high, a page of
// them at most; all reports whether there are no more.
func (a *Archive) segmentsBetween(ctx context.Context, epoch uint64, low, high change.Seq) (some []span, all bool, err error) {
	objects, err := a.ListSegments(ctx, epoch, afterKey(epoch, 0, low), page)
	if err != nil {
		return nil, false, fmt.Errorf("list segments of epoch %d: %w", epoch, err)
	}
	for _, o := range objects {
		seq, err := parseSegmentKey(epoch, o.Key)
		if err != nil {
			return nil, false, err
		}
		if seq >= high {
			return some, true, nil
		}
		some = append(some, span{first: seq, size: o.Size})
	}
	return some, len(objects) < page, nil
}

// Lookup returns the index entry of one transaction; ok is false when the epoch
// does not hold it. One that was pruned is a *PrunedError.
func (a *Archive) Lookup(ctx context.Context, epoch uint64, seq change.Seq) (e segment.Entry, ok bool, err error) {
	first, size, err := a.lastSegment(ctx, epoch, seq)
	if err != nil {
		return e, false, err
	}
	if first == 0 {
		return e, false, a.prunedAt(ctx, epoch, seq)
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
