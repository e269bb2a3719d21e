package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"txreel/change"
)

// Guard returns the Store for a capture: through it a segment is created where the record goes on, and nowhere else (Invariant 3). That its key is free does not
// prove it to a capture that was held up for long: another one may have gone on since, and what that wrote may have been packed or pruned. So a segment that is
// created long after the one before it counts when neither is on record, or a pack holds the very same, as it does when a spool comes back that had shipped it; else
// Create returns an ErrOtherWriter, and what it has put is no part of the archive.
func Guard(store Store) Store { return &guarded{Store: store} }

type guarded struct {
	Store
	mu   sync.Mutex
	sure time.Time // when the creation of a segment began that was the record's end
}

// Create implements Store.
func (g *guarded) Create(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	begun := time.Now()
	err := g.Store.Create(ctx, key, body, size)
	if KindOf(key) != KeySegment || err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	// No segment's object is removed so soon after it was packed, or put on record as pruned (PackSettle), so the key could not be free again.
	if !within(g.sure, packsFresh) {
		if held, err := g.passed(ctx, key, body, size); held || err != nil {
			return err // others may have gone on behind what a pack holds: the next one is asked for, too
		}
	}
	if err == nil {
		g.sure = begun
	}
	return err
}

// passed fails if the record has gone on behind the segment of a key with another one than this, whose bytes body has. held says that it is in a pack.
func (g *guarded) passed(ctx context.Context, key string, body io.ReaderAt, size int64) (held bool, err error) {
	epoch, seq, err := parseSegmentPath(key)
	if err != nil {
		return false, err
	}
	a := Archive{Store: g.Store}
	packs, err := a.packsOf(ctx, epoch)
	if err != nil {
		return false, err
	}
	pruned, err := a.Pruned(ctx, epoch)
	if err != nil {
		return false, err
	}
	past := seq < pruned.From()
	for _, p := range packs {
		past = past || p.last >= seq
		if seq < pruned.From() || p.first > seq || p.last < seq {
			continue
		}
		if held, err := a.packHolds(ctx, p, seq, body, size); held || err != nil {
			return held, err
		}
	}
	if past {
		return false, fmt.Errorf("%w: it went on behind %s, which this one was held up for long to write", ErrOtherWriter, key)
	}
	return false, nil
}

// packHolds reports whether a pack holds a segment, with the size bytes of body.
func (a *Archive) packHolds(ctx context.Context, p span, seq change.Seq, body io.ReaderAt, size int64) (bool, error) {
	dir, err := a.directory(ctx, p)
	if err != nil {
		return false, err
	}
	i, ok := slices.BinarySearchFunc(dir, seq, packed.compare)
	if !ok || dir[i].size != size {
		return false, nil
	}
	there, err := a.openPack(ctx, p, dir[i].off, size)
	if err != nil {
		return false, err
	}
	defer there.Close() // read only
	return sameBytes(there, body, size)
}
