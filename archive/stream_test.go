package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"txreel/change"
	"txreel/segment"
)

func TestStreamRanges(t *testing.T) {
	t.Parallel()
	r := rng(t)
	a := newEpoch(t, newMem())
	w := newWriter(t, a, 1)
	const n = 60
	for next := 1; next <= n; {
		next = writeSegments(t, w, next, min(1+r.IntN(7), n+1-next))
	}
	all := model(n)
	for from := change.Seq(1); from <= n; from++ {
		to := from + change.Seq(r.IntN(n+1-int(from)))
		got, defs, err := read(a, 1, from, to)
		if err != nil || !slices.Equal(got, all[from-1:to]) {
			t.Errorf("from %s to %s: %d transactions, %v", from, to, len(got), err)
		}
		if defs == 0 {
			t.Errorf("from %s: no definition before the first transaction", from)
		}
	}
	if got, _, err := read(a, 1, 5, 4); len(got) > 0 || err != nil {
		t.Errorf("an empty range: %v, %v", got, err)
	}
	if got, _, err := read(a, 1, 0, 3); err == nil && len(got) != 3 {
		t.Errorf("from zero: %d transactions, %v", len(got), err)
	}
	for _, from := range []change.Seq{1, n - 1, n, n + 1, n + 100} {
		got, _, err := read(a, 1, from, n+1000)
		if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrCorrupt) || len(got) != max(0, n+1-int(from)) {
			t.Errorf("from %s past the end: %d transactions, %v", from, len(got), err)
		}
	}
	if _, _, err := read(a, 2, 1, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an epoch that does not exist: %v", err)
	}
}

// What stands in the place of a segment is found out, named, and nothing of it is
// taken for the record.
func TestStreamFindsDamage(t *testing.T) {
	t.Parallel()
	build := func(forge func(i int, x *txn)) (*memStore, *Archive) {
		st := newMem()
		a := newEpoch(t, st)
		w := newWriter(t, a, 1)
		for i := 1; i <= 8; i++ {
			x := numbered(i)
			if forge != nil {
				forge(i, &x)
			}
			if err := appendTxn(w, x); err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				shipAll(t, w, x.pos)
			}
		}
		return st, a
	}
	whole, a := build(nil)
	// An archive of the same id whose second segment differs.
	forged := newMem()
	forged.set(identityKey, whole.objects[identityKey])
	b := newEpoch(t, forged)
	w := newWriter(t, b, 1)
	for i := 1; i <= 8; i++ {
		x := numbered(i)
		if i == 4 {
			x.message += " forged"
		}
		if err := appendTxn(w, x); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			shipAll(t, w, x.pos)
		}
	}
	foreign, _ := build(nil)
	second, third := SegmentKey(1, 3), SegmentKey(1, 5)
	swap := func(st *memStore) { st.objects[second], st.objects[third] = st.objects[third], st.objects[second] }
	cases := []struct {
		name, key string
		held      int // transactions delivered before the damage shows, at most
		do        func(st *memStore)
	}{
		{"a broken chain", third, 4, func(st *memStore) { st.objects[second] = forged.objects[second] }},
		{"another archive's segment", second, 2, func(st *memStore) { st.objects[second] = foreign.objects[second] }},
		{"swapped segments", second, 2, swap},
		{"the first segment again", second, 2, func(st *memStore) { st.objects[second] = st.objects[SegmentKey(1, 1)] }},
		{"a stray key", segmentsKey(1) + "0000000000000004", 4, func(st *memStore) { st.set(segmentsKey(1)+"0000000000000004", nil) }},
		{"an empty segment", second, 2, func(st *memStore) { st.objects[second] = nil }},
	}
	size := len(whole.objects[second])
	for n := 1; n < size; n += 37 {
		cases = append(cases, struct {
			name, key string
			held      int
			do        func(st *memStore)
		}{fmt.Sprintf("%d of %d bytes", n, size), second, 4, func(st *memStore) { st.objects[second] = st.objects[second][:n] }})
	}
	for i := range size {
		cases = append(cases, struct {
			name, key string
			held      int
			do        func(st *memStore)
		}{fmt.Sprintf("byte %d flipped", i), second, 4, func(st *memStore) {
			bad := bytes.Clone(st.objects[second])
			bad[i] ^= 1 << (i % 8)
			st.objects[second] = bad
		}})
	}
	for _, c := range cases {
		st := whole.clone()
		c.do(st)
		d := *a
		d.Store = st
		got, _, err := read(&d, 1, 1, 8)
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, segment.ErrCorrupt) || !strings.Contains(err.Error(), c.key) {
			t.Errorf("%s: %v", c.name, err)
		}
		if len(got) > c.held {
			t.Errorf("%s: %d transactions delivered", c.name, len(got))
		}
	}
	// A segment of another epoch, in a chain that is sound.
	st := whole.clone()
	d := *a
	d.Store = st
	w2 := newWriter(t, &d, 2)
	if err := appendTxn(w2, numbered(1)); err != nil {
		t.Fatal(err)
	}
	s := shipAll(t, w2, numbered(1).pos)
	st.objects[SegmentKey(1, 1)] = st.objects[s.Key]
	if _, _, err := read(&d, 1, 1, 8); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "epoch 2") {
		t.Errorf("a segment of another epoch: %v", err)
	}
	// A missing one.
	st = whole.clone()
	st.remove(second)
	d.Store = st
	var hole *HoleError
	if _, _, err := read(&d, 1, 1, 8); !errors.As(err, &hole) || *hole != (HoleError{Epoch: 1, After: 2, Next: 5}) {
		t.Errorf("a missing segment: %v", err)
	}
	if _, _, err := read(&d, 1, 4, 8); !errors.As(err, &hole) || hole.After != 2 && hole.After != 3 {
		t.Errorf("a missing segment at the start: %v", err)
	}
}

