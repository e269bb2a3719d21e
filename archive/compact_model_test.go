package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"txreel/change"
)

// life is an archive that is written, packed and pruned, with people who look at it all the time.
type life struct {
	*history
	t       *testing.T
	r       *rand.Rand
	readers []*history
	late    []*lateCapture
	floor   int // all from this second on has to stay
	asked   int
	pruned  int
	taken   int // back
}

// lateCapture is a capture that was held up when it was about to write a segment, and in whose place another one went on.
type lateCapture struct {
	guard *guarded
	key   string
	body  []byte
}

// TestReadersLiveThrough lets readers that keep what they know of packs for as long as they may ask for anything at any moment of compactions and prunes, some of which take
// back what they announced or are cut off, and captures that were held up write whenever they wake. What is kept is read as it was recorded, what is not is said to be
// pruned, and nobody writes where others have gone on.
func TestReadersLiveThrough(t *testing.T) {
	t.Parallel()
	r := rng(t)
	asked, taken, pruned := 0, 0, 0
	for try := 0; try < 6 || (taken < 2 || pruned < 6) && try < 200; try++ {
		h := pruneHistory(t, r)
		l := &life{history: h, t: t, r: r}
		for range 3 {
			l.readers = append(l.readers, l.reader())
		}
		for e := range h.epochs {
			keys := h.segmentsOf(uint64(e + 1))
			l.holdUp(uint64(e+1), keys[r.IntN(len(keys))])
		}
		for round := range 6 {
			l.write()
			if r.IntN(2) == 0 {
				l.compacts(fmt.Sprintf("try %d, round %d, compact", try, round))
			} else {
				l.prunes(fmt.Sprintf("try %d, round %d, prune", try, round))
			}
			if t.Failed() {
				t.Fatalf("%v", l.keys)
			}
		}
		asked, taken, pruned = asked+l.asked, taken+l.taken, pruned+l.pruned
	}
	if taken < 2 || pruned < 6 {
		t.Errorf("%d questions, %d prunes, %d taken back", asked, pruned, taken)
	}
}

// forget makes what a reader has listed of packs too old to be relied on.
func (h *history) forget() {
	h.packs.mu.Lock()
	defer h.packs.mu.Unlock()
	h.packs.lists = make(map[uint64]*packList)
}

// holdUp leaves a capture behind that was about to write a segment at a key, from a transaction on.
func (l *life) holdUp(epoch uint64, key string) {
	fork := l.copy(l.t)
	for _, k := range fork.segmentsOf(epoch) {
		if k >= key {
			fork.remove(k)
		}
	}
	for _, k := range slices.Clone(fork.keys) {
		if strings.Contains(k, "/rollups/") {
			fork.remove(k)
		}
	}
	writeSegments(l.t, newWriter(l.t, fork.Archive, epoch), 5000, 1)
	late := &lateCapture{guard: Guard(l.memStore).(*guarded), key: key, body: fork.objects[key]}
	late.guard.sure = time.Now()
	l.late = append(l.late, late)
}

// write goes on with the last epoch, where somebody else wanted to.
func (l *life) write() {
	e := uint64(len(l.epochs))
	all := l.epochs[e-1]
	l.holdUp(e, SegmentKey(e, change.Seq(len(all)+1)))
	from := int(all[len(all)-1].time/1e6) + 1
	w := newWriter(l.t, l.Archive, e)
	next := writeSegments(l.t, w, from, 1+l.r.IntN(3), 1+l.r.IntN(2), 1)
	for i := from; i < next; i++ {
		l.epochs[e-1] = append(l.epochs[e-1], numbered(i))
	}
	if l.r.IntN(2) == 0 {
		l.bases = append(l.bases, addBase(l.t, l.Archive, e, w, false))
	}
	for _, x := range l.readers {
		x.epochs = l.epochs
	}
}

