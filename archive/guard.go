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
)

// Guard returns the Store for a capture: through it a segment is created where the record goes on, and nowhere else (Invariant 3). That its key is free does not
// prove it to a capture that was held up for long: another one may have gone on since, and what that wrote may have been packed or pruned. So a segment that is
// created long after the one before it counts when neither is on record; else Create returns an ErrOtherWriter, and what it has
// put is no part of the archive.
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
		if err := g.passed(ctx, key); err != nil {
			return err
		}
	}
	if err == nil {
		g.sure = begun
	}
	return err
}

// passed fails if the record has gone on behind the segment of a key.
func (g *guarded) passed(ctx context.Context, key string) error {
	epoch, seq, err := parseSegmentPath(key)
	if err != nil {
		return err
	}
	a := Archive{Store: g.Store}
	packs, err := a.packsOf(ctx, epoch)
	if err != nil {
		return err
	}
	pruned, err := a.Pruned(ctx, epoch)
	if err != nil {
		return err
	}
	if seq < pruned.From() || slices.ContainsFunc(packs, func(p span) bool { return p.last >= seq }) {
		return fmt.Errorf("%w: it went on behind %s, which this one was held up for long to write", ErrOtherWriter, key)
	}
	return nil
}
