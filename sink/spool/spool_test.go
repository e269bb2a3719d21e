package spool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/faults"
	"txreel/sink/sinktest"
)

// TestConformance holds a Store to the contract as a whole: with the keys of an archive, of
// which the suite's pass straight through, and with all of them in the queue, while they move
// on and while none does.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		kind func(string) archive.KeyKind
		held bool
	}{{"straight", nil, false}, {"moving", allSegments, false}, {"held", allSegments, true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBehind(t)
			if tt.held {
				b.hold()
			}
			s := open(t, filepath.Join(t.TempDir(), "spool"), b, Options{kind: tt.kind})
			sinktest.Run(t, s)
			if tt.held {
				if n := len(b.order()); n != 0 || s.Stats().Objects == 0 {
					t.Errorf("%d objects arrived, %d are held", n, s.Stats().Objects)
				}
				b.pass()
			}
			all, err := s.List(t.Context(), "", "", 1000)
			if err != nil {
				t.Fatal(err)
			}
			drain(t, s)
			there, err := b.List(t.Context(), "", "", 1000)
			if err != nil || !slices.Equal(all, there) {
				t.Errorf("%d objects arrived, %d were created: %v", len(there), len(all), err)
			}
		})
	}
}

// TestOrder creates while the store behind fails in every way, and reads all the time: objects
// arrive in the order of their creation, once, and are never out of sight.
func TestOrder(t *testing.T) {
	t.Parallel()
	b := newBehind(t)
	f := faults.NewStore(b, faults.Plan{Seed: 1, Delay: 2 * time.Millisecond, Chances: []faults.Chance{{Kind: faults.Before, Times: 150},
		{Kind: faults.After, Times: 150}, {Kind: faults.Late, Times: 100}, {Kind: faults.Final, Times: 50}, {Kind: faults.Delayed, Times: 200}, {Kind: faults.Truncated, Times: 200}}})
	s := open(t, filepath.Join(t.TempDir(), "spool"), f, hurried())
	var keys []string
	var mu sync.Mutex
	var readers sync.WaitGroup
	stop := make(chan struct{})
	readers.Go(func() { // joined below
		for {
			select {
			case <-stop:
				return
			default:
			}
			mu.Lock()
			made := slices.Clone(keys)
			mu.Unlock()
			all, err := s.List(t.Context(), "epochs/", "", 1000)
			if errors.Is(err, archive.ErrUnreachable) || errors.Is(err, faults.ErrFinal) {
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
			for _, key := range made {
				if !slices.ContainsFunc(all, func(o archive.Object) bool { return o.Key == key && o.Size == int64(len(content(key))) }) {
					t.Errorf("%s was created and is not listed", key)
					return
				}
			}
		}
	})
	for n := range 150 {
		key := segmentKey(n)
		if n%10 == 9 {
			key = rollupKey(n)
		}
		put(t, s, key)
		mu.Lock()
		keys = append(keys, key)
		mu.Unlock()
		if err := create(t.Context(), s, key, content(key)); !errors.Is(err, fs.ErrExist) {
			t.Fatalf("a second create: %v", err)
		}
	}
	close(stop)
	readers.Wait()
	drain(t, s)
	f.Wait()
	if got := b.order(); !slices.Equal(got, keys) {
		t.Errorf("arrived %q\nwant %q", got, keys)
	}
	want(t, b, keys...)
	t.Logf("injected: %s", f.Counts())
	if c := f.Counts(); len(c) < 6 {
		t.Errorf("injected only %s", c)
	}
}

// TestWhatWaits checks which keys wait for the queue, and which do not.
func TestWhatWaits(t *testing.T) {
	t.Parallel()
	b := newBehind(t)
	b.hold()
	s := open(t, filepath.Join(t.TempDir(), "spool"), b, Options{})
	put(t, s, segmentKey(1), rollupKey(1))
	want(t, s, segmentKey(1), rollupKey(1))
	for _, key := range []string{"epochs/00000001/gap.json", "epochs/00000002/epoch.json", "epochs/00000001/marks/x.json", "epochs/00000001/bases/b/manifest.json"} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := create(ctx, s, key, content(key)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("create %s: %v, want it to wait", key, err)
		}
		cancel()
	}
	manifest := "epochs/00000001/bases/b/manifest.json"
	done := make(chan error, 1)
	go func() { done <- create(t.Context(), s, manifest, content(manifest)) }() // joined below
	eventually(t, "the shipper waits at the gate", func() bool { return s.Stats().Objects == 2 })
	b.pass()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	put(t, s, "epochs/00000001/bases/b/tables/1")
	if got := b.order(); !slices.Equal(got[:3], []string{segmentKey(1), rollupKey(1), manifest}) {
		t.Errorf("arrived %q", got)
	}
	// While the store cannot be reached, nothing waits that the store would refuse.
	f := faults.NewStore(b, faults.Plan{})
	drain(t, s)
	f.Down()
	s = open(t, s.dir, deafTo{b, f}, hurried())
	put(t, s, segmentKey(2))
	eventually(t, "shipping fails", func() bool { return s.Stats().Trouble != nil })
	for _, key := range []string{"epochs/00000001/gap.json", "epochs/00000001/bases/b/tables/2"} {
		if err := create(t.Context(), s, key, content(key)); !errors.Is(err, archive.ErrUnreachable) {
			t.Errorf("create %s while the store is away: %v", key, err)
		}
	}
	if _, _, err := s.Open(t.Context(), manifest, 0, -1); !errors.Is(err, archive.ErrUnreachable) {
		t.Errorf("open: %v, want it not to ask the store", err)
	}
	put(t, s, segmentKey(3))
	want(t, s, segmentKey(2), segmentKey(3))
	f.Up()
	drain(t, s)
	want(t, b, segmentKey(2), segmentKey(3))
}

