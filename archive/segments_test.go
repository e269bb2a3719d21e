package archive

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"txreel/change"
)

// walkFrom returns the first transactions of the segments that Segments yields.
func walkFrom(t *testing.T, a *Archive, from change.Seq) (all []change.Seq, err error) {
	t.Helper()
	for x, err := range a.Segments(t.Context(), 1, from) {
		if err != nil {
			return all, err
		}
		if x.Key != SegmentKey(1, x.First()) {
			t.Errorf("segment %s has the key %s", x.First(), x.Key)
		}
		all = append(all, x.First())
	}
	return all, nil
}

// longArchive returns an archive of n segments with one heartbeat each.
func longArchive(t testing.TB, n, fan int) (*memStore, *Archive) {
	t.Helper()
	st := newMem()
	a := newEpoch(t, st)
	a.fan = fan
	w := newWriter(t, a, 1)
	for i := 1; i <= n; i++ {
		if err := w.Heartbeat(numbered(i).pos, numbered(i).time); err != nil {
			t.Fatal(err)
		}
		shipAll(t, w, numbered(i).pos)
	}
	return st, a
}

// wantFrom is what walkFrom must return for an archive of segments that begin with
// firsts.
func wantFrom(firsts []change.Seq, last, from change.Seq) []change.Seq {
	if from > last {
		return nil
	}
	i, ok := slices.BinarySearch(firsts, from)
	if !ok && i > 0 {
		i--
	}
	return firsts[i:]
}

// A day of segments, scaled: rollups hold 8 instead of 32, and 64 instead of 1,024,
// so that as many rollups speak of a sixteenth of the segments.
// BenchmarkDayOfSegments counts the real thing.
func TestSegmentsRequests(t *testing.T) {
	t.Parallel()
	st, a := longArchive(t, 86_400/16, 8)
	checkDay(t, st, a, 86_400/16)
}

func checkDay(t testing.TB, st *memStore, a *Archive, n int) {
	t.Helper()
	r := rng(t)
	for try := range 6 {
		from := change.Seq(1 + r.IntN(n))
		if try == 0 {
			from = 1
		}
		before, next := st.count(), from
		for x, err := range a.Segments(t.Context(), 1, from) {
			if err != nil || x.First() != next {
				t.Fatalf("from %s: segment %v where %s must be: %v", from, x, next, err)
			}
			next++
		}
		took := st.count().sub(before)
		if next != change.Seq(n+1) || took.all() > 200 {
			t.Errorf("from %s: up to %s in %+v requests", from, next-1, took)
		}
		if try == 0 {
			t.Logf("%d segments in %d requests", n, took.all())
		}
	}
}

// BenchmarkDayOfSegments walks a day of one-second segments.
func BenchmarkDayOfSegments(b *testing.B) {
	st, a := longArchive(b, 86_400, rollupFan)
	for b.Loop() {
		checkDay(b, st, a, 86_400)
	}
}

// Whatever rollups are missing, damaged or say something else, the walk is the same.
func TestSegmentsWithBadRollups(t *testing.T) {
	t.Parallel()
	r := rng(t)
	whole := newMem()
	a := newEpoch(t, whole)
	a.fan = 3
	w := newWriter(t, a, 1)
	var firsts []change.Seq
	next := 1
	for range 70 {
		firsts = append(firsts, change.Seq(next))
		next = writeSegments(t, w, next, 1+r.IntN(4))
	}
	last := change.Seq(next - 1)
	rollups := slices.DeleteFunc(slices.Clone(whole.keys), func(k string) bool { return !strings.Contains(k, "/rollups/") })
	if len(rollups) < 23+7 {
		t.Fatalf("%d rollups", len(rollups))
	}
	for range 250 {
		st := whole.clone()
		for _, key := range rollups {
			b := bytes.Clone(st.objects[key])
			switch r.IntN(12) {
			case 0:
				st.remove(key)
			case 1:
				st.objects[key] = b[:r.IntN(len(b))]
			case 2:
				b[r.IntN(len(b))] ^= byte(1 << r.IntN(8))
				st.objects[key] = b
			case 3: // sound in itself, and in the wrong place
				st.objects[key] = whole.objects[rollups[r.IntN(len(rollups))]]
			case 4:
				st.set(rollupsKey(1, 1)+"stray", b)
			}
		}
		b := *a
		b.Store = st
		from := change.Seq(1 + r.IntN(next+3))
		got, err := walkFrom(t, &b, from)
		if err != nil || !slices.Equal(got, wantFrom(firsts, last, from)) {
			t.Fatalf("from %s: %v, want %v: %v", from, got, wantFrom(firsts, last, from), err)
		}
	}
}

// A segment that is missing ends the walk, unless a rollup speaks for it.
func TestSegmentsHole(t *testing.T) {
	t.Parallel()
	whole := newMem()
	a := newEpoch(t, whole)
	w := newWriter(t, a, 1)
	writeSegments(t, w, 1, 2, 3, 1, 2)
	for _, c := range []struct {
		seq, after, next change.Seq
	}{{1, 0, 3}, {3, 2, 6}, {6, 5, 7}} {
		st := whole.clone()
		st.remove(SegmentKey(1, c.seq))
		b := *a
		b.Store = st
		_, err := walkFrom(t, &b, 1)
		var hole *HoleError
		if !errors.As(err, &hole) || *hole != (HoleError{Epoch: 1, After: c.after, Next: c.next}) || !errors.Is(err, ErrCorrupt) {
			t.Errorf("without %s: %v", c.seq, err)
		}
		for from := change.Seq(1); from <= 8; from++ {
			got, err := walkFrom(t, &b, from)
			want := wantFrom([]change.Seq{1, 3, 6, 7}, 8, from)
			if !slices.Contains(want, c.seq) {
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("without %s, from %s: %v, %v", c.seq, from, got, err)
				}
			} else if !errors.As(err, &hole) {
				t.Errorf("without %s, from %s: %v, %v", c.seq, from, got, err)
			}
		}
	}
}

// A caller that stops gets no more.
func TestSegmentsStop(t *testing.T) {
	t.Parallel()
	_, a := longArchive(t, 20, 3)
	n := 0
	for _, err := range a.Segments(t.Context(), 1, 1) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 5 {
			break
		}
	}
	if n != 5 {
		t.Errorf("%d segments", n)
	}
}
