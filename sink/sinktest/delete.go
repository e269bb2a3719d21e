package sinktest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"txreel/archive"
)

// testDelete checks that what is deleted is gone, that nothing else is, and that a key which is free again can be taken once.
func testDelete(t *testing.T, store archive.Deleter) {
	all := []string{"delete/a", "delete/a-b", "delete/folder/x", "delete/folder/y/z", "delete/folder0"}
	for i, key := range all {
		create(t, store, key, content(uint64(i), 100))
	}
	for _, key := range []string{"delete/folder", "delete/", "delete/folder/y", "delete/nothing", "delete/a/below", "nowhere/at/all"} {
		if err := store.Delete(t.Context(), key); err != nil && !strings.HasSuffix(key, "/") {
			t.Errorf("Delete(%s), which is no object: %v", key, err)
		}
	}
	for len(all) > 0 {
		got, err := store.List(t.Context(), "delete/", "", 100)
		if err != nil || !slices.Equal(keys(got), all) {
			t.Fatalf("List = %q, %v; want %q", keys(got), err, all)
		}
		i := len(all) / 2
		for range 2 { // the second one finds nothing, and nothing is wrong
			if err := store.Delete(t.Context(), all[i]); err != nil {
				t.Fatalf("Delete(%s): %v", all[i], err)
			}
		}
		wantMissing(t, store, all[i])
		all = slices.Delete(all, i, i+1)
	}
	again := content(9, 200)
	create(t, store, "delete/folder/y/z", again)
	wantObject(t, store, "delete/folder/y/z", again)

	for _, key := range []string{"", "/", "..", "a/../b", "a b"} {
		if err := store.Delete(t.Context(), key); err == nil || errors.Is(err, archive.ErrUnreachable) {
			t.Errorf("Delete(%q): %v, want a final error", key, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store.Delete(ctx, "delete/folder/y/z"); !errors.Is(err, context.Canceled) {
		t.Errorf("Delete with a cancelled context: %v, want context.Canceled", err)
	}
	wantObject(t, store, "delete/folder/y/z", again)
	testDeleteBesides(t, store)
}

// testDeleteBesides lets a deleter and a creator meet: what Create has returned for stays.
func testDeleteBesides(t *testing.T, store archive.Deleter) {
	const rounds = 30
	put := func(key string) {
		if err := store.Create(t.Context(), key, strings.NewReader("ours"), 4); err != nil {
			t.Errorf("Create(%s): %v", key, err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for range rounds {
			if err := store.Delete(t.Context(), "besides/folder/theirs"); err != nil {
				t.Errorf("Delete: %v", err)
			}
		}
	})
	key := func(i int) string { return "besides/folder/" + strings.Repeat("x", i+1) }
	wg.Go(func() {
		for i := range rounds {
			put(key(i))
			if i < rounds-1 {
				if err := store.Delete(t.Context(), key(i)); err != nil {
					t.Errorf("Delete: %v", err)
				}
			}
		}
	})
	wg.Go(func() {
		for i := range rounds {
			put("besides/folder/more/" + strings.Repeat("y", i+1))
		}
	})
	wg.Wait()
	wantObject(t, store, key(rounds-1), []byte("ours"))
	got, err := store.List(t.Context(), "besides/", "", 100)
	if err != nil || len(got) != rounds+1 {
		t.Errorf("%d objects, %v; want %d", len(got), err, rounds+1)
	}
}
