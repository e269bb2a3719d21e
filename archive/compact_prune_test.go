package archive

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"txreel/change"
)

// announced calls f each time a prune has put on record where it cuts, before it looks for holds and pins again.
func (h *history) announced(f func()) {
	h.after = func(op, key string) error {
		if op == "create" && strings.HasSuffix(key, "/pruned/00000001.json") {
			f()
		}
		return nil
	}
}

// reader returns the archive as somebody sees it who has not looked for packs yet.
func (h *history) reader() *history {
	a := *h.Archive
	a.packs = new(packs)
	return &history{memStore: h.memStore, Archive: &a, epochs: h.epochs, bases: h.bases}
}

// TestTakenBackPacks looks for packs while a prune has announced a cut that it then takes back: what they hold was never gone.
func TestTakenBackPacks(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	if p, err := h.compact(t, 100, two); err != nil || p.Packs == 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	were := slices.Clone(h.keys)
	readers := map[string]func(r *history) error{
		"first after": func(r *history) error {
			x, ok, err := r.FirstAfter(t.Context(), 1, 0)
			if err == nil && (!ok || x.Seq != 1) {
				return errors.New("transaction " + x.Seq.String())
			}
			return err
		},
		"look up": func(r *history) error {
			if _, ok, err := r.Lookup(t.Context(), 1, 1); !ok || err != nil {
				return errors.Join(err, fs.ErrNotExist)
			}
			return nil
		},
		"stream":  func(r *history) error { _, _, err := read(r.Archive, 1, 1, 10); return err },
		"listing": func(r *history) error { return r.listed(t) },
		"object": func(r *history) error {
			_, _, err := r.openSegment(t.Context(), SegmentKey(1, 1), 0, -1)
			return err
		},
		"all": func(r *history) error { r.same(t, "all"); return nil },
	}
	meanwhile := make(map[string]*history)
	h.announced(func() {
		h.after = nil
		if _, err := h.PlaceHold(t.Context(), Hold{Name: "case-1", Reason: "test", By: "legal"}); err != nil {
			t.Error(err)
		}
		for name := range readers {
			r := h.reader()
			if tail, err := r.Tail(t.Context(), 1); err != nil || tail.Seq != 10 {
				t.Errorf("tail %s, %v", tail.Seq, err)
			}
			if r.packs.lists[1].gone == 0 {
				t.Error("no pack is left out while the cut is announced")
			}
			meanwhile[name] = r
		}
	})
	if err := h.Prune(t.Context(), h.memStore, h.plan(t, 100), PruneRun{By: "me"}); !errors.Is(err, ErrHeld) {
		t.Fatalf("prune: %v", err)
	}
	for _, k := range were {
		if h.objects[k] == nil {
			t.Errorf("%s went", k)
		}
	}
	for name, ask := range readers {
		if err := ask(meanwhile[name]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		// Once that is known nobody asks for it again.
		n := h.count()
		if _, err := meanwhile[name].packs.list(t.Context(), h.Archive, 1, 1); err != nil || h.count() != n {
			t.Errorf("%s, again: %v, %+v", name, err, h.count().sub(n))
		}
	}
}

// listed fails unless the first segment is listed.
func (h *history) listed(t *testing.T) error {
	some, _, err := h.NextSegments(t.Context(), 1, 1, math.MaxUint64)
	if err == nil && (len(some) == 0 || some[0].Key != SegmentKey(1, 1)) {
		return fs.ErrNotExist
	}
	return err
}

// TestAnnouncedRequests counts what it costs who reads behind a cut that its packs are still there: nothing.
func TestAnnouncedRequests(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	if _, err := h.compact(t, 100, two); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("killed")
	h.before = func(op, key string) error {
		if op == "delete" && strings.Contains(key, "/packs/") {
			return stop
		}
		return nil
	}
	if err := h.Prune(t.Context(), h.memStore, h.plan(t, 100), PruneRun{By: "me"}); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	looks := 0
	h.before = func(op, key string) error {
		if strings.Contains(key, "/pruned/") {
			looks++
		}
		return nil
	}
	r := h.reader()
	if got, _, err := read(r.Archive, 1, 7, 10); err != nil || len(got) != 4 || r.packs.lists[1].gone == 0 {
		t.Fatalf("%d transactions, %v", len(got), err)
	}
	if looks > 4 { // a listing and an object, for the stream and for the packs
		t.Errorf("%d requests for what was pruned", looks)
	}
	if _, _, err := read(r.Archive, 1, 1, 10); !errors.Is(err, ErrPruned) {
		t.Errorf("what was pruned: %v", err)
	}
}

// TestGuardPrune lets another capture write on where one goes on that was held up, and prunes that: this one finds its place taken as long as it does not
// ask whether others have gone on, and asks behind that.
func TestGuardPrune(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	was := h.copy(t)
	keys := h.segmentsOf(1)
	put := func(s Store, key string) error {
		return s.Create(t.Context(), key, bytes.NewReader(was.objects[key]), int64(len(was.objects[key])))
	}
	for _, k := range keys {
		h.remove(k)
	}
	g := Guard(h.memStore).(*guarded)
	if err := put(g, keys[0]); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys[1:] {
		if err := put(h.memStore, k); err != nil {
			t.Fatal(err)
		}
	}
	waited := false
	err := h.Prune(t.Context(), h.memStore, h.plan(t, 100), PruneRun{By: "me", Settling: func(time.Duration) {
		waited = true
		if err := put(g, keys[1]); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a capture wrote %s, where the record goes on: %v", keys[1], err)
		}
	}})
	if err != nil || !waited || h.objects[keys[1]] != nil {
		t.Fatalf("pruned without a wait: %v", err)
	}
	g.sure = g.sure.Add(-packsFresh) // the wait is longer than that
	if err := put(g, keys[1]); !errors.Is(err, ErrOtherWriter) {
		t.Errorf("a capture wrote %s, where the record was pruned: %v", keys[1], err)
	}
	if PackSettle < packsFresh+time.Minute {
		t.Errorf("a wait of %s is too short for what is relied on for %s", PackSettle, packsFresh)
	}
}

