package e2e

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"txreel/internal/faults"
)

// The faults of a torture besides those of the proxies.
const (
	storeKilled     faults.Kind = "store killed"
	storePaused     faults.Kind = "store paused"
	storeDown       faults.Kind = "store 503" // every request, for a while
	storeMute       faults.Kind = "no answer" // a request takes effect, and nothing is heard of it
	captureKilled   faults.Kind = "capture killed"
	captureStopped  faults.Kind = "capture stopped"
	capturePaused   faults.Kind = "capture paused"
	secondCapture   faults.Kind = "second capture"
	captureTaken    faults.Kind = "capture killed before a standby"
	sourceKilled    faults.Kind = "source killed"
	sourceRestarted faults.Kind = "source restarted"
	clientsCut      faults.Kind = "clients cut"
	restoreKilled   faults.Kind = "restore killed"

	definitions faults.Kind = "DDL"  // no fault: it is not counted
	baseAsked   faults.Kind = "base" // the same
)

// strike is one thing that is done to the running stack.
type strike struct {
	kind   faults.Kind
	lasts  time.Duration
	settle bool // wait until something has been recorded before
	pause  time.Duration
}

// bag holds each kind of strike as often as it is drawn before all begins anew.
func bag() []faults.Kind {
	var all []faults.Kind
	for _, k := range []struct {
		kind  faults.Kind
		times int
	}{
		{faults.Cut, 3}, {faults.Silent, 1}, {faults.Stall, 1}, {faults.Delay, 1}, {faults.Trickle, 1}, {faults.Refuse, 1},
		{storeKilled, 1}, {storePaused, 1}, {storeDown, 2}, {storeMute, 2},
		{captureKilled, 4}, {captureStopped, 1}, {capturePaused, 1}, {secondCapture, 1}, {captureTaken, 1},
		{sourceKilled, 1}, {sourceRestarted, 1}, {clientsCut, 1}, {definitions, 2}, {baseAsked, 1},
	} {
		for range k.times {
			all = append(all, k.kind)
		}
	}
	return all
}

// plan is a sequence of strikes that follows from a seed.
type plan struct {
	rng  *rand.Rand
	left []faults.Kind
	long bool // some strikes last for many seconds
}

func newPlan(seed uint64, long bool) *plan {
	return &plan{rng: rand.New(rand.NewPCG(seed, 1)), long: long}
}

// next draws a strike. whole says that it is the last one of a bag.
func (p *plan) next() (s strike, whole bool) {
	if len(p.left) == 0 {
		p.left = bag()
		p.rng.Shuffle(len(p.left), func(i, k int) { p.left[i], p.left[k] = p.left[k], p.left[i] })
	}
	s = strike{kind: p.left[0], lasts: p.between(50, 500), settle: p.rng.IntN(3) == 0, pause: p.between(0, 150)}
	p.left = p.left[1:]
	if p.rng.IntN(12) == 0 && p.long {
		s.lasts = p.between(2_000, 40_000)
	}
	return s, len(p.left) == 0
}

// between draws a time of so many milliseconds.
func (p *plan) between(low, high int) time.Duration {
	return time.Duration(low+p.rng.IntN(high-low)) * time.Millisecond
}

// weather is how often a request to the store meets each fault, in a thousand; half is for answers that break off.
func weather(each, half int) []faults.Chance {
	return []faults.Chance{
		{Kind: faults.Error500, Times: each}, {Kind: faults.Error500After, Times: each}, {Kind: faults.Error503, Times: each},
		{Kind: faults.Conflict409, Times: each}, {Kind: faults.Exists412, Times: each},
		{Kind: faults.CutBefore, Times: each}, {Kind: faults.CutAfter, Times: each}, {Kind: faults.Half, Times: half},
	}
}

// TestTorturePlan checks that a seed repeats its plan, and that a plan leaves nothing out.
func TestTorturePlan(t *testing.T) {
	t.Parallel()
	draw := func(seed uint64) []strike {
		p := newPlan(seed, true)
		var all []strike
		for range 3 * len(bag()) {
			s, _ := p.next()
			all = append(all, s)
		}
		return all
	}
	first := draw(1)
	if !slices.Equal(first, draw(1)) || slices.Equal(first, draw(2)) {
		t.Error("a seed does not say what happens")
	}
	for _, kind := range bag() {
		drawn := first[:len(bag())]
		if !slices.ContainsFunc(drawn, func(s strike) bool { return s.kind == kind }) {
			t.Errorf("%s is not in the first bag", kind)
		}
	}
}
