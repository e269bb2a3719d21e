package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"txreel/change"
)

// packsFresh is how long a reader relies on what it listed of packs. Who removes the objects of packed segments must wait longer
// than that after it has put the pack, so that no reader misses both; and who prunes a pack after it has put that on record, so that none looks for it.
const packsFresh = 10 * time.Minute

// packs is what is known of the packs of an archive: what its objects say, kept for a while, and what was read of them last. It may be
// used concurrently.
type packs struct {
	mu     sync.Mutex
	epochs map[uint64]*packList
	dirs   []packDirectory // that asked for last is the last

	blocks blocks
}

// packList is the packs of an epoch at a moment.
type packList struct {
	spans []span       // in order of their keys, and so of where they begin
	reach []change.Seq // how far spans goes, up to each
	read  time.Time    // with the monotonic clock
}

// before returns the pack that holds the last packed segment which begins at or before a transaction; false where none does.
func (l *packList) before(seq change.Seq) (p span, ok bool) {
	if some := l.holding(seq); len(some) > 0 {
		return some[0], true
	}
	i := sort.Search(len(l.spans), func(i int) bool { return l.spans[i].first > seq }) - 1
	if i < 0 {
		return span{}, false
	}
	return l.spans[slices.IndexFunc(l.spans[:i+1], func(p span) bool { return p.last == l.reach[i] })], true
}

// holding returns the packs in whose span a transaction lies.
func (l *packList) holding(seq change.Seq) (some []span) {
	i := sort.Search(len(l.spans), func(i int) bool { return l.spans[i].first > seq })
	for i--; i >= 0 && l.reach[i] >= seq; i-- {
		if l.spans[i].last >= seq {
			some = append(some, l.spans[i])
		}
	}
	return some
}

// within reports whether no more than d have passed since a moment, by the monotonic clock, which sleeps when the machine does, and by the other.
func within(since time.Time, d time.Duration) bool {
	wall := time.Now().Round(0).Sub(since.Round(0))
	return time.Since(since) < d && wall >= 0 && wall < d
}

// list returns the packs of the epoch that hold something which is not pruned; with renew as they are now. Nobody changes it.
func (c *packs) list(ctx context.Context, a *Archive, epoch uint64, renew bool) (*packList, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l, ok := c.epochs[epoch]; ok && !renew && within(l.read, packsFresh) {
		return l, nil
	}
	now := time.Now() // before the requests: what comes after them is not in their answers
	spans, err := a.packsOf(ctx, epoch)
	if err != nil {
		return nil, err
	}
	if len(spans) > 0 {
		pruned, err := a.Pruned(ctx, epoch)
		if err != nil {
			return nil, err
		}
		spans = slices.DeleteFunc(spans, func(p span) bool { return p.last < pruned.From() })
	}
	if c.epochs == nil {
		c.epochs = make(map[uint64]*packList)
	}
	l := &packList{spans: spans, read: now}
	reach := change.Seq(0)
	for _, p := range spans {
		reach = max(reach, p.last)
		l.reach = append(l.reach, reach)
	}
	c.epochs[epoch] = l
	return l, nil
}

// packDirectory is what a pack holds.
type packDirectory struct {
	key     string
	entries []packed
}

// dirsKept is how many directories are kept: who reads several segments at a time reads of so few packs.
const dirsKept = 8

// directory returns what a pack holds.
func (c *packs) directory(ctx context.Context, a *Archive, p span) ([]packed, error) {
	c.mu.Lock()
	i := slices.IndexFunc(c.dirs, func(d packDirectory) bool { return d.key == p.key })
	if i >= 0 {
		d := c.dirs[i]
		c.dirs = append(slices.Delete(c.dirs, i, i+1), d)
		c.mu.Unlock()
		return d.entries, nil
	}
	c.mu.Unlock()
	entries, err := a.directory(ctx, p)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.dirs) >= dirsKept {
		c.dirs = slices.Delete(c.dirs, 0, 1)
	}
	c.dirs = append(c.dirs, packDirectory{p.key, entries})
	return entries, nil
}

// ListSegments lists the segments of an epoch as Store.List does objects, those in packs among them, at the keys that they had. In
// the span of a pack it is the pack that decides: an object that somebody creates there later is no part of the record (Invariant 3).
func (a *Archive) ListSegments(ctx context.Context, epoch uint64, after string, limit int) ([]Object, error) {
	packs, err := a.packs.list(ctx, a, epoch, false)
	if err != nil {
		return nil, err
	}
	return a.listSegments(ctx, epoch, packs.spans, after, limit)
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
	body, size, err := a.openFromPack(ctx, epoch, seq, off, n, false)
	if !errors.Is(err, fs.ErrNotExist) {
		return body, size, err
	}
	body, size, err = a.Store.Open(ctx, key, off, n)
	if !errors.Is(err, fs.ErrNotExist) {
		return body, size, err
	}
	// It may have been packed, and removed, since the packs were listed.
	if body, size, again := a.openFromPack(ctx, epoch, seq, off, n, true); !errors.Is(again, fs.ErrNotExist) {
		return body, size, again
	}
	return nil, 0, err
}

// openFromPack is openSegment where a pack holds the segment, and an error wrapping fs.ErrNotExist where none does.
func (a *Archive) openFromPack(ctx context.Context, epoch uint64, seq change.Seq, off, n int64, renew bool) (io.ReadCloser, int64, error) {
	packs, err := a.packs.list(ctx, a, epoch, renew)
	if err != nil {
		return nil, 0, err
	}
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
	return nil, 0, fmt.Errorf("%s: %w", SegmentKey(epoch, seq), fs.ErrNotExist)
}