// TestPruneSettles demands that no segment and no pack goes before the time is over, once all that goes is on record, and that a prune which goes on behind
// one that was killed waits again. Where nothing of them goes nobody waits.
func TestPruneSettles(t *testing.T) {
	t.Parallel()
	const span = 200 * time.Millisecond
	for _, packed := range []bool{false, true} {
		h := twoBases(t)
		if packed {
			if _, err := h.compact(t, 100, two); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		var begun, gone time.Time
		stop := errors.New("killed")
		h.after = func(op, key string) error {
			mu.Lock()
			defer mu.Unlock()
			if op != "delete" || KindOf(key) != KeySegment && !strings.Contains(key, "/packs/") {
				return nil
			}
			if gone.IsZero() {
				gone = time.Now()
			}
			return stop
		}
		run := PruneRun{By: "me", Settle: span}
		for _, want := range []error{stop, nil} {
			h.reopen(t) // a process of its own
			begun, gone = time.Now(), time.Time{}
			err := h.Prune(t.Context(), h.memStore, h.plan(t, 100), run)
			if !errors.Is(err, want) || gone.Sub(begun) < span {
				t.Errorf("packed %t: %v, %s after it began", packed, err, gone.Sub(begun))
			}
			stop = nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), span/4)
		defer cancel()
		h.reopen(t)
		if err := h.Prune(ctx, h.memStore, h.plan(t, 100), run); err != nil {
			t.Errorf("packed %t, with nothing to remove: %v", packed, err)
		}
	}
}

// TestPrunedUnderway prunes what somebody is about to read who looked before where the record begins: he is told so, and gets neither what stands behind it, nor a hole.
func TestPrunedUnderway(t *testing.T) {
	t.Parallel()
	for _, packed := range []bool{false, true} {
		for _, read := range []struct {
			name string
			do   func(r *history) error
		}{
			{"first after", func(r *history) error {
				x, _, err := r.FirstAfter(t.Context(), 1, at(2))
				if err == nil {
					err = errors.New("transaction " + x.Seq.String())
				}
				return err
			}},
			{"look up", func(r *history) error {
				_, _, err := r.Lookup(t.Context(), 1, 2)
				return err
			}},
			{"segments", func(r *history) error { return first(r.Segments(t.Context(), 1, 1), 10) }},
			{"backward", func(r *history) error { return first(r.Backward(t.Context(), 1, 10), 10) }},
		} {
			h := twoBases(t)
			if packed {
				if _, err := h.compact(t, 100, two); err != nil {
					t.Fatal(err)
				}
			}
			r, looked := h.reader(), false
			plan := h.plan(t, 100)
			h.before = func(op, key string) error {
				switch {
				case strings.HasSuffix(key, "/pruned/"):
					looked = true
				case looked || op == "open" && KindOf(key) == KeySegment || op == "list" && read.name == "segments":
					h.before = nil
					if err := h.Prune(t.Context(), h.memStore, plan, PruneRun{By: "me"}); err != nil {
						t.Error(err)
					}
				}
				return nil
			}
			if err := read.do(r); !errors.Is(err, ErrPruned) || errors.Is(err, ErrCorrupt) {
				t.Errorf("packed %t, %s: %v", packed, read.name, err)
			}
		}
	}
}

