package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"slices"

	"txreel/change"
	"txreel/segment"
)

// Backward yields the index of every segment of the epoch from the newest to the
// oldest, beginning with the one that holds the transaction upto, or with the last
// one when the epoch ends before upto. Like Segments it reads rollups where they
// hold the indexes, and it reads nothing older than what the caller has taken, one
// rollup apart. A hole in the numbering ends it with a *HoleError (Invariant 4). It ends where the epoch
// was pruned.
func (a *Archive) Backward(ctx context.Context, epoch uint64, upto change.Seq) iter.Seq2[SegmentIndex, error] {
	return func(yield func(SegmentIndex, error) bool) {
		w := backward{archive: a, epoch: epoch, upto: upto, at: upto, yield: yield}
		for level := range w.windows {
			w.windows[level].low = math.MaxUint64
		}
		if err := w.run(ctx); err != nil && !errors.Is(err, errStop) {
			yield(SegmentIndex{}, a.orPruned(ctx, epoch, w.at, err))
		}
	}
}

type backward struct {
	archive *Archive
	epoch   uint64
	upto    change.Seq // where to begin
	at      change.Seq // the transaction to be found next; floor when all are
	floor   change.Seq // up to here the epoch was pruned
	started bool       // a segment was yielded, so that the next one must end at at
	yield   func(SegmentIndex, error) bool
	frames  *segment.FrameReader
	windows [levels + 1]window // of the rollups by level, and at 0 of the segments
}

// window is a run of neighbouring objects, in order: all that begin after low, up
// to where the walk stands.
type window struct {
	spans []span
	low   change.Seq
}

