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
	storeDown       faults.Kind = "store 503"        // every request, for a while
	storeMute       faults.Kind = "no answer"        // a request takes effect, and nothing is heard of it
	storeSkewed     faults.Kind = "store 403 skewed" // every request, for a while: the clocks of capture and store differ
	storeSilent     faults.Kind = "store silent in zero-loss mode"
	captureKilled   faults.Kind = "capture killed"
	captureAlone    faults.Kind = "capture killed for ever" // in zero-loss mode, and the archive alone looked at
	spoolKilled     faults.Kind = "capture killed with a spool not empty"
	diskFull        faults.Kind = "spool's disk full"
	captureStopped  faults.Kind = "capture stopped"
	capturePaused   faults.Kind = "capture paused"
	secondCapture   faults.Kind = "second capture"
	captureTaken    faults.Kind = "capture killed before a standby"
	sourceKilled    faults.Kind = "source killed"
	sourceRestarted faults.Kind = "source restarted"
	sourcePaused    faults.Kind = "source paused"
	senderPaused    faults.Kind = "walsender paused" // PostgreSQL's; the source, where nothing is like it
	clockForward    faults.Kind = "forward"          // the source's, by hours; the clock counts it
	clockBack       faults.Kind = "back"
	clientsCut      faults.Kind = "clients cut"
	restoreKilled   faults.Kind = "restore killed"
	targetKilled    faults.Kind = "target killed"

	definitions faults.Kind = "DDL"  // no fault: it is not counted
	baseAsked   faults.Kind = "base" // the same
)

// strike is one thing that is done to the running stack.
type strike struct {
	kind   faults.Kind
	lasts  time.Duration
	settle bool // wait until something has been recorded before
	pause  time.Duration
	mode   mode    // of captures started without the one before being killed
	jump   float64 // of the source's clock, of what there is room for
}

// mode is how captures run.
type mode struct {
	spool   bool // on a small disk
	sync    bool // COMMIT waits for the archive
	patient bool // and for as long as it takes
}

// timeout is for how long a COMMIT may wait.
func (m mode) timeout() time.Duration {
	if m.patient {
		return time.Minute
	}
	return 2 * time.Second
}

// bag holds each kind of strike as often as it is drawn before all begins anew.
func bag() []faults.Kind {
	var all []faults.Kind
	for _, k := range []struct {
		kind  faults.Kind
		times int
	}{
		{faults.Cut, 2}, {faults.Silent, 1}, {faults.Stall, 1}, {faults.Delay, 1}, {faults.Trickle, 1}, {faults.Refuse, 1},
		{storeKilled, 1}, {storePaused, 1}, {storeDown, 1}, {storeMute, 1}, {storeSkewed, 1}, {storeSilent, 1},
		{captureKilled, 2}, {captureStopped, 2}, {capturePaused, 1}, {secondCapture, 1}, {captureTaken, 1}, {captureAlone, 1},
		{spoolKilled, 1}, {diskFull, 1}, {sourceKilled, 1}, {sourceRestarted, 1}, {sourcePaused, 1}, {senderPaused, 1}, {clockForward, 1}, {clockBack, 1},
		{clientsCut, 1}, {definitions, 1}, {baseAsked, 1},
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
	s.mode = mode{spool: p.rng.IntN(2) == 0, sync: p.rng.IntN(2) == 0}
	s.jump = 0.01 + 0.99*p.rng.Float64()
	p.left = p.left[1:]
	if s.kind == storeDown || s.kind == storeMute || s.kind == storeSkewed {
		s.lasts += 300 * time.Millisecond // for some requests to meet it
	}
	if p.rng.IntN(12) == 0 && p.long {
		s.lasts = p.between(2_000, 40_000)
	}
	return s, len(p.left) == 0
}

// farthest is how far the source's clock moves from the machine's.
const farthest = 3 * time.Hour

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
