package archive

import (
	"fmt"
	"testing"
	"time"

	"txreel/change"
)

// A hold keeps the epochs it reaches into, and those before its beginning only as far as they are needed for it.
func TestHoldOverEpochs(t *testing.T) {
	t.Parallel()
	const hour = change.Time(3600 * 1e6)
	st := newMem()
	a := newArchive(t, st)
	write := func(w *Writer, from int, times ...change.Time) {
		for i, at := range times {
			x := numbered(from + i)
			x.time = at
			if err := appendTxn(w, x); err != nil {
				t.Fatal(err)
			}
			shipAll(t, w, x.pos)
		}
	}
	for e := uint64(1); e <= 3; e++ { // each has commits at three hours of its own, and a base before and behind the second
		have, err := a.Epochs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cause := CauseGap
		if e == 1 {
			cause = CauseFirst
		}
		if _, err := a.StartEpoch(t.Context(), have, cause, "test", nil); err != nil {
			t.Fatal(err)
		}
		w := newWriter(t, a, e)
		addBase(t, a, e, w, false)
		first := int(e)*10 - 9
		write(w, first, change.Time(e*10)*hour, change.Time(e*10+1)*hour)
		addBase(t, a, e, w, false)
		write(w, first+2, change.Time(e*10+3)*hour)
	}
	for i, tt := range []struct {
		from, to change.Time
		whole    []bool
		froms    []change.Seq // the first transaction kept
	}{
		{10 * hour, 11 * hour, []bool{false, true, false}, []change.Seq{1, 4, 2}}, // in the first epoch only
		{12 * hour, 20 * hour, []bool{false, false, false}, []change.Seq{2, 1, 2}},
		{15 * hour, 16 * hour, []bool{false, false, false}, []change.Seq{2, 1, 2}}, // in the gap: what was before, and what came after
		{21 * hour, 21 * hour, []bool{true, false, false}, []change.Seq{4, 2, 2}},
		{23 * hour, 0, []bool{true, false, false}, []change.Seq{4, 2, 1}},
		{0, 5 * hour, []bool{false, true, false}, []change.Seq{1, 4, 2}},
		{40 * hour, 50 * hour, []bool{true, true, false}, []change.Seq{4, 4, 2}},
	} {
		c := *a
		mem := st.clone()
		c.Store = mem
		if _, err := c.PlaceHold(t.Context(), Hold{Name: "case", From: tt.from, To: tt.to}); err != nil {
			t.Fatal(err)
		}
		p, err := c.PlanPrune(t.Context(), PruneOptions{Keep: 32 * hour, Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		for e := range p.Epochs {
			if got := p.Epochs[e]; got.Whole != tt.whole[e] || got.tail.Seq+1 != tt.froms[e] {
				t.Errorf("case %d, epoch %d: whole %t, from %s; want %t, %s", i, e+1, got.Whole, got.tail.Seq+1, tt.whole[e], tt.froms[e])
			}
		}
		if err := c.Prune(t.Context(), mem, p, PruneRun{By: "me"}); err != nil {
			t.Error(err)
		}
		if r, err := c.Verify(t.Context(), VerifyOptions{Full: true}); err != nil {
			t.Errorf("case %d: %v, %+v", i, err, r.Problems)
		}
	}
}

// The fences in front of a base whose samples a restore may read stay.
func TestPruneKeepsFences(t *testing.T) {
	t.Parallel()
	st := newMem()
	a := newEpoch(t, st)
	w := newWriter(t, a, 1)
	addBase(t, a, 1, w, false)
	fence := func(i int, chain string, number int) {
		x := numbered(i)
		for _, m := range []change.Message{
			{Kind: change.KindBegin, Raw: []byte("B")},
			{Kind: change.KindCommit, Raw: []byte("C"), Position: x.pos, CommitTime: x.time, Note: change.Fence{Chain: chain, Number: uint64(number)}.String()},
		} {
			if err := w.Append(&m); err != nil {
				t.Fatal(err)
			}
		}
		shipAll(t, w, x.pos)
	}
	writeSegments(t, w, 1, 1)
	fence(2, "old", 1)
	fence(3, "old", 2)
	for i := 1; i <= 6; i++ { // 4 to 15
		fence(2+2*i, "new", i)
		writeSegments(t, w, 3+2*i, 1)
	}
	base := addBase(t, a, 1, w, false)
	writeSegments(t, w, 16, 1)
	for _, tt := range []struct {
		fences uint64
		from   change.Seq
	}{{0, 15}, {1, 14}, {3, 10}, {6, 4}, {100, 4}} {
		p, err := a.PlanPrune(t.Context(), PruneOptions{Keep: at(16), Now: time.Now(), Fences: tt.fences})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Epochs[0]; got.tail.Seq+1 != tt.from || got.Earliest.Seq != base.Seq {
			t.Errorf("%d fences: from %s, base after %s; want %s", tt.fences, got.tail.Seq+1, got.Earliest.Seq, tt.from)
		}
	}
	// What was pruned in front of them does not come back into sight.
	p, err := a.PlanPrune(t.Context(), PruneOptions{Keep: at(16), Now: time.Now(), Fences: 3})
	if err == nil {
		err = a.Prune(t.Context(), st, p, PruneRun{By: "me"})
	}
	if err != nil {
		t.Fatal(err)
	}
	if p, err = a.PlanPrune(t.Context(), PruneOptions{Keep: at(16), Now: time.Now(), Fences: 100}); err != nil || !p.Nothing() {
		t.Errorf("%+v, %v", p, err)
	}
	if r, err := a.Verify(t.Context(), VerifyOptions{Full: true}); err != nil || r.Epochs[0].Fences != 3 {
		t.Errorf("%v, %s", err, fmt.Sprint(r.Problems))
	}
}