func (w *backward) run(ctx context.Context) (err error) {
	if w.frames, err = segment.NewFrameReader(); err != nil {
		return err
	}
	p, err := w.archive.Pruned(ctx, w.epoch)
	if err != nil {
		return err
	}
	w.floor = p.From() - 1
	for w.at > w.floor {
		if err := w.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// step yields the segments of the highest rollup that holds w.at, or else the one
// segment that does.
func (w *backward) step(ctx context.Context) error {
	low := change.Seq(0) // rollups seen so far hold everything up to here
	for level := levels; level > 0; level-- {
		s, ok, err := w.last(ctx, level, low)
		if err != nil {
			return err
		}
		if ok && s.last >= w.at {
			return w.rollup(ctx, level, s)
		}
		if ok {
			low = max(low, s.last)
		}
	}
	low = max(low, w.floor)
	s, ok, err := w.last(ctx, 0, low)
	switch {
	case err != nil:
		return err
	case ok:
		t, err := w.archive.segmentTail(ctx, w.frames, w.epoch, s.first, s.size)
		if err != nil {
			return notFoundIsCorrupt(err)
		}
		return w.segment(ctx, t)
	case w.started:
		return &HoleError{Epoch: w.epoch, After: low, Next: w.at + 1}
	}
	w.at = low // the epoch ends before the place asked for
	return nil
}

// last returns the last object of a level that begins in (low, w.at].
func (w *backward) last(ctx context.Context, level int, low change.Seq) (span, bool, error) {
	v := &w.windows[level]
	for {
		for len(v.spans) > 0 && v.spans[len(v.spans)-1].first > w.at {
			v.spans = v.spans[:len(v.spans)-1]
		}
		if n := len(v.spans); n > 0 && v.spans[n-1].first > low {
			return v.spans[n-1], true, nil
		}
		if len(v.spans) > 0 || v.low <= low {
			return span{}, false, nil
		}
		last := w.archive.lastPage
		if level == 0 {
			last = w.archive.lastSegments
		}
		spans, from, err := last(ctx, w.epoch, level, low, w.at)
		if err != nil {
			return span{}, false, err
		}
		v.spans, v.low = spans, from
		if len(spans) == 0 {
			return span{}, false, nil
		}
	}
}

// rollup yields the segments of s from w.at down. A rollup that does not deliver
// what its key promises is left out from then on: it is derived data, and the
// segments themselves decide.
func (w *backward) rollup(ctx context.Context, level int, s span) error {
	var entries []rolled
	err := w.archive.readRollup(ctx, s, func(e rolled) error { entries = append(entries, e); return nil })
	for _, e := range slices.Backward(entries) {
		if err != nil || w.at < s.first || w.at <= w.floor {
			break
		}
		var t *segment.Tail
		if t, err = e.decode(w.frames); err != nil || t.First() > w.at {
			continue
		}
		if t.Last() < w.at {
			break
		}
		if err := w.segment(ctx, t); err != nil {
			return err
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, segment.ErrCorrupt) {
		return err
	}
	if v := &w.windows[level]; w.at >= s.first {
		v.spans = v.spans[:len(v.spans)-1]
	}
	return nil
}

// segment hands t, which begins at or before w.at, to the caller.
func (w *backward) segment(ctx context.Context, t *segment.Tail) error {
	switch {
	case !w.started && t.Last() < w.upto && w.upto < math.MaxUint64:
		// The end of the epoch, or a hole?
		objects, _, err := w.archive.NextSegments(ctx, w.epoch, w.upto+1, math.MaxUint64)
		if err != nil {
			return err
		}
		if len(objects) > 0 {
			next, err := parseSegmentKey(w.epoch, objects[0].Key)
			if err != nil {
				return err
			}
			return &HoleError{Epoch: w.epoch, After: t.Last(), Next: next}
		}
	case w.started && t.Last() < w.at:
		return &HoleError{Epoch: w.epoch, After: t.Last(), Next: w.at + 1}
	case w.started && t.Last() > w.at:
		return fmt.Errorf("%w: %s holds transactions up to %s, the segment behind it begins with %s",
			ErrCorrupt, SegmentKey(w.epoch, t.First()), t.Last(), w.at+1)
	}
	w.started, w.at = true, t.First()-1
	if !w.yield(SegmentIndex{Tail: t, Key: SegmentKey(w.epoch, t.First())}, nil) {
		return errStop
	}
	return nil
}

// lastSegments is lastPage for segments, those in packs among them: it returns those of one pack, or those behind it.
func (a *Archive) lastSegments(ctx context.Context, epoch uint64, _ int, low, bound change.Seq) (spans []span, from change.Seq, err error) {
	packs, err := a.packs.list(ctx, a, epoch, low+1)
	if err != nil {
		return nil, 0, err
	}
	p, ok := packs.before(bound)
	if !ok || p.last <= low {
		return a.lastPage(ctx, epoch, 0, low, bound)
	}
	if p.last < bound {
		if spans, from, err = a.lastPage(ctx, epoch, 0, p.last, bound); err != nil || len(spans) > 0 {
			return spans, from, err
		}
	}
	dir, err := a.packs.directory(ctx, a, p)
	if err != nil {
		return nil, 0, err
	}
	for _, x := range dir {
		if x.first > low && x.first <= bound {
			spans = append(spans, span{first: x.first, key: SegmentKey(epoch, x.first), size: x.size})
		}
	}
	return spans, max(low, p.first-1), nil
}

// lastPage returns the last objects of a level (0: segments with objects of their own) that begin in
// (low, bound], at most a page of them, and the place behind which the list holds all.
// It takes one request when they fit into a page and else O(log n).
func (a *Archive) lastPage(ctx context.Context, epoch uint64, level int, low, bound change.Seq) (spans []span, from change.Seq, err error) {
	// probe looks at the objects that begin after x; final is true when it saw the last.
	probe := func(x change.Seq) (found, final bool, err error) {
		objects, err := a.Store.List(ctx, levelKey(epoch, level), afterKey(epoch, level, x), page)
		if err != nil {
			return false, false, fmt.Errorf("list %s: %w", levelKey(epoch, level), err)
		}
		list := make([]span, 0, len(objects))
		final = len(objects) < page
		for _, o := range objects {
			s, err := parseLevelKey(epoch, level, o)
			if err != nil && level > 0 {
				continue // a stray among derived data proves nothing
			}
			if err != nil {
				return false, false, err
			}
			if s.first > bound {
				final = true
				break
			}
			list = append(list, s)
		}
		if len(list) > 0 {
			spans, from = list, x
		}
		return len(list) > 0, final, nil
	}

	from = low
	found, final, err := probe(low)
	if err != nil || !found || final {
		return spans, from, err
	}
	// Invariant of the search: an object begins at the end of spans, none begins
	// after high and up to bound.
	newest := func() change.Seq { return spans[len(spans)-1].first }
	high := bound
	for step := newest() - low; newest() < high; step *= 2 {
		x := newest() + step
		if x >= high || x < step || step == 0 {
			break
		}
		found, final, err := probe(x)
		if err != nil || found && final {
			return spans, from, err
		}
		if !found {
			high = x
			break
		}
	}
	for newest() < high {
		mid := newest() + (high-newest())/2
		found, final, err := probe(mid)
		if err != nil || found && final {
			return spans, from, err
		}
		if !found {
			high = mid
		}
	}
	return spans, from, nil
}

// levelKey is the prefix of the rollups of a level, or of the segments.
func levelKey(epoch uint64, level int) string {
	if level == 0 {
		return segmentsKey(epoch)
	}
	return rollupsKey(epoch, level)
}

// afterKey sorts before every object of the level that begins after seq, and behind
// all others.
func afterKey(epoch uint64, level int, seq change.Seq) string {
	switch {
	case seq == 0:
		return ""
	case level == 0:
		return SegmentKey(epoch, seq)
	}
	return rollupsKey(epoch, level) + seq.String() + "z"
}

func parseLevelKey(epoch uint64, level int, o Object) (span, error) {
	if level > 0 {
		return parseRollupKey(epoch, level, o)
	}
	seq, err := parseSegmentKey(epoch, o.Key)
	return span{first: seq, key: o.Key, size: o.Size}, err
}
