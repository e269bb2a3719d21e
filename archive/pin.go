package archive

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"txreel/change"
)

// Pin keeps Prune for a while from what somebody is reading: the content of an object below pins/. The last one of an id
// holds, until it expires.
type Pin struct {
	ID      string     `json:"id"`
	Number  uint64     `json:"number"`
	Epoch   uint64     `json:"epoch"`
	Base    change.Seq `json:"base"`    // no base from this one on may go
	What    string     `json:"what"`    // who reads, and why
	Expires string     `json:"expires"` // RFC 3339
}

const (
	pinsKey = "pins/"
	// A pin that is not renewed any more holds Prune up for pinFor at most, and two that fail in a row lose nothing.
	pinFor   = 20 * time.Minute
	pinRenew = 6 * time.Minute
	// pinSlack is how far the clocks of two machines may be apart.
	pinSlack = 10 * time.Minute
)

func pinKey(id string, number uint64) string {
	return fmt.Sprintf("%s%s/%08d.json", pinsKey, id, number)
}

// PinBase keeps Prune from a base and all that is needed to restore from it, until release is called, or for twenty minutes from when the
// process has died. what says who reads, for the people who wait. It is to be called before the first object is read, and once the base is chosen.
//
// An error that wraps ErrPruned says that it is too late: the reader has to choose again. Any other error says
// that there is no pin, which whoever may only read the store cannot make; reading goes on as well without, and meets
// ErrPruned if a prune takes away what it reads. release is never nil.
func (a *Archive) PinBase(ctx context.Context, b *Base, what string) (release func(), err error) {
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return func() {}, err
	}
	p := Pin{ID: hex.EncodeToString(id[:]), Epoch: b.Epoch, Base: b.Seq, What: what}
	put := func(ctx context.Context, holds time.Duration) error {
		p.Number++
		p.Expires = time.Now().Add(holds).UTC().Format(time.RFC3339)
		return createJSON(ctx, a.Store, pinKey(p.ID, p.Number), p)
	}
	if err := put(ctx, pinFor); err != nil {
		return func() {}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() { // joined by release
		tick := time.NewTicker(pinRenew)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_ = put(ctx, pinFor) // the next one may succeed; see above
			}
		}
	})
	release = sync.OnceFunc(func() {
		cancel()
		renewing.Wait()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = put(ctx, -pinSlack) // a courtesy: it expires by itself
	})
	// Prune puts its intent on record before it looks for pins; this is the other half of that.
	pruned, err := a.Pruned(ctx, b.Epoch)
	if err == nil && b.first() < pruned.From() {
		err = &PrunedError{Pruned: *pruned, Asked: "what base " + b.ID + " needs"}
	}
	if err != nil {
		release()
		return func() {}, err
	}
	return release, nil
}

// pins returns the pins that hold at a time, and the ids of those that do not.
func (a *Archive) pins(ctx context.Context, at time.Time) (held []Pin, expired []string, err error) {
	err = a.lastNumbers(ctx, pinsKey, func(id string, number uint64) error {
		p := Pin{}
		key := pinKey(id, number)
		if err := readJSON(ctx, a.Store, key, &p); err != nil {
			return notFoundIsCorrupt(err)
		}
		expires, err := time.Parse(time.RFC3339, p.Expires)
		if err != nil || p.ID != id || p.Number != number {
			return fmt.Errorf("%w: %s speaks of number %d of pin %q, which expires %q", ErrCorrupt, key, p.Number, p.ID, p.Expires)
		}
		if at.After(expires.Add(pinSlack)) {
			expired = append(expired, id)
		} else {
			held = append(held, p)
		}
		return nil
	})
	slices.Sort(expired)
	return held, expired, err
}
