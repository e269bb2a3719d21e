// Package sinktest is the conformance suite that every archive.Store passes.
package sinktest

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"

	"txreel/archive"
)

// LargeSize is the size in bytes of the suite's largest objects. A store that
// cuts uploads into parts must be opened with parts small enough that such an
// object takes several.
const LargeSize = 11<<20 + 3

// Run holds store to the contract of archive.Store, and of archive.Deleter if it is one. It needs a store without
// objects and leaves its own objects there.
func Run(t *testing.T, store archive.Store) {
	t.Run("Create", func(t *testing.T) { testCreate(t, store) })
	t.Run("CreateOnce", func(t *testing.T) { testCreateOnce(t, store) })
	t.Run("CreateShortBody", func(t *testing.T) { testShortBody(t, store) })
	t.Run("Race", func(t *testing.T) { testRace(t, store, "race/small", 24, 4<<10) })
	t.Run("RaceLarge", func(t *testing.T) { testRace(t, store, "race/large", 4, LargeSize/2+1) })
	t.Run("Ranges", func(t *testing.T) { testRanges(t, store) })
	t.Run("NotFound", func(t *testing.T) { testNotFound(t, store) })
	t.Run("BadKeys", func(t *testing.T) { testBadKeys(t, store) })
	t.Run("ListOrder", func(t *testing.T) { testListOrder(t, store) })
	t.Run("ListTail", func(t *testing.T) { testListTail(t, store) })
	if d, ok := store.(archive.Deleter); ok {
		t.Run("Delete", func(t *testing.T) { testDelete(t, d) })
	}
	t.Run("Cancel", func(t *testing.T) { testCancel(t, store) })
}

// content returns size bytes that differ from those of any other seed.
func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	_, _ = rng.Read(b) // never fails
	return b
}

func create(t *testing.T, store archive.Store, key string, b []byte) {
	t.Helper()
	if err := store.Create(t.Context(), key, bytes.NewReader(b), int64(len(b))); err != nil {
		t.Fatalf("Create(%s): %v", key, err)
	}
}

// read returns a range of an object and the object's size.
func read(ctx context.Context, store archive.Store, key string, off, n int64) ([]byte, int64, error) {
	body, size, err := store.Open(ctx, key, off, n)
	if err != nil {
		return nil, 0, err
	}
	b, err := io.ReadAll(body)
	if cerr := body.Close(); err == nil {
		err = cerr
	}
	return b, size, err
}

// wantObject fails the test unless key holds exactly want.
func wantObject(t *testing.T, store archive.Store, key string, want []byte) {
	t.Helper()
	got, size, err := read(t.Context(), store, key, 0, -1)
	if err != nil {
		t.Fatalf("Open(%s): %v", key, err)
	}
	if size != int64(len(want)) || !bytes.Equal(got, want) {
		t.Fatalf("%s holds %d bytes of size %d, want the %d created; equal: %v", key, len(got), size, len(want), bytes.Equal(got, want))
	}
}

func keys(objects []archive.Object) []string {
	out := make([]string, len(objects))
	for i, o := range objects {
		out[i] = o.Key
	}
	return out
}