// TestStreamPruned prunes an epoch behind the back of a Stream that has listed a part of it.
func TestStreamPruned(t *testing.T) {
	t.Parallel()
	for _, packed := range []bool{false, true} {
		st := newMem()
		a := newEpoch(t, st)
		w := newWriter(t, a, 1)
		addBase(t, a, 1, w, false)
		sizes := make([]int, page+300)
		for i := range sizes {
			sizes[i] = 1
		}
		n := writeSegments(t, w, 1, sizes...)
		addBase(t, a, 1, w, false)
		writeSegments(t, w, n, 1, 1)
		h := &history{memStore: st, Archive: a, epochs: [][]txn{model(n + 1)}}
		if packed {
			if _, err := h.compact(t, 2*n, 100_000); err != nil {
				t.Fatal(err)
			}
		}
		plan, turned := h.plan(t, n), false
		reader := h.reader()
		h.before = func(op, key string) error { // when the first part that was listed has been read
			turned = turned || op == "open" && key == SegmentKey(1, page)
			if turned && op == "list" || packed && op == "open" && key == h.packKeys()[1] {
				h.before = nil
				return h.Prune(t.Context(), st, plan, PruneRun{By: "me"})
			}
			return nil
		}
		s, err := reader.Stream(t.Context(), 1, 1, change.Seq(n+1), ""), error(nil)
		for err == nil {
			_, err = s.Next()
		}
		s.Close()
		if !errors.Is(err, ErrPruned) || errors.Is(err, ErrCorrupt) {
			t.Errorf("packed %t: %v", packed, err)
		}
	}
}

// TestStrayPruned lets a capture that was held up write where the record was pruned: it is told, nobody takes that for the record, and the next prune removes it.
func TestStrayPruned(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	fork := h.copy(t)
	keys := h.segmentsOf(1)
	for _, k := range keys[1:] {
		fork.remove(k)
	}
	writeSegments(t, newWriter(t, fork.Archive, 1), 5000, 2)
	if err := h.Prune(t.Context(), h.memStore, h.plan(t, 100), PruneRun{By: "me"}); err != nil {
		t.Fatal(err)
	}
	stray := fork.objects[keys[1]]
	if err := Guard(h.memStore).Create(t.Context(), keys[1], bytes.NewReader(stray), int64(len(stray))); !errors.Is(err, ErrOtherWriter) {
		t.Fatal(err)
	}
	for seq := change.Seq(1); seq <= 6; seq++ {
		_, _, lookErr := h.Lookup(t.Context(), 1, seq)
		_, _, streamErr := read(h.Archive, 1, seq, seq)
		for what, err := range map[string]error{"look up": lookErr, "stream": streamErr, "indexes": first(h.Segments(t.Context(), 1, seq), 1)} {
			if !errors.Is(err, ErrPruned) {
				t.Errorf("%s: transaction %s: %v", what, seq, err)
			}
		}
	}
	p := h.plan(t, 100)
	if err := h.Prune(t.Context(), h.memStore, p, PruneRun{By: "me"}); err != nil || p.Segments != 1 || h.objects[keys[1]] != nil {
		t.Errorf("%d segments were to go, %v", p.Segments, err)
	}
}

// TestEpochPrunedUnderway prunes an epoch as a whole before somebody lists its segments who has seen that it was kept, and puts something where it was.
func TestEpochPrunedUnderway(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	was := h.copy(t)
	epochs, err := h.Epochs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.StartEpoch(t.Context(), epochs, CauseGap, "test", nil); err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, h.Archive, 2)
	addBase(t, h.Archive, 2, w, false)
	writeSegments(t, w, 11, 2)
	plan := h.plan(t, 5000)
	h.before = func(op, key string) error {
		if op != "list" || key != segmentsKey(1) {
			return nil
		}
		h.before = nil
		return h.Prune(t.Context(), h.memStore, plan, PruneRun{By: "me"})
	}
	if err := first(h.Segments(t.Context(), 1, 1), 100); !errors.Is(err, ErrPruned) {
		t.Errorf("indexes: %v", err)
	}
	if p, err := h.Pruned(t.Context(), 1); err != nil || p == nil || p.Tail.Seq != 10 {
		t.Fatalf("pruned: %v, %v", p, err)
	}
	key := was.segmentsOf(1)[2]
	h.set(key, was.objects[key])
	if tail, err := h.Tail(t.Context(), 1); err != nil || tail.Seq != 10 {
		t.Errorf("it ends with %s, %v", tail.Seq, err)
	}
}
