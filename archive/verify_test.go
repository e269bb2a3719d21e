package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"txreel/change"
)

// smallArchive returns a store with every kind of object there is: two epochs with a
// gap between them, rollups of both levels, a committed base and one that was never
// committed, marks.
func smallArchive(t testing.TB) (*memStore, *Archive) {
	t.Helper()
	ctx := context.Background()
	st := newMem()
	a := newEpoch(t, st)
	a.fan = 2
	b, err := NewBase(1, "first")
	if err != nil {
		t.Fatal(err)
	}
	chunk := func(name, data string) BaseObject {
		o, err := a.CreateObject(ctx, b, name, strings.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	b.Tables = []BaseTable{{Schema: "public", Name: "orders", Version: 7, Rows: 2, Chunks: []BaseObject{chunk("data/00000001", "1\t2\n"), chunk("data/00000002", "3\t4\n")}}}
	b.Objects = []BaseObject{chunk("schema.sql", "CREATE TABLE orders ();\n")}
	w := newWriter(t, a, 1)
	next := writeSegments(t, w, 1, 2, 1)
	b.Seq, b.Position = w.Tail().Seq, w.Tail().Position
	if err := a.CommitBase(ctx, b); err != nil {
		t.Fatal(err)
	}
	next = writeSegments(t, w, next, 3, 1, 2)
	x := numbered(5)
	if err := a.CreateMark(ctx, Mark{Name: "before-upgrade", Epoch: 1, Seq: 5, XID: x.xid, Position: x.pos, CommitTime: x.time}); err != nil {
		t.Fatal(err)
	}
	epochs, err := a.Epochs(ctx)
	if err == nil {
		_, err = a.StartEpoch(ctx, epochs, CauseGap, "the slot was dropped", map[string]string{"timeline": "1"})
	}
	if err != nil {
		t.Fatal(err)
	}
	w = newWriter(t, a, 2)
	writeSegments(t, w, next, 1, 2)
	return st, a
}

// mentions returns what a report says of a key: problems, else notes.
func (r *VerifyReport) mentions(key string) (found []string) {
	for _, p := range append(slices.Clone(r.Problems), r.Notes...) {
		if p.Key == key {
			found = append(found, p.Detail)
		}
	}
	return found
}

func verify(t *testing.T, st Store, full bool) (*VerifyReport, error) {
	t.Helper()
	a, err := Open(context.Background(), st)
	if err != nil {
		return nil, err
	}
	a.fan = 2
	r, err := a.Verify(context.Background(), VerifyOptions{Full: full})
	if err == nil != (len(r.Problems) == 0) || err != nil && !errors.Is(err, ErrCorrupt) {
		t.Fatalf("error %v with the problems %+v", err, r.Problems)
	}
	return r, err
}

func TestVerifySound(t *testing.T) {
	t.Parallel()
	st, a := smallArchive(t)
	begun, err := NewBase(1, "never committed")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.CreateObject(t.Context(), begun, "data/1", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"notes.txt", "epochs/00000001/README"} {
		st.set(key, []byte("hello"))
	}
	for _, full := range []bool{false, true} {
		var last, total int64
		r, err := a.Verify(t.Context(), VerifyOptions{Full: full, Progress: func(d, n int64) { last, total = d, n }})
		if err != nil {
			t.Fatalf("full %t: %v", full, err)
		}
		if r.Segments != 7 || r.Transactions != 12 || r.Rows != 12 || r.Bases != 1 || r.Marks != 1 || r.Rollups != 4 {
			t.Errorf("full %t: counts %+v", full, r)
		}
		if last != 12 || total != 12 {
			t.Errorf("progress ended at %d of %d, want 12 of 12", last, total)
		}
		if len(r.Notes) != 3 || r.mentions("notes.txt") == nil || r.mentions("epochs/00000001/README") == nil || r.mentions(begun.Key(manifestName)) == nil {
			t.Errorf("notes %+v", r.Notes)
		}
		e := r.Epochs[0]
		if e.Gap == nil || e.Gap.Detail != "the slot was dropped" || r.Epochs[1].Gap != nil {
			t.Errorf("gaps %+v, %+v", e.Gap, r.Epochs[1].Gap)
		}
		if e.First.XID != "701" || e.Last.XID != "709" || e.Last.Time != "1970-01-01T00:00:09.000000Z" || e.Segments != 5 {
			t.Errorf("epoch 1: %+v from %+v to %+v", e, e.First, e.Last)
		}
		if r.BytesRead == 0 {
			t.Error("no bytes read")
		}
		b, err := json.Marshal(r)
		if err != nil || !bytes.Contains(b, []byte(`"problems":[]`)) {
			t.Errorf("report as JSON: %s, %v", b, err)
		}
	}
	r, err := a.Verify(t.Context(), VerifyOptions{Epoch: 2})
	if err != nil || r.Segments != 2 || len(r.Epochs) != 1 {
		t.Errorf("epoch 2 alone: %+v, %v", r, err)
	}
	if _, err := a.Verify(t.Context(), VerifyOptions{Epoch: 3}); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("epoch 3, which does not exist: %v", err)
	}
}

// Whatever object is deleted, the report names it, except for those that nothing
// refers to.
// Fences that are missing, and choices that are missing or damaged, are problems; messages without an id are none.
func TestVerifyFencesAndChoices(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		notes []string
		want  string
	}{
		{name: "none", notes: []string{"", "", ""}},
		{name: "in order", notes: []string{"fence a 1", "", "fence a 2", "fence a 3", "fence b 1", "fence b 2"}},
		{name: "not fences", notes: []string{"fence a 7 ", "fence a", "fence  7", "fence a 07"}},
		{name: "one missing", notes: []string{"fence a 1", "fence a 2", "fence a 4", "fence a 5"}, want: "transaction 0000000000000003 is fence a 4, where fence a 3 is expected"},
		{name: "the first missing", notes: []string{"fence a 1", "fence b 2"}, want: "where fence b 1 is expected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := newMem()
			a := newEpoch(t, st)
			if err := a.RecordChoice(t.Context(), 1, nil, AtBudgetKeep, 0); err != nil {
				t.Fatal(err)
			}
			w := newWriter(t, a, 1)
			for i, note := range c.notes {
				at := change.Position(fmt.Sprintf("0/%X", i+1))
				for _, m := range []change.Message{{Kind: change.KindBegin}, {Kind: change.KindData, Raw: []byte("M")}, {Kind: change.KindCommit, Position: at, CommitTime: 7, Note: note}} {
					if err := w.Append(&m); err != nil {
						t.Fatal(err)
					}
				}
				if i%2 == 1 || i == len(c.notes)-1 {
					shipAll(t, w, at)
				}
			}
			r, err := verify(t, st, false)
			if (err == nil) != (c.want == "") || err != nil && (len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Detail, c.want)) {
				t.Errorf("%v, want %q; problems %+v", err, c.want, r.Problems)
			}
			if r.mentions(choiceKey(1, 1)) != nil {
				t.Errorf("notes %+v", r.Notes)
			}
		})
	}
}