// deafTo answers readers and passes creates on to another store.
type deafTo struct {
	*behind
	creates archive.Store
}

// Create implements archive.Store.
func (d deafTo) Create(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	return d.creates.Create(ctx, key, body, size)
}

// TestOtherWriter ships onto an object that is somebody else's.
func TestOtherWriter(t *testing.T) {
	t.Parallel()
	b := newBehind(t)
	b.hold()
	path := filepath.Join(t.TempDir(), "spool")
	s := open(t, path, b, hurried())
	put(t, s, segmentKey(1), rollupKey(1), segmentKey(2), segmentKey(3))
	for key, text := range map[string]string{segmentKey(1): string(content(segmentKey(1))), rollupKey(1): "derived otherwise", segmentKey(2): "another's"} {
		if err := create(t.Context(), b.Store, key, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	b.pass()
	eventually(t, "the other writer is noticed", func() bool { return s.Stats().Lasting })
	for range 2 {
		err := create(t.Context(), s, segmentKey(4), content(segmentKey(4)))
		if !errors.Is(err, archive.ErrOtherWriter) || errors.Is(err, fs.ErrExist) || errors.Is(err, archive.ErrUnreachable) ||
			!strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), segmentKey(2)) {
			t.Errorf("create: %v, want archive.ErrOtherWriter that names folder and key", err)
		}
		if st := s.Stats(); st.Objects != 2 {
			t.Errorf("%d objects are left, want the two that have no place", st.Objects)
		}
		want(t, s, segmentKey(2), segmentKey(3)) // the files are kept
		leave(t, s)
		s = open(t, path, b, hurried())
	}
	if got := read(t, b, segmentKey(2)); string(got) != "another's" {
		t.Errorf("the other writer's object is now %q", got)
	}
	if got := read(t, b, segmentKey(3)); got != nil {
		t.Errorf("an object arrived behind one that did not")
	}
}

