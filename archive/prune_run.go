package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"txreel/internal/failpoint"
)

// ErrHeld is returned by Prune when a hold or a pin has come since the plan was made.
var ErrHeld = errors.New("held meanwhile")

// PruneRun says how a plan of pruning is carried out.
type PruneRun struct {
	By       string                     // who it is that prunes, and why, for the record
	Settle   time.Duration              // PackSettle, less in tests
	Progress func(done, total int64)    // when set, is told of each object that is removed
	Settling func(waited time.Duration) // when set, is told each second while Prune waits
}

// Prune carries out a plan.
//
// It first puts on record where each epoch is cut: from then on readers begin behind the cut, whatever is there in front. Then it
// looks for holds and pins once more; one that the plan does not know takes back what was put on record, and is an ErrHeld. Then
// bases go, each with its manifest first, packs and segments from the oldest on after a wait (PackSettle), and rollups. Killed at any step it leaves an archive in
// which every kept point can be restored, and the next plan has what was left over; it waits again, as nothing tells for how long the cut has been on record.
func (a *Archive) Prune(ctx context.Context, d Deleter, p *PrunePlan, o PruneRun) error {
	r := pruning{archive: a, store: d, plan: p, run: o}
	// Making the plan may have taken long. A restore that has begun since shall not even meet the announcement, by which it would stop.
	switch why, err := r.held(ctx); {
	case err != nil:
		return err
	case why != "":
		return heldError(why)
	}
	for i := range p.Epochs {
		if e := &p.Epochs[i]; e.new {
			if err := r.record(ctx, e); err != nil {
				return err
			}
		}
	}
	if err := r.recheck(ctx); err != nil {
		return err
	}
	for i := range p.Epochs {
		if err := r.epoch(ctx, &p.Epochs[i]); err != nil {
			return err
		}
	}
	for _, id := range p.expired {
		if err := a.below(ctx, pinsKey+id+"/", func(o Object) error { return r.remove(ctx, o.Key) }); err != nil {
			return err
		}
	}
	failpoint.Hit(failpoint.PruneEnding)
	return nil
}

type pruning struct {
	archive  *Archive
	store    Deleter
	plan     *PrunePlan
	run      PruneRun
	settled  bool
	done     int64
	recorded []*PruneEpoch
}

// record announces the cut of an epoch (Invariant 6).
func (r *pruning) record(ctx context.Context, e *PruneEpoch) error {
	x := Pruned{Number: 1, Epoch: e.Epoch, Tail: e.tail, Segments: e.Segments, Keep: r.plan.Keep, On: time.Now().UTC().Format(time.RFC3339), By: r.run.By}
	if e.last != nil {
		x.Number = e.last.Number + 1
	}
	for _, b := range e.Bases {
		x.Bases = append(x.Bases, b.ID)
	}
	x.Bytes = e.Bytes
	failpoint.Hit(failpoint.PruneRecording)
	err := createOwn(ctx, r.archive.Store, prunedJSON(e.Epoch, x.Number), x)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: another prune is at work: run this one again when it has ended", err)
	}
	if err != nil {
		return err
	}
	failpoint.Hit(failpoint.PruneRecorded)
	r.recorded = append(r.recorded, e)
	return nil
}

// recheck takes back what was announced if there are holds or pins that the plan does not know. Whoever places one looks at what is recorded after that: one of the two
// sees the other.
func (r *pruning) recheck(ctx context.Context) error {
	why, err := r.held(ctx)
	if err != nil || why == "" {
		return err
	}
	for _, e := range r.recorded {
		x := Pruned{Number: 2, Epoch: e.Epoch, Tail: Tail{Epoch: e.Epoch}, Keep: r.plan.Keep, On: time.Now().UTC().Format(time.RFC3339), By: r.run.By, TakenBack: why}
		if e.last != nil {
			x.Number, x.Tail = e.last.Number+2, e.last.Tail
		}
		if err := createOwn(ctx, r.archive.Store, prunedJSON(e.Epoch, x.Number), x); err != nil {
			return err
		}
	}
	return heldError(why)
}

