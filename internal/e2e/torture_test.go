package e2e

import (
	"flag"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"txreel/internal/dbtest"
)

var (
	tortureFor  = flag.Duration("e2e.torture", 0, "torture each engine for at least so long")
	tortureSeed = flag.Uint64("e2e.seed", 0, "what a torture does; 0: at random")
)

// TestTorture breaks everything between a source and its archive, and both, by a plan that a seed repeats, while the
// bank's clients work. The record then holds every acknowledged transaction exactly once, whole, and in an order that
// agrees with what the clients saw; so do databases restored from it, at its end and at points chosen at random.
func TestTorture(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var outcomes []outcome
	t.Run("of", func(t *testing.T) { // ends when all engines have
		for _, name := range append([]string{"postgres"}, dbtest.Flavors()...) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				gateway := dbtest.S3(t)
				var e engine
				if name == "postgres" {
					e = newPGEngine(t, gateway)
				} else {
					e = newMyEngine(t, name, gateway)
				}
				o := torture(t, e, gateway)
				mu.Lock()
				defer mu.Unlock()
				outcomes = append(outcomes, o)
			})
		}
	})
	slices.SortFunc(outcomes, func(x, y outcome) int { return -strings.Compare(x.engine, y.engine) })
	t.Logf("\n%s\n%s", table(outcomes), kinds(outcomes))
}

// torture runs all of it on one engine.
func torture(t *testing.T, e engine, gateway *dbtest.Gateway) outcome {
	t.Helper()
	seed := *tortureSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-e2e.seed %d", seed)
	b := &bank{connect: e.connect, clock: e.clock(), pace: time.Duration(times(20, 30)) * time.Millisecond}
	s := newStack(t, e, gateway, b)
	if err := e.exec(t.Context(), bankSchema()); err != nil {
		t.Fatal(err)
	}
	s.startCapture()
	a := s.direct.waitArchive()
	s.direct.waitBases(a, 1, 1)
	b.open(t, seed, 4)
	s.http.Set(s.fault(seed, weather(20, 5)))
	p := newPlan(seed, *tortureFor > 0)
	enough := times(100, max(100, int(1000*min(1, tortureFor.Hours())))) // a thousand in an hour
	for whole := false; !whole || s.total().Total() < enough || time.Since(b.begun) < *tortureFor; {
		x, last := p.next()
		whole = whole || last
		s.strike(x)
	}
	s.tell("no more")
	b.close(t)
	s.calmDown(a)
	e.ready()
	s.tell("ready")
	s.capture.signal(terminate)
	if code := s.capture.wait(patience()); code != 0 {
		t.Errorf("the capture ended with %d:\n%s", code, tail(s.capture.stderr(), 5))
	}

	o := outcome{engine: e.name(), seed: seed, took: b.took, acked: b.acked.Load(), captures: s.started, alone: s.alone}
	o.rate = float64(o.acked) / b.took.Seconds()
	export := filepath.Join(t.TempDir(), "export")
	s.direct.must("audit", "export", "-o", export)
	var r *record
	r, o.verdict = judgeRecord(t, b, export, t.Errorf)
	if epochs, err := a.Epochs(t.Context()); err != nil || len(epochs) != 1 {
		o.gaps++
		t.Errorf("%d epochs: %v", len(epochs), err)
	}
	if gap, err := a.Gap(t.Context(), 1); err != nil || gap != nil {
		o.gaps++
		t.Errorf("gap %+v: %v", gap, err)
	}
	s.direct.must("verify", "--full")
	if len(r.txns) == 0 || o.acked == 0 {
		t.Fatal("nothing is on record")
	}
	r.at(r.txns[len(r.txns)-1].seq).compare(t, "the source", e.query)
	moments, firsts := s.timeline(a)
	s.checkTimes(moments, r, &o)
	s.checkProtection(a, firsts, r, &o)
	s.lookUp(moments, rand.New(rand.NewPCG(seed, 3)), &o)
	o.faults = s.total()
	t.Logf("before any restore:\n%s", table([]outcome{o}))
	s.compare(a, moments, r, &o)
	o.faults = s.total()
	return o
}
