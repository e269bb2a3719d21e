package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/internal/failpoint"
)

// TestFailpoints ends a capture, its source or store, a restore or its target at each step that package failpoint names, and
// starts it again. The record holds everything exactly once, and what is restored is what the source holds. The short
// form spreads the points over the engines.
func TestFailpoints(t *testing.T) {
	t.Parallel()
	var met meetings
	ran := 0
	t.Run("on", func(t *testing.T) {
		run := func(name string, begin func(t *testing.T) failEngine) {
			t.Run(name, func(t *testing.T) {
				ran++ // none of them runs before all have come here
				t.Parallel()
				seed := rand.Uint64()
				t.Logf("seed %d", seed)
				o := &ordeal{t: t, engine: begin(t), random: rand.New(rand.NewPCG(seed, 0)), met: &met, begun: time.Now()}
				o.place, o.spool = o.engine.where(), filepath.Join(t.TempDir(), "spool")
				o.place.binary = failingTxreel(t)
				o.endure()
			})
		}
		run("postgres", newFailPG)
		for i, flavor := range dbtest.Flavors() {
			run(flavor, func(t *testing.T) failEngine { return newFailMy(t, flavor, i) })
		}
	})
	if ran <= len(dbtest.Flavors()) || t.Failed() {
		return // not all of it was asked for
	}
	for _, p := range failpoint.All() {
		if met.count(p) == 0 && !slices.Contains(failpoint.Pruning(), p) && !slices.Contains(failpoint.Compacting(), p) { // TestPrune and TestCompact meet those
			t.Errorf("nothing was ended at %q", p)
		}
	}
	t.Logf("%d points, something was ended at one %d times", len(failpoint.All()), met.total())
}

// meetings counts how often something was ended at a point.
type meetings struct {
	mu    sync.Mutex
	times map[failpoint.Point]int
}

func (m *meetings) add(p failpoint.Point) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.times == nil {
		m.times = make(map[failpoint.Point]int)
	}
	m.times[p]++
}

func (m *meetings) count(p failpoint.Point) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.times[p]
}

func (m *meetings) total() (n int) {
	for _, times := range m.times {
		n += times
	}
	return n
}

// server is a source or a target.
type server interface {
	Kill(ctx context.Context) error
	Start(ctx context.Context) error
}

// failEngine is what the ordeal needs to know of a kind of database.
type failEngine interface {
	where() *place
	// source is what a capture works with, and can lose.
	source() server
	// has says whether the engine comes to a point at all.
	has(p failpoint.Point) bool
	// kills says what is ended at a point, the ith of those that the engine comes to in a row: the process, the server
	// that it works with, or one after the other.
	kills(i int, p failpoint.Point) (process, server bool)
	// begun waits until the archive has everything, and begins the load.
	begun(a *archive.Archive)
	// between looks at what must hold while no capture runs.
	between()
	// passed waits until the archive has all that the source has by now.
	passed(a *archive.Archive)
	// settle ends the load, with a history that touches all tables.
	settle()
	// check compares the record with what the load knows.
	check(a *archive.Archive)
	// target makes what can be restored into.
	target(t *testing.T) *failTarget
	// gap breaks the record.
	gap()
}

// failTarget is an empty target.
type failTarget struct {
	server
	url    string
	secret string
	equal  func() // fails the test unless it is what the source is
}

// ordeal is what one engine goes through.
type ordeal struct {
	t      *testing.T
	engine failEngine
	place  *place
	spool  string // folder
	random *rand.Rand
	met    *meetings
	begun  time.Time
}

func (o *ordeal) endure() {
	a := o.capture()
	o.restore()
	if o.engine.has(failpoint.GapCreating) {
		o.breakOff(a)
	}
	o.place.must("verify", "--full")
}

// turns is up to which time a point is reached that something is ended there, where that is not the first. There
// is enough to do for that, wherever the one before it was ended.
var turns = map[failpoint.Point]int{
	failpoint.BaseObjectCreating: 2, failpoint.BaseObjectCreated: 2,
	failpoint.CaptureRead: 200, failpoint.CaptureAppended: 200, failpoint.CaptureSealing: 4, failpoint.CaptureSealed: 4, failpoint.CaptureHanded: 4,
	failpoint.SegmentCreating: 4, failpoint.SegmentCreated: 4, failpoint.CaptureAcking: 4, failpoint.CaptureAcked: 4, failpoint.SourceAcking: 4, failpoint.SourceAcked: 4,
	failpoint.DirWritten: 4, failpoint.DirSynced: 4, failpoint.DirLinked: 4, failpoint.DirSettled: 4,
	failpoint.SpoolWrite: 4, failpoint.SpoolSync: 4, failpoint.SpoolRename: 4, failpoint.SpoolSyncFolder: 4, failpoint.SpoolPut: 4, failpoint.SpoolUnlink: 4,
	failpoint.RestoreMessageSent: 1000, failpoint.RestoreTxnSent: 200,
	failpoint.RestoreStepDone: 3, failpoint.RestoreStepNoted: 3, failpoint.RestoreSettingBack: 3,
}

// reach is how long it may take to a point.
const reach = time.Minute

// arm starts txreel with an order to do something at a point.
func (o *ordeal) arm(p *place, order string, at failpoint.Point, args []string) *process {
	o.t.Helper()
	turn := 1 + o.random.IntN(max(1, turns[at]))
	o.t.Logf("%6.2f %s %s, time %d: %s", time.Since(o.begun).Seconds(), order, at, turn, args[0])
	armed := *p
	armed.extra = append(slices.Clone(p.extra), fmt.Sprintf("TXREEL_TEST_FAILPOINT=%s:%s:%d", order, at, turn))
	return armed.start(args...)
}

// kill runs txreel until it dies at a point. One that does not come there has failed the test.
func (o *ordeal) kill(p *place, at failpoint.Point, args ...string) {
	o.t.Helper()
	c := o.arm(p, "kill", at, args)
	select {
	case <-c.done:
	case <-time.After(reach):
		o.t.Fatalf("%s does not come to %q:\n%s", c, at, tail(c.stderr(), 20))
	}
	if status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		o.t.Fatalf("%s was to die at %q, and ended with %v:\n%s", c, at, c.cmd.ProcessState, tail(c.stderr(), 20))
	}
	c.check()
	c.killed = true
	o.met.add(at)
}

// strand runs txreel until it stands at a point, kills a server meanwhile, starts it again, and lets txreel go on.
func (o *ordeal) strand(p *place, s server, at failpoint.Point, args ...string) *process {
	o.t.Helper()
	c := o.arm(p, "pause", at, args)
	eventually(o.t, reach, fmt.Sprintf("%s stands at %q", c, at), func() bool {
		if !c.alive() {
			o.t.Fatalf("%s was to stand at %q, and ended with %v:\n%s", c, at, c.cmd.ProcessState, tail(c.stderr(), 20))
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
		return err == nil && strings.Contains(string(status), "\nState:\tT")
	})
	if err := s.Kill(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
	if err := s.Start(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
	c.signal(syscall.SIGCONT)
	o.met.add(at)
	return c
}
