package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"txreel/change"
)

var errFault = fmt.Errorf("%w: injected", ErrUnreachable)

// faultAt fails the request number n of a store, before or after it took effect, and
// none otherwise. hit says whether it came to that.
func faultAt(st *memStore, n int, after bool) (hit func() bool) {
	var mu sync.Mutex
	count := 0
	fault := func(string, string) error {
		mu.Lock()
		defer mu.Unlock()
		if count++; count == n {
			return errFault
		}
		return nil
	}
	st.before, st.after = nil, nil
	if after {
		st.after = fault
	} else {
		st.before = fault
	}
	return func() bool { mu.Lock(); defer mu.Unlock(); return count >= n }
}

// captureModel delivers the transactions of source from the archive's tail on, as a
// capture does, until all are acknowledged: it appends, seals where cuts says,
// ships, acknowledges, rolls up. acked counts the acknowledged ones.
func captureModel(a *Archive, source []txn, cuts map[int]bool, acked *int) error {
	ctx := context.Background()
	w, err := a.NewWriter(ctx, 1, "")
	if err != nil {
		return err
	}
	defer w.Close()
	start := int(w.Tail().Seq)
	if start < *acked {
		return fmt.Errorf("%d acknowledged, the archive holds %d", *acked, start) // Invariant 1
	}
	if start > 0 && w.Tail().Position != source[start-1].pos {
		return fmt.Errorf("tail at %s after %d transactions", w.Tail().Position, start)
	}
	for i := start; i < len(source); i++ {
		if err := appendTxn(w, source[i]); err != nil {
			return err
		}
		if !cuts[i] && i < len(source)-1 {
			continue
		}
		s, err := w.Seal(source[i].pos)
		if err != nil {
			return err
		}
		err = w.Ship(ctx, s)
		w.Release(s)
		if err != nil {
			return err
		}
		*acked = i + 1
		if err := w.RollUp(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func model(n int) []txn {
	var all []txn
	for i := range n {
		all = append(all, numbered(i+1))
	}
	return all
}

// Whatever request fails, before or after it took effect, the next start goes on
// from the tail and in the end each transaction is there exactly once, in order, and
// the rollups are those of a run without faults.
func TestCrashEverywhere(t *testing.T) {
	t.Parallel()
	r := rng(t)
	source := model(48)
	cuts := make(map[int]bool)
	for i := range source {
		cuts[i] = r.IntN(2) == 0
	}
	// A rollup that is due when a run ends is written by the next one that ships.
	source = append(source, numbered(len(source)+1))
	prepared := newMem()
	newEpoch(t, prepared)
	want := prepared.clone()
	run := func(st *memStore, source []txn, acked *int) error {
		a, err := Open(context.Background(), st)
		if err != nil {
			return err
		}
		a.fan = 3
		return captureModel(a, source, cuts, acked)
	}
	most := source[:len(source)-1]
	acked := 0
	if err := errors.Join(run(want, most, &acked), run(want, source, &acked)); err != nil {
		t.Fatal(err)
	}
	upper := slices.ContainsFunc(want.keys, func(k string) bool { return strings.Contains(k, "/rollups/2/") })
	if !upper {
		t.Fatal("no rollup of level 2 came about")
	}
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			st := prepared.clone()
			hit := faultAt(st, n, after)
			acked := 0
			err := run(st, most, &acked)
			if !hit() {
				break
			}
			if !errors.Is(err, ErrUnreachable) {
				t.Fatalf("request %d failed (after: %t): %v", n, after, err)
			}
			st.before, st.after = nil, nil
			if err := errors.Join(run(st, most, &acked), run(st, source, &acked)); err != nil {
				t.Fatalf("restart after request %d failed (after: %t): %v", n, after, err)
			}
			checkHistory(t, st, source)
			var now, then []string
			for _, key := range st.keys {
				if strings.Contains(key, "/rollups/") {
					now = append(now, strings.TrimPrefix(key, epochKey(1)))
				}
			}
			for _, key := range want.keys {
				if strings.Contains(key, "/rollups/") {
					then = append(then, strings.TrimPrefix(key, epochKey(1)))
				}
			}
			// A restart cuts segments elsewhere, so only the same cuts make the same rollups.
			checkContiguous(t, now)
			if sameSegments(st, want) && !slices.Equal(now, then) {
				t.Errorf("request %d failed (after: %t): rollups\n%q, want\n%q", n, after, now, then)
			}
			if t.Failed() {
				return
			}
		}
	}
}

func sameSegments(a, b *memStore) bool {
	segments := func(s *memStore) []string {
		return slices.DeleteFunc(slices.Clone(s.keys), func(k string) bool { return !strings.Contains(k, "/segments/") })
	}
	return slices.Equal(segments(a), segments(b))
}

// checkContiguous checks that the rollups of each level follow upon each other from
// the first transaction on.
func checkContiguous(t *testing.T, keys []string) {
	t.Helper()
	next := map[string]change.Seq{}
	for _, key := range keys {
		parts := strings.Split(key, "/")
		level := parts[2]
		s, err := parseRollupKey(1, int(level[0]-'0'), Object{Key: epochKey(1) + key})
		if err != nil {
			t.Fatal(err)
		}
		if s.first != next[level]+1 {
			t.Errorf("rollups of level %s: %s where %s must begin", level, key, next[level]+1)
		}
		next[level] = s.last
	}
}

// checkHistory checks that an archive holds the source's transactions and is sound.
func checkHistory(t *testing.T, st *memStore, source []txn) {
	t.Helper()
	a, err := Open(context.Background(), st)
	if err != nil {
		t.Fatal(err)
	}
	a.fan = 3
	tail, err := a.Tail(context.Background(), 1)
	if err != nil || tail.Seq != change.Seq(len(source)) {
		t.Fatalf("tail %+v, %v", tail, err)
	}
	got, _, err := read(a, 1, 1, tail.Seq)
	if err != nil || !slices.Equal(got, source) {
		t.Fatalf("the archive holds %d transactions that differ from the source's %d: %v", len(got), len(source), err)
	}
	if r, err := a.Verify(context.Background(), VerifyOptions{Full: true}); err != nil {
		t.Fatalf("%v: %+v", err, r.Problems)
	}
}

// Several requests fail in one run, at random, and rollups fail without a restart.
func TestCrashAtRandom(t *testing.T) {
	t.Parallel()
	r := rng(t)
	for range 30 {
		source := model(40 + r.IntN(40))
		cuts := make(map[int]bool)
		for i := range source {
			cuts[i] = r.IntN(3) > 0
		}
		st := newMem()
		newEpoch(t, st)
		var mu sync.Mutex
		chance := 2 + r.IntN(20)
		fault := func(string, string) error {
			mu.Lock()
			defer mu.Unlock()
			if r.IntN(chance) == 0 {
				return errFault
			}
			return nil
		}
		st.before, st.after = fault, fault
		acked := 0
		for tries := 0; ; tries++ {
			if tries == 40 {
				st.before, st.after = nil, nil
			}
			a, err := Open(context.Background(), st)
			if err != nil {
				continue
			}
			a.fan = 3
			if err = captureModel(a, source, cuts, &acked); err == nil {
				break
			}
			if !errors.Is(err, ErrUnreachable) {
				t.Fatal(err)
			}
		}
		st.before, st.after = nil, nil
		checkHistory(t, st, source)
	}
}

// A rollup that cannot be written stays due while the writer goes on, and leaves no
// hole when the store takes it again.
func TestRollupFailsForAWhile(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		st := newMem()
		a := newEpoch(t, st)
		a.fan = 2
		w := newWriter(t, a, 1)
		down := true
		fault := func(op, key string) error {
			if down && strings.Contains(key, "/rollups/") {
				return errFault
			}
			return nil
		}
		if after {
			st.after = fault
		} else {
			st.before = fault
		}
		failed := 0
		for i := 1; i <= 13; i++ {
			if err := appendTxn(w, numbered(i)); err != nil {
				t.Fatal(err)
			}
			s, err := w.Seal(numbered(i).pos)
			if err == nil {
				err = w.Ship(t.Context(), s)
			}
			if err != nil {
				t.Fatal(err)
			}
			if down = i%7 < 5; w.RollUp(t.Context(), s) != nil {
				failed++
			}
			w.Release(s)
		}
		if failed == 0 {
			t.Error("no rollup failed")
		}
		st.before, st.after = nil, nil
		if r, err := a.Verify(t.Context(), VerifyOptions{}); err != nil || r.Rollups != 6+3 || len(r.Notes) > 0 {
			t.Errorf("after: %t: %d rollups, notes %+v, %v", after, r.Rollups, r.Notes, err)
		}
	}
}

