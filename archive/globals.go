package archive

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"txreel/change"
)

// Globals is what the source held beside its databases, roles and settings above all, of which no log tells: the content of an object
// below globals/. It holds from Position on, until the next number says otherwise.
type Globals struct {
	Number uint64 `json:"number"`
	Epoch  uint64 `json:"epoch"`
	// Before is where the capture had last seen what the object before says; empty where that is not known.
	Before   change.Position `json:"before,omitempty"`
	Position change.Position `json:"position"` // where this was seen first: the source's log was not beyond it
	Seen     string          `json:"seen"`     // RFC 3339, by the clock of the capture
	Hash     string          `json:"hash"`     // tells one state from another: 64 hexadecimal digits, in the engine's own way
	State    json.RawMessage `json:"state"`    // what only the engine's own restore reads
}

func globalsKey(epoch uint64) string { return epochKey(epoch) + "/globals/" }

func globalKey(epoch, number uint64) string {
	return fmt.Sprintf("%s%08d.json", globalsKey(epoch), number)
}

// Key returns the key of the object that holds it.
func (g *Globals) Key() string { return globalKey(g.Epoch, g.Number) }

// RecordGlobals puts g on record behind last, which LastGlobals returned for the epoch and may be nil, with number and time. The
// key is taken when another writer is at work: an error wrapping fs.ErrExist.
func (a *Archive) RecordGlobals(ctx context.Context, last *Globals, g Globals) (*Globals, error) {
	g.Number = 1
	if last != nil && last.Epoch == g.Epoch {
		g.Number = last.Number + 1
	}
	g.Seen = time.Now().UTC().Format(time.RFC3339)
	if err := g.check(); err != nil {
		return nil, err
	}
	return &g, createOwn(ctx, a.Store, g.Key(), &g)
}

func (g *Globals) check() error {
	hash, err := hex.DecodeString(g.Hash)
	if err != nil || len(hash) != 32 || g.Position == "" || len(g.State) == 0 {
		return fmt.Errorf("%s lacks its position, hash or state", g.Key())
	}
	return nil
}

func (a *Archive) readGlobals(ctx context.Context, epoch, number uint64) (*Globals, error) {
	key := globalKey(epoch, number)
	g := &Globals{}
	if err := readJSON(ctx, a.Store, key, g); err != nil {
		return nil, err
	}
	if g.Number != number || g.Epoch != epoch {
		return nil, fmt.Errorf("%w: %s speaks of number %d of epoch %d", ErrCorrupt, key, g.Number, g.Epoch)
	}
	if err := g.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return g, nil
}

// LastGlobals returns what was put on record last in the epoch; nil when nothing was.
func (a *Archive) LastGlobals(ctx context.Context, epoch uint64) (*Globals, error) {
	n, err := a.countGlobals(ctx, epoch)
	if err != nil || n == 0 {
		return nil, err
	}
	return a.readGlobals(ctx, epoch, n)
}

// FindGlobals returns the last of the epoch that still holds according to holds, and the one behind it; either may be nil.
// They are on record in order: holds is true up to some number and false from there on.
func (a *Archive) FindGlobals(ctx context.Context, epoch uint64, holds func(*Globals) (bool, error)) (last, next *Globals, err error) {
	low := uint64(0) // the last one known to hold
	n, err := a.countGlobals(ctx, epoch)
	if err != nil {
		return nil, nil, err
	}
	for high := n + 1; low+1 < high; {
		middle := low + (high-low)/2
		g, err := a.readGlobals(ctx, epoch, middle)
		if err != nil {
			return nil, nil, err
		}
		ok, err := holds(g)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			low, last = middle, g
		} else {
			high, next = middle, g
		}
	}
	return last, next, nil
}

// countGlobals returns the last number, in a logarithm of it requests.
func (a *Archive) countGlobals(ctx context.Context, epoch uint64) (uint64, error) {
	exists := func(n uint64) (bool, error) { // n, or one behind it
		objects, err := a.Store.List(ctx, globalsKey(epoch), globalKey(epoch, n-1), 1)
		if err != nil {
			return false, fmt.Errorf("list the globals of epoch %d: %w", epoch, err)
		}
		return len(objects) > 0, nil
	}
	low, high := uint64(0), uint64(1)
	for {
		ok, err := exists(high)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		low, high = high, 2*high
		if high > 1<<40 {
			return 0, fmt.Errorf("%w: %s holds what is no object of it", ErrCorrupt, globalsKey(epoch))
		}
	}
	for low+1 < high {
		middle := low + (high-low)/2
		ok, err := exists(middle)
		if err != nil {
			return 0, err
		}
		if ok {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// globals checks what is on record of roles and settings in an epoch.
func (v *verifier) globals(ctx context.Context, epoch uint64) error {
	number := uint64(0)
	return v.each(ctx, globalsKey(epoch), "", func(o Object) error {
		number++
		if key := globalKey(epoch, number); key != o.Key {
			var there uint64
			name := strings.TrimPrefix(o.Key, globalsKey(epoch))
			if _, err := fmt.Sscanf(name, "%d.json", &there); err != nil || globalKey(epoch, there) != o.Key || there < number {
				v.problem(o.Key, 0, "not a key of globals: readers stop at it")
				number--
				return nil
			}
			v.problem(key, 0, "missing: %s follows", o.Key)
			number = there
		}
		_, err := v.archive.readGlobals(ctx, epoch, number)
		return v.damage(o.Key, err)
	})
}
