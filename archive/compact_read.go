package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"txreel/change"
)

// NextSegments lists the segments of an epoch that begin with a transaction from from on and before end, in order, those in packs among them, at the keys that they had: some of
// them, with one request or two, and the transaction to go on from, which is zero where there are no more. In the span of a pack it is
// the pack that decides: an object that somebody creates there later is no part of the record (Invariant 3).
func (a *Archive) NextSegments(ctx context.Context, epoch uint64, from, end change.Seq) (some []Object, next change.Seq, err error) {
	packs, err := a.packs.list(ctx, a, epoch, from)
	if err != nil {
		return nil, 0, err
	}
	return a.nextSegments(ctx, epoch, packs, from, end)
}

// nextSegments is NextSegments of a list of packs.
func (a *Archive) nextSegments(ctx context.Context, epoch uint64, packs *packList, from, end change.Seq) (some []Object, next change.Seq, err error) {
	for from != 0 && from < end {
		p, ok := packs.next(from)
		if !ok || p.first > from { // up to there they have objects of their own
			bound := end
			if ok {
				bound = min(bound, p.first)
			}
			if some, from, err = a.unpackedFrom(ctx, epoch, from, bound); err != nil {
				return nil, 0, err
			}
			if from == 0 && bound < end {
				from = bound
			}
		} else {
			dir, err := a.packs.directory(ctx, a, p)
			if err != nil {
				return nil, 0, err
			}
			for _, x := range dir {
				if x.first >= from && x.first < end {
					some = append(some, Object{Key: SegmentKey(epoch, x.first), Size: x.size})
				}
			}
			from = p.last + 1
		}
		if len(some) > 0 {
			break
		}
	}
	if from >= end {
		from = 0
	}
	return some, from, nil
}

// unpackedFrom is NextSegments of segments that have objects of their own.
func (a *Archive) unpackedFrom(ctx context.Context, epoch uint64, from, end change.Seq) (some []Object, next change.Seq, err error) {
	some, err = a.Store.List(ctx, segmentsKey(epoch), afterKey(epoch, 0, from-1), page)
	if err != nil {
		return nil, 0, fmt.Errorf("list segments of epoch %d: %w", epoch, err)
	}
	more := len(some) == page
	bound := SegmentKey(epoch, end)
	if i := slices.IndexFunc(some, func(o Object) bool { return o.Key >= bound }); i >= 0 && end < math.MaxUint64 {
		return some[:i], 0, nil
	}
	for more {
		if len(some) == 0 {
			return nil, 0, err
		}
		var last change.Seq
		if last, err = parseSegmentKey(epoch, some[len(some)-1].Key); err == nil {
			return some, last + 1, nil
		}
		some = some[:len(some)-1] // a stray: who meets it on the last page may say so
	}
	return some, 0, nil
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
