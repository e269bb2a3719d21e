package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"

	"txreel/change"
)

// ErrPruned is wrapped by errors about transactions that the archive held, and that Prune has removed.
var ErrPruned = errors.New("pruned")

// Pruned says what was removed from the beginning of an epoch: the content of an object below pruned/. The last one of an epoch
// holds, and it is on record before anything goes (Invariant 6): whoever reads the epoch begins behind it, whatever is
// still there in front.
type Pruned struct {
	Number uint64 `json:"number"`
	Epoch  uint64 `json:"epoch"`
	// Tail is the last thing that was removed. The first segment that is kept names its hash, so the chain of
	// what is kept is anchored here.
	Tail     Tail     `json:"tail"`
	Segments int64    `json:"segments"`        // how many were to go
	Bases    []string `json:"bases,omitempty"` // which were to go
	Bytes    int64    `json:"bytes"`           // how much was to go
	Keep     string   `json:"keep"`            // every point from this moment on was kept, RFC 3339
	On       string   `json:"on"`              // RFC 3339
	By       string   `json:"by"`
	// TakenBack says why what the number before announced was not done: Tail is that of before.
	TakenBack string `json:"taken_back,omitempty"`
}

// From returns the first transaction that is kept.
func (p *Pruned) From() change.Seq {
	if p == nil {
		return 1
	}
	return p.Tail.Seq + 1
}

// String says it in a sentence.
func (p *Pruned) String() string {
	return fmt.Sprintf("epoch %d up to transaction %s (%s) was pruned on %s by %s", p.Epoch, p.Tail.Seq, p.Tail.Latest, p.On, p.By)
}

// PrunedError reports that a transaction, or what happened at a moment, is not in the archive any more.
type PrunedError struct {
	Pruned Pruned
	Asked  string // what was asked for, in words
}

// Error implements error.
func (e *PrunedError) Error() string {
	return fmt.Sprintf("%s is not in the archive any more: %s; the record goes on from transaction %s", e.Asked, &e.Pruned, e.Pruned.From())
}

// Unwrap makes it an ErrPruned.
func (e *PrunedError) Unwrap() error { return ErrPruned }

func prunedKey(epoch uint64) string { return epochKey(epoch) + "/pruned/" }

func prunedJSON(epoch, number uint64) string {
	return fmt.Sprintf("%s%08d.json", prunedKey(epoch), number)
}

// Pruned returns what was removed from the beginning of an epoch, or nil when it is there from its first transaction on.
func (a *Archive) Pruned(ctx context.Context, epoch uint64) (*Pruned, error) {
	p, err := a.lastPruned(ctx, epoch)
	if err != nil || p == nil || p.Tail.Seq == 0 {
		return nil, err
	}
	return p, nil
}

// lastPruned returns the last record of pruning, taken back or not; nil when there is none.
func (a *Archive) lastPruned(ctx context.Context, epoch uint64) (*Pruned, error) {
	last := ""
	for {
		objects, err := a.Store.List(ctx, prunedKey(epoch), last, page)
		if err != nil {
			return nil, fmt.Errorf("list what was pruned of epoch %d: %w", epoch, err)
		}
		if n := len(objects); n > 0 {
			last = objects[n-1].Key
		}
		if len(objects) < page {
			break
		}
	}
	if last == "" {
		return nil, nil
	}
	p := &Pruned{}
	return p, a.readPruned(ctx, epoch, last, p)
}

func (a *Archive) readPruned(ctx context.Context, epoch uint64, key string, p *Pruned) error {
	if err := readJSON(ctx, a.Store, key, p); err != nil {
		return notFoundIsCorrupt(err)
	}
	if p.Epoch != epoch || p.Tail.Epoch != epoch || prunedJSON(epoch, p.Number) != key || p.Tail.Seq == math.MaxUint64 || p.Tail.Segment > p.Tail.Seq {
		return fmt.Errorf("%w: %s speaks of number %d of epoch %d, up to %s", ErrCorrupt, key, p.Number, p.Epoch, p.Tail.Seq)
	}
	return nil
}

// namedPruned reports whether a record of pruning names a base, which was committed then.
func (a *Archive) namedPruned(ctx context.Context, epoch uint64, id string) (found bool, err error) {
	err = a.below(ctx, prunedKey(epoch), func(o Object) error {
		p := Pruned{}
		if err := a.readPruned(ctx, epoch, o.Key, &p); err != nil {
			return err
		}
		found = found || slices.Contains(p.Bases, id)
		return nil
	})
	return found, err
}

// orPruned returns a *PrunedError in the place of an error that says that the transaction seq is not there, if that is why.
func (a *Archive) orPruned(ctx context.Context, epoch uint64, seq change.Seq, err error) error {
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if p := a.prunedAt(ctx, epoch, seq); p != nil {
		return p
	}
	return err
}

// prunedAt returns why the transaction seq is not there, if that is that it was pruned, and else nil.
func (a *Archive) prunedAt(ctx context.Context, epoch uint64, seq change.Seq) error {
	if err := a.checkKept(ctx, epoch, seq); errors.Is(err, ErrPruned) {
		return err
	}
	return nil // the caller knows another reason
}

// checkKept returns a *PrunedError if the transaction seq was pruned. What still stands there need not be what was recorded: a capture
// that was held up may have put it there since (Guard).
func (a *Archive) checkKept(ctx context.Context, epoch uint64, seq change.Seq) error {
	p, err := a.Pruned(ctx, epoch)
	if err == nil && p != nil && seq < p.From() {
		err = &PrunedError{Pruned: *p, Asked: "transaction " + seq.String()}
	}
	return err
}
