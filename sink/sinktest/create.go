package sinktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"txreel/archive"
)

func testCreate(t *testing.T, store archive.Store) {
	for i, size := range []int{0, 1, 4096, 1<<20 + 1, LargeSize} {
		want := content(uint64(i), size)
		key := "create/" + strings.Repeat("x", i+1) + "/object.seg"
		create(t, store, key, want)
		wantObject(t, store, key, want)
		listed, err := store.List(t.Context(), key, "", 10)
		if err != nil || len(listed) != 1 || listed[0] != (archive.Object{Key: key, Size: int64(size)}) {
			t.Fatalf("List(%s) = %v, %v; want the object just created, of %d bytes", key, listed, err, size)
		}
	}
	create(t, store, "create-at-the-root.json", []byte("{}"))
	wantObject(t, store, "create-at-the-root.json", []byte("{}"))
}

func testCreateOnce(t *testing.T, store archive.Store) {
	for _, tt := range []struct {
		first   int
		seconds []int
	}{
		{0, []int{0, 1}},
		{5, []int{5, 6, 0, LargeSize}},
		{LargeSize, []int{LargeSize, 1}},
	} {
		first := content(1, tt.first)
		key := fmt.Sprintf("once/%d", tt.first)
		create(t, store, key, first)
		for _, size := range tt.seconds {
			err := store.Create(t.Context(), key, bytes.NewReader(content(2, size)), int64(size))
			if !errors.Is(err, fs.ErrExist) {
				t.Fatalf("second Create(%s) of %d bytes: %v, want an error that is fs.ErrExist", key, size, err)
			}
			if errors.Is(err, archive.ErrUnreachable) {
				t.Fatalf("second Create(%s): %v must not invite a retry", key, err)
			}
		}
		wantObject(t, store, key, first)
	}
}

// testShortBody checks that a body that ends before its size makes no object.
func testShortBody(t *testing.T, store archive.Store) {
	for _, size := range []int64{10, LargeSize} {
		err := store.Create(t.Context(), "short/object", bytes.NewReader(make([]byte, size-1)), size)
		if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, archive.ErrUnreachable) {
			t.Fatalf("Create of %d bytes from a body of %d: %v, want a final error", size, size-1, err)
		}
		wantMissing(t, store, "short/object")
	}
}

// testRace checks that of many creators of one key exactly one succeeds, and
// that the object is what that one wrote.
func testRace(t *testing.T, store archive.Store, key string, writers, size int) {
	errs := make([]error, writers)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			b := content(uint64(i), size)
			<-start
			errs[i] = store.Create(t.Context(), key, bytes.NewReader(b), int64(size))
		})
	}
	close(start)
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Fatalf("writers %d and %d both created %s", winner, i, key)
		case err == nil:
			winner = i
		case !errors.Is(err, fs.ErrExist):
			t.Fatalf("writer %d: %v, want an error that is fs.ErrExist", i, err)
		}
	}
	if winner < 0 {
		t.Fatalf("none of %d writers created %s", writers, key)
	}
	wantObject(t, store, key, content(uint64(winner), size))
}

func testBadKeys(t *testing.T, store archive.Store) {
	for _, key := range []string{"", "/", "/abs", "a//b", "a/", "..", "a/../b", "./a", "a b", "ä", "a\x00b", "a\\b", strings.Repeat("k", 4096)} {
		if err := store.Create(t.Context(), key, strings.NewReader("x"), 1); err == nil || errors.Is(err, archive.ErrUnreachable) {
			t.Errorf("Create(%.20q): %v, want a final error", key, err)
		}
		if _, _, err := store.Open(t.Context(), key, 0, -1); err == nil || errors.Is(err, archive.ErrUnreachable) {
			t.Errorf("Open(%.20q): %v, want a final error", key, err)
		}
	}
	if err := store.Create(t.Context(), "negative", strings.NewReader("x"), -1); err == nil {
		t.Error("Create with a negative size succeeded")
	}
}

func testCancel(t *testing.T, store archive.Store) {
	create(t, store, "cancel/there", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store.Create(ctx, "cancel/not", strings.NewReader("x"), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Create with a cancelled context: %v, want context.Canceled", err)
	}
	if _, _, err := store.Open(ctx, "cancel/there", 0, -1); !errors.Is(err, context.Canceled) {
		t.Errorf("Open with a cancelled context: %v, want context.Canceled", err)
	}
	if _, err := store.List(ctx, "cancel/", "", 10); !errors.Is(err, context.Canceled) {
		t.Errorf("List with a cancelled context: %v, want context.Canceled", err)
	}
	wantMissing(t, store, "cancel/not")
}
