package capture

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/sink/dir"
)

// TestCrashEverywhere lets a fault of every kind happen at every step of a capture,
// starts again the way the command does, and expects every transaction exactly once.
func TestCrashEverywhere(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for f := range faults {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			for at := 1; ; at++ {
				struck := false
				synctest.Test(t, func(t *testing.T) { struck = crash(t, seed, f, at) })
				if t.Failed() {
					t.Fatalf("%s at step %d", f, at)
				}
				if !struck {
					t.Logf("%d steps", at-1)
					return
				}
			}
		})
	}
}

// crash captures a whole log with one fault, and reports whether the fault happened.
func crash(t *testing.T, seed uint64, f fault, at int) bool {
	r := rand.New(rand.NewPCG(seed, 1))
	inner, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, server: newServer(r, 5), inner: inner, fault: f, at: at}
	for attempt := 0; ; attempt++ {
		err := w.once(r)
		switch {
		case w.broken != "":
			t.Fatal(w.broken)
		case w.server.confirmed() >= w.server.end:
			if !errors.Is(err, context.Canceled) && !errors.Is(err, errInjected) {
				t.Fatalf("ended with %v", err)
			}
			plain, err := archive.Open(context.Background(), inner)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.check(plain); err != nil {
				t.Fatal(err)
			}
			return w.struck
		case attempt > 3:
			t.Fatalf("attempt %d: %v", attempt, err)
		case !errors.Is(err, errInjected) && (f != stop || !errors.Is(err, context.Canceled)):
			t.Fatalf("attempt %d: %v", attempt, err)
		}
	}
}

// once opens everything and captures, as the command does after every start.
func (w *world) once(r *rand.Rand) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.mu.Lock()
	w.cancel, w.dead, w.lost = cancel, false, false
	w.mu.Unlock()
	a, err := archive.Init(ctx, store{w, w.inner}, archive.Identity{Engine: "test", System: "1"})
	if err != nil {
		return err
	}
	epochs, err := a.Epochs(ctx)
	if err != nil {
		return err
	}
	if len(epochs) == 0 {
		if _, err := a.StartEpoch(ctx, nil, archive.CauseFirst, "", nil); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	writer, err := a.NewWriter(ctx, 1, "")
	if err != nil {
		return err
	}
	defer writer.Close()
	plain, err := archive.Open(ctx, w.inner)
	if err != nil {
		return err
	}
	src, err := w.open(plain, writer.Tail().Position, r)
	if err != nil {
		return err
	}
	beat := make(chan struct{}, 1)
	beat <- struct{}{}
	err = Run(ctx, src, writer, Options{
		FlushAge: time.Duration(r.IntN(3)) * 300 * time.Millisecond, FlushSize: []int64{1, 0, 200}[r.IntN(3)], Heartbeat: 5 * time.Second, Beat: beat,
		Start: &change.Message{Kind: change.KindIdle, Position: w.server.start, CommitTime: startTime},
	})
	if err == nil {
		return fmt.Errorf("Run returned nothing")
	}
	return err
}
