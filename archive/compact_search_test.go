package archive

import (
	"fmt"
	"math/bits"
	"strings"
	"testing"

	"txreel/change"
)

// TestPackedSearchRequests counts what each reader asks for where packs hold few segments each and no rollup helps: hardly more than before they were packed.
func TestPackedSearchRequests(t *testing.T) {
	t.Parallel()
	const n = 1500
	st := newMem()
	a := newEpoch(t, st)
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = 1
	}
	writeSegments(t, newWriter(t, a, 1), 1, sizes...)
	h := &history{memStore: st, Archive: a, epochs: [][]txn{model(n)}}
	for k := range st.clone().objects {
		if strings.Contains(k, "/rollups/") {
			st.remove(k)
		}
	}
	entry := func(x change.Seq, ok bool, err error, want change.Seq) error {
		if err == nil && (!ok || x != want) {
			return fmt.Errorf("transaction %s, %t; want %s", x, ok, want)
		}
		return err
	}
	readers := map[string]func() error{
		"tail": func() error {
			x, err := h.Tail(t.Context(), 1)
			return entry(x.Seq, true, err, n)
		},
		"writer": func() error {
			w, err := h.NewWriter(t.Context(), 1, t.TempDir())
			if err == nil {
				w.Close()
			}
			return err
		},
		"short stream": func() error { _, _, err := read(h.Archive, 1, 700, 703); return err },
		"stream":       func() error { _, _, err := read(h.Archive, 1, 1, n); return err },
		"indexes":      func() error { return first(h.Segments(t.Context(), 1, 1), n) },
		"few indexes":  func() error { return first(h.Segments(t.Context(), 1, 700), 5) },
		"backward":     func() error { return first(h.Backward(t.Context(), 1, 800), 5) },
	}
	for _, seq := range []change.Seq{1, 2, 3, 500, 700, n - 1, n} {
		readers["first after, "+seq.String()] = func() error {
			x, ok, err := h.FirstAfter(t.Context(), 1, at(int(seq)-1))
			return entry(x.Seq, ok, err, seq)
		}
		readers["first behind, "+seq.String()] = func() error {
			x, ok, err := h.FirstBehind(t.Context(), 1, func(x *change.Txn) (bool, error) { return x.CommitTime >= at(int(seq)), nil })
			return entry(x.Seq, ok, err, seq)
		}
		readers["look up, "+seq.String()] = func() error {
			x, ok, err := h.Lookup(t.Context(), 1, seq)
			return entry(x.Seq, ok, err, seq)
		}
	}
	count := func() map[string]int {
		took := make(map[string]int)
		for name, f := range readers {
			h.reopen(t)
			before := h.count()
			if err := f(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			took[name] = h.count().sub(before).all()
		}
		return took
	}
	unpacked := count()
	p, err := h.compact(t, 2*n, two)
	if err != nil || p.Packs < n/4 {
		t.Fatalf("%+v, %v", p, err)
	}
	for name, packed := range count() {
		if packed > unpacked[name]+2*bits.Len(uint(p.Packs)) { // a search reads a directory and a segment at each step
			t.Errorf("%s: %d requests with %d packs, %d without", name, packed, p.Packs, unpacked[name])
		} else {
			t.Logf("%s: %d requests, %d without packs", name, packed, unpacked[name])
		}
	}
}

// first takes the first n indexes of a walk.
func first(walk func(func(SegmentIndex, error) bool), n int) error {
	for _, err := range walk {
		if n--; err != nil || n == 0 {
			return err
		}
	}
	return fmt.Errorf("it ends %d before", n)
}