// TestEpochEnded finds, at the start, that somebody has closed the epoch of what is spooled.
func TestEpochEnded(t *testing.T) {
	t.Parallel()
	b := newBehind(t)
	b.hold()
	path := filepath.Join(t.TempDir(), "spool")
	s := open(t, path, b, hurried())
	put(t, s, segmentKey(1))
	leave(t, s)
	b.pass()
	put(t, b, archive.EndKey(segmentKey(1)))
	s = open(t, path, b, hurried())
	if err := create(t.Context(), s, archive.IdentityKey, nil); !errors.Is(err, archive.ErrOtherWriter) || !strings.Contains(err.Error(), "gap.json") {
		t.Errorf("create: %v, want archive.ErrOtherWriter", err)
	}
	want(t, s, segmentKey(1))
	if read(t, b, segmentKey(1)) != nil {
		t.Error("the segment arrived behind the end of its epoch")
	}
}

// TestBelongs opens a spool for what it is not for.
func TestBelongs(t *testing.T) {
	t.Parallel()
	b := newBehind(t)
	path := filepath.Join(t.TempDir(), "spool")
	s := open(t, path, b, hurried())
	put(t, s, archive.IdentityKey, segmentKey(1))
	if _, err := Open(t.Context(), path, b, Options{}); !errors.Is(err, archive.ErrOtherWriter) {
		t.Errorf("a second Open: %v, want archive.ErrOtherWriter", err)
	}
	drain(t, s)
	if _, err := Open(t.Context(), path, newBehind(t), Options{}); !errors.Is(err, archive.ErrOtherDatabase) {
		t.Errorf("Open for another store: %v, want archive.ErrOtherDatabase", err)
	}
	// The same place, and another archive in it.
	b.hold()
	s = open(t, path, b, hurried())
	put(t, s, segmentKey(2))
	leave(t, s)
	root := b.String()
	if err := os.Remove(filepath.Join(root, archive.IdentityKey)); err != nil {
		t.Fatal(err)
	}
	b.pass()
	if err := create(t.Context(), b.Store, archive.IdentityKey, []byte("another")); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, b, hurried())
	if err := create(t.Context(), s, segmentKey(3), nil); !errors.Is(err, archive.ErrOtherDatabase) {
		t.Errorf("create: %v, want archive.ErrOtherDatabase", err)
	}
	if read(t, b, segmentKey(2)) != nil {
		t.Error("a segment arrived in an archive it is not of")
	}
	// A folder that is somebody's.
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), home, b, Options{}); err == nil || !strings.Contains(err.Error(), "letter") {
		t.Errorf("Open of a folder with files: %v", err)
	}
}

