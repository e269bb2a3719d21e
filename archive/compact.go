package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"txreel/change"
	"txreel/segment"
)

// CompactOptions says what a plan of compaction takes.
type CompactOptions struct {
	Before change.Time // segments all of whose transactions committed before this moment, µs
	Target int64       // bytes that a pack is to have; a segment of that size needs none
}

// packFull is how many segments fill a pack, whatever their size: what it saves is objects, and its directory is read whole.
const packFull = 4096

// packLeast is how many segments a pack has that is not half full: with fewer it takes as many requests to read as they do.
const packLeast = 16

// CompactPlan says what Compact would do. Making it reads listings, rollups, and the directories of packs whose segments still have objects
// of their own.
type CompactPlan struct {
	Archive  string         `json:"archive"`
	Store    string         `json:"store"`
	Before   string         `json:"before"` // RFC 3339
	Target   int64          `json:"target"`
	Epochs   []CompactEpoch `json:"epochs"`
	Packs    int            `json:"packs"`    // to be put
	Segments int64          `json:"segments"` // to go into them
	Bytes    int64          `json:"bytes"`    // of these
	// Left is how many segments are in packs and have objects of their own, too, which an earlier Compact did not come to.
	Left int64 `json:"left"`
}

// CompactEpoch is what a plan does to an epoch.
type CompactEpoch struct {
	Epoch uint64     `json:"epoch"`
	Packs []PlanPack `json:"packs,omitempty"`
	Left  int64      `json:"left"`
}

// PlanPack is a pack that is to be put.
type PlanPack struct {
	First    change.Seq `json:"first"` // transaction of the first segment
	Last     change.Seq `json:"last"`  // transaction of the last one
	Segments int        `json:"segments"`
	Bytes    int64      `json:"bytes"` // of the segments

	prev *segment.Hash // of the segment before; nil where that is not known
}

// Nothing reports whether there is nothing to do.
func (p *CompactPlan) Nothing() bool { return p.Packs == 0 && p.Left == 0 }

// PlanCompact finds runs of segments that are small and old, and that no pack holds. A run ends where its pack is full, and before a segment that is
// large, in a pack, or too young. One that is not full and may grow waits, so that no pack is put which a later one would have held; one of few small segments that
// cannot grow stays as it is. The last
// segment of an epoch is never in a run: it is where a capture goes on.
func (a *Archive) PlanCompact(ctx context.Context, o CompactOptions) (*CompactPlan, error) {
	p := &CompactPlan{Archive: a.Identity.Archive, Store: a.Store.String(), Before: o.Before.String(), Target: o.Target, Epochs: []CompactEpoch{}}
	epochs, err := a.Epochs(ctx)
	if err != nil {
		return nil, err
	}
	for i := range epochs {
		e, err := a.planPacks(ctx, epochs[i].Number, i == len(epochs)-1, o)
		if err != nil {
			return nil, err
		}
		for _, x := range e.Packs {
			p.Segments += int64(x.Segments)
			p.Bytes += x.Bytes
		}
		p.Packs += len(e.Packs)
		p.Left += e.Left
		p.Epochs = append(p.Epochs, e)
	}
	return p, nil
}

// planPacks finds the runs of an epoch; last says that it is the one that goes on.
func (a *Archive) planPacks(ctx context.Context, epoch uint64, last bool, o CompactOptions) (CompactEpoch, error) {
	e := CompactEpoch{Epoch: epoch}
	packs, err := a.packs.renew(ctx, a, epoch)
	if err != nil {
		return e, err
	}
	if err := a.unpacked(ctx, epoch, packs.spans, func(_ span, some []Object) error {
		e.Left += int64(len(some))
		return nil
	}); err != nil {
		return e, err
	}
	r := packer{o: o, packs: packs.spans}
	for x, err := range a.Segments(ctx, epoch, 0) {
		if err != nil {
			return e, err
		}
		if !r.add(x.Tail) {
			break
		}
	}
	if !last {
		r.end()
	}
	e.Packs = r.plan
	return e, nil
}