// held returns which hold or pin there is that the plan does not know; "" where there is none.
func (r *pruning) held(ctx context.Context) (why string, err error) {
	holds, pins, _, err := r.archive.claims(ctx, time.Now())
	if err != nil {
		return "", err
	}
	for _, h := range holds {
		if !slices.ContainsFunc(r.plan.Holds, func(x Hold) bool { return x.Name == h.Name && x.Number == h.Number }) {
			why = fmt.Sprintf("hold %s was placed by %s", h.Name, h.By)
		}
	}
	for _, p := range pins {
		goes := slices.ContainsFunc(r.plan.Epochs, func(e PruneEpoch) bool { return e.Epoch == p.Epoch && p.Base < e.keep })
		if goes && !slices.ContainsFunc(r.plan.Pins, func(x Pin) bool { return x.ID == p.ID }) {
			why = fmt.Sprintf("%s reads epoch %d", p.What, p.Epoch)
		}
	}
	return why, nil
}

func heldError(why string) error {
	return fmt.Errorf("%w: %s while the plan was made: nothing was removed; look at it again, and confirm it again", ErrHeld, why)
}

// epoch removes what the plan removes from an epoch.
func (r *pruning) epoch(ctx context.Context, e *PruneEpoch) error {
	for _, b := range e.Bases {
		if err := r.base(ctx, basesKey(e.Epoch)+b.ID+"/"); err != nil {
			return err
		}
	}
	if e.held || e.tail.Seq == 0 {
		return nil
	}
	return r.archive.beginnings(ctx, e.Epoch, e.tail.Seq, func(level int, objects []Object) error {
		if level > 0 {
			return r.removeAll(ctx, objects, func() { failpoint.Hit(failpoint.PruneRollupGone) })
		}
		if err := r.settle(ctx); err != nil {
			return err
		}
		if level == packLevel {
			return r.removeAll(ctx, objects, func() { failpoint.Hit(failpoint.PrunePackGone) })
		}
		gone := func() { failpoint.Hit(failpoint.PruneSegmentGone) }
		// The last one goes when all others are gone: of an epoch that goes as a whole it is the tail.
		if err := r.removeAll(ctx, objects[:len(objects)-1], gone); err != nil {
			return err
		}
		return r.removeAll(ctx, objects[len(objects)-1:], gone)
	})
}

// settle waits, once, until every reader knows of no pack that is on record as pruned, and every capture that relies on the key of a segment's being
// taken where others have gone on (Invariant 3) looks first whether it is pruned (Guard).
func (r *pruning) settle(ctx context.Context) error {
	if r.settled {
		return nil
	}
	r.settled = true
	return settle(ctx, r.run.Settle, r.run.Settling)
}

// base removes a base. Without its manifest it does not exist.
func (r *pruning) base(ctx context.Context, prefix string) error {
	for _, name := range []string{manifestName, aheadName} {
		if err := r.remove(ctx, prefix+name); err != nil {
			return err
		}
	}
	failpoint.Hit(failpoint.PruneManifestGone)
	gone := func() { failpoint.Hit(failpoint.PruneObjectGone) }
	var some []Object
	all := func() error {
		err := r.removeAll(ctx, some, gone)
		some = some[:0]
		return err
	}
	err := r.archive.below(ctx, prefix, func(o Object) error {
		if some = append(some, o); len(some) == page {
			return all()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return all()
}

// removeAll removes objects, several at a time, and calls gone behind each.
func (r *pruning) removeAll(ctx context.Context, objects []Object, gone func()) error {
	return r.told(removeAll(ctx, r.store, objects, func() {
		gone()
		r.done++
		if r.run.Progress != nil {
			r.run.Progress(r.done, r.total())
		}
	}))
}

func (r *pruning) total() (n int64) {
	for i := range r.plan.Epochs {
		e := &r.plan.Epochs[i]
		n += e.Segments + e.Packs + e.Rollups
		for _, b := range e.Bases {
			n += int64(b.Objects)
		}
	}
	return n
}

func (r *pruning) remove(ctx context.Context, key string) error {
	return r.told(r.store.Delete(ctx, key))
}

// told says what an error of the store means for the archive.
func (r *pruning) told(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("prune: %w; what is to go is on record, and nobody reads it any more: run prune again to go on", err)
}