// TestDamage changes a file of the queue in every way: nothing of it, and nothing behind it,
// is shipped, and the error says which file it is.
func TestDamage(t *testing.T) {
	t.Parallel()
	flip := func(at func(size int) int) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err == nil {
				b[at(len(b))] ^= 1
				err = os.WriteFile(path, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, harm := range map[string]func(t *testing.T, path string){
		"first byte": flip(func(int) int { return 0 }),
		"key":        flip(func(n int) int { return n - trailerSize - 1 }),
		"magic":      flip(func(n int) int { return n - trailerSize }),
		"number":     flip(func(n int) int { return n - trailerSize + 8 }),
		"size":       flip(func(n int) int { return n - trailerSize + 16 }),
		"huge size":  flip(func(n int) int { return n - trailerSize + 23 }),
		"key length": flip(func(n int) int { return n - trailerSize + 24 }),
		"sum":        flip(func(n int) int { return n - 1 }),
		"cut":        func(t *testing.T, path string) { truncate(t, path, 100) },
		"empty":      func(t *testing.T, path string) { truncate(t, path, 0) },
		"removed": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBehind(t)
			b.hold()
			path := filepath.Join(t.TempDir(), "spool")
			s := open(t, path, b, hurried())
			put(t, s, segmentKey(1), segmentKey(2), segmentKey(3))
			file := s.keys[segmentKey(2)].name
			leave(t, s)
			harm(t, filepath.Join(path, file))
			b.pass()
			s, err := Open(t.Context(), path, b, hurried())
			if err == nil {
				defer kill(s)
				err = create(t.Context(), s, segmentKey(4), nil)
			}
			if name == "removed" {
				file = fileName(3, segmentKey(3)) // the one that has no predecessor
			}
			if !errors.Is(err, archive.ErrCorrupt) || !strings.Contains(err.Error(), filepath.Join(path, file)) {
				t.Errorf("%v: want archive.ErrCorrupt that names %s", err, file)
			}
			for _, key := range []string{segmentKey(2), segmentKey(3)} {
				if read(t, b, key) != nil {
					t.Errorf("%s was shipped", key)
				}
			}
		})
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// TestLimit fills the spool: a Create waits until there is room, and what is larger than the
// spool goes past it when its turn comes.
func TestLimit(t *testing.T) {
	t.Parallel()
	b := newBehind(t)
	b.hold()
	var mu sync.Mutex
	var reports []Stats
	o := hurried()
	o.Limit = 10 << 10
	o.Report = func(st Stats) {
		mu.Lock()
		defer mu.Unlock()
		reports = append(reports, st)
	}
	s := open(t, filepath.Join(t.TempDir(), "spool"), b, o)
	big, huge := make([]byte, 6<<10), make([]byte, 20<<10)
	if err := create(t.Context(), s, segmentKey(1), big); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := create(ctx, s, segmentKey(2), big); !errors.Is(err, context.DeadlineExceeded) || s.Stats().Full {
		t.Errorf("create in a full spool: %v, and then it is full: %v", err, s.Stats().Full)
	}
	done := make(chan error, 1)
	go func() { // joined below
		err := create(t.Context(), s, segmentKey(2), big)
		if err == nil {
			err = create(t.Context(), s, segmentKey(3), huge)
		}
		if err == nil {
			err = create(t.Context(), s, segmentKey(4), big)
		}
		done <- err
	}()
	eventually(t, "the create waits", func() bool { return s.Stats().Full })
	b.pass()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	if got := b.order(); !slices.Equal(got, []string{segmentKey(1), segmentKey(2), segmentKey(3), segmentKey(4)}) {
		t.Errorf("arrived %q", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(reports) < 3 || !reports[0].Full || reports[1].Full {
		t.Errorf("reported %+v, want full and room", reports)
	}
}

// TestFullDisk fills a tiny file system, which needs root to mount.
func TestFullDisk(t *testing.T) {
	mount := faults.SmallDisk(t, "1m")
	b := newBehind(t)
	b.hold()
	s := open(t, filepath.Join(mount, "spool"), b, hurried())
	part := bytes.Repeat([]byte("0123456789abcdef"), 40<<10) // 640 KiB
	if err := create(t.Context(), s, segmentKey(1), part); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { // joined below
		err := create(t.Context(), s, segmentKey(2), part)
		if err == nil {
			err = create(t.Context(), s, segmentKey(3), append(part, part...)) // never fits
		}
		done <- err
	}()
	eventually(t, "the create waits", func() bool { return s.Stats().Full })
	b.pass()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	for n := 1; n <= 3; n++ {
		if got := read(t, b, segmentKey(n)); len(got)%len(part) != 0 || !bytes.HasPrefix(got, part) {
			t.Errorf("segment %d arrived with %d bytes", n, len(got))
		}
	}
}

// BenchmarkCreate is what a segment of 64 KiB waits for.
func BenchmarkCreate(b *testing.B) {
	inner := faults.NewStore(nil, faults.Plan{})
	inner.Down()
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "spool"), named{inner}, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer kill(s)
	body := make([]byte, 64<<10)
	b.SetBytes(int64(len(body)))
	for i := 0; b.Loop(); i++ {
		if err := create(b.Context(), s, segmentKey(i), body); err != nil {
			b.Fatal(err)
		}
	}
}

// named is a store with a name and nothing else.
type named struct{ archive.Store }

func (named) String() string { return "nowhere" }
