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
	tail, size, err := a.lastSegment(ctx, epoch, math.MaxUint64)
	if err != nil || tail < from {
		return nil, err
	}
	s := search{archive: a, epoch: epoch, frames: frames, past: past, done: from - 1}
	if ok, err := s.look(ctx, span{first: tail, size: size}); err != nil || !ok {
		return nil, err
	}
	found, err := s.packed(ctx)
	if err == nil && !found {
		err = s.unpacked(ctx)
	}
	if err == nil && s.best.First() != s.done+1 {
		// What must stand before it is missing, or was pruned meanwhile: perhaps it is not the first.
		err = &HoleError{Epoch: epoch, After: s.done, Next: s.best.First()}
	}
	if err != nil {
		return nil, a.orPruned(ctx, epoch, s.done+1, notFoundIsCorrupt(err))
	}
	return s.best, nil
}

// search looks for the first segment that is past a point.
//
// Invariant: best is past; no segment is that holds a transaction up to done, which is the last one of a segment that was looked at, or what the search began behind.
type search struct {
	archive *Archive
	epoch   uint64
	frames  *segment.FrameReader
	past    func(*segment.Tail) (bool, error)
	best    *segment.Tail
	done    change.Seq
}

// look reports whether a segment is past, which begins behind done and before best.
func (s *search) look(ctx context.Context, x span) (bool, error) {
	t, err := s.archive.segmentTail(ctx, s.frames, s.epoch, x.first, x.size)
	if err != nil {
		return false, err
	}
	ok, err := s.past(t)
	switch {
	case err != nil:
		return false, err
	case ok:
		s.best = t
	default:
		s.done = t.Last()
	}
	return ok, nil
}

// bisect looks at some of the segments, which are in order.
func (s *search) bisect(ctx context.Context, some []span) error {
	for len(some) > 0 {
		m := len(some) / 2
		ok, err := s.look(ctx, some[m])
		if err != nil {
			return err
		}
		if ok {
			some = some[:m]
		} else {
			some = some[m+1:]
		}
	}
	return nil
}

// packed searches what is in packs: first by where they begin, which is known without a request, then the one that matters. found is false when what is left stands in none.
func (s *search) packed(ctx context.Context) (found bool, err error) {
	packs, err := s.archive.packs.list(ctx, s.archive, s.epoch, s.done+1)
	if err != nil {
		return false, err
	}
	var begins []span
	for _, p := range packs.spans {
		if p.first > s.done && p.first < s.best.First() {
			begins = append(begins, span{first: p.first, size: -1})
		}
	}
	if err := s.bisect(ctx, begins); err != nil {
		return false, err
	}
	for s.done+1 < s.best.First() {
		some := packs.holding(s.done + 1)
		if len(some) == 0 {
			return false, nil
		}
		dir, err := s.archive.packs.directory(ctx, s.archive, some[0])
		if err != nil {
			return false, err
		}
		var rest []span
		for _, x := range dir {
			if x.first > s.done && x.first < s.best.First() {
				rest = append(rest, span{first: x.first, size: x.size})
			}
		}
		if len(rest) == 0 {
			return false, nil // it does not hold what its span says
		}
		n := len(rest) - 1
		if ok, err := s.look(ctx, rest[n]); err != nil || ok {
			if err == nil {
				err = s.bisect(ctx, rest[:n])
			}
			return true, err
		}
	}
	return true, nil
}

// unpacked searches what has objects of its own.
func (s *search) unpacked(ctx context.Context) error {
	low, high := s.done, s.best.First()-1 // all up to low are not past; none begins behind high and before best
	near := false                         // the segments behind low may fit into one page
	for low < high {
		mid := low
		if !near {
			mid += (high - low) / 2
		}
		objects, next, err := s.archive.unpackedFrom(ctx, s.epoch, mid+1, s.best.First())
		if err != nil {
			return err
		}
		near = next == 0 && !near
		if len(objects) == 0 {
			high = mid
			continue
		}
		some := make([]span, len(objects))
		for i, o := range objects {
			if some[i], err = parseLevelKey(s.epoch, 0, o); err != nil {
				return err
			}
		}
		ok, err := s.look(ctx, some[0])
		switch {
		case err != nil:
			return err
		case ok:
			high = mid
		case next == 0: // all that is left is at hand
			return s.bisect(ctx, some[1:])
		default:
			low = s.done
		}
	}
	return nil
}

// Lookup returns the index entry of one transaction; ok is false when the epoch
// does not hold it. One that was pruned is a *PrunedError.
func (a *Archive) Lookup(ctx context.Context, epoch uint64, seq change.Seq) (e segment.Entry, ok bool, err error) {
	if err := a.checkKept(ctx, epoch, seq); err != nil {
		return e, false, err
	}
	first, size, err := a.lastSegment(ctx, epoch, seq)
	if err != nil {
		return e, false, a.orPruned(ctx, epoch, seq, err)
	}
	if first == 0 {
		return e, false, a.prunedAt(ctx, epoch, seq)
	}
	frames, err := segment.NewFrameReader()
	if err != nil {
		return e, false, err
	}
	t, err := a.segmentTail(ctx, frames, epoch, first, size)
	switch {
	case err != nil:
		return e, false, a.orPruned(ctx, epoch, seq, notFoundIsCorrupt(err))
	case seq > t.Last():
		return e, false, a.prunedAt(ctx, epoch, seq)
	}
	return t.Txns[seq-first], true, nil
}
