package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"txreel/change"
	"txreel/segment"
)

// need is what of an epoch must stay.
type need struct {
	any   bool       // something must; else nothing does
	all   bool       // all that is there must: no base holds what is asked for
	held  bool       // a hold or a pin asks for all
	base  change.Seq // bases from here on
	first change.Seq // transactions from here on
	by    []string   // the holds and pins that ask for more than the retention does
}

// claim merges another claim, whose name is empty when it is the retention's, which comes first.
func (n *need) claim(by string, all bool, base, first change.Seq) {
	more := !n.any || all && !n.all || !n.all && (base < n.base || first < n.first)
	if by != "" && more {
		n.by = append(n.by, by)
		n.held = n.held || all
	}
	switch {
	case all:
		n.any, n.all = true, true
	case !n.any:
		n.any, n.base, n.first = true, base, first
	default:
		n.base, n.first = min(n.base, base), min(n.first, first)
	}
}

// needs returns of each epoch what must stay.
func (a *Archive) needs(ctx context.Context, epochs []Epoch, p *PrunePlan, o PruneOptions) ([]need, error) {
	n := make([]need, len(epochs))
	if err := a.claimSpan(ctx, epochs, n, o, o.Keep, 0, ""); err != nil {
		return nil, err
	}
	for _, h := range p.Holds {
		if err := a.claimSpan(ctx, epochs, n, o, h.From, h.To, "hold "+h.Name); err != nil {
			return nil, err
		}
	}
	for _, x := range p.Pins {
		if x.Epoch == 0 || x.Epoch > uint64(len(epochs)) {
			continue // of an epoch that this archive never had
		}
		first, err := a.reach(ctx, x.Epoch, x.Base, o)
		if err != nil {
			return nil, err
		}
		n[x.Epoch-1].claim(fmt.Sprintf("pin %s (%s, until %s)", x.ID, x.What, x.Expires), false, x.Base, first)
	}
	return n, nil
}

// clockSlack is how far the clock of the source may go back from one epoch to the next.
const clockSlack = change.Time(time.Hour / time.Microsecond)

// claimSpan claims of the epochs what is needed to restore every point from from on, and, unless to is zero, up to to. A moment that no epoch
// records lies between two of them: the end of the one before is kept for it.
func (a *Archive) claimSpan(ctx context.Context, epochs []Epoch, n []need, o PruneOptions, from, to change.Time, by string) error {
	covered := false
	for i := len(epochs) - 1; i >= 0; i-- {
		e := &epochs[i]
		if to != 0 && e.Previous != nil && e.Previous.Latest > to+clockSlack {
			continue // it began after that
		}
		tail, err := a.Tail(ctx, e.Number)
		if err != nil {
			return err
		}
		if covered && tail.Latest < from {
			continue
		}
		base, cut, err := a.baseAt(ctx, e.Number, from, tail)
		if err != nil {
			return err
		}
		if base == nil {
			n[i].claim(by, true, 0, 0)
			continue
		}
		first, err := a.reach(ctx, e.Number, base.Seq, o)
		if err != nil {
			return err
		}
		n[i].claim(by, false, base.Seq, min(first, base.first()))
		taken, err := time.Parse(time.RFC3339, base.Finished)
		covered = covered || cut > 0 || err == nil && taken.UnixMicro() <= int64(from)
	}
	return nil
}

// baseAt returns the base that a restore of an epoch to a moment begins with, and where it ends; nil when there is none.
func (a *Archive) baseAt(ctx context.Context, epoch uint64, at change.Time, tail Tail) (*Base, change.Seq, error) {
	cut := tail.Seq
	next, ok, err := a.FirstAfter(ctx, epoch, at)
	switch {
	case errors.Is(err, ErrPruned):
		return nil, 0, nil
	case err != nil:
		return nil, 0, err
	case ok:
		cut = next.Seq - 1
	}
	bases, err := a.Bases(ctx, epoch)
	if err != nil {
		return nil, 0, err
	}
	var best *Base
	for i := range bases {
		if b := &bases[i]; b.Upto() <= cut && (best == nil || b.Seq >= best.Seq) {
			best = b
		}
	}
	return best, cut, nil
}

// fenceWalk is how far back fences are looked for. A database where so little happens that it takes longer
// loses the proof of a few sequences' values, and a restore says of which.
const fenceWalk = 7 * 24 * time.Hour

// reach returns the first transaction that a restore may read which begins with a base after seq: the one the base ends with, and
// before it as many fences of its chain as o says.
func (a *Archive) reach(ctx context.Context, epoch uint64, seq change.Seq, o PruneOptions) (change.Seq, error) {
	if seq == 0 || o.Fences == 0 {
		return seq, nil
	}
	first, last := seq, change.Fence{}
	var latest change.Time
	for x, err := range a.Backward(ctx, epoch, seq) {
		if err != nil {
			return 0, err
		}
		if latest == 0 {
			latest = x.Latest
		}
		if latest-x.Latest > change.Time(fenceWalk/time.Microsecond) {
			return first, nil
		}
		for i := len(x.Txns) - 1; i >= 0; i-- {
			e := &x.Txns[i]
			f, ok := change.ParseFence(e.Note)
			if !ok || e.Seq > seq {
				continue
			}
			if last.Chain == "" {
				last = f
			}
			if f.Chain != last.Chain {
				return first, nil
			}
			if first = e.Seq; f.Number == 1 || f.Number+o.Fences <= last.Number+1 {
				return first, nil
			}
		}
	}
	return first, nil
}

// checkNeeded reports damage of the base that the earliest kept point begins with: what would make up for it is about to go.
func (a *Archive) checkNeeded(ctx context.Context, b *Base) error {
	want := make(map[string]int64)
	for _, o := range b.Objects {
		want[b.Key(o.Name)] = o.Size
	}
	for i := range b.Tables {
		for _, o := range b.Tables[i].Chunks {
			want[b.Key(o.Name)] = o.Size
		}
	}
	err := a.below(ctx, b.Key(""), func(o Object) error {
		if size, ok := want[o.Key]; ok && size == o.Size {
			delete(want, o.Key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for key := range want {
		return fmt.Errorf("%w: %s is missing or has another size; base %s is the one that the earliest kept point needs: nothing is pruned before `txreel verify` passes, or there is another base",
			ErrCorrupt, key, b.ID)
	}
	return nil
}

// header reads the header of a segment.
func (a *Archive) header(ctx context.Context, key string) (segment.Header, error) {
	body, _, err := a.openSegment(ctx, key, 0, headerGuess)
	if err != nil {
		return segment.Header{}, fmt.Errorf("read %s: %w", key, notFoundIsCorrupt(err))
	}
	defer body.Close()
	r, err := segment.NewReader(body)
	if err != nil {
		return segment.Header{}, InObject(key, err)
	}
	return r.Header(), nil
}
