package sinktest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"txreel/archive"
)

func testRanges(t *testing.T, store archive.Store) {
	object := content(7, 1000)
	create(t, store, "ranges/object", object)
	create(t, store, "ranges/empty", nil)
	for _, tt := range []struct {
		key      string
		off, n   int64
		from, to int // the slice of object wanted; from > to wants an error
	}{
		{"ranges/object", 0, -1, 0, 1000},
		{"ranges/object", 0, 1000, 0, 1000},
		{"ranges/object", 0, 1, 0, 1},
		{"ranges/object", 0, 0, 0, 0},
		{"ranges/object", 10, 0, 0, 0},
		{"ranges/object", 10, 20, 10, 30},
		{"ranges/object", 999, 1, 999, 1000},
		{"ranges/object", 10, -1, 10, 1000},
		{"ranges/object", 990, 20, 990, 1000},
		{"ranges/object", 990, math.MaxInt64, 990, 1000},
		{"ranges/object", 1000, 5, 0, 0},
		{"ranges/object", 1000, -1, 0, 0},
		{"ranges/object", 1000, 0, 0, 0},
		{"ranges/object", -1, 0, 999, 1000},
		{"ranges/object", -10, 5, 990, 1000},
		{"ranges/object", -1000, -1, 0, 1000},
		{"ranges/object", -4096, 0, 0, 1000},
		{"ranges/object", math.MinInt64 + 1, 0, 0, 1000},
		{"ranges/object", 1001, 1, 1, 0},
		{"ranges/object", 1001, 0, 1, 0},
		{"ranges/object", 1001, -1, 1, 0},
		{"ranges/object", math.MaxInt64, 1, 1, 0},
		{"ranges/empty", 0, -1, 0, 0},
		{"ranges/empty", 0, 0, 0, 0},
		{"ranges/empty", 0, 10, 0, 0},
		{"ranges/empty", -10, 0, 0, 0},
		{"ranges/empty", 1, 1, 1, 0},
	} {
		t.Run(fmt.Sprintf("%s[%d,%d]", tt.key[len("ranges/"):], tt.off, tt.n), func(t *testing.T) {
			got, size, err := read(t.Context(), store, tt.key, tt.off, tt.n)
			if tt.from > tt.to {
				if err == nil || errors.Is(err, archive.ErrUnreachable) || errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("%d bytes, error %v; want a final error", len(got), err)
				}
				return
			}
			want := int64(len(object))
			if tt.key == "ranges/empty" {
				want = 0
			}
			if err != nil || size != want || !bytes.Equal(got, object[tt.from:tt.to]) {
				t.Fatalf("%d bytes of %d, error %v; want bytes %d to %d of %d", len(got), size, err, tt.from, tt.to, want)
			}
		})
	}
}

func testNotFound(t *testing.T, store archive.Store) {
	create(t, store, "found/object", []byte("x"))
	for _, key := range []string{"found/objec", "found/object2", "found/object/below", "found", "nowhere/at/all"} {
		wantMissing(t, store, key)
	}
	got, err := store.List(t.Context(), "nowhere/at/all/", "", 10)
	if err != nil || len(got) != 0 {
		t.Errorf("List of a prefix without objects = %v, %v", got, err)
	}
}

func wantMissing(t *testing.T, store archive.Store, key string) {
	t.Helper()
	for _, r := range [][2]int64{{0, -1}, {0, 0}, {5, 5}, {-5, 0}} {
		_, _, err := store.Open(t.Context(), key, r[0], r[1])
		if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, archive.ErrUnreachable) {
			t.Fatalf("Open(%s, %d, %d): %v, want an error that is fs.ErrNotExist", key, r[0], r[1], err)
		}
	}
}

// testListOrder compares List with a sorted slice, for keys that contain what
// sorts on either side of '/'.
func testListOrder(t *testing.T, store archive.Store) {
	var all []string
	for _, a := range []string{"a", "a-", "a.", "a0", "A", "b"} {
		for _, b := range []string{"/x", "/x-y/z", "/x.y", "/x/y", "/x0", ".seg", "-1"} {
			if b == "/x" {
				b = "/x_" // "x" is already a directory
			}
			all = append(all, "order/"+a+b)
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, key := range all {
		create(t, store, key, make([]byte, i%5))
	}
	slices.Sort(all)
	probes := slices.Concat(all, []string{"", "order", "order/", "order/a", "order/a/", "order/a/x", "order/a/x/", "order/a0", "order/zzz", "p", "order/a/x-y/zz"})
	for _, prefix := range []string{"order/", "order", "order/a", "order/a/", "order/a/x", "order/a/x/", "order/a.", "order/b-1", "order/c"} {
		for i, after := range probes {
			n := []int{1, 2, 7, 1000}[i%4]
			var want []string
			for _, key := range all {
				if strings.HasPrefix(key, prefix) && key > after && len(want) < n {
					want = append(want, key)
				}
			}
			got, err := store.List(t.Context(), prefix, after, n)
			if err != nil || !slices.Equal(keys(got), want) {
				t.Fatalf("List(%q, %q, %d) = %q, %v\nwant %q", prefix, after, n, keys(got), err, want)
			}
		}
	}
	if got, err := store.List(t.Context(), "order/", "", 0); err != nil || len(got) != 0 {
		t.Errorf("List of at most 0 = %v, %v", got, err)
	}
}

// testListTail looks for the last of many keys with few probes, as the archive
// does, and pages through all of them.
func testListTail(t *testing.T, store archive.Store) {
	const count = 60
	for i := range count {
		create(t, store, fmt.Sprintf("tail/%016x.seg", i*3), []byte("x"))
	}
	low, high := 0, 1<<20
	for low < high {
		mid := (low + high) / 2
		got, err := store.List(t.Context(), "tail/", fmt.Sprintf("tail/%016x.seg", mid), 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) > 0 {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low != (count-1)*3 {
		t.Errorf("the last key is %d, want %d", low, (count-1)*3)
	}
	seen, after := 0, ""
	for {
		page, err := store.List(t.Context(), "tail/", after, 40)
		if err != nil {
			t.Fatal(err)
		}
		seen += len(page)
		if len(page) < 40 {
			break
		}
		after = page[len(page)-1].Key
	}
	if seen != count {
		t.Errorf("paging saw %d objects, want %d", seen, count)
	}
}