// The indexes kept for rollups that cannot be written are bounded.
func TestRollupMemoryIsBounded(t *testing.T) {
	t.Parallel()
	st := newMem()
	a := newEpoch(t, st)
	r, err := a.newRoller(t.Context(), Tail{Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	st.before = func(string, string) error { return errFault }
	var told []error
	for i := range 12 {
		seq := change.Seq(i + 1)
		if err := r.add(t.Context(), rolled{first: seq, last: seq, size: 8 << 20, packed: make([]byte, 4<<20)}); err != nil {
			told = append(told, err)
		}
		if n := len(r.pending); n > maxPending>>22+1 {
			t.Fatalf("%d MiB of indexes kept", 4*n)
		}
	}
	if n := len(told); n == 0 || n > maxPending>>22+1 || !strings.Contains(told[n-1].Error(), "until the next start") {
		t.Errorf("%d errors: %v", n, told[n-1])
	}
}

// A damaged rollup, or a damaged segment before the tail, does not keep a writer
// from recording.
func TestWriterStartsOverDamage(t *testing.T) {
	t.Parallel()
	for _, damage := range []string{"/rollups/2/", "/rollups/1/", "/segments/000000000000000a.seg"} {
		st := newMem()
		a := newEpoch(t, st)
		a.fan = 3
		w := newWriter(t, a, 1)
		next := writeSegments(t, w, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
		for _, key := range st.keys {
			if strings.Contains(key, damage) {
				st.objects[key] = []byte("junk")
			}
		}
		w = newWriter(t, a, 1)
		for range 8 {
			if err := appendTxn(w, numbered(next)); err != nil {
				t.Fatal(err)
			}
			s, err := w.Seal(numbered(next).pos)
			if err == nil {
				err = w.Ship(t.Context(), s)
			}
			if err != nil {
				t.Fatalf("%s damaged: %v", damage, err)
			}
			if err := w.RollUp(t.Context(), s); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s damaged: %v", damage, err)
			}
			w.Release(s)
			next++
		}
		if tail, err := a.Tail(t.Context(), 1); err != nil || tail.Seq != 19 {
			t.Errorf("%s damaged: tail %+v, %v", damage, tail, err)
		}
	}
}

// Two captures at once: each place is taken by one of them, the loser is told, no
// acknowledged transaction is lost and the history has one line.
func TestTwoWriters(t *testing.T) {
	t.Parallel()
	st := newMem()
	a := newEpoch(t, st)
	a.fan = 2
	const rounds = 150
	acked := make([]map[string]bool, 2)
	lost := make([]int, 2)
	var wg sync.WaitGroup
	for who := range 2 {
		acked[who] = make(map[string]bool)
		wg.Go(func() {
			var w *Writer
			for i := range rounds {
				if w == nil {
					var err error
					if w, err = a.NewWriter(t.Context(), 1, ""); err != nil {
						t.Error(err)
						return
					}
				}
				x := numbered(i)
				x.xid = fmt.Sprintf("%d-%d", who, i)
				if err := appendTxn(w, x); err != nil {
					t.Error(err)
					return
				}
				s, err := w.Seal(x.pos)
				if err != nil {
					t.Error(err)
					return
				}
				switch err := w.Ship(t.Context(), s); {
				case err == nil:
					acked[who][x.xid] = true
					if err := w.RollUp(t.Context(), s); err != nil {
						t.Error(err)
					}
					w.Release(s)
				case errors.Is(err, ErrOtherWriter) && strings.Contains(err.Error(), s.Key):
					lost[who]++
					if err := w.Ship(t.Context(), s); err == nil {
						t.Error("a writer that has lost goes on")
					}
					w.Close()
					w = nil
				default:
					t.Error(err)
					return
				}
			}
			if w != nil {
				w.Close()
			}
		})
	}
	wg.Wait()
	tail, err := a.Tail(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	all, _, err := read(a, 1, 1, tail.Seq)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range all {
		who := x.xid[0] - '0'
		if !acked[who][x.xid] {
			t.Errorf("%s is in the archive twice, or was never acknowledged", x.xid)
		}
		delete(acked[who], x.xid)
	}
	if n := len(acked[0]) + len(acked[1]); n > 0 {
		t.Errorf("%d acknowledged transactions are lost", n)
	}
	if lost[0]+lost[1]+len(all) != 2*rounds {
		t.Errorf("%d and %d lost, %d archived, want %d together", lost[0], lost[1], len(all), 2*rounds)
	}
	if r, err := a.Verify(t.Context(), VerifyOptions{Full: true}); err != nil {
		t.Errorf("%v: %+v", err, r.Problems)
	}
}

// The loser in each of the orders that matter, without luck.
func TestTwoWritersInTurn(t *testing.T) {
	t.Parallel()
	st := newMem()
	a := newEpoch(t, st)
	v, w := newWriter(t, a, 1), newWriter(t, a, 1)
	writeSegments(t, v, 1, 2)
	if err := appendTxn(w, numbered(1)); err != nil {
		t.Fatal(err)
	}
	s, err := w.Seal(numbered(1).pos)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Ship(t.Context(), s); !errors.Is(err, ErrOtherWriter) {
		t.Errorf("a shorter segment in a place that is taken: %v", err)
	}
	w.Release(s)
	// What follows it would fit behind the other writer's transactions; it must not
	// be stored all the same.
	if err := appendTxn(w, numbered(2)); err != nil {
		t.Fatal(err)
	}
	if s, err = w.Seal(numbered(2).pos); err != nil {
		t.Fatal(err)
	}
	if err := w.Ship(t.Context(), s); err == nil {
		t.Error("a segment behind one that was not shipped is taken")
	}
	if tail, err := a.Tail(t.Context(), 1); err != nil || tail.Seq != 2 || tail.Segment != 1 {
		t.Errorf("tail %+v, %v", tail, err)
	}
}

// A create that took effect although its answer was lost is ours.
func TestLostReply(t *testing.T) {
	t.Parallel()
	for _, reply := range []error{errFault, fs.ErrExist} {
		st := newMem()
		a := newEpoch(t, st)
		w := newWriter(t, a, 1)
		if err := appendTxn(w, numbered(1)); err != nil {
			t.Fatal(err)
		}
		s, err := w.Seal(numbered(1).pos)
		if err != nil {
			t.Fatal(err)
		}
		st.after = func(op, _ string) error {
			if op == "create" {
				return fmt.Errorf("create: %w", reply)
			}
			return nil
		}
		err = w.Ship(t.Context(), s)
		if errors.Is(reply, fs.ErrExist) && err != nil {
			t.Errorf("taken by our own bytes: %v", err)
		}
		if errors.Is(reply, errFault) {
			if !errors.Is(err, ErrUnreachable) {
				t.Errorf("an answer is lost: %v", err)
			}
			st.after = nil
			if err := w.Ship(t.Context(), s); err != nil {
				t.Errorf("again: %v", err)
			}
		}
		st.after = nil
		w.Release(s)
		writeSegments(t, w, 2, 1)
		if all, _, err := read(a, 1, 1, 2); err != nil || len(all) != 2 {
			t.Errorf("%+v, %v", all, err)
		}
		b, err := NewBase(1, "test")
		if err != nil {
			t.Fatal(err)
		}
		st.after = func(op, _ string) error {
			if op == "create" {
				return fmt.Errorf("create: %w", fs.ErrExist)
			}
			return nil
		}
		if _, err := a.CreateObject(t.Context(), b, "data/1", strings.NewReader("x"), 1); err != nil {
			t.Errorf("object of a base: %v", err)
		}
		if _, err := a.CreateObject(t.Context(), b, "data/1", strings.NewReader("y"), 1); !errors.Is(err, fs.ErrExist) {
			t.Errorf("another object in its place: %v", err)
		}
		if err := a.CommitBase(t.Context(), b); err != nil {
			t.Errorf("manifest: %v", err)
		}
		if err := a.CreateMark(t.Context(), Mark{Name: "m", Epoch: 1, Seq: 1}); err != nil {
			t.Errorf("mark: %v", err)
		}
		if err := a.CreateMark(t.Context(), Mark{Name: "m", Epoch: 1, Seq: 2}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("another mark of the name: %v", err)
		}
	}
}

// A day of an idle source: one heartbeat a minute, and no listing after the start.
func TestIdleDay(t *testing.T) {
	t.Parallel()
	st := newMem()
	a := newEpoch(t, st)
	w := newWriter(t, a, 1)
	start := st.count()
	for i := 1; i <= 24*60; i++ {
		if err := w.Heartbeat(numbered(i).pos, numbered(i).time); err != nil {
			t.Fatal(err)
		}
		shipAll(t, w, numbered(i).pos)
	}
	n := st.count().sub(start)
	if n.creates > 1500 || n.lists != 0 || n.opens > 100 {
		t.Errorf("requests of an idle day: %+v; at most 1,500 creates and no list", n)
	}
	t.Logf("requests of an idle day: %+v", n)
}
