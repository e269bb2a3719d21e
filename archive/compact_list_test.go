package archive

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"txreel/change"
)

// stuckStore is a store whose requests for packs hang while on is set, until their ctx or hang ends.
type stuckStore struct {
	*memStore
	on    bool // set while nobody uses the store
	hang  chan struct{}
	begun chan struct{}
}

func stuck(st *memStore) *stuckStore {
	return &stuckStore{memStore: st, on: true, hang: make(chan struct{}), begun: make(chan struct{}, 100)}
}

func (s *stuckStore) wait(ctx context.Context, key string) error {
	if !s.on || !strings.Contains(key, "/packs/") {
		return nil
	}
	s.begun <- struct{}{}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.hang:
		return nil
	}
}

func (s *stuckStore) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, int64, error) {
	if err := s.wait(ctx, key); err != nil {
		return nil, 0, err
	}
	return s.memStore.Open(ctx, key, off, n)
}

func (s *stuckStore) List(ctx context.Context, prefix, after string, limit int) ([]Object, error) {
	if err := s.wait(ctx, prefix); err != nil {
		return nil, err
	}
	return s.memStore.List(ctx, prefix, after, limit)
}

// TestListHangs lets the request hang for which several readers wait: one that is cancelled returns at once, whoever of them made the request; the others get
// what they asked for.
func TestListHangs(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	if _, err := h.compact(t, 100, two); err != nil {
		t.Fatal(err)
	}
	for _, first := range []bool{true, false} { // the one that made the request is cancelled, or another one
		st := stuck(h.memStore)
		a := *h.Archive
		a.Store, a.packs = st, new(packs)
		var wg sync.WaitGroup
		ask := func(ctx context.Context, want error) <-chan struct{} {
			done := make(chan struct{})
			wg.Go(func() {
				defer close(done)
				some, _, err := a.NextSegments(ctx, 1, 1, math.MaxUint64)
				if !errors.Is(err, want) || err == nil && len(some) != 2 {
					t.Errorf("%d segments, %v; want %v", len(some), err, want)
				}
			})
			return done
		}
		ctx, cancel := context.WithCancel(t.Context())
		var done <-chan struct{}
		if first {
			done = ask(ctx, context.Canceled)
			<-st.begun
		} else {
			ask(t.Context(), nil)
			<-st.begun
			done = ask(ctx, context.Canceled)
		}
		for range 4 {
			ask(t.Context(), nil)
		}
		time.Sleep(20 * time.Millisecond) // until they wait
		cancel()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("a reader that was cancelled waits for the request of another one")
		}
		close(st.hang)
		wg.Wait()
	}
}

// TestListFails lets the request fail for which several readers wait: all are told, and the next one asks again.
func TestListFails(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	st := stuck(h.memStore)
	a := *h.Archive
	a.Store, a.packs = st, new(packs)
	boom := errors.New("boom")
	h.before = func(op, key string) error {
		if strings.Contains(key, "/packs/") {
			return boom
		}
		return nil
	}
	var wg sync.WaitGroup
	ask := func() {
		wg.Go(func() {
			if _, _, err := a.Lookup(t.Context(), 1, change.Seq(1)); !errors.Is(err, boom) {
				t.Error(err)
			}
		})
	}
	ask()
	<-st.begun
	for range 4 {
		ask()
	}
	time.Sleep(50 * time.Millisecond) // until they wait; one that comes late makes a request of its own
	close(st.hang)
	wg.Wait()
	h.before = nil
	if _, ok, err := a.Lookup(t.Context(), 1, 1); err != nil || !ok {
		t.Errorf("behind that: %v", err)
	}
}

// TestBlockCancelled cancels the reader that reads a block for which others wait: these get it.
func TestBlockCancelled(t *testing.T) {
	t.Parallel()
	h := twoBases(t)
	if _, err := h.compact(t, 100, two); err != nil {
		t.Fatal(err)
	}
	st := stuck(h.memStore)
	st.on = false
	a := *h.Archive
	a.Store, a.packs = st, new(packs)
	if _, _, err := a.NextSegments(t.Context(), 1, 1, math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	st.on = true
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	ask := func(ctx context.Context, want error) {
		wg.Go(func() {
			if _, _, err := a.openSegment(ctx, SegmentKey(1, 1), 0, -1); !errors.Is(err, want) {
				t.Errorf("%v; want %v", err, want)
			}
		})
	}
	ask(ctx, context.Canceled)
	<-st.begun
	for range 8 {
		ask(t.Context(), nil)
	}
	cancel()
	close(st.hang)
	wg.Wait()
}