// packer gathers runs of segments.
type packer struct {
	o     CompactOptions
	packs []span // not passed yet
	plan  []PlanPack
	run   PlanPack
	held  sealed // the segment before, which is the last one unless another follows
	prev  *segment.Hash
}

// sealed is what a packer knows of a segment.
type sealed struct {
	first, last change.Seq
	size        int64
	hash        segment.Hash
}

// add takes the next segment. It returns false when this one, and so all behind it, is too young.
func (r *packer) add(t *segment.Tail) bool {
	if r.held.first > 0 {
		r.take(r.held)
	}
	r.held = sealed{first: t.First(), last: t.Last(), size: t.Size, hash: t.Hash}
	return t.Latest < r.o.Before
}

// take puts a segment that is not the last one into the run, or ends the run before it.
func (r *packer) take(s sealed) {
	for len(r.packs) > 0 && r.packs[0].last < s.first {
		r.packs = r.packs[1:]
	}
	switch packed := len(r.packs) > 0 && r.packs[0].first <= s.first; {
	case packed || s.size >= r.o.Target:
		r.end()
	default:
		if r.run.Bytes+s.size > r.o.Target || r.run.Segments == packFull {
			r.end()
		}
		if r.run.Segments == 0 {
			r.run = PlanPack{First: s.first, prev: r.prev}
		}
		r.run.Last = s.last
		r.run.Segments++
		r.run.Bytes += s.size
	}
	r.prev = &s.hash
}

// end ends the run. Few small segments, or a single one, gain nothing.
func (r *packer) end() {
	if n := r.run.Segments; n >= packLeast || n > 1 && r.run.Bytes >= r.o.Target/2 {
		r.plan = append(r.plan, r.run)
	}
	r.run = PlanPack{}
}

// unpacked calls f with the objects of segments that a pack holds, pack by pack. An object in the span of a pack that is none of its
// segments, or has another size, is not among them: somebody else put it, and it is no part of the record. What f removes is not met again.
func (a *Archive) unpacked(ctx context.Context, epoch uint64, packs []span, f func(span, []Object) error) error {
	if len(packs) == 0 {
		return nil
	}
	after := afterKey(epoch, 0, packs[0].first-1)
	for {
		some, err := a.Store.List(ctx, segmentsKey(epoch), after, page)
		if err != nil {
			return fmt.Errorf("list segments of epoch %d: %w", epoch, err)
		}
		more := len(some) == page
		for len(some) > 0 && len(packs) > 0 {
			seq, err := parseSegmentKey(epoch, some[0].Key)
			if err != nil {
				return err
			}
			p := packs[0]
			if seq > p.last {
				packs = packs[1:]
				continue
			}
			n := 1
			if seq >= p.first {
				end := SegmentKey(epoch, p.last)
				for n < len(some) && some[n].Key <= end {
					n++
				}
				if err := a.unpackedOf(ctx, epoch, p, some[:n], f); err != nil {
					return err
				}
			}
			after, some = some[n-1].Key, some[n:]
		}
		if !more || len(packs) == 0 {
			return nil
		}
	}
}

// unpackedOf calls f with those of the objects, all within the span of a pack, that it holds.
func (a *Archive) unpackedOf(ctx context.Context, epoch uint64, p span, objects []Object, f func(span, []Object) error) error {
	dir, err := a.packs.directory(ctx, a, p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // pruned since it was listed
	}
	if err != nil {
		return err
	}
	sizes := make(map[string]int64, len(dir))
	for _, x := range dir {
		sizes[SegmentKey(epoch, x.first)] = x.size
	}
	var held []Object
	for _, o := range objects {
		if size, ok := sizes[o.Key]; ok && size == o.Size {
			held = append(held, o)
		}
	}
	if len(held) == 0 {
		return nil
	}
	return f(p, held)
}
