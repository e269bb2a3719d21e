package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"txreel/change"
	"txreel/segment"
)

// Delete implements Deleter.
func (s *memStore) Delete(_ context.Context, key string) error {
	if err := ask(s.before, "delete", key); err != nil {
		return err
	}
	s.mu.Lock()
	s.remove(key)
	s.mu.Unlock()
	return ask(s.after, "delete", key)
}

// addBase commits a base after the last transaction that w has sealed, with two objects.
func addBase(t testing.TB, a *Archive, epoch uint64, w *Writer, partial bool) *Base {
	t.Helper()
	return addBaseOf(t, a, epoch, w, partial, false)
}

// addBaseOf is addBase for one that may hold transactions ahead of another.
func addBaseOf(t testing.TB, a *Archive, epoch uint64, w *Writer, partial, ahead bool) *Base {
	t.Helper()
	b, err := NewBase(epoch, "test")
	if err != nil {
		t.Fatal(err)
	}
	b.Seq, b.Position, b.Partial = w.Tail().Seq, w.Tail().Position, partial
	if n := w.Tail().Seq; ahead && n > 3 {
		b.Seq, b.Ahead = n-3, []change.Seq{n - 1, n}
	}
	b.Tables = []BaseTable{{Schema: "public", Name: "orders", Version: 7}}
	for _, name := range []string{"data/1", "data/2"} {
		o, err := a.CreateObject(t.Context(), b, name, strings.NewReader(name), int64(len(name)))
		if err != nil {
			t.Fatal(err)
		}
		b.Tables[0].Chunks = append(b.Tables[0].Chunks, o)
	}
	if err := a.CommitBase(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return b
}

// history is an archive with what is known of it.
type history struct {
	*memStore
	*Archive
	epochs [][]txn // by epoch and Seq; each from 1 on
	bases  []*Base
}

// pruneHistory makes up to three epochs, with bases, marks and rollups of both levels. Transaction i of all commits at second i.
func pruneHistory(t *testing.T, r *rand.Rand) *history {
	t.Helper()
	st := newMem()
	h := &history{memStore: st, Archive: newArchive(t, st)}
	h.fan = 2 + r.IntN(3)
	n := 1
	for e := uint64(1); e <= uint64(1+r.IntN(3)); e++ {
		have, err := h.Epochs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cause := CauseGap
		if e == 1 {
			cause = CauseFirst
		}
		if _, err := h.StartEpoch(t.Context(), have, cause, "test", nil); err != nil {
			t.Fatal(err)
		}
		w := newWriter(t, h.Archive, e)
		first := n
		h.bases = append(h.bases, addBase(t, h.Archive, e, w, false))
		for range 1 + r.IntN(25) {
			n = writeSegments(t, w, n, 1+r.IntN(4))
			if r.IntN(5) == 0 {
				partial := r.IntN(4) == 0
				h.bases = append(h.bases, addBaseOf(t, h.Archive, e, w, partial, !partial && r.IntN(2) == 0))
			}
			if r.IntN(8) == 0 {
				x := numbered(n - 1)
				if err := h.CreateMark(t.Context(), Mark{Name: "m" + x.xid, Epoch: e, Seq: w.Tail().Seq, XID: x.xid, Position: x.pos, CommitTime: x.time}); err != nil {
					t.Fatal(err)
				}
			}
		}
		var all []txn
		for i := first; i < n; i++ {
			all = append(all, numbered(i))
		}
		h.epochs = append(h.epochs, all)
	}
	return h
}

// last is the last second on record.
func (h *history) last() int {
	n := 0
	for _, e := range h.epochs {
		n += len(e)
	}
	return n
}

// restore fails the test unless the point of a moment can be restored exactly: as restores do, from the newest epoch that knows of it.
func (h *history) restore(at change.Time) error {
	ctx := context.Background()
	for e := uint64(len(h.epochs)); e > 0; e-- {
		tail, err := h.Tail(ctx, e)
		if err != nil {
			return err
		}
		if at > tail.Latest {
			return fmt.Errorf("second %d is behind epoch %d", at/1e6, e)
		}
		next, ok, err := h.FirstAfter(ctx, e, at)
		if errors.Is(err, ErrPruned) {
			continue
		}
		if err != nil {
			return err
		}
		cut := tail.Seq
		if ok {
			cut = next.Seq - 1
		}
		if cut == 0 {
			continue // nothing of this epoch
		}
		return h.restoreTo(e, cut)
	}
	return fmt.Errorf("second %d is in no epoch", at/1e6)
}

func (h *history) restoreTo(e uint64, cut change.Seq) error {
	ctx := context.Background()
	bases, err := h.Bases(ctx, e)
	if err != nil {
		return err
	}
	var base *Base
	for i := range bases {
		if b := &bases[i]; b.Upto() <= cut && (base == nil || b.Seq >= base.Seq) {
			base = b
		}
	}
	if base == nil {
		return fmt.Errorf("epoch %d has no base at or before %s", e, cut)
	}
	if err := h.checkNeeded(ctx, base); err != nil {
		return err
	}
	if x, ok, err := h.Lookup(ctx, e, cut); err != nil || !ok || x.XID != h.epochs[e-1][cut-1].xid {
		return fmt.Errorf("transaction %s of epoch %d: %+v, %t, %w", cut, e, x.Txn, ok, err)
	}
	got, _, err := read(h.Archive, e, base.Seq+1, cut)
	if err != nil || !slices.Equal(got, h.epochs[e-1][base.Seq:cut]) {
		return fmt.Errorf("epoch %d from %s to %s: %d transactions, %w", e, base.Seq+1, cut, len(got), err)
	}
	next := base.Seq + 1
	for x, err := range h.Segments(ctx, e, base.Seq+1) {
		if err != nil || x.Last() < next {
			return fmt.Errorf("epoch %d, index at %s: %w", e, next, err)
		}
		next = x.Last() + 1
	}
	if tail, err := h.Tail(ctx, e); err != nil || next != tail.Seq+1 {
		return fmt.Errorf("epoch %d: indexes end before %s: %w", e, next, err)
	}
	return nil
}

// kept fails the test unless every second from one to another can be restored to, and verify finds nothing.
func (h *history) kept(t *testing.T, from, to int, what string) {
	t.Helper()
	for s := from; s <= to; s++ {
		if err := h.restore(change.Time(s) * 1e6); err != nil {
			t.Errorf("%s: second %d: %v", what, s, err)
			return
		}
	}
	if r, err := h.Verify(t.Context(), VerifyOptions{Full: true}); err != nil {
		t.Errorf("%s: %v\n%+v", what, err, r.Problems)
	}
}

// readersAgree fails the test unless all that goes through an epoch sees what is kept of it, and nothing else.
func (h *history) readersAgree(t *testing.T, what string) {
	t.Helper()
	for i, all := range h.epochs {
		e := uint64(i + 1)
		p, err := h.Pruned(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		from := p.From()
		next := from
		for x, err := range h.Segments(t.Context(), e, 0) {
			if err != nil || x.First() != next {
				t.Fatalf("%s: epoch %d forward, at %s: %v", what, e, next, err)
			}
			next = x.Last() + 1
		}
		if next != change.Seq(len(all)+1) {
			t.Errorf("%s: epoch %d forward from %s ends before %s", what, e, from, next)
		}
		for x, err := range h.Backward(t.Context(), e, ^change.Seq(0)) {
			if err != nil || x.Last() != next-1 {
				t.Fatalf("%s: epoch %d backward, at %s: %v", what, e, next, err)
			}
			next = x.First()
		}
		if next != from && from <= change.Seq(len(all)) {
			t.Errorf("%s: epoch %d backward ends at %s, want %s", what, e, next, from)
		}
		for seq := from; seq <= change.Seq(len(all)); seq += 3 {
			x, ok, err := h.FirstBehind(t.Context(), e, func(x *change.Txn) (bool, error) { return x.CommitTime >= all[seq-1].time, nil })
			if err != nil || !ok || x.Seq != seq {
				t.Errorf("%s: epoch %d: first behind %s: %+v, %t, %v", what, e, seq, x.Txn, ok, err)
			}
		}
		w := newWriter(t, h.Archive, e)
		if w.rollups.off {
			t.Errorf("%s: epoch %d: no rollups would be written: %v", what, e, w.rollups.failed)
		}
		if tail := w.Tail(); tail.Seq != change.Seq(len(all)) || tail.Position != all[len(all)-1].pos {
			t.Errorf("%s: epoch %d goes on behind %+v", what, e, tail)
		}
		if p == nil {
			continue
		}
		for _, seq := range []change.Seq{1, p.Tail.Seq} {
			packs, err := h.packsOf(t.Context(), e)
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(packs, func(x span) bool { return x.first <= p.Tail.Seq }) ||
				slices.ContainsFunc(h.keys, func(k string) bool { return k > segmentsKey(e) && k <= SegmentKey(e, p.Tail.Seq) }) {
				break // left over, or in a pack with others, and still there
			}
			if _, _, err := read(h.Archive, e, seq, seq); !errors.Is(err, ErrPruned) || errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: stream from %s of epoch %d: %v", what, seq, e, err)
			}
			if _, _, err := h.Lookup(t.Context(), e, seq); !errors.Is(err, ErrPruned) {
				t.Errorf("%s: look up %s of epoch %d: %v", what, seq, e, err)
			}
		}
		if _, _, err := h.FirstAfter(t.Context(), e, p.Tail.Latest-1); !errors.Is(err, ErrPruned) {
			t.Errorf("%s: the moment before the cut of epoch %d: %v", what, e, err)
		}
	}
}

// at is the moment of a second of histories.
func at(second int) change.Time { return change.Time(second) * 1e6 }

func (h *history) plan(t *testing.T, keep int) *PrunePlan {
	t.Helper()
	p, err := h.PlanPrune(t.Context(), PruneOptions{Keep: at(keep), Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Whatever is kept can be restored and verified, however often a prune is cut off, at whatever step; what is not needed goes.
func TestPruneKeeps(t *testing.T) {
	t.Parallel()
	r := rng(t)
	for try := range 10 {
		h := pruneHistory(t, r)
		last := h.last()
		keep := 1 + r.IntN(last+5)
		what := fmt.Sprintf("try %d, %d epochs, %d seconds, keep from %d", try, len(h.epochs), last, keep)
		spans := [][2]int{{keep, last}}
		if r.IntN(3) == 0 {
			from := 1 + r.IntN(last)
			to := from + r.IntN(last-from+1)
			if _, err := h.PlaceHold(t.Context(), Hold{Name: "case-1", From: at(from), To: at(to), Reason: "test"}); err != nil {
				t.Fatal(err)
			}
			spans = append(spans, [2]int{from, to})
			what += fmt.Sprintf(", held from %d to %d", from, to)
		}
		before := len(h.keys)
		// A dry run says what a run does.
		whole := &history{memStore: h.clone(), epochs: h.epochs}
		a := *h.Archive
		a.Store = whole.memStore
		whole.Archive = &a
		p := whole.plan(t, keep)
		var done, total int64
		if err := whole.Prune(t.Context(), whole.memStore, p, PruneRun{By: "me", Progress: func(d, n int64) { done, total = d, n }}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		records := 0
		for _, e := range p.Epochs {
			if e.new {
				records++
			}
		}
		objects := 0
		for _, e := range p.Epochs {
			for _, b := range e.Bases {
				objects += b.Objects
			}
		}
		if gone := before + records - len(whole.keys); gone != objects+int(p.Segments+p.Rollups) || done != total-int64(p.Bases) && done != total {
			t.Errorf("%s: %d objects went, the plan says %d of bases and %d, progress %d of %d", what, gone, objects, p.Segments+p.Rollups, done, total)
		}
		if again := whole.plan(t, keep); !again.Nothing() {
			t.Errorf("%s: a second plan has more: %+v", what, again)
		}
		// Cut off, time after time.
		for crash := 0; ; crash++ {
			var left atomic.Int64 // objects are removed side by side
			left.Store(int64(1 + r.IntN(6)))
			boom := errors.New("boom")
			fail := func(op, key string) error {
				if op != "delete" && op != "create" {
					return nil
				}
				if left.Add(-1) < 0 {
					return boom
				}
				return nil
			}
			if r.IntN(2) == 0 {
				h.before = fail
			} else {
				h.after = fail
			}
			p, err := h.PlanPrune(t.Context(), PruneOptions{Keep: at(keep), Now: time.Now()})
			if err == nil {
				err = h.Prune(t.Context(), h.memStore, p, PruneRun{By: "me"})
			}
			h.before, h.after = nil, nil
			for _, s := range spans {
				h.kept(t, s[0], s[1], fmt.Sprintf("%s, cut off %d times", what, crash))
			}
			h.readersAgree(t, fmt.Sprintf("%s, cut off %d times", what, crash))
			if t.Failed() {
				t.Fatalf("%v", h.keys)
			}
			if err == nil {
				break
			}
			if !errors.Is(err, boom) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		if !slices.Equal(h.keys, whole.keys) {
			t.Errorf("%s: what is left after many prunes is not what is left after one", what)
		}
	}
}

// What a prune leaves is the least: of every epoch no segment in front of the one that the oldest needed base stands in, no base before that.
func TestPruneLeavesNothingElse(t *testing.T) {
	t.Parallel()
	st := newMem()
	a := newEpoch(t, st)
	w := newWriter(t, a, 1)
	addBase(t, a, 1, w, false)
	writeSegments(t, w, 1, 2, 3, 2) // 1 to 7
	early := addBase(t, a, 1, w, false)
	writeSegments(t, w, 8, 2) // 8, 9
	mend := addBase(t, a, 1, w, true)
	writeSegments(t, w, 10, 3, 1) // 10 to 13
	late := addBase(t, a, 1, w, false)
	writeSegments(t, w, 14, 2)
	h := &history{memStore: st, Archive: a, epochs: [][]txn{model(15)}}

	for _, tt := range []struct {
		keep  int
		from  change.Seq
		bases []string
	}{
		{0, 1, nil},
		{6, 1, nil},
		{7, 6, []string{early.ID, mend.ID, late.ID}},
		{12, 6, []string{early.ID, mend.ID, late.ID}},
		{13, 13, []string{late.ID}},
		{100, 13, []string{late.ID}},
	} {
		c := &history{memStore: st.clone(), epochs: h.epochs}
		b := *a
		b.Store = c.memStore
		c.Archive = &b
		p := c.plan(t, tt.keep)
		if err := c.Prune(t.Context(), c.memStore, p, PruneRun{By: "me"}); err != nil {
			t.Fatal(err)
		}
		pruned, err := c.Pruned(t.Context(), 1)
		if err != nil || pruned.From() != tt.from {
			t.Errorf("keep from %d: %v, %v; want from %s", tt.keep, pruned, err, tt.from)
		}
		all, err := c.manifests(t.Context(), 1)
		if err != nil || tt.bases != nil && len(all) != len(tt.bases) {
			t.Errorf("keep from %d: bases %+v, %v", tt.keep, all, err)
		}
		for _, b := range all {
			if tt.bases != nil && !slices.Contains(tt.bases, b.ID) {
				t.Errorf("keep from %d: base after %s stays", tt.keep, b.Seq)
			}
		}
	}
}

// Verify tells what was pruned from what is missing.
func TestVerifyPruned(t *testing.T) {
	t.Parallel()
	st := newMem()
	a := newEpoch(t, st)
	a.fan = 2
	w := newWriter(t, a, 1)
	first := addBase(t, a, 1, w, false)
	writeSegments(t, w, 1, 2, 2, 2, 2, 2) // from 1, 3, 5, 7, 9
	addBase(t, a, 1, w, false)
	writeSegments(t, w, 11, 2, 2)
	h := &history{memStore: st, Archive: a, epochs: [][]txn{model(14)}}
	before := st.clone()
	if err := a.Prune(t.Context(), st, h.plan(t, 11), PruneRun{By: "me@here"}); err != nil {
		t.Fatal(err)
	}
	r, err := verify(t, st, true)
	if err != nil || len(r.Notes) > 0 {
		t.Fatalf("%v, %+v", err, r.Notes)
	}
	e := r.Epochs[0]
	if e.Pruned == nil || e.Pruned.From() != 9 || e.Pruned.By != "me@here" || e.First.Seq != 9 || e.Transactions != 6 {
		t.Errorf("epoch %+v", e)
	}
	last := model(14)[7]
	if p := e.Pruned; p.Tail.Position != last.pos || p.Tail.Latest != last.time || p.Tail.Segment != 7 || p.Tail.Seq != 8 {
		t.Errorf("what was pruned ends with %+v, want %+v", p.Tail, last)
	}
	forged := func(change func(p *Pruned)) func(*memStore) {
		return func(st *memStore) {
			p := *e.Pruned
			change(&p)
			b, err := encodeJSON(prunedJSON(1, 1), &p)
			if err != nil {
				t.Fatal(err)
			}
			st.set(prunedJSON(1, 1), b)
		}
	}
	for _, tt := range []struct {
		name, key string
		do        func(st *memStore)
	}{
		{"the first kept segment is gone", SegmentKey(1, 9), func(st *memStore) { st.remove(SegmentKey(1, 9)) }},
		{"the second one is gone", SegmentKey(1, 11), func(st *memStore) { st.remove(SegmentKey(1, 11)) }},
		{"the record of the pruning is gone", SegmentKey(1, 1), func(st *memStore) { st.remove(prunedJSON(1, 1)) }},
		{"it was changed", prunedJSON(1, 1), func(st *memStore) {
			b := slices.Clone(st.objects[prunedJSON(1, 1)])
			b[20] ^= 1
			st.set(prunedJSON(1, 1), b)
		}},
		{"its hash was", SegmentKey(1, 9), forged(func(p *Pruned) { p.Tail.Hash[0] ^= 1 })},
		{"its time was", SegmentKey(1, 9), forged(func(p *Pruned) { p.Tail.Latest++ })},
		{"it says less", SegmentKey(1, 8), forged(func(p *Pruned) { p.Tail.Seq-- })},
		{"it says more", SegmentKey(1, 10), forged(func(p *Pruned) { p.Tail.Seq++ })},
		{"another segment is in the place of the first", SegmentKey(1, 9), func(st *memStore) { st.set(SegmentKey(1, 9), before.objects[SegmentKey(1, 7)]) }},
	} {
		c := st.clone()
		tt.do(c)
		r, err := verify(t, c, true)
		if err == nil || r.mentions(tt.key) == nil && !strings.Contains(err.Error(), tt.key) {
			t.Errorf("%s: %v, %+v; want a problem with %s", tt.name, err, r, tt.key)
		}
	}
	// What a prune that was cut off has left is worth a note, and nothing else.
	for _, key := range []string{SegmentKey(1, 7), first.Key(manifestName)} {
		c := st.clone()
		c.set(key, before.objects[key])
		if r, err := verify(t, c, true); err != nil || r.mentions(key) == nil {
			t.Errorf("%s left over: %v, %+v", key, err, r)
		}
	}
	// A prune that begins meanwhile is no damage.
	c := before.clone()
	d := *a
	d.Store = c
	c.before = func(op, key string) error {
		if op == "open" && key == SegmentKey(1, 13) {
			c.before = nil
			plan, err := d.PlanPrune(context.Background(), PruneOptions{Keep: at(11), Now: time.Now()})
			if err == nil {
				err = d.Prune(context.Background(), c, plan, PruneRun{By: "me"})
			}
			return err
		}
		return nil
	}
	if _, err := d.Verify(t.Context(), VerifyOptions{Full: true}); !errors.Is(err, errPrunedMeanwhile) {
		t.Errorf("verify beside a prune: %v", err)
	}
}

// A hold or a pin that comes after the plan keeps what it holds, and takes back what was announced.
func TestPruneHeldMeanwhile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		claim func(t *testing.T, h *history) error
	}{
		{"hold", func(t *testing.T, h *history) error {
			_, err := h.PlaceHold(t.Context(), Hold{Name: "case-1", From: at(2), Reason: "asked for by the court", By: "legal"})
			return err
		}},
		{"pin", func(t *testing.T, h *history) error {
			release, err := h.PinBase(t.Context(), h.bases[0], "restore on db7")
			t.Cleanup(release)
			return err
		}},
	} {
		for _, announced := range []bool{false, true} {
			if announced && tt.name == "pin" {
				continue // who pins what is announced is told that it is too late, and chooses again
			}
			h := twoBases(t)
			what := fmt.Sprintf("%s, announced %t", tt.name, announced)
			p := h.plan(t, 9)
			if p.Segments == 0 || p.Bases != 1 {
				t.Fatalf("%+v", p)
			}
			claim := func() {
				h.after = nil
				if err := tt.claim(t, h); err != nil {
					t.Fatal(err)
				}
			}
			if announced {
				h.announced(claim)
			} else {
				claim()
			}
			if err := h.Prune(t.Context(), h.memStore, p, PruneRun{By: "me"}); !errors.Is(err, ErrHeld) {
				t.Fatalf("%s: %v", what, err)
			}
			h.kept(t, 1, 10, what)
			h.readersAgree(t, what)
			if p, err := h.Pruned(t.Context(), 1); p != nil || err != nil {
				t.Errorf("%s: %v, %v", what, p, err)
			}
			if p, err := h.lastPruned(t.Context(), 1); (p != nil) != announced || err != nil {
				t.Errorf("%s: on record is %v, %v", what, p, err)
			}
			again := h.plan(t, 9)
			if !again.Nothing() || len(again.Epochs[0].KeptBy) != 1 {
				t.Errorf("%s: %+v", what, again)
			}
			// A base that is not needed for what is held is nobody's.
			if err := h.Prune(t.Context(), h.memStore, again, PruneRun{By: "me"}); err != nil {
				t.Error(err)
			}
			h.kept(t, 1, 10, what)
		}
	}
}

// twoBases is an archive of ten transactions in five segments, with a base at the beginning and one after the eighth.
func twoBases(t *testing.T) *history {
	st := newMem()
	a := newEpoch(t, st)
	w := newWriter(t, a, 1)
	first := addBase(t, a, 1, w, false)
	writeSegments(t, w, 1, 2, 2, 2, 2)
	second := addBase(t, a, 1, w, false)
	writeSegments(t, w, 9, 2)
	return &history{memStore: st, Archive: a, epochs: [][]txn{model(10)}, bases: []*Base{first, second}}
}

// A pin holds until it is released, or has expired; who comes too late is told.
func TestPin(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	release, err := h.PinBase(t.Context(), h.bases[0], "restore on db7")
	if err != nil {
		t.Fatal(err)
	}
	p := h.plan(t, 9)
	if !p.Nothing() || len(p.Pins) != 1 || !strings.Contains(fmt.Sprint(p.Epochs[0].KeptBy), "restore on db7") {
		t.Errorf("pinned: %+v", p)
	}
	later, err := h.PlanPrune(t.Context(), PruneOptions{Keep: at(9), Now: time.Now().Add(pinFor + pinSlack + time.Minute)})
	if err != nil || later.Nothing() || len(later.expired) != 1 {
		t.Errorf("when it was not renewed: %+v, %v", later, err)
	}
	release()
	release()
	if p = h.plan(t, 9); p.Nothing() || len(p.Pins) != 0 {
		t.Errorf("released: %+v", p)
	}
	if err := h.Prune(t.Context(), h.memStore, p, PruneRun{By: "me"}); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(h.keys, func(k string) bool { return strings.HasPrefix(k, pinsKey) }) {
		t.Error("the expired pin is still there")
	}
	if _, err := h.PinBase(t.Context(), h.bases[0], "too late"); !errors.Is(err, ErrPruned) {
		t.Errorf("a pin of what was pruned: %v", err)
	}
	release, err = h.PinBase(t.Context(), h.bases[1], "in time")
	if err != nil {
		t.Error(err)
	}
	release()
	// Who may only read goes without.
	h.before = func(op, key string) error {
		if op == "create" {
			return fs.ErrPermission
		}
		return nil
	}
	release, err = h.PinBase(t.Context(), h.bases[1], "reads only")
	if release(); !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrPruned) {
		t.Errorf("without the right to create: %v", err)
	}
}

// A prune that was killed right behind its record leaves what a hold or a pin has claimed since then.
func TestHeldBehindTheRecord(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	boom := errors.New("boom")
	h.after = func(op, key string) error {
		if op == "create" && strings.Contains(key, "/pruned/") {
			return boom
		}
		return nil
	}
	if err := h.Prune(t.Context(), h.memStore, h.plan(t, 9), PruneRun{By: "me"}); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	h.after = nil
	if _, err := h.PlaceHold(t.Context(), Hold{Name: "case-1", Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	p := h.plan(t, 9)
	if p.Segments != 0 || p.Bases != 0 {
		t.Errorf("would remove what is held: %+v", p)
	}
	if _, err := h.LiftHold(t.Context(), "case-1", "settled", "legal"); err != nil {
		t.Fatal(err)
	}
	if p = h.plan(t, 9); p.Segments != 3 || p.Bases != 1 {
		t.Errorf("lifted: %+v", p)
	}
}

func TestHolds(t *testing.T) {
	t.Parallel()
	a := newArchive(t, newMem())
	ctx := t.Context()
	if _, err := a.LiftHold(ctx, "case-1", "", "me"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("lift what was not placed: %v", err)
	}
	for _, name := range []string{"", "a/b", "..", strings.Repeat("x", 201)} {
		if _, err := a.PlaceHold(ctx, Hold{Name: name}); err == nil {
			t.Errorf("name %q is taken", name)
		}
	}
	if _, err := a.PlaceHold(ctx, Hold{Name: "case-2", From: 5, To: 4}); err == nil {
		t.Error("a hold that ends before it begins is placed")
	}
	for n := uint64(1); n < 5; n += 2 {
		h, err := a.PlaceHold(ctx, Hold{Name: "case-1", From: 5, Reason: "asked for", By: "legal"})
		if err != nil || h.Number != n {
			t.Fatalf("%+v, %v", h, err)
		}
		if _, err := a.PlaceHold(ctx, Hold{Name: "case-1"}); !errors.Is(err, ErrHoldExists) {
			t.Errorf("placed twice: %v", err)
		}
		h, err = a.LiftHold(ctx, "case-1", "settled", "me")
		if err != nil || h.Number != n+1 || !h.Lifted || h.Reason != "settled" || h.From != 5 {
			t.Fatalf("%+v, %v", h, err)
		}
	}
	if _, err := a.PlaceHold(ctx, Hold{Name: "case-0"}); err != nil {
		t.Fatal(err)
	}
	all, err := a.Holds(ctx)
	if err != nil || len(all) != 2 || all[0].Name != "case-0" || all[1].Number != 4 || !all[1].Lifted {
		t.Errorf("%+v, %v", all, err)
	}
}

// Bases that were begun and never committed go when nobody takes them any more.
func TestPruneAbandonedBases(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	begun := func(ago time.Duration) string {
		id := time.Now().Add(-ago).UTC().Format("20060102T150405Z") + "-00000000"
		h.set(basesKey(1)+id+"/data/1", []byte("x"))
		return id
	}
	killed := begun(25 * time.Hour)
	begun(23 * time.Hour)  // may still be at work
	begun(-10 * time.Hour) // nor after the last one that was finished
	p := h.plan(t, 0)
	if len(p.Epochs[0].Bases) != 1 || p.Epochs[0].Bases[0].ID != killed || p.Epochs[0].Bases[0].Committed {
		t.Errorf("%+v", p.Epochs[0].Bases)
	}
	if abandoned(killed, "", time.Now(), true) || !abandoned(killed, "", time.Now(), false) {
		t.Error("a base of the last epoch that none has followed may be one that takes long; one of an epoch that has ended is not")
	}
	if err := h.Prune(t.Context(), h.memStore, p, PruneRun{By: "me"}); err != nil {
		t.Fatal(err)
	}
	if p := h.plan(t, 0); !p.Nothing() {
		t.Errorf("%+v", p)
	}
	h.kept(t, 1, 10, "abandoned")
}

// Nothing goes while what must make up for it is damaged.
func TestPruneRefusesDamage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		do   func(h *history)
	}{
		{"an object of the base that stays is missing", func(h *history) { h.remove(h.bases[1].Key("data/2")) }},
		{"one is shorter", func(h *history) { h.set(h.bases[1].Key("data/2"), []byte("d")) }},
		{"the first segment that stays does not continue", func(h *history) {
			b := slices.Clone(h.objects[SegmentKey(1, 7)])
			b[50] ^= 1 // prev; the header's checksum is wrong too
			h.set(SegmentKey(1, 7), b)
		}},
		{"one before it is missing", func(h *history) { h.remove(SegmentKey(1, 5)) }},
	} {
		h := twoBases(t)
		tt.do(h)
		before := slices.Clone(h.keys)
		p, err := h.PlanPrune(t.Context(), PruneOptions{Keep: at(9), Now: time.Now()})
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, segment.ErrCorrupt) {
			t.Errorf("%s: %+v, %v", tt.name, p, err)
		}
		if !slices.Equal(h.keys, before) {
			t.Errorf("%s: something went", tt.name)
		}
	}
}