// goroutines waits until no goroutine of a Stream is left.
func noStreams(t *testing.T) {
	t.Helper()
	buf := make([]byte, 1<<20)
	for range 1_000_000 {
		if !bytes.Contains(buf[:runtime.Stack(buf, true)], []byte("(*Stream)")) {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("a goroutine is left:\n%s", buf[:runtime.Stack(buf, true)])
}

// Close ends a Stream wherever it stands: nothing runs on, no file stays open. It is
// not parallel, since it looks at all goroutines and descriptors of the process.
func TestStreamClose(t *testing.T) {
	st := newMem()
	a := newEpoch(t, st)
	a.spill = 4 << 10
	w := newWriter(t, a, 1)
	for i := 1; i <= 3; i++ { // segments beyond what is kept in memory
		x := numbered(i)
		r := rng(t)
		junk := make([]byte, 3*a.spill)
		for j := range junk {
			junk[j] = byte(r.Uint32())
		}
		x.message = string(junk)
		if err := appendTxn(w, x); err != nil {
			t.Fatal(err)
		}
		shipAll(t, w, x.pos)
	}
	w.Close()
	spills := t.TempDir()
	open := func() (n int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, spills) {
				n++
			}
		}
		return n
	}
	spilled := false
	for records := range 16 {
		s := a.Stream(t.Context(), 1, 1, 3, spills)
		for range records {
			if _, err := s.Next(); err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
		spilled = spilled || open() > 0
		s.Close()
		s.Close()
		noStreams(t)
		if n := open(); n > 0 {
			t.Errorf("%d temporary files open after %d records", n, records)
		}
		if _, err := s.Next(); err == nil {
			t.Error("a closed Stream goes on")
		}
		entries, err := os.ReadDir(spills)
		if err != nil || len(entries) > 0 {
			t.Errorf("temporary files are left: %v, %v", entries, err)
		}
	}
	if !spilled {
		t.Error("no segment went to a temporary file")
	}
	// A segment that cannot be read to its end.
	for key := range st.objects {
		if strings.Contains(key, "/segments/") {
			st.objects[key] = st.objects[key][:2*a.spill]
		}
	}
	if _, _, err := read(a, 1, 1, 3); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cut segments: %v", err)
	}
	noStreams(t)
}

// A Stream whose context ends says so, and never that transactions do not exist.
func TestStreamCancelled(t *testing.T) {
	t.Parallel()
	_, a := longArchive(t, 10, 32)
	for records := range 12 {
		ctx, cancel := context.WithCancel(t.Context())
		s := a.Stream(ctx, 1, 1, 10, "")
		for range records {
			if _, err := s.Next(); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		for {
			_, err := s.Next()
			if err == nil {
				continue // read before
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("after %d records: %v", records, err)
			}
			break
		}
		s.Close()
	}
}
