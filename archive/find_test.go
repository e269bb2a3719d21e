package archive

import (
	"slices"
	"testing"

	"txreel/change"
)

// randomHistory writes transactions with commit times that go backwards into random
// segments.
func randomHistory(t *testing.T, a *Archive, n int) []txn {
	t.Helper()
	r := rng(t)
	w := newWriter(t, a, 1)
	var all []txn
	for i := range n {
		x := numbered(i + 1)
		x.time = change.Time(i*10 - r.IntN(200))
		all = append(all, x)
		if err := appendTxn(w, x); err != nil {
			t.Fatal(err)
		}
		if r.IntN(3) == 0 || i == n-1 {
			shipAll(t, w, x.pos)
		}
	}
	return all
}

func TestFirstAfter(t *testing.T) {
	t.Parallel()
	for n := 0; n < 60; n = n*3/2 + 1 {
		a := newEpoch(t, newMem())
		all := randomHistory(t, a, n)
		for at := change.Time(-210); at < change.Time(n*10+20); at += 3 {
			want := slices.IndexFunc(all, func(x txn) bool { return max(x.time, 0) > at }) + 1
			got, ok, err := a.FirstAfter(t.Context(), 1, at)
			if err != nil || ok != (want > 0) || got.Seq != change.Seq(want) {
				t.Fatalf("of %d transactions, the first after %d: %s, %t, %v; want %d", n, at, got.Seq, ok, err, want)
			}
		}
	}
}

func TestFirstBehindAndLookup(t *testing.T) {
	t.Parallel()
	a := newEpoch(t, newMem())
	all := randomHistory(t, a, 50)
	for i := range all {
		got, ok, err := a.FirstBehind(t.Context(), 1, func(x *change.Txn) (bool, error) { return x.Position > all[i].pos, nil })
		if err != nil || ok != (i < len(all)-1) || ok && got.XID != all[i+1].xid {
			t.Errorf("behind %s: %+v, %t, %v", all[i].pos, got, ok, err)
		}
		got, ok, err = a.Lookup(t.Context(), 1, change.Seq(i+1))
		if err != nil || !ok || got.XID != all[i].xid {
			t.Errorf("transaction %d: %+v, %t, %v", i+1, got, ok, err)
		}
	}
	for _, seq := range []change.Seq{0, 51, 1 << 63} {
		if _, ok, err := a.Lookup(t.Context(), 1, seq); ok || err != nil {
			t.Errorf("transaction %s: %t, %v", seq, ok, err)
		}
	}
}
