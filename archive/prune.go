package archive

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"txreel/change"
	"txreel/segment"
)

// PruneOptions says what a plan of pruning keeps.
type PruneOptions struct {
	Keep change.Time // every point from this moment on stays restorable, µs
	Now  time.Time
	// Fences is how many fences before a base a restore may read, which carry samples of sequences.
	Fences uint64
}

// PrunePlan says what Prune would remove. Making it reads manifests, listings and a few indexes, and proves that what
// the kept points begin with is there.
type PrunePlan struct {
	Archive  string       `json:"archive"`
	Store    string       `json:"store"`
	Keep     string       `json:"keep"` // RFC 3339
	Epochs   []PruneEpoch `json:"epochs"`
	Bases    int          `json:"bases"`
	Segments int64        `json:"segments"` // with objects of their own
	Packs    int64        `json:"packs"`
	Rollups  int64        `json:"rollups"`
	Bytes    int64        `json:"bytes"`
	Holds    []Hold       `json:"holds"` // those that hold
	Pins     []Pin        `json:"pins"`

	expired []string // ids of pins
}

// PruneEpoch is what a plan removes from an epoch, and what it leaves.
type PruneEpoch struct {
	Epoch uint64 `json:"epoch"`
	Whole bool   `json:"whole,omitempty"` // no point of the epoch is kept
	// Earliest is the earliest point of the epoch that stays restorable; nil where there is none.
	Earliest *PrunePoint `json:"earliest,omitempty"`
	// KeptBy says what holds the epoch back behind what Keep alone asks for: holds and pins.
	KeptBy   []string    `json:"kept_by,omitempty"`
	Bases    []PruneBase `json:"bases,omitempty"` // to be removed
	Segments int64       `json:"segments"`        // with objects of their own
	Packs    int64       `json:"packs"`
	Rollups  int64       `json:"rollups"`
	Bytes    int64       `json:"bytes"` // of all these

	tail Tail       // what is removed ends with it
	new  bool       // what goes is not on record yet
	keep change.Seq // bases from here on stay
	held bool       // what is left in front of tail of an earlier prune stays where it is
	last *Pruned    // the last one on record; nil where there is none
}

// PrunePoint is a point with a base.
type PrunePoint struct {
	Seq  change.Seq `json:"seq"`
	Base string     `json:"base"`
	// Time is when the transaction committed or, where the base holds none, when that was finished; RFC 3339.
	Time string `json:"time"`
}

// PruneBase is a base that goes.
type PruneBase struct {
	ID        string     `json:"id"`
	Seq       change.Seq `json:"seq"`
	Partial   bool       `json:"partial,omitempty"`
	Committed bool       `json:"committed"` // false: it was begun, and is no base
	Objects   int        `json:"objects"`
	Bytes     int64      `json:"bytes"`
}

// Nothing reports whether there is nothing to remove.
func (p *PrunePlan) Nothing() bool {
	for i := range p.Epochs {
		if p.Epochs[i].new {
			return false
		}
	}
	return p.Bases == 0 && p.Segments == 0 && p.Packs == 0 && p.Rollups == 0 && len(p.expired) == 0
}

// PlanPrune finds out what no point needs that is kept: those from o.Keep on, and those that a hold or a pin names.
//
// Of each epoch a beginning goes, up to the segment that holds the transaction of the oldest base which is needed, but for what a pack holds with others, and the bases
// before that one. So the chain of what stays is whole, and any point behind that base can be restored. An
// epoch goes as a whole once a later one holds the moment o.Keep. Marks, globals, choices, protections, and what says of an epoch that it was,
// are small, and stay.
func (a *Archive) PlanPrune(ctx context.Context, o PruneOptions) (*PrunePlan, error) {
	p := &PrunePlan{Archive: a.Identity.Archive, Store: a.Store.String(), Keep: o.Keep.String(), Epochs: []PruneEpoch{}, Holds: []Hold{}, Pins: []Pin{}}
	epochs, err := a.Epochs(ctx)
	if err != nil {
		return nil, err
	}
	if p.Holds, p.Pins, p.expired, err = a.claims(ctx, o.Now); err != nil {
		return nil, err
	}
	needs, err := a.needs(ctx, epochs, p, o)
	if err != nil {
		return nil, err
	}
	for i := range epochs {
		e := PruneEpoch{Epoch: epochs[i].Number}
		if err := a.planEpoch(ctx, &e, &needs[i], o, i == len(epochs)-1); err != nil {
			return nil, err
		}
		p.Bases += len(e.Bases)
		p.Segments += e.Segments
		p.Packs += e.Packs
		p.Rollups += e.Rollups
		p.Bytes += e.Bytes
		p.Epochs = append(p.Epochs, e)
	}
	return p, nil
}

