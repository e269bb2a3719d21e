package archive

import (
	"context"
	"errors"
	"io/fs"
	"testing"

	"txreel/change"
)

// TestBaseAhead keeps a base that holds transactions ahead of others away from readers that do not know of that, and from points that it does not
// stand at.
func TestBaseAhead(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newMem()
	a := newEpoch(t, st)
	w := newWriter(t, a, 1)
	writeSegments(t, w, 1, 3, 4)
	commit := func(partial bool, seq change.Seq, ahead ...change.Seq) *Base {
		t.Helper()
		b, err := NewBase(1, "test")
		if err != nil {
			t.Fatal(err)
		}
		b.Seq, b.Ahead, b.Partial, b.Position = seq, ahead, partial, w.Tail().Position
		b.Tables = []BaseTable{{Schema: "public", Name: "orders", Version: 7}}
		if err := a.CommitBase(ctx, b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	bases := func(want ...*Base) {
		t.Helper()
		all, err := a.Bases(ctx, 1)
		if err != nil || len(all) != len(want) {
			t.Fatalf("%d bases, %v, want %d", len(all), err, len(want))
		}
		for _, b := range want {
			found := false
			for i := range all {
				found = found || all[i].ID == b.ID && all[i].Seq == b.Seq && all[i].Upto() == b.Upto()
			}
			if !found {
				t.Errorf("base %s is not there", b.ID)
			}
		}
	}
	first := commit(false, 1)
	b := commit(false, 2, 4, 6)
	if _, _, err := st.Open(ctx, b.Key(manifestName), 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a reader that does not know of Ahead finds the base: %v", err)
	}
	bases(first, b)
	for seq, want := range map[change.Seq]bool{1: true, 2: true, 3: false, 4: true, 5: false, 6: true, 7: false} {
		if b.Holds(seq) != want || b.Skip()(seq) != want {
			t.Errorf("holds %s: %t", seq, !want)
		}
	}
	if first.Upto() != 1 || first.Skip() != nil || b.Upto() != 6 {
		t.Errorf("up to %s and %s", first.Upto(), b.Upto())
	}
	r, err := a.Verify(ctx, VerifyOptions{Full: true})
	if err != nil || len(r.Problems) > 0 || len(r.Notes) > 0 || r.Bases != 2 {
		t.Errorf("verify: %+v, %v", r, err)
	}

	commit(true, 2)
	commit(true, 6)
	bases(first, b)
	commit(true, 5) // its tables lack 6, which a restore from b would pass over
	bases(first)

	late := commit(false, 3, 9)
	if r, err = a.Verify(ctx, VerifyOptions{}); !errors.Is(err, ErrCorrupt) || r.mentions(late.Key(aheadName)) == nil {
		t.Errorf("a base that holds what the record does not: %+v, %v", r, err)
	}
	for _, bad := range [][]change.Seq{{2, 5}, {5, 4}, {5, 5}} {
		st := newMem()
		a := newEpoch(t, st)
		b := &Base{ID: "20261122T101530Z-9f3a51c0", Epoch: 1, Seq: 3, Ahead: bad}
		if err := a.CommitBase(ctx, b); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Bases(ctx, 1); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v ahead of 3: %v", bad, err)
		}
	}
}

// TestBasesOfOneSecond takes bases one right after the other: they come in the order in which they were taken, whatever their ids.
func TestBasesOfOneSecond(t *testing.T) {
	t.Parallel()
	st := newMem()
	a := newEpoch(t, st)
	w := newWriter(t, a, 1)
	for i := range 12 {
		writeSegments(t, w, 2*i+1, 2)
		addBase(t, a, 1, w, false)
	}
	bases, err := a.Bases(t.Context(), 1)
	if err != nil || len(bases) != 12 {
		t.Fatalf("%d bases, %v", len(bases), err)
	}
	for i := 1; i < len(bases); i++ {
		if bases[i].Seq < bases[i-1].Seq {
			t.Errorf("base %d is after %s, the one before it after %s", i, bases[i].Seq, bases[i-1].Seq)
		}
	}
}