// settled makes of a moment the wait that it stands for: what anybody knew before it is too old to be relied on; some look again while it lasts.
func (l *life) settled() {
	for _, x := range append(l.readers, l.history) {
		x.forget()
		if l.r.IntN(2) == 0 {
			l.ask(x, "while it waits")
		}
	}
	for _, x := range l.late {
		x.guard.sure = x.guard.sure.Add(-packsFresh)
	}
}

// disturb lets somebody ask at any request that changes something, and cuts off what is done after a while, unless left is negative, by the error that it returns.
func (l *life) disturb(what string, left int) (cut error) {
	var mu sync.Mutex // objects are removed side by side
	var inside atomic.Bool
	cut = errors.New("cut off")
	look := func() {
		inside.Store(true)
		defer inside.Store(false)
		l.ask(l.readers[l.r.IntN(len(l.readers))], what)
		l.wake(what)
	}
	hook := func(op string, f func() error) error {
		if op != "create" && op != "delete" || inside.Load() {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		return f()
	}
	l.before = func(op, _ string) error {
		return hook(op, func() error {
			if left--; left == -1 {
				return cut
			}
			if l.r.IntN(3) == 0 {
				look()
			}
			return nil
		})
	}
	l.after = func(op, key string) error {
		return hook(op, func() error {
			if strings.Contains(key, "/pruned/") || strings.Contains(key, "/packs/") {
				look()
				look()
			}
			return nil
		})
	}
	return cut
}

// compacts compacts until it is done, cut off now and then.
func (l *life) compacts(what string) {
	target, before := int64(1000+l.r.IntN(4000)), 1+l.r.IntN(l.last()+5)
	for {
		p, err := l.PlanCompact(l.t.Context(), CompactOptions{Before: at(before), Target: target})
		if err != nil {
			l.t.Fatalf("%s: %v", what, err)
		}
		cut := l.disturb(what, l.r.IntN(20)-4)
		err = l.Compact(l.t.Context(), l.memStore, p, CompactRun{Progress: func(step CompactStep, _, _ int64) {
			if step == CompactSettle {
				l.settled()
			}
		}})
		if l.over(what, err, cut) {
			return
		}
	}
}

// prunes prunes until it is done or held.
func (l *life) prunes(what string) {
	keep := 1 + l.r.IntN(l.last()+5)
	for {
		p := l.plan(l.t, keep)
		cut := l.disturb(what, l.r.IntN(30)-4)
		asked, held := l.r.IntN(3) > 0, false
		after := l.after
		l.after = func(op, key string) (err error) {
			if op == "create" && strings.Contains(key, "/pruned/") && !asked {
				asked = true
				l.ask(l.readers[0], what+", announced")
				_, err = l.PlaceHold(l.t.Context(), Hold{Name: "case", Reason: "test"})
				held = err == nil
			}
			return errors.Join(err, after(op, key))
		}
		err := l.Prune(l.t.Context(), l.memStore, p, PruneRun{By: "me", Settling: func(time.Duration) { l.settled() }})
		l.before, l.after = nil, nil
		if held {
			if _, err := l.LiftHold(l.t.Context(), "case", "settled", "me"); err != nil {
				l.t.Fatal(err)
			}
		}
		if errors.Is(err, ErrHeld) {
			l.taken++
			l.kept(l.t, max(l.floor, 1), l.last(), what)
			l.over(what, nil, nil)
			return
		}
		if err == nil && !p.Nothing() {
			l.pruned++
			if again := l.plan(l.t, keep); again.Bases > 0 || again.Packs > 0 { // a capture may have put segments there
				l.t.Errorf("%s: a second plan has more: %+v", what, again)
			}
		}
		if err == nil || errors.Is(err, cut) {
			l.floor = max(l.floor, keep)
		}
		if l.floor <= l.last() {
			l.kept(l.t, max(l.floor, 1), l.last(), what)
		}
		if l.over(what, err, cut) {
			return
		}
	}
}

// over looks at all there is behind a run, and reports whether it was not cut off.
func (l *life) over(what string, err, cut error) bool {
	l.before, l.after = nil, nil
	if err != nil && !errors.Is(err, cut) {
		l.t.Fatalf("%s: %v", what, err)
	}
	for _, x := range append(l.readers, l.history) {
		x.readersAgree(l.t, what)
	}
	if l.t.Failed() {
		l.t.Fatalf("%s: %v", what, l.keys)
	}
	return err == nil
}

// wake lets a capture write that was held up.
func (l *life) wake(what string) {
	x := l.late[l.r.IntN(len(l.late))]
	err := x.guard.Create(l.t.Context(), x.key, bytes.NewReader(x.body), int64(len(x.body)))
	if !errors.Is(err, fs.ErrExist) && !errors.Is(err, ErrOtherWriter) {
		l.t.Errorf("%s: a capture wrote %s, where others have gone on: %v", what, x.key, err)
	}
}

// ask asks a reader for something, of an epoch and from a transaction on that chance names.
func (l *life) ask(x *history, what string) {
	l.asked++
	if l.r.IntN(3) == 0 {
		x.forget() // it was long ago
	}
	ctx := l.t.Context()
	e := uint64(1 + l.r.IntN(len(l.epochs)))
	all := l.epochs[e-1]
	seq := change.Seq(1 + l.r.IntN(len(all)))
	want := all[seq-1]
	p, err := l.Pruned(ctx, e)
	if err != nil {
		l.t.Fatal(err)
	}
	kept := seq >= p.From()
	var name string
	switch l.r.IntN(6) {
	case 0:
		name = "look up"
		got, ok, findErr := x.Lookup(ctx, e, seq)
		if err = findErr; err == nil && (!ok || got.XID != want.xid) {
			err = fmt.Errorf("transaction %s, %t", got.XID, ok)
		}
	case 1:
		name = "stream"
		to := min(seq+change.Seq(l.r.IntN(9)), change.Seq(len(all)))
		var got []txn
		if got, _, err = read(x.Archive, e, seq, to); err == nil && !slices.Equal(got, all[seq-1:to]) {
			err = fmt.Errorf("other transactions: %v", got)
		}
	case 2:
		name = "first after"
		got, ok, findErr := x.FirstAfter(ctx, e, want.time-1)
		if err = findErr; err == nil && (!ok || got.XID != want.xid) {
			err = fmt.Errorf("transaction %s, %t", got.XID, ok)
		}
	case 3:
		name = "first behind"
		first := max(seq, p.From())
		got, ok, findErr := x.FirstBehind(ctx, e, func(y *change.Txn) (bool, error) { return y.CommitTime >= want.time, nil })
		if err = findErr; err == nil && (ok != (first <= change.Seq(len(all))) || ok && got.XID != all[first-1].xid) {
			err = fmt.Errorf("transaction %s, %t", got.XID, ok)
		}
		kept = kept || err == nil
	case 4:
		name = "indexes"
		next := seq
		for y, walkErr := range x.Segments(ctx, e, seq) {
			if err = walkErr; err != nil {
				break
			}
			if y.First() > next || y.Txns[0].XID != all[y.First()-1].xid {
				l.t.Errorf("%s: indexes of epoch %d: %s (%s) behind %s", what, e, y.First(), y.Txns[0].XID, next)
			}
			next = y.Last() + 1
		}
		if err == nil && next != change.Seq(len(all)+1) {
			err = fmt.Errorf("they end with %s", next-1)
		}
	case 5:
		name = "tail"
		tail, tailErr := x.Tail(ctx, e)
		if err = tailErr; err == nil && tail.Seq != change.Seq(len(all)) {
			err = fmt.Errorf("%s of %d", tail.Seq, len(all))
		}
		kept = true
	}
	if err != nil && (kept || !errors.Is(err, ErrPruned) || errors.Is(err, ErrCorrupt)) {
		l.t.Errorf("%s: %s, from %s of %d in epoch %d, of which what is before %s is pruned: %v", what, name, seq, len(all), e, p.From(), err)
	}
}