func TestChoices(t *testing.T) {
	t.Parallel()
	st := newMem()
	a := newEpoch(t, st)
	ctx := t.Context()
	record := func(epoch uint64, at string, budget int64) *Choice {
		t.Helper()
		last, err := a.LastChoice(ctx, epoch)
		if err == nil {
			err = a.RecordChoice(ctx, epoch, last, at, budget)
		}
		if err == nil {
			last, err = a.LastChoice(ctx, epoch)
		}
		if err != nil {
			t.Fatal(err)
		}
		return last
	}
	if c, err := a.LastChoice(ctx, 1); err != nil || c != nil {
		t.Fatalf("%+v, %v", c, err)
	}
	record(1, AtBudgetKeep, 0)
	record(1, AtBudgetKeep, 0)
	if c := record(1, AtBudgetDrop, 5); c.Number != 2 || c.AtBudget != AtBudgetDrop || c.Budget != 5 {
		t.Errorf("%+v", c)
	}
	if err := a.RecordChoice(ctx, 1, &Choice{Epoch: 1, Number: 1}, AtBudgetKeep, 9); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second writer: %v", err)
	}
	// The next epoch has it too, until it has one of its own.
	if c, err := a.LastChoice(ctx, 3); err != nil || c.Epoch != 1 || c.Number != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	if c := record(2, AtBudgetDrop, 5); c.Epoch != 2 || c.Number != 1 {
		t.Errorf("%+v", c)
	}
	b, _ := encodeJSON(choiceKey(1, 2), Choice{Epoch: 1, Number: 2, AtBudget: "neither"})
	st.set(choiceKey(1, 2), b)
	if _, err := a.LastChoice(ctx, 1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("neither: %v", err)
	}
	if r, err := verify(t, st, false); err == nil || r.mentions(choiceKey(1, 2)) == nil {
		t.Errorf("verified: %v", err)
	}
	st.remove(choiceKey(1, 1))
	if r, err := verify(t, st, false); err == nil || r.mentions(choiceKey(1, 1)) == nil {
		t.Errorf("verified without the first: %v", err)
	}
}

