package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"txreel/change"
)

// errPrunedMeanwhile is what ends a Verify beside which a prune began: what it found missing may have been removed.
var errPrunedMeanwhile = errors.New("a prune began while this ran: verify again when it has ended")

// before returns the end of what was pruned of the epoch.
func (f *foundEpoch) before() Tail {
	if f.pruned == nil {
		return Tail{Epoch: f.number}
	}
	return f.pruned.Tail
}

// pruned checks what is on record of an epoch's pruning and returns the last of it.
func (v *verifier) pruned(ctx context.Context, epoch uint64) (*Pruned, error) {
	var last *Pruned
	number := uint64(0)
	err := v.each(ctx, prunedKey(epoch), "", func(o Object) error {
		number++
		if key := prunedJSON(epoch, number); key != o.Key {
			v.problem(key, 0, "missing: %s follows", o.Key)
			var n uint64
			if _, err := fmt.Sscanf(strings.TrimPrefix(o.Key, prunedKey(epoch)), "%d.json", &n); err == nil && prunedJSON(epoch, n) == o.Key {
				number = n
			}
		}
		p := &Pruned{}
		err := v.archive.readPruned(ctx, epoch, o.Key, p)
		if err == nil && last != nil && p.TakenBack == "" && p.Tail.Seq < last.Tail.Seq {
			err = fmt.Errorf("%w: it says that less was removed, up to %s, than the one before it, up to %s", ErrCorrupt, p.Tail.Seq, last.Tail.Seq)
		}
		if err == nil {
			last = p
		}
		return v.damage(o.Key, err)
	})
	return last, err
}

// leftOver notes what a prune has not come to.
func (v *verifier) leftOver(ctx context.Context, epoch uint64, before change.Seq) error {
	left := errors.New("left over")
	err := v.archive.beginnings(ctx, epoch, before, func(level int, objects []Object) error {
		if level > 0 {
			return nil // derived
		}
		v.note(objects[0].Key, "left over from pruning, as perhaps others are: run `txreel prune` again")
		return left
	})
	if errors.Is(err, left) {
		return nil
	}
	return v.damage(packsKey(epoch), err)
}

// claims checks holds and pins.
func (v *verifier) claims(ctx context.Context) error {
	for _, prefix := range []string{holdsKey, pinsKey} {
		err := v.each(ctx, prefix, "", func(o Object) error {
			var x struct{}
			err := readJSON(ctx, v.archive.Store, o.Key, &x)
			if prefix == pinsKey && errors.Is(err, fs.ErrNotExist) {
				return nil // it had expired, and a prune took it
			}
			return v.damage(o.Key, err)
		})
		if err != nil {
			return err
		}
	}
	_, err := v.archive.Holds(ctx)
	return v.damage(holdsKey, err)
}

// undisturbed fails unless what was pruned is still what it was at the beginning.
func (v *verifier) undisturbed(ctx context.Context, epochs []foundEpoch) error {
	for _, e := range epochs {
		now, err := v.archive.lastPruned(ctx, e.number)
		if errors.Is(err, ErrCorrupt) {
			continue // said already
		}
		if err != nil {
			return err
		}
		if now != nil && (e.pruned == nil || now.Number > e.pruned.Number) {
			return errPrunedMeanwhile
		}
	}
	return nil
}
