package spool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/faults"
	"txreel/sink/dir"
)

var errKilled = errors.New("killed")

// writer appends numbered segments behind what it finds, as a capture does: it reads the tail
// when it starts, and knows of each segment whether it was acknowledged.
type writer struct {
	t     *testing.T
	acked []string
}

// run opens the spool and writes up to n segments, with what a capture writes in between,
// until that is done or something fails. ctx ends when the process is killed.
func (w *writer) run(ctx context.Context, path string, inner archive.Store, o Options, n int) error {
	s, err := Open(ctx, path, inner, o)
	if err != nil {
		return err
	}
	defer kill(s)
	// What has been acknowledged is in sight before anything else happens (Invariant 2).
	all, err := s.List(ctx, "epochs/00000001/segments/", "", 1000)
	if err != nil {
		return err
	}
	for _, key := range w.acked {
		if !slices.ContainsFunc(all, func(o archive.Object) bool { return o.Key == key }) {
			w.t.Fatalf("%s was acknowledged and is gone", key)
		}
	}
	if err := create(ctx, s, archive.IdentityKey, []byte("{}")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for i := len(all); i < n; i++ {
		key := segmentKey(i)
		if err := create(ctx, s, key, content(key)); err != nil {
			return err
		}
		w.acked = append(w.acked, key)
		if i%3 == 2 {
			if err := create(ctx, s, rollupKey(i), content(rollupKey(i))); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
		if i%4 == 3 {
			mark := fmt.Sprintf("epochs/00000001/marks/%d.json", i)
			if err := create(ctx, s, mark, content(mark)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	return s.Close(ctx)
}

// TestKilledAtEveryStep keeps the process from taking a step, and any after it: each step by its
// name, the first time, the second time and so on. Whatever it was doing, the next one goes on:
// nothing that was acknowledged is lost, nothing arrives twice or out of order.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	const segments = 4
	for _, step := range []string{"write", "sync", "rename", "sync folder", "put", "took effect", "unlink", "sync marker", "rename marker"} {
		n := 0
		for done := false; !done; n++ {
			b := newBehind(t)
			path := filepath.Join(t.TempDir(), "spool")
			w := &writer{t: t}
			left := n
			ctx, o := dying(t, func(name string) bool {
				if name == step {
					left--
				}
				return left >= 0
			})
			err := w.run(ctx, path, killable{b, o.step}, o, segments)
			done = err == nil
			if !done && ctx.Err() == nil {
				t.Fatalf("to be killed at step %q: %v", step, err)
			}
			if err := w.run(t.Context(), path, b, hurried(), segments); err != nil {
				t.Fatalf("after a kill at step %q: %v", step, err)
			}
			checkArrived(t, b, segments)
			if t.Failed() {
				t.Fatalf("killed at step %q, the %dth time", step, n+1)
			}
		}
		if n < 2 {
			t.Errorf("never killed at step %q", step)
		}
		t.Logf("killed %d times at step %q", n-1, step)
	}
}

// dying returns options under which a process takes steps as long as lives says so, and none
// after that, and a context that ends then.
func dying(t *testing.T, lives func(step string) bool) (context.Context, Options) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var mu sync.Mutex
	o := hurried()
	o.step = func(name string) error {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() == nil && lives(name) {
			return nil
		}
		cancel()
		return errKilled
	}
	return ctx, o
}

// killable is a store whose answers a process that was killed does not hear.
type killable struct {
	*behind
	step func(string) error
}

// Create implements archive.Store.
func (k killable) Create(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	err := k.behind.Create(ctx, key, body, size)
	return errors.Join(err, k.step("took effect"))
}

// checkArrived fails the test unless exactly the segments 0 to n-1 are there, having arrived in
// order.
func checkArrived(t *testing.T, b *behind, n int) {
	t.Helper()
	var keys, arrived []string
	for i := range n {
		keys = append(keys, segmentKey(i))
	}
	want(t, b, keys...)
	place := -1
	for _, key := range b.order() {
		if archive.KindOf(key) == archive.KeySegment {
			arrived = append(arrived, key)
			place++
			continue
		}
		// What refers to segments comes behind them.
		if archive.KindOf(key) == archive.KeyOther {
			var i int
			if _, err := fmt.Sscanf(key, "epochs/00000001/marks/%d.json", &i); err != nil || place < i {
				t.Errorf("%s arrived behind segment %d only", key, place)
			}
		}
	}
	if !slices.Equal(arrived, keys) {
		t.Errorf("arrived %q\nwant %q", arrived, keys)
	}
}

// TestKilledUnderFaults kills at random steps, again and again, while the store fails too.
func TestKilledUnderFaults(t *testing.T) {
	t.Parallel()
	const segments = 40
	for seed := range uint64(2) {
		b := newBehind(t)
		f := faults.NewStore(b, faults.Plan{Seed: seed, Delay: time.Millisecond, Chances: []faults.Chance{{Kind: faults.Before, Times: 80},
			{Kind: faults.After, Times: 80}, {Kind: faults.Late, Times: 60}, {Kind: faults.Truncated, Times: 50}, {Kind: faults.Delayed, Times: 100}}})
		path := filepath.Join(t.TempDir(), "spool")
		rng := rand.New(rand.NewPCG(seed, 1))
		w := &writer{t: t}
		kills := 0
		for tries := 0; ; tries++ {
			if tries == 2000 {
				t.Fatal("it does not get on")
			}
			left := rng.IntN(60)
			ctx, o := dying(t, func(string) bool { left--; return left >= 0 })
			err := w.run(ctx, path, f, o, segments)
			f.Wait()
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				kills++
			} else if !errors.Is(err, archive.ErrUnreachable) {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		checkArrived(t, b, segments)
		t.Logf("seed %d: killed %d times, injected %s", seed, kills, f.Counts())
	}
}

// TestSIGKILL kills real processes while they write, and while they ship.
func TestSIGKILL(t *testing.T) {
	const rounds = 5
	root, path := filepath.Join(t.TempDir(), "archive"), filepath.Join(t.TempDir(), "spool")
	held := 0 // segments acknowledged so far
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestSIGKILLChild$")
		cmd.Env = append(os.Environ(), "SPOOL_CHILD_STORE="+root, "SPOOL_CHILD_DIR="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		runtime.LockOSThread() // the parent-death signal follows the thread
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop := 5 + rand.IntN(25)
		lines := bufio.NewScanner(out)
		for i := 0; i < stop && lines.Scan(); i++ {
			held = acknowledged(t, lines.Text(), held)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for lines.Scan() { // what it said before it died
			held = acknowledged(t, lines.Text(), held)
		}
		_ = cmd.Wait() // it was killed
		runtime.UnlockOSThread()
	}
	inner, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, path, inner, hurried())
	waiting := s.Stats().Objects
	drain(t, s)
	all, err := inner.List(t.Context(), "epochs/00000001/segments/", "", 1000)
	if err != nil || len(all) < held || held < rounds {
		t.Fatalf("%d segments arrived, %d were acknowledged: %v", len(all), held, err)
	}
	for i := range len(all) {
		want(t, inner, segmentKey(i))
	}
	t.Logf("%d segments were acknowledged over %d kills, %d were left in the spool by the last", held, rounds, waiting)
}

// acknowledged reads a line of the child: the number of segments that are held.
func acknowledged(t *testing.T, line string, held int) int {
	t.Helper()
	text, ok := strings.CutPrefix(line, "acked ")
	if !ok {
		t.Fatalf("the child says %q", line)
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < held {
		t.Fatalf("%q after %d were held: %v", line, held, err)
	}
	return n
}

// TestSIGKILLChild is the process that TestSIGKILL kills.
func TestSIGKILLChild(t *testing.T) {
	root := os.Getenv("SPOOL_CHILD_STORE")
	if root == "" {
		return // nobody's child
	}
	inner, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	f := faults.NewStore(inner, faults.Plan{Seed: uint64(os.Getpid()), Chances: []faults.Chance{{Kind: faults.Delayed, Times: 600}, {Kind: faults.After, Times: 100}}})
	s, err := Open(t.Context(), os.Getenv("SPOOL_CHILD_DIR"), f, hurried())
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.List(t.Context(), "epochs/00000001/segments/", "", 1000)
	for errors.Is(err, archive.ErrUnreachable) {
		time.Sleep(time.Millisecond) // shipping fails at this moment
		all, err = s.List(t.Context(), "epochs/00000001/segments/", "", 1000)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := len(all); ; {
		err := create(t.Context(), s, segmentKey(i), content(segmentKey(i)))
		if errors.Is(err, archive.ErrUnreachable) {
			continue // of what was there at the start
		}
		if err != nil {
			t.Fatal(err)
		}
		i++
		fmt.Println("acked", i)
	}
}
