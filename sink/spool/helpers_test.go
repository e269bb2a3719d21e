package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"txreel/archive"
	"txreel/sink/dir"
)

// behind is the store behind a spool: a directory that notes in which order objects arrive,
// and lets creates pass only while it is told to.
type behind struct {
	archive.Store

	mu      sync.Mutex
	arrived []string
	gate    chan struct{} // closed while creates may pass
}

func newBehind(t *testing.T) *behind {
	t.Helper()
	d, err := dir.Open(filepath.Join(t.TempDir(), "archive"))
	if err != nil {
		t.Fatal(err)
	}
	b := &behind{Store: d, gate: make(chan struct{})}
	b.pass()
	return b
}

// hold makes creates wait until pass.
func (b *behind) hold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gate = make(chan struct{})
}

func (b *behind) pass() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.gate)
}

// Create implements archive.Store.
func (b *behind) Create(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	b.mu.Lock()
	gate := b.gate
	b.mu.Unlock()
	select {
	case <-gate:
	case <-ctx.Done():
		return ctx.Err()
	}
	// The lock orders creates as the store does: none is noted behind one that follows it.
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.Store.Create(ctx, key, body, size)
	if err == nil {
		b.arrived = append(b.arrived, key)
	}
	return err
}

// order returns the keys in the order in which they arrived.
func (b *behind) order() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.arrived)
}

// hurried are options for tests that repeat.
func hurried() Options { return Options{RetryMax: 2 * time.Millisecond} }

func allSegments(string) archive.KeyKind { return archive.KeySegment }

func open(t *testing.T, path string, inner archive.Store, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, inner, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(s) })
	return s
}

// kill ends a Store as the end of its process would; ending one twice does nothing.
func kill(s *Store) {
	s.cancel()
	<-s.done
	s.release()
}

// drain closes a Store that can ship everything.
func drain(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// leave closes a Store that keeps what it has.
func leave(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); err == nil {
		t.Fatal("the spool was empty")
	}
}

func segmentKey(n int) string { return fmt.Sprintf("epochs/00000001/segments/%016x.seg", n) }
func rollupKey(n int) string  { return fmt.Sprintf("epochs/00000001/rollups/1/%016x-%016x", n, n+1) }

// content returns what the tests keep under a key.
func content(key string) []byte { return bytes.Repeat([]byte(key+"\n"), 1+len(key)%7*100) }

func put(t *testing.T, s archive.Store, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if err := create(t.Context(), s, key, content(key)); err != nil {
			t.Fatal(err)
		}
	}
}

func create(ctx context.Context, s archive.Store, key string, b []byte) error {
	return s.Create(ctx, key, bytes.NewReader(b), int64(len(b)))
}

// read returns an object, or nil when there is none.
func read(t *testing.T, s archive.Store, key string) []byte {
	t.Helper()
	body, size, err := s.Open(t.Context(), key, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil || int64(len(b)) != size {
		t.Fatalf("%s: %d of %d bytes: %v", key, len(b), size, err)
	}
	return b
}

// want fails the test unless a store holds the keys with their content.
func want(t *testing.T, s archive.Store, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if got := read(t, s, key); !bytes.Equal(got, content(key)) {
			t.Errorf("%s holds %d bytes under %s, want %d", s, len(got), key, len(content(key)))
		}
	}
}

// eventually waits until holds returns true; what names the condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("still not: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}