func TestVerifyFindsDeleted(t *testing.T) {
	t.Parallel()
	whole, _ := smallArchive(t)
	for _, key := range whole.keys {
		st := whole.clone()
		st.remove(key)
		r, err := verify(t, st, false)
		free := strings.Contains(key, "/marks/")
		switch {
		case key == identityKey:
			if !errors.Is(err, ErrNoArchive) {
				t.Errorf("without %s: %v", key, err)
			}
		case free:
			if err != nil {
				t.Errorf("without %s, which nothing refers to: %v", key, err)
			}
		case r.mentions(key) == nil && r.mentions(key[:strings.LastIndexByte(key, '/')+1]) == nil:
			t.Errorf("without %s the report does not name it: problems %+v, notes %+v", key, r.Problems, r.Notes)
		case err == nil && !strings.Contains(key, "/rollups/") && !strings.HasSuffix(key, manifestName):
			t.Errorf("without %s: no error", key)
		}
	}
}

func TestVerifyFindsFlippedByte(t *testing.T) {
	t.Parallel()
	whole, _ := smallArchive(t)
	r, _ := verify(t, whole, true)
	seen := map[string]bool{"json": true}
	for _, key := range whole.keys {
		b := whole.objects[key]
		kind, step := key[:strings.LastIndexByte(key, '/')+1], 1
		if strings.HasSuffix(key, ".json") && key != gapJSON(1) && key != identityKey {
			kind = "json"
		} else if i := strings.Index(kind, "00000"); i >= 0 {
			kind = kind[i+8:]
		}
		switch {
		case seen[kind]:
			step = 17 // every byte only of the first object of a kind
		case strings.Contains(kind, "rollups"):
			step = 5
		}
		seen[kind] = true
		for i := 0; i < len(b); i += step {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << (i % 8)
			whole.objects[key] = bad
			got, err := verify(t, whole, true)
			switch {
			case key == identityKey:
				if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), key) {
					t.Errorf("%s with byte %d flipped: %v", key, i, err)
				}
			case err == nil || len(got.mentions(key)) == 0:
				t.Errorf("%s with byte %d of %d flipped: not named: %+v, %v", key, i, len(b), got.Problems, err)
			}
		}
		whole.objects[key] = b
	}
	if again, _ := verify(t, whole, true); len(again.Problems) != len(r.Problems) {
		t.Fatal("the test has left damage behind")
	}
}

func TestVerifyFindsTruncated(t *testing.T) {
	t.Parallel()
	whole, _ := smallArchive(t)
	for _, key := range whole.keys {
		b := whole.objects[key]
		for n := 0; n < len(b); n += 1 + len(b)/40 {
			whole.objects[key] = b[:n]
			r, err := verify(t, whole, false)
			if !errors.Is(err, ErrCorrupt) || key != identityKey && r.mentions(key) == nil {
				t.Errorf("%s cut to %d of %d bytes: %v", key, n, len(b), err)
			}
		}
		whole.objects[key] = append(bytes.Clone(b), 0)
		r, err := verify(t, whole, false)
		if !errors.Is(err, ErrCorrupt) || key != identityKey && r.mentions(key) == nil {
			t.Errorf("%s with a byte more: %v", key, err)
		}
		whole.objects[key] = b
	}
}

func TestVerifyFindsSwapped(t *testing.T) {
	t.Parallel()
	whole, _ := smallArchive(t)
	for i, x := range whole.keys {
		for _, y := range whole.keys[i+1:] {
			if x == identityKey || bytes.Equal(whole.objects[x], whole.objects[y]) {
				continue
			}
			st := whole.clone()
			st.objects[x], st.objects[y] = st.objects[y], st.objects[x]
			r, err := verify(t, st, true)
			// Without its manifest nothing is known of a base's objects.
			if err == nil || r.mentions(x) == nil && !strings.HasSuffix(y, manifestName) || r.mentions(y) == nil && !strings.HasSuffix(x, manifestName) {
				t.Errorf("%s and %s swapped: %+v, %v", x, y, r.Problems, err)
			}
		}
	}
}

// An object of another archive is whole in itself, and still found.
func TestVerifyFindsForeign(t *testing.T) {
	t.Parallel()
	whole, _ := smallArchive(t)
	other, _ := smallArchive(t)
	for _, key := range whole.keys {
		foreign, ok := other.objects[key]
		if !ok || !strings.Contains(key, "/segments/") && !strings.Contains(key, "/rollups/") {
			continue
		}
		st := whole.clone()
		st.objects[key] = foreign
		r, err := verify(t, st, false)
		if err == nil || r.mentions(key) == nil {
			t.Errorf("%s of another archive: %+v, %v", key, r.Problems, err)
		}
	}
}

