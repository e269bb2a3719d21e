package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"txreel/change"
	"txreel/segment"
)

// page is how many keys one listing request returns at most.
const page = 1000

// lastSegment returns the first Seq of the last segment that begins at or before
// bound, and its size; zero when there is none.
func (a *Archive) lastSegment(ctx context.Context, epoch uint64, bound change.Seq) (seq change.Seq, size int64, err error) {
	packs, err := a.packs.list(ctx, a, epoch, math.MaxUint64)
	if err != nil {
		return 0, 0, err
	}
	p, ok := packs.before(bound)
	if !ok || p.last < bound {
		if seq, size, err = a.lastUnpacked(ctx, epoch, bound); err != nil {
			return 0, 0, err
		}
	}
	if !ok && seq <= packs.gone { // a pack that is there goes on behind those that were left out, so these matter where there is none
		if packs, err = a.packs.list(ctx, a, epoch, seq+1); err != nil {
			return 0, 0, err
		}
		p, ok = packs.before(bound)
	}
	if !ok || p.last < seq { // in the span of a pack that decides, and before it is nothing later
		return seq, size, nil
	}
	dir, err := a.packs.directory(ctx, a, p)
	if err != nil {
		return 0, 0, err
	}
	i, found := slices.BinarySearchFunc(dir, bound, packed.compare)
	if !found {
		i-- // the first one begins with the pack
	}
	return dir[i].first, dir[i].size, nil
}

// lastUnpacked is lastSegment for segments that have objects of their own. It takes O(log n) requests: keys are
// in order, so it doubles its stride until it overshoots and then halves it.
func (a *Archive) lastUnpacked(ctx context.Context, epoch uint64, bound change.Seq) (seq change.Seq, size int64, err error) {
	// probe looks at the segments that begin after x and moves seq to the last of
	// them it sees. found is false when there are none up to bound; final is true when
	// there are none behind those it saw.
	probe := func(x change.Seq) (found, final bool, err error) {
		after := ""
		if x > 0 {
			after = SegmentKey(epoch, x)
		}
		objects, err := a.Store.List(ctx, segmentsKey(epoch), after, page)
		if err != nil {
			return false, false, fmt.Errorf("list segments of epoch %d: %w", epoch, err)
		}
		for _, o := range objects {
			s, err := parseSegmentKey(epoch, o.Key)
			if err != nil {
				return false, false, err
			}
			if s > bound {
				return found, true, nil
			}
			seq, size, found = s, o.Size, true
		}
		return found, len(objects) < page, nil
	}

	found, final, err := probe(0)
	if err != nil || !found || final {
		return seq, size, err
	}
	// Invariant of the search: a segment begins at seq, none begins after high and
	// up to bound.
	high := bound
	for step := change.Seq(page); seq < high; step *= 2 {
		x := seq + step
		if x >= high || x < seq {
			break
		}
		found, final, err := probe(x)
		if err != nil || final && found {
			return seq, size, err
		}
		if !found {
			high = x
			break
		}
	}
	for seq < high {
		mid := seq + (high-seq)/2
		found, final, err := probe(mid)
		if err != nil || final && found {
			return seq, size, err
		}
		if !found {
			high = mid
		}
	}
	return seq, size, nil
}

// Tail finds the last thing the epoch holds (Invariant 2). It takes O(log n)
// requests, however many segments there are.
func (a *Archive) Tail(ctx context.Context, epoch uint64) (Tail, error) {
	seq, size, err := a.lastSegment(ctx, epoch, math.MaxUint64)
	if err != nil {
		return Tail{Epoch: epoch}, err
	}
	p, err := a.Pruned(ctx, epoch)
	switch {
	case err != nil:
		return Tail{Epoch: epoch}, err
	case p != nil && seq <= p.Tail.Seq: // nothing any more, whatever was put there since
		return p.Tail, nil
	case seq == 0:
		return Tail{Epoch: epoch}, nil
	}
	return a.tailOf(ctx, epoch, seq, size)
}

// tailOf returns what the epoch held when the segment that begins with seq was its last.
func (a *Archive) tailOf(ctx context.Context, epoch uint64, seq change.Seq, size int64) (Tail, error) {
	frames, err := segment.NewFrameReader()
	if err != nil {
		return Tail{}, err
	}
	t, err := a.segmentTail(ctx, frames, epoch, seq, size)
	if err != nil {
		return Tail{}, err
	}
	return Tail{Epoch: epoch, Segment: seq, Seq: t.Last(), Position: t.End, Latest: t.Latest, Hash: HexHash(t.Hash)}, nil
}

// segmentTail reads the index of the segment that begins with seq. size is what a
// listing said, or negative when it is not known.
func (a *Archive) segmentTail(ctx context.Context, frames *segment.FrameReader, epoch uint64, seq change.Seq, size int64) (*segment.Tail, error) {
	key := SegmentKey(epoch, seq)
	n := int64(segment.TailGuess)
	for {
		b, have, err := a.readSuffix(ctx, key, n)
		if err != nil {
			return nil, err
		}
		t, need, err := frames.Tail(b, have)
		switch {
		case err != nil:
			return nil, InObject(key, err)
		case t == nil && need <= n:
			return nil, fmt.Errorf("%w: %s: index of %d bytes not found", ErrCorrupt, key, need)
		case t == nil:
			n = need
			continue
		case size >= 0 && size != have:
			return nil, fmt.Errorf("%w: %s has %d bytes, the listing says %d", ErrCorrupt, key, have, size)
		case t.First() != seq:
			return nil, fmt.Errorf("%w: %s holds the transactions from Seq %s", ErrCorrupt, key, t.First())
		}
		return t, nil
	}
}

// readSuffix reads the last n bytes of a segment, and says how many it has.
func (a *Archive) readSuffix(ctx context.Context, key string, n int64) ([]byte, int64, error) {
	body, size, err := a.openSegment(ctx, key, -n, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", key, err)
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, n+1))
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", key, err)
	}
	return b, size, nil
}

// InObject names the object in an error about its content, which wraps ErrCorrupt if that is damaged.
func InObject(key string, err error) error {
	var c *segment.CorruptError
	if errors.As(err, &c) {
		return fmt.Errorf("%w: %w", ErrCorrupt, &segment.CorruptError{Key: key, Offset: c.Offset, Err: c.Err})
	}
	return fmt.Errorf("%s: %w", key, err)
}

// notFoundIsCorrupt marks a missing object that the archive says must be there.
func notFoundIsCorrupt(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}