// claims returns the holds that hold, the pins that do, and the ids of those that have expired.
func (a *Archive) claims(ctx context.Context, now time.Time) (holds []Hold, pins []Pin, expired []string, err error) {
	all, err := a.Holds(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	holds = []Hold{}
	for _, h := range all {
		if !h.Lifted {
			holds = append(holds, h)
		}
	}
	held, expired, err := a.pins(ctx, now)
	return holds, append([]Pin{}, held...), expired, err
}

// planEpoch decides where an epoch is cut, and lists what stands in front.
func (a *Archive) planEpoch(ctx context.Context, e *PruneEpoch, n *need, o PruneOptions, last bool) error {
	e.KeptBy, e.held, e.tail = n.by, n.held, Tail{Epoch: e.Epoch}
	var err error
	if e.last, err = a.lastPruned(ctx, e.Epoch); err != nil {
		return err
	}
	if e.last != nil {
		e.tail = e.last.Tail
		e.held = e.held || n.any && !n.all && n.first <= e.tail.Seq && e.tail.Seq > 0
	}
	var cut Tail
	switch {
	case !n.any && last:
		return fmt.Errorf("%w: nothing of epoch %d, which goes on, would stay", ErrCorrupt, e.Epoch) // the retention always claims it
	case !n.any:
		e.Whole, e.keep = true, math.MaxUint64
		cut, err = a.Tail(ctx, e.Epoch)
	case !n.all:
		e.keep = n.base
		cut, err = a.cutBefore(ctx, e.Epoch, n.first, e.tail.Seq+1)
	}
	if err != nil {
		return err
	}
	if cut.Seq > e.tail.Seq {
		e.tail, e.new = cut, true
	}
	if err := a.planBases(ctx, e, o, last); err != nil {
		return err
	}
	if e.held || e.tail.Seq == 0 {
		return nil
	}
	return a.beginnings(ctx, e.Epoch, e.tail.Seq, func(level int, objects []Object) error {
		for _, x := range objects {
			e.Bytes += x.Size
		}
		switch n := int64(len(objects)); level {
		case packLevel:
			e.Packs += n
		case 0:
			e.Segments += n
		default:
			e.Rollups += n
		}
		return nil
	})
}

// cutBefore returns the tail of what stands in front of the segment that holds the transaction seq; that of an empty epoch when
// it is the first one there is, or that is kept, which begins with from.
func (a *Archive) cutBefore(ctx context.Context, epoch uint64, seq, from change.Seq) (Tail, error) {
	none := Tail{Epoch: epoch}
	first, _, err := a.lastSegment(ctx, epoch, seq)
	if err != nil || first <= from {
		return none, err
	}
	before, size, err := a.lastSegment(ctx, epoch, first-1)
	if err != nil || before == 0 {
		return none, err
	}
	tail, err := a.tailOf(ctx, epoch, before, size)
	if err != nil {
		return none, err
	}
	// A cut must not hide damage: nobody could tell it from what was removed.
	key, hash := SegmentKey(epoch, first), segment.Hash(tail.Hash)
	h, err := a.header(ctx, key)
	if err == nil {
		err = a.checkHeader(key, epoch, first, tail.Seq+1, &hash, h)
	}
	if err != nil {
		return none, fmt.Errorf("%w: nothing is pruned before `txreel verify` passes", err)
	}
	return tail, nil
}

// packLevel is what beginnings calls the level of packs.
const packLevel = -1

// beginnings calls f with the packs (packLevel) that end at or before upto, with the segments (level 0) that begin there and have objects of their own, and with the
// rollups that end there, page by page, oldest first. A pack that goes on behind upto stays whole. What f removes is not met again.
func (a *Archive) beginnings(ctx context.Context, epoch uint64, upto change.Seq, f func(level int, objects []Object) error) error {
	packs, err := a.packsOf(ctx, epoch)
	if err != nil {
		return err
	}
	var some []Object
	for _, p := range packs {
		if p.last <= upto {
			some = append(some, Object{Key: p.key, Size: p.size})
		}
	}
	if len(some) > 0 {
		if err := f(packLevel, some); err != nil {
			return err
		}
	}
	for level := 0; level <= levels; level++ {
		after := ""
		for more := true; more; {
			objects, err := a.Store.List(ctx, levelKey(epoch, level), after, page)
			if err != nil {
				return fmt.Errorf("list %s: %w", levelKey(epoch, level), err)
			}
			more = len(objects) == page
			var some []Object
			for _, o := range objects {
				after = o.Key
				s, err := parseLevelKey(epoch, level, o)
				if err != nil && level > 0 {
					continue // a stray
				}
				if err != nil {
					return err
				}
				if s.first > upto {
					more = false
					break
				}
				if level == 0 || s.last <= upto {
					some = append(some, o)
				}
			}
			if len(some) > 0 {
				if err := f(level, some); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// planBases lists the bases that go: those before e.keep, and those that were never committed and will not be.
func (a *Archive) planBases(ctx context.Context, e *PruneEpoch, o PruneOptions, last bool) error {
	committed, err := a.manifests(ctx, e.Epoch)
	if err != nil {
		return err
	}
	known := make(map[string]*Base, len(committed))
	newest := "" // of those of everything; ids are in order of time
	goes := func(b *Base) bool { return b.Seq < e.keep || !e.held && b.first() <= e.tail.Seq }
	var oldest *Base
	for i := range committed {
		b := &committed[i]
		known[b.ID] = b
		if !b.Partial {
			newest = max(newest, b.ID)
		}
		if !goes(b) && !b.Partial && b.first() > e.tail.Seq && (oldest == nil || b.Upto() < oldest.Upto()) {
			oldest = b
		}
	}
	if oldest != nil {
		if err := a.checkNeeded(ctx, oldest); err != nil {
			return err
		}
		e.Earliest = &PrunePoint{Seq: oldest.Upto(), Base: oldest.ID, Time: oldest.Finished}
		if oldest.Upto() > 0 {
			x, ok, err := a.Lookup(ctx, e.Epoch, oldest.Upto())
			if err != nil {
				return err
			}
			if ok {
				e.Earliest.Time = x.CommitTime.String()
			}
		}
	}
	after := ""
	for {
		objects, err := a.Store.List(ctx, basesKey(e.Epoch), after, 1)
		if err != nil {
			return fmt.Errorf("list bases of epoch %d: %w", e.Epoch, err)
		}
		if len(objects) == 0 {
			return nil
		}
		id, _, ok := strings.Cut(strings.TrimPrefix(objects[0].Key, basesKey(e.Epoch)), "/")
		if !ok {
			return fmt.Errorf("%w: %s is no key of a base", ErrCorrupt, objects[0].Key)
		}
		after = basesKey(e.Epoch) + id + "0"
		b := known[id]
		if b != nil && !goes(b) || b == nil && !abandoned(id, newest, o.Now, last) {
			begun := false
			if b == nil && e.last != nil {
				if begun, err = a.namedPruned(ctx, e.Epoch, id); err != nil {
					return err
				}
			}
			if !begun {
				continue
			}
		}
		x := PruneBase{ID: id, Committed: b != nil}
		if b != nil {
			x.Seq, x.Partial = b.Seq, b.Partial
			e.new = e.new || e.last == nil || !slices.Contains(e.last.Bases, id)
		}
		if err := a.below(ctx, basesKey(e.Epoch)+id+"/", func(o Object) error {
			x.Objects++
			x.Bytes += o.Size
			return nil
		}); err != nil {
			return err
		}
		e.Bases = append(e.Bases, x)
		e.Bytes += x.Bytes
	}
}

// abandonedAfter is how old a base must be that was never committed before it is taken for one that nobody takes any more.
const abandonedAfter = 24 * time.Hour

// abandoned reports whether a base that is not committed will never be: it was begun a day ago, and since then another one was
// finished, or the epoch has ended. Without that it may be one that takes long.
func abandoned(id, newest string, now time.Time, last bool) bool {
	stamp, _, _ := strings.Cut(id, "-")
	begun, err := time.Parse("20060102T150405Z", stamp)
	return err == nil && now.Sub(begun) > abandonedAfter && (newest > id || !last)
}

// below calls f for each object below prefix, in order.
func (a *Archive) below(ctx context.Context, prefix string, f func(Object) error) error {
	after := ""
	for {
		objects, err := a.Store.List(ctx, prefix, after, page)
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		for _, o := range objects {
			after = o.Key
			if err := f(o); err != nil {
				return err
			}
		}
		if len(objects) < page {
			return nil
		}
	}
}