// A history that was cut off and continued by another hand is whole in every object,
// but the chain, the epoch behind it, marks and rollups give it away.
func TestVerifyFindsRewritten(t *testing.T) {
	t.Parallel()
	whole, a := smallArchive(t)
	st := whole.clone()
	for _, key := range whole.keys {
		if strings.Contains(key, "00000001/segments/") && key > SegmentKey(1, 1) || strings.Contains(key, "00000001/rollups/") {
			st.remove(key)
		}
	}
	forged := *a
	forged.Store = st
	w := newWriter(t, &forged, 1)
	for i := 3; i < 10; i++ {
		x := numbered(i)
		x.xid += "0"
		if err := appendTxn(w, x); err != nil {
			t.Fatal(err)
		}
		if i == 3 || i == 6 || i == 7 || i == 9 { // where the true ones end
			shipAll(t, w, x.pos)
		}
	}
	r, err := verify(t, st, false)
	if err == nil || r.mentions(epochJSON(2)) == nil || r.mentions(gapJSON(1)) == nil || r.mentions(markKey(1, "before-upgrade")) == nil {
		t.Errorf("problems %+v", r.Problems)
	}
	// The same with one segment exchanged for a sound one.
	for _, key := range st.keys {
		if _, ok := whole.objects[key]; !ok || !strings.Contains(key, "/segments/") || bytes.Equal(whole.objects[key], st.objects[key]) {
			continue
		}
		mixed := whole.clone()
		mixed.objects[key] = st.objects[key]
		if r, err := verify(t, mixed, false); err == nil {
			t.Errorf("%s exchanged: %+v", key, r)
		}
	}
}

// Without Full a byte in the middle of a large segment goes unseen; with it, not.
func TestVerifyFullReadsLargeSegments(t *testing.T) {
	t.Parallel()
	st := newMem()
	a := newEpoch(t, st)
	w := newWriter(t, a, 1)
	r := rng(t)
	for i := range 30 {
		x := numbered(i + 1)
		junk := make([]byte, 10<<10)
		for j := range junk {
			junk[j] = byte(r.Uint32())
		}
		x.message = string(junk)
		if err := appendTxn(w, x); err != nil {
			t.Fatal(err)
		}
	}
	s := shipAll(t, w, "0/1E0")
	bad := bytes.Clone(st.objects[s.Key])
	bad[len(bad)/2] ^= 4
	st.objects[s.Key] = bad
	if _, err := a.Verify(t.Context(), VerifyOptions{}); err != nil {
		t.Errorf("without Full: %v", err)
	}
	rep, err := a.Verify(t.Context(), VerifyOptions{Full: true})
	if !errors.Is(err, ErrCorrupt) || rep.mentions(s.Key) == nil || rep.Problems[0].Offset == 0 {
		t.Errorf("with Full: %v, %+v", err, rep.Problems)
	}
}

// A store that fails is no damage, and a verify that is cancelled ends.
func TestVerifyStoreFails(t *testing.T) {
	t.Parallel()
	st, a := smallArchive(t)
	for fail := 1; ; fail++ {
		n := 0
		down := fmt.Errorf("%w: connection refused", ErrUnreachable)
		c := st.clone()
		c.before = func(string, string) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			if n++; n == fail {
				return down
			}
			return nil
		}
		b := *a
		b.Store = c
		_, err := b.Verify(t.Context(), VerifyOptions{Full: true})
		if n < fail {
			if err != nil {
				t.Errorf("no request failed: %v", err)
			}
			break
		}
		if !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrCorrupt) {
			t.Errorf("request %d fails: %v", fail, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	st.before = func(string, string) error { return ctx.Err() }
	if _, err := a.Verify(ctx, VerifyOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A capture that writes meanwhile does not make a sound archive look damaged.
func TestVerifyBesideCapture(t *testing.T) {
	t.Parallel()
	st := newMem()
	a := newEpoch(t, st)
	a.fan = 2
	w := newWriter(t, a, 1)
	next := writeSegments(t, w, 1, 1, 1, 1)
	var busy atomic.Bool
	st.before = func(op, key string) error {
		// Each listing of Verify meets an archive that has grown since the last.
		if op != "list" || !busy.CompareAndSwap(false, true) {
			return nil
		}
		defer busy.Store(false)
		if next == 60 {
			return nil
		}
		err := appendTxn(w, numbered(next))
		s, sealErr := w.Seal(numbered(next).pos)
		err = errors.Join(err, sealErr, w.Ship(t.Context(), s), w.RollUp(t.Context(), s))
		w.Release(s)
		next++
		return err
	}
	r, err := a.Verify(t.Context(), VerifyOptions{})
	if err != nil {
		t.Fatalf("%v: %+v", err, r.Problems)
	}
}
