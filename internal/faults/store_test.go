package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"testing"
	"time"

	"txreel/archive"
	"txreel/sink/dir"
	"txreel/sink/sinktest"
)

func newStore(t *testing.T, plan Plan) *Store {
	t.Helper()
	d, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return NewStore(d, plan)
}

// TestStoreConformance checks that a Store that only delays is a store.
func TestStoreConformance(t *testing.T) {
	t.Parallel()
	s := newStore(t, Plan{Delay: time.Microsecond, Chances: []Chance{{Delayed, 500}}})
	sinktest.Run(t, s)
	if s.Counts()[Delayed] == 0 {
		t.Error("nothing was delayed")
	}
}

// TestStoreFaults meets each fault on its own, and looks at what it did.
func TestStoreFaults(t *testing.T) {
	t.Parallel()
	put := func(s *Store) error { return s.Create(t.Context(), "key", bytes.NewReader([]byte("content")), 7) }
	for _, tt := range []struct {
		kind        Kind
		unreachable bool // the error of a create
		there       bool // the object afterwards
	}{{Before, true, false}, {After, true, true}, {Late, true, true}, {Throttled, true, false}, {Final, false, false}} {
		s := newStore(t, Plan{Delay: time.Millisecond, Chances: []Chance{{tt.kind, 1000}}})
		err := put(s)
		if err == nil || errors.Is(err, archive.ErrUnreachable) != tt.unreachable || errors.Is(err, ErrFinal) == tt.unreachable {
			t.Errorf("%s: %v", tt.kind, err)
		}
		s.Wait()
		if _, _, err := s.inner.Open(t.Context(), "key", 0, -1); (err == nil) != tt.there {
			t.Errorf("%s: the object: %v", tt.kind, err)
		}
		if c := s.Counts(); c[tt.kind] != 1 || c.Total() != 1 {
			t.Errorf("%s: counted %s", tt.kind, c)
		}
	}
	s := newStore(t, Plan{Chances: []Chance{{Truncated, 1000}}})
	if err := put(s); err != nil {
		t.Fatal(err)
	}
	body, size, err := s.Open(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !errors.Is(err, archive.ErrUnreachable) || len(got) == 0 || int64(len(got)) >= size {
		t.Errorf("read %q of %d bytes: %v", got, size, err)
	}
	s.Down()
	if _, err := s.List(t.Context(), "", "", 1); !errors.Is(err, archive.ErrUnreachable) {
		t.Errorf("down: %v", err)
	}
	s.Up()
	if err := put(s); !errors.Is(err, fs.ErrExist) {
		t.Errorf("up again: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.List(ctx, "", "", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestSeedRepeats checks that a seed and a sequence of calls give the same faults again.
func TestSeedRepeats(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) (string, Counts) {
		s := newStore(t, Plan{Seed: seed, Delay: time.Microsecond, Chances: []Chance{{Before, 200}, {After, 200}, {Throttled, 100}, {Final, 100}}})
		story := ""
		for i := range 40 {
			err := s.Create(t.Context(), fmt.Sprintf("key%d", i), bytes.NewReader(nil), 0)
			story += fmt.Sprintln(err)
		}
		return story, s.Counts()
	}
	first, c1 := run(1)
	again, c2 := run(1)
	other, _ := run(2)
	if first != again || !maps.Equal(c1, c2) || first == other || c1.Total() < 10 {
		t.Errorf("seed 1 gave %s, then %s; another seed gives another story: %v", c1, c2, first != other)
	}
}
