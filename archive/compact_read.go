package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"txreel/change"
)

// ListSegments lists the segments of an epoch as Store.List does objects, those in packs among them, at the keys that they had. In
// the span of a pack it is the pack that decides: an object that somebody creates there later is no part of the record (Invariant 3).
func (a *Archive) ListSegments(ctx context.Context, epoch uint64, after string, limit int) ([]Object, error) {
	packs, err := a.packs.list(ctx, a, epoch, firstBehind(epoch, after))
	if err != nil {
		return nil, err
	}
	return a.listSegments(ctx, epoch, packs.spans, after, limit)
}

// firstBehind returns the first transaction that a segment behind a key may begin with.
func firstBehind(epoch uint64, key string) change.Seq {
	seq, err := parseSegmentKey(epoch, key)
	if err != nil {
		return 1
	}
	return seq + 1
}

// listSegments lists segments, those in packs among them.
func (a *Archive) listSegments(ctx context.Context, epoch uint64, packs []span, after string, limit int) (all []Object, _ error) {
	for _, p := range packs {
		if SegmentKey(epoch, p.last) <= after {
			continue
		}
		some, err := a.segmentsBefore(ctx, epoch, after, p.first, limit-len(all))
		if all = append(all, some...); err != nil || len(all) == limit {
			return all, err
		}
		dir, err := a.packs.directory(ctx, a, p)
		if err != nil {
			return nil, err
		}
		for _, x := range dir {
			if key := SegmentKey(epoch, x.first); key > after && len(all) < limit {
				all = append(all, Object{Key: key, Size: x.size})
			}
		}
		if len(all) == limit {
			return all, nil
		}
		after = SegmentKey(epoch, p.last)
	}
	some, err := a.Store.List(ctx, segmentsKey(epoch), after, limit-len(all))
	return append(all, some...), err
}

// segmentsBefore lists the segments behind after that begin before the transaction end and have objects of their own.
func (a *Archive) segmentsBefore(ctx context.Context, epoch uint64, after string, end change.Seq, limit int) ([]Object, error) {
	if end == 1 || after >= SegmentKey(epoch, end-1) {
		return nil, nil
	}
	some, err := a.Store.List(ctx, segmentsKey(epoch), after, limit)
	if err != nil {
		return nil, err
	}
	bound := SegmentKey(epoch, end)
	if i := slices.IndexFunc(some, func(o Object) bool { return o.Key >= bound }); i >= 0 {
		some = some[:i]
	}
	return some, nil
}

// listLevel lists the rollups of a level, or with level 0 the segments.
func (a *Archive) listLevel(ctx context.Context, epoch uint64, level int, after string, limit int) ([]Object, error) {
	if level == 0 {
		return a.ListSegments(ctx, epoch, after, limit)
	}
	return a.Store.List(ctx, levelKey(epoch, level), after, limit)
}

// parseSegmentPath returns the epoch and the Seq in the key of a segment.
func parseSegmentPath(key string) (epoch uint64, seq change.Seq, err error) {
	_, rest, _ := strings.Cut(key, "/")
	digits, _, _ := strings.Cut(rest, "/")
	if epoch, err = strconv.ParseUint(digits, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("%w: %s is no key of a segment", ErrCorrupt, key)
	}
	seq, err = parseSegmentKey(epoch, key)
	return epoch, seq, err
}

// openSegment opens a range of a segment as Store.Open does, from the pack that holds it if there is one.
func (a *Archive) openSegment(ctx context.Context, key string, off, n int64) (io.ReadCloser, int64, error) {
	epoch, seq, err := parseSegmentPath(key)
	if err != nil {
		return nil, 0, err
	}
	packs, err := a.packs.list(ctx, a, epoch, seq)
	if err != nil {
		return nil, 0, err
	}
	body, size, err := a.openFromPack(ctx, packs, key, seq, off, n)
	if !errors.Is(err, fs.ErrNotExist) {
		return body, size, err
	}
	body, size, err = a.Store.Open(ctx, key, off, n)
	if !errors.Is(err, fs.ErrNotExist) {
		return body, size, err
	}
	// It may have been packed, and removed, since the packs were listed.
	packs, renewErr := a.packs.renew(ctx, a, epoch)
	if renewErr != nil {
		return nil, 0, renewErr
	}
	if body, size, again := a.openFromPack(ctx, packs, key, seq, off, n); !errors.Is(again, fs.ErrNotExist) {
		return body, size, again
	}
	return nil, 0, err
}

// openFromPack is openSegment where one of the packs holds the segment, and an error wrapping fs.ErrNotExist where none does.
func (a *Archive) openFromPack(ctx context.Context, packs *packList, key string, seq change.Seq, off, n int64) (io.ReadCloser, int64, error) {
	for _, p := range packs.holding(seq) {
		dir, err := a.packs.directory(ctx, a, p)
		if err != nil {
			return nil, 0, err
		}
		i, ok := slices.BinarySearchFunc(dir, seq, packed.compare)
		if ok {
			return a.openPacked(ctx, p, dir[i], off, n)
		}
	}
	return nil, 0, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
}
