package archive

import (
	"context"
	"slices"
	"sort"
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
	mu      sync.Mutex // held for no request
	lists   map[uint64]*packList
	listing map[uint64]*packListing
	dirs    []packDirectory // that asked for last is the last

	blocks blocks
}

// packList is the packs of an epoch at a moment.
type packList struct {
	spans []span       // in order of their keys, and so of where they begin
	reach []change.Seq // how far spans goes, up to each
	read  time.Time    // before they were listed; with the monotonic clock
	// gone is the last transaction of the packs that were left out since all they hold was pruned; zero where none were. What is announced may be taken
	// back (ErrHeld), and only who asks for what lies there needs to know.
	gone change.Seq
}

// packListing is a listing that is under way.
type packListing struct {
	done    chan struct{} // closed when the rest is set
	err     error
	dropped bool // who listed wants it no more: err is no one else's
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

// next returns the first pack, in order, that goes on to a transaction; false where none does.
func (l *packList) next(seq change.Seq) (p span, ok bool) {
	i := sort.Search(len(l.spans), func(i int) bool { return l.reach[i] >= seq })
	if i == len(l.spans) {
		return span{}, false
	}
	return l.spans[i], true
}

// after returns how many packs hold a transaction behind seq.
func (l *packList) after(seq change.Seq) (n int) {
	for _, p := range l.spans {
		if p.last > seq {
			n++
		}
	}
	return n
}

// newPackList returns a list of packs, which are in order.
func newPackList(spans []span) *packList {
	l := &packList{spans: spans, reach: make([]change.Seq, 0, len(spans))}
	reach := change.Seq(0)
	for _, p := range spans {
		reach = max(reach, p.last)
		l.reach = append(l.reach, reach)
	}
	return l
}

// within reports whether no more than d have passed since a moment, by the monotonic clock, which sleeps when the machine does, and by the other.
func within(since time.Time, d time.Duration) bool {
	wall := time.Now().Round(0).Sub(since.Round(0))
	return time.Since(since) < d && wall >= 0 && wall < d
}

// list returns the packs of the epoch, as they were at most packsFresh ago: of those that hold a transaction from from on, all that hold something which
// is not pruned. Nobody changes what it returns.
func (c *packs) list(ctx context.Context, a *Archive, epoch uint64, from change.Seq) (*packList, error) {
	l, err := c.await(ctx, a, epoch, func(l *packList) bool { return within(l.read, packsFresh) })
	if err != nil || from > l.gone {
		return l, err
	}
	// Invariant 6: what a prune announced holds until it is taken back, and not for longer. What was left out is missing then.
	pruned, err := a.Pruned(ctx, epoch)
	if err != nil || pruned.From() > l.gone {
		return l, err
	}
	return c.renew(ctx, a, epoch)
}

// renew returns the packs of the epoch that hold something which is not pruned, as they are now.
func (c *packs) renew(ctx context.Context, a *Archive, epoch uint64) (*packList, error) {
	now := time.Now()
	return c.await(ctx, a, epoch, func(l *packList) bool { return l.read.After(now) })
}

// await returns a list that is fresh. Of several that need one at a time one lists; the others wait for that no longer than they want to.
func (c *packs) await(ctx context.Context, a *Archive, epoch uint64, fresh func(*packList) bool) (*packList, error) {
	for {
		c.mu.Lock()
		if l, ok := c.lists[epoch]; ok && fresh(l) {
			c.mu.Unlock()
			return l, nil
		}
		x, ok := c.listing[epoch]
		if !ok {
			x = &packListing{done: make(chan struct{})}
			if c.listing == nil {
				c.lists, c.listing = make(map[uint64]*packList), make(map[uint64]*packListing)
			}
			c.listing[epoch] = x
		}
		c.mu.Unlock()
		if !ok {
			return c.run(ctx, a, epoch, x)
		}
		select {
		case <-x.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if x.err != nil && !x.dropped {
			return nil, x.err
		}
	}
}

// run does what a packListing stands for.
func (c *packs) run(ctx context.Context, a *Archive, epoch uint64, x *packListing) (*packList, error) {
	l, err := a.listPacks(ctx, epoch)
	x.err, x.dropped = err, ctx.Err() != nil
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.listing, epoch)
	if err == nil {
		c.lists[epoch] = l
	}
	close(x.done)
	return l, err
}

// listPacks lists the packs of the epoch, but for those that hold nothing which is not pruned.
func (a *Archive) listPacks(ctx context.Context, epoch uint64) (*packList, error) {
	now := time.Now() // before the requests: what comes after it is not in their answers
	all, err := a.packsOf(ctx, epoch)
	if err != nil {
		return nil, err
	}
	gone := change.Seq(0)
	if len(all) > 0 {
		pruned, err := a.Pruned(ctx, epoch)
		if err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(all, func(p span) bool {
			if p.last >= pruned.From() {
				return false
			}
			gone = max(gone, p.last)
			return true
		})
	}
	l := newPackList(all)
	l.read, l.gone = now, gone
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
