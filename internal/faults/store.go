package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"txreel/archive"
)

// The faults of a Store.
const (
	Delayed     Kind = "delayed"     // a call takes up to the plan's Delay longer
	Before      Kind = "before"      // a call fails without effect: the store cannot be reached
	After       Kind = "after"       // a create takes effect, and its answer is lost
	Late        Kind = "late"        // a create is given up, and takes effect up to the plan's Delay later
	Throttled   Kind = "throttled"   // the store asks to come back later
	Final       Kind = "final"       // an error that asks for a person, such as wrong credentials
	Truncated   Kind = "truncated"   // a body ends early, and says so
	Unreachable Kind = "unreachable" // a call while the store is down
)

// Plan says which faults a Store injects, and how often.
type Plan struct {
	Seed    uint64
	Chances []Chance      // of each call
	Delay   time.Duration // the longest one; 0 is 20 ms
}

// Store is an archive.Store that fails by a plan.
type Store struct {
	counter
	inner archive.Store
	plan  Plan
	late  sync.WaitGroup // creates that are given up and not done

	mu   sync.Mutex
	rng  *rand.Rand
	down bool
}

var _ archive.Store = (*Store)(nil)

// NewStore returns a Store around inner. The faults follow from the seed and the order of
// the calls.
func NewStore(inner archive.Store, plan Plan) *Store {
	if plan.Delay == 0 {
		plan.Delay = 20 * time.Millisecond
	}
	return &Store{inner: inner, plan: plan, rng: rand.New(rand.NewPCG(plan.Seed, 0))}
}

// Down makes every call fail from now on, until Up.
func (s *Store) Down() { s.setDown(true) }

// Up ends what Down began.
func (s *Store) Up() { s.setDown(false) }

func (s *Store) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// Wait waits for creates that were given up and take effect late.
func (s *Store) Wait() { s.late.Wait() }

// next decides about a call, and how long a delay of it is.
func (s *Store) next() (Kind, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return Unreachable, 0
	}
	k := pick(s.plan.Chances, s.rng.IntN(1000))
	return k, time.Duration(s.rng.Int64N(int64(s.plan.Delay)))
}

// meet injects what a call meets before it takes effect.
func (s *Store) meet(ctx context.Context, doing string) (k Kind, wait time.Duration, err error) {
	if err := ctx.Err(); err != nil {
		return "", 0, fmt.Errorf("%s: %w", doing, err)
	}
	k, wait = s.next()
	switch k {
	case Delayed:
		select {
		case <-ctx.Done():
			return k, wait, fmt.Errorf("%s: %w", doing, ctx.Err())
		case <-time.After(wait):
		}
	case Before, Unreachable:
		err = fmt.Errorf("%s: injected: no connection: %w", doing, archive.ErrUnreachable)
	case Throttled:
		err = fmt.Errorf("%s: injected: slow down: %w", doing, archive.ErrUnreachable)
	case Final:
		err = fmt.Errorf("%s: %w", doing, ErrFinal)
	default:
		return k, wait, nil // the caller's to inject, if it can
	}
	s.add(k)
	return k, wait, err
}

// ErrFinal is wrapped by errors of the kind Final.
var ErrFinal = errors.New("injected: access denied")

// Create implements archive.Store.
func (s *Store) Create(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	doing := "create " + key
	k, wait, err := s.meet(ctx, doing)
	if err != nil {
		return err
	}
	switch k {
	case After:
		if err := s.inner.Create(ctx, key, body, size); err != nil {
			return err
		}
		s.add(k)
		return fmt.Errorf("%s: injected: the answer was lost: %w", doing, archive.ErrUnreachable)
	case Late:
		if size < 0 || size > 64<<20 {
			break
		}
		b := make([]byte, size)
		if n, err := body.ReadAt(b, 0); n < len(b) {
			return fmt.Errorf("%s: %w", doing, err)
		}
		s.late.Go(func() { // joined by Wait
			time.Sleep(wait)
			_ = s.inner.Create(context.WithoutCancel(ctx), key, bytes.NewReader(b), size) // nobody hears the answer
		})
		s.add(k)
		return fmt.Errorf("%s: injected: given up: %w", doing, archive.ErrUnreachable)
	}
	return s.inner.Create(ctx, key, body, size)
}

// Open implements archive.Store.
func (s *Store) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, int64, error) {
	k, _, err := s.meet(ctx, "open "+key)
	if err != nil {
		return nil, 0, err
	}
	body, size, err := s.inner.Open(ctx, key, off, n)
	if err != nil || k != Truncated {
		return body, size, err
	}
	return &truncated{ReadCloser: body, store: s, key: key}, size, nil
}

// truncated ends a body after its first half of a read, unless that is all of it.
type truncated struct {
	io.ReadCloser
	store *Store
	key   string
	cut   bool
}

// Read implements io.Reader.
func (t *truncated) Read(p []byte) (int, error) {
	if t.cut {
		return 0, fmt.Errorf("read %s: injected: %w: %w", t.key, io.ErrUnexpectedEOF, archive.ErrUnreachable)
	}
	n, err := t.ReadCloser.Read(p)
	if n == 0 {
		return n, err
	}
	t.cut = true
	t.store.add(Truncated)
	return n / 2, nil
}

// List implements archive.Store.
func (s *Store) List(ctx context.Context, prefix, after string, max int) ([]archive.Object, error) {
	if _, _, err := s.meet(ctx, "list "+prefix); err != nil {
		return nil, err
	}
	return s.inner.List(ctx, prefix, after, max)
}

// String names the store inside.
func (s *Store) String() string { return s.inner.String() }
