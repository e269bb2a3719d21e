package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"txreel/change"
)

// two is a target that two segments of twoBases fill.
const two = 1200

// compact plans and runs a compaction of all that is older than a second, without waiting.
func (h *history) compact(t *testing.T, before int, target int64) (*CompactPlan, error) {
	t.Helper()
	p, err := h.PlanCompact(t.Context(), CompactOptions{Before: at(before), Target: target})
	if err != nil {
		return nil, err
	}
	return p, h.Compact(t.Context(), h.memStore, p, CompactRun{SpillDir: t.TempDir()})
}

// copy returns the history in a store of its own, opened anew.
func (h *history) copy(t *testing.T) *history {
	t.Helper()
	c := &history{memStore: h.clone(), epochs: h.epochs, bases: h.bases}
	c.Archive = &Archive{fan: h.fan}
	c.reopen(t)
	return c
}

// packsOf returns the keys of packs.
func (h *history) packKeys() (keys []string) {
	for _, k := range h.keys {
		if strings.Contains(k, "/packs/") {
			keys = append(keys, k)
		}
	}
	return keys
}

// TestCompact compacts random archives, cut off at random steps, and expects of every reader what it gave before: of one that comes new, and of one that has
// looked for packs before there were any.
func TestCompact(t *testing.T) {
	t.Parallel()
	r := rng(t)
	packs := 0
	for try := 0; try < 20 || packs < 20 && try < 500; try++ { // some are too short for any pack
		h := pruneHistory(t, r)
		what := fmt.Sprintf("try %d", try)
		target := int64(1000 + r.IntN(6000))
		before := 1 + r.IntN(h.last()+10)
		h.same(t, what)
		whole := h.copy(t)
		p, err := whole.compact(t, before, target)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		whole.planned(t, h, p, before, target)
		whole.same(t, what+", compacted")
		packs += p.Packs
		if again, err := whole.compact(t, before, target); err != nil || !again.Nothing() {
			t.Errorf("%s: a second plan has more: %+v, %v", what, again, err)
		}
		cuts := 0
		for ; ; cuts++ { // cut off, time after time
			var left atomic.Int64
			left.Store(int64(1 + r.IntN(5)))
			boom := errors.New("boom")
			fail := func(op, _ string) error {
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
			_, err := h.compact(t, before, target)
			h.before, h.after = nil, nil
			what := fmt.Sprintf("%s, cut off %d times", what, cuts)
			h.same(t, what)
			c := h.copy(t)
			c.same(t, what+", opened anew")
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
			t.Errorf("%s: what many compactions leave is not what one leaves:\n%v\n%v", what, h.keys, whole.keys)
		}
		for _, k := range h.keys {
			if !bytes.Equal(h.objects[k], whole.objects[k]) {
				t.Errorf("%s: %s differs", what, k)
			}
		}
	}
	if packs < 20 {
		t.Errorf("only %d packs were put", packs)
	}
}

// planned fails the test unless a plan that was carried out packed what it should, and nothing else went.
func (h *history) planned(t *testing.T, from *history, p *CompactPlan, before int, target int64) {
	t.Helper()
	segments, bytes := 0, int64(0)
	for _, k := range from.keys {
		_, kept := h.objects[k]
		if kept {
			continue
		}
		e, seq, err := parseSegmentPath(k)
		if err != nil {
			t.Fatalf("%s went: %v", k, err)
		}
		segments++
		bytes += int64(len(from.objects[k]))
		x, ok, err := h.Lookup(t.Context(), e, seq)
		if err != nil || !ok || x.CommitTime >= at(before) || int64(len(from.objects[k])) >= target {
			t.Errorf("%s went, of %s and %d bytes: %v", k, x.CommitTime, len(from.objects[k]), err)
		}
	}
	for i, all := range h.epochs {
		if first, _, err := h.lastSegment(t.Context(), uint64(i+1), change.Seq(len(all))); err != nil || h.objects[SegmentKey(uint64(i+1), first)] == nil {
			t.Errorf("the last segment of epoch %d, %s, has no object: %v", i+1, first, err)
		}
	}
	if segments != int(p.Segments) || bytes != p.Bytes || len(h.packKeys()) != p.Packs {
		t.Errorf("%d segments of %d bytes went, into %d packs; the plan says %d, %d, %d", segments, bytes, len(h.packKeys()), p.Segments, p.Bytes, p.Packs)
	}
	for _, e := range p.Epochs {
		for _, x := range e.Packs {
			if x.Bytes > target || x.Segments < 2 || x.Segments < packLeast && x.Bytes < target/2 {
				t.Errorf("a pack of %d segments with %d bytes, the target is %d", x.Segments, x.Bytes, target)
			}
		}
	}
}

// TestPruneCompacted prunes archives between compactions, cut off at random: what is kept can be restored and verified, what is left is the least.
func TestPruneCompacted(t *testing.T) {
	t.Parallel()
	r := rng(t)
	gone := int64(0)
	for try := 0; try < 6 || gone < 5 && try < 100; try++ {
		h := pruneHistory(t, r)
		last := h.last()
		target := int64(1000 + r.IntN(4000))
		keeps := []int{1 + r.IntN(last), 1 + r.IntN(last), last + 5}
		slices.Sort(keeps)
		for round, keep := range keeps {
			what := fmt.Sprintf("try %d, round %d, keep from %d", try, round, keep)
			if _, err := h.compact(t, 1+r.IntN(last+5), target); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			for cuts := 0; ; cuts++ {
				var left atomic.Int64
				left.Store(int64(1 + r.IntN(5)))
				boom := errors.New("boom")
				p := h.plan(t, keep)
				stale := *h.Archive // has looked for packs right before something went, when that was on record
				stale.packs = new(packs)
				var once sync.Once
				h.before = func(op, _ string) error {
					if op != "delete" {
						return nil
					}
					once.Do(func() {
						for e := range h.epochs {
							for _, a := range []*Archive{&stale, h.Archive} {
								if _, err := a.packs.renew(t.Context(), a, uint64(e+1)); err != nil {
									t.Error(err)
								}
							}
						}
					})
					if left.Add(-1) < 0 {
						return boom
					}
					return nil
				}
				gone += p.Packs
				err := h.Prune(t.Context(), h.memStore, p, PruneRun{By: "me"})
				h.before = nil
				if err == nil && !h.plan(t, keep).Nothing() {
					t.Errorf("%s: a second plan has more", what)
				}
				now := h.Archive
				for _, h.Archive = range []*Archive{&stale, now} {
					if keep <= last {
						h.kept(t, keep, last, what)
					}
					h.readersAgree(t, what)
				}
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
			h.least(t, what)
		}
	}
	if gone < 5 {
		t.Errorf("only %d packs were to go", gone)
	}
}

// least fails the test if there is a segment or a pack of nothing but what was pruned.
func (h *history) least(t *testing.T, what string) {
	t.Helper()
	for i := range h.epochs {
		e := uint64(i + 1)
		p, err := h.Pruned(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		packs, err := h.packsOf(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range packs {
			if x.last < p.From() {
				t.Errorf("%s: %s is left", what, x.key)
			}
		}
		for _, k := range h.segmentsOf(e) {
			if p.From() > 1 && k <= SegmentKey(e, p.From()-1) {
				t.Errorf("%s: %s is left", what, k)
			}
		}
	}
}

// TestCompactRefuses damages what is to be packed, and what was packed, before objects go.
func TestCompactRefuses(t *testing.T) {
	t.Parallel()
	for i := range 40 { // any byte of a segment, in the store when the plan is made
		h := twoBases(t)
		key := h.segmentsOf(1)[1]
		b := bytes.Clone(h.objects[key])
		b[len(b)*i/40] ^= 1
		h.set(key, b)
		if _, err := h.compact(t, 100, two); !errors.Is(err, ErrCorrupt) || len(h.packKeys()) > 0 {
			t.Errorf("byte %d: %v, packs %v", len(b)*i/40, err, h.packKeys())
		}
	}
	for i := range 40 { // any byte of a pack
		h := twoBases(t)
		keys := h.segmentsOf(1)
		h.after = func(op, key string) error {
			if op == "create" && strings.Contains(key, "/packs/") {
				b := bytes.Clone(h.objects[key])
				b[len(b)*i/40] ^= 1
				h.objects[key] = b
			}
			return nil
		}
		if _, err := h.compact(t, 100, two); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) || !slices.Equal(keys, h.segmentsOf(1)) {
			t.Errorf("a damaged pack: %v", err)
		}
	}
	forged := twoBases(t) // a directory that says something else than its segments
	forged.after = func(op, key string) error {
		if op == "create" && strings.Contains(key, "/packs/") {
			forged.objects[key] = forge(forged.objects[key])
		}
		return nil
	}
	all := forged.segmentsOf(1)
	if _, err := forged.compact(t, 100, two); !errors.Is(err, ErrCorrupt) || !slices.Equal(all, forged.segmentsOf(1)) {
		t.Errorf("a forged pack: %v", err)
	}
	// Segments that do not continue each other.
	h := twoBases(t)
	other := twoBases(t)
	keys := h.segmentsOf(1)
	h.set(keys[1], other.objects[keys[1]])
	if _, err := h.compact(t, 100, two); !errors.Is(err, ErrCorrupt) || len(h.packKeys()) > 0 {
		t.Errorf("a segment of another archive: %v", err)
	}
	// One that is gone when its turn comes.
	h = twoBases(t)
	p, err := h.PlanCompact(t.Context(), CompactOptions{Before: at(100), Target: two})
	if err != nil {
		t.Fatal(err)
	}
	h.remove(h.segmentsOf(1)[0])
	if err := h.Compact(t.Context(), h.memStore, p, CompactRun{}); !errors.Is(err, ErrChanged) || len(h.packKeys()) > 0 {
		t.Errorf("a segment that went: %v", err)
	}
}

// forge changes the hash of the last segment in a pack's directory, and all that vouches for the directory.
func forge(pack []byte) []byte {
	b := bytes.Clone(pack)
	n := int(binary.LittleEndian.Uint64(b[len(b)-packTrailer:]))
	dir := b[len(b)-packTrailer-n*packEntry : len(b)-packTrailer]
	dir[len(dir)-1] ^= 1
	sum := sha256.Sum256(dir)
	copy(b[len(b)-packTrailer+8:], sum[:])
	return b
}

// TestCompactSettles demands that nothing goes before the time is over, neither of what was put just now nor of what was left by one that was killed, perhaps just now.
func TestCompactSettles(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	var mu sync.Mutex
	var put, gone time.Time
	stop := errors.New("killed")
	h.after = func(op, key string) error {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case op == "create":
			put = time.Now()
		case op == "delete" && key != SegmentKey(1, 0):
			if gone.IsZero() {
				gone = time.Now()
			}
			return stop
		}
		return nil
	}
	const settle = 300 * time.Millisecond
	for _, want := range []error{stop, nil} {
		p, err := h.PlanCompact(t.Context(), CompactOptions{Before: at(100), Target: two})
		if err != nil || p.Nothing() {
			t.Fatalf("%+v, %v", p, err)
		}
		put, gone = time.Now(), time.Time{}
		if err := h.Compact(t.Context(), h.memStore, p, CompactRun{Settle: settle}); !errors.Is(err, want) || gone.Sub(put) < settle {
			t.Errorf("%v; an object went %s after the pack was put", err, gone.Sub(put))
		}
		stop = nil
	}
}

// TestGuard lets a capture write that was held up for so long that what another one wrote in its place is packed, or pruned.
func TestGuard(t *testing.T) {
	t.Parallel()
	for _, pruned := range []bool{false, true} {
		h := twoBases(t)
		fork := h.copy(t)
		keys := h.segmentsOf(1)
		if pruned {
			if err := h.Prune(t.Context(), h.memStore, h.plan(t, 100), PruneRun{By: "me"}); err != nil {
				t.Fatal(err)
			}
		} else if _, err := h.compact(t, 100, two); err != nil {
			t.Fatal(err)
		}
		if _, there := h.objects[keys[0]]; there {
			t.Fatalf("%s is there", keys[0])
		}
		same := fork.objects[keys[0]]
		other := bytes.Clone(same)
		other[len(other)/2] ^= 1
		create := func(s Store, b []byte) error {
			return s.Create(t.Context(), keys[0], bytes.NewReader(b), int64(len(b)))
		}
		for range 2 { // the second time as if the answer had been lost
			for _, b := range [][]byte{other, other[1:]} {
				if err := create(Guard(h.memStore), b); !errors.Is(err, ErrOtherWriter) {
					t.Errorf("pruned %t, another segment: %v", pruned, err)
				}
			}
			// What is in a pack is on record, as it has to be when a spool comes back that had shipped it.
			g := Guard(h.memStore).(*guarded)
			if err := create(g, same); pruned && !errors.Is(err, ErrOtherWriter) || !pruned && err != nil || !g.sure.IsZero() {
				t.Errorf("pruned %t, the same segment: %v", pruned, err)
			}
		}
		h.same2(t)
		if err := create(h.memStore, same); !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	// The end of the record is free, and asked for once.
	h := twoBases(t)
	if _, err := h.compact(t, 100, two); err != nil {
		t.Fatal(err)
	}
	c := *h.Archive
	c.Store = Guard(h.memStore)
	w := newWriter(t, &c, 1)
	writeSegments(t, w, h.last()+1, 1)
	n := h.count()
	writeSegments(t, w, h.last()+2, 1, 1)
	if got := h.count().sub(n); got.lists > 0 {
		t.Errorf("two more segments asked for %+v", got)
	}
}

// same2 is same where the record does not begin with the first transaction.
func (h *history) same2(t *testing.T) {
	t.Helper()
	h.reopen(t)
	h.readersAgree(t, "with a stray")
	if _, err := h.Verify(t.Context(), VerifyOptions{Full: true}); err != nil {
		t.Error(err)
	}
}

// TestVerifyPacks finds what is wrong with packs and says it of them, and goes on behind a damaged one.
func TestVerifyPacks(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	before := h.clone()
	if _, err := h.compact(t, 100, two); err != nil {
		t.Fatal(err)
	}
	key := h.packKeys()[0]
	r, err := verify(t, h.memStore, true)
	if err != nil || r.Packs != 1 || r.mentions(key) != nil {
		t.Fatalf("%v, %+v", err, r)
	}
	c := h.clone()
	b := bytes.Clone(c.objects[key])
	b[len(b)-packTrailer-1] ^= 1 // of the directory
	c.set(key, b)
	last := change.Seq(len(h.epochs[0]))
	if r, err := verify(t, c, true); !errors.Is(err, ErrCorrupt) || r.mentions(key) == nil || r.Epochs[0].Last == nil || r.Epochs[0].Last.Seq != last {
		t.Errorf("a damaged directory: %v, %+v", err, r)
	}
	c = h.clone()
	c.set(key, forge(c.objects[key]))
	if r, err := verify(t, c, true); !errors.Is(err, ErrCorrupt) || r.mentions(key) == nil {
		t.Errorf("a forged directory: %v, %+v", err, r)
	}
	c = h.clone()
	c.remove(key)
	if r, err := verify(t, c, true); !errors.Is(err, ErrCorrupt) || r.Epochs[0].Last == nil || r.Epochs[0].Last.Seq != last {
		t.Errorf("a pack is gone: %v, %+v", err, r)
	}
	c = h.clone()
	gone := SegmentKey(1, 1)
	c.set(gone, before.objects[gone])
	if r, err := verify(t, c, true); err != nil || r.mentions(gone) == nil {
		t.Errorf("left over: %v, %+v", err, r)
	}
}

// TestPackedFarAway damages the first pack of many: what lies behind it, and where a capture goes on, is found without it.
func TestPackedFarAway(t *testing.T) {
	t.Parallel()
	st := newMem()
	a := newEpoch(t, st)
	w := newWriter(t, a, 1)
	sizes := make([]int, 60)
	for i := range sizes {
		sizes[i] = 2
	}
	writeSegments(t, w, 1, sizes...)
	h := &history{memStore: st, Archive: a, epochs: [][]txn{model(120)}}
	if _, err := h.compact(t, 1000, two); err != nil {
		t.Fatal(err)
	}
	first := h.packKeys()[0]
	h.objects[first] = append(bytes.Clone(h.objects[first]), 0)
	h.reopen(t)
	if tail, err := h.Tail(t.Context(), 1); err != nil || tail.Seq != 120 {
		t.Errorf("tail %s, %v", tail.Seq, err)
	}
	for _, seq := range []change.Seq{50, 51, 119} {
		if x, ok, err := h.Lookup(t.Context(), 1, seq); err != nil || !ok || x.Seq != seq {
			t.Errorf("look up %s: %+v, %v", seq, x.Txn, err)
		}
	}
	if got, _, err := read(h.Archive, 1, 41, 120); err != nil || len(got) != 80 {
		t.Errorf("%d transactions, %v", len(got), err)
	}
	if _, _, err := read(h.Archive, 1, 1, 120); !errors.Is(err, ErrCorrupt) {
		t.Errorf("from the first on: %v", err)
	}
}

// TestPackedRequests reads a packed history with a part of the requests that it took before.
func TestPackedRequests(t *testing.T) {
	t.Parallel()
	st := newMem()
	a := newEpoch(t, st)
	w := newWriter(t, a, 1)
	sizes := make([]int, 200)
	for i := range sizes {
		sizes[i] = 2
	}
	writeSegments(t, w, 1, sizes...)
	h := &history{memStore: st, Archive: a, epochs: [][]txn{model(400)}}
	requests := func() int {
		h.reopen(t)
		before := h.count()
		for range 2 {
			if got, _, err := read(h.Archive, 1, 1, 400); err != nil || len(got) != 400 {
				t.Fatalf("%d transactions, %v", len(got), err)
			}
		}
		return h.count().sub(before).all()
	}
	unpacked := requests()
	if _, err := h.compact(t, 1000, 20_000); err != nil {
		t.Fatal(err)
	}
	packs := len(h.packKeys())
	if packed := requests(); packs < 3 || packed > unpacked/4 {
		t.Errorf("%d requests with %d packs, %d without", packed, packs, unpacked)
	} else {
		t.Logf("%d requests with %d packs, %d without", packed, packs, unpacked)
	}
}

// TestTwoCompactions lets one put a pack while another waits: that one removes nothing of it, as readers may not know of it yet.
func TestTwoCompactions(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	p, err := h.PlanCompact(t.Context(), CompactOptions{Before: at(100), Target: two})
	if err != nil || p.Packs != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	keys := h.segmentsOf(1)
	other := false
	err = h.Compact(t.Context(), h.memStore, p, CompactRun{Settle: 50 * time.Millisecond, Progress: func(step CompactStep, _, _ int64) {
		if step == CompactSettle && !other {
			other = true
			packUp(t, h, 1, keys[2:4])
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if left := h.segmentsOf(1); !slices.Equal(left, keys[2:]) {
		t.Errorf("left are %v", left)
	}
}

// TestCompactLocked compacts in a store that refuses to remove some or all objects: it is given no more as long as it does, and all of it is done then.
func TestCompactLocked(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	locked := func(segmentsOnly bool) func(op, key string) error {
		return func(op, key string) error {
			if op == "delete" && (key != SegmentKey(1, 0) || !segmentsOnly) {
				return fmt.Errorf("locked: %w", fs.ErrPermission)
			}
			return nil
		}
	}
	h.before = locked(false) // without the right to it
	if _, err := h.compact(t, 100, two); !errors.Is(err, fs.ErrPermission) || len(h.packKeys()) > 0 {
		t.Errorf("packs %v were put, %v", h.packKeys(), err)
	}
	h.before = locked(true) // what stands there now, for a time
	if p, err := h.compact(t, 100, two); !errors.Is(err, fs.ErrPermission) || p.Packs != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	packs, w := h.packKeys(), newWriter(t, h.Archive, 1)
	writeSegments(t, w, h.last()+1, 2, 2, 2, 2)
	h.epochs[0] = model(h.last() + 8)
	for range 2 {
		if p, err := h.compact(t, 100, two); !errors.Is(err, fs.ErrPermission) || p.Packs == 0 || !slices.Equal(h.packKeys(), packs) {
			t.Errorf("packs %v were put, %v", h.packKeys(), err)
		}
		h.same(t, "locked")
	}
	h.before = nil
	p, err := h.compact(t, 100, two)
	if err != nil || p.Left != 2 || len(h.packKeys()) != len(packs)+p.Packs {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := h.compact(t, 100, two); err != nil || !p.Nothing() {
		t.Errorf("again: %+v, %v", p, err)
	}
	h.same(t, "unlocked")
}
