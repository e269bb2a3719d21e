package dir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"txreel/archive"
	"txreel/internal/faults"
	"txreel/sink/sinktest"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "archive"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, key, content string) {
	t.Helper()
	if err := s.Create(t.Context(), key, strings.NewReader(content), int64(len(content))); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	s := open(t)
	sinktest.Run(t, s)
	left, err := os.ReadDir(filepath.Join(s.root, tmpDir))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files stayed: %v, %v", left, err)
	}
}

func TestOpenWritesNothing(t *testing.T) {
	base := t.TempDir()
	s, err := Open(filepath.Join(base, "new"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.List(t.Context(), "", "", 5); err != nil || len(got) != 0 {
		t.Errorf("List of a store not made yet = %v, %v", got, err)
	}
	if _, _, err := s.Open(t.Context(), "archive.json", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open in a store not made yet: %v", err)
	}
	if entries, err := os.ReadDir(base); err != nil || len(entries) != 0 {
		t.Errorf("Open made %v, %v", entries, err)
	}
	put(t, s, "archive.json", "{}")
	if got, err := s.List(t.Context(), "", "", 5); err != nil || len(got) != 1 {
		t.Errorf("List = %v, %v; the store's own files must not show", got, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(base, "no", "parent"), filepath.Join(file, "below")} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), base) {
			t.Errorf("Open(%s): %v, want an error that names the path", path, err)
		}
	}
}

func TestReservedKeys(t *testing.T) {
	s := open(t)
	put(t, s, "a", "x")
	for _, key := range []string{tmpDir, tmpDir + "/a"} {
		if err := s.Create(t.Context(), key, strings.NewReader("x"), 1); err == nil {
			t.Errorf("Create(%s) succeeded", key)
		}
	}
	if _, err := s.List(t.Context(), "../", "", 5); err == nil {
		t.Error("List left the root")
	}
}

// TestSweep checks that a new Store removes what a dead writer left and not what
// a live one is writing.
func TestSweep(t *testing.T) {
	s := open(t)
	put(t, s, "a", "x")
	live, err := s.temp()
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	stale := filepath.Join(s.root, tmpDir, "stale")
	if err := os.WriteFile(stale, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.root)
	if err != nil {
		t.Fatal(err)
	}
	put(t, again, "b", "x")
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the stale file is still there: %v", err)
	}
	if _, err := os.Stat(live.Name()); err != nil {
		t.Errorf("the file of a live writer is gone: %v", err)
	}
}

// TestVanishedRoot checks that an unmounted disk is not mistaken for an empty
// archive by a running Store.
func TestVanishedRoot(t *testing.T) {
	s := open(t)
	put(t, s, "a/b", "x")
	if err := os.RemoveAll(s.root); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.root, dirMode); err != nil { // the empty mount point
		t.Fatal(err)
	}
	err := s.Create(t.Context(), "a/c", strings.NewReader("x"), 1)
	if !errors.Is(err, archive.ErrUnreachable) || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("Create: %v, want one that asks for the disk", err)
	}
	if entries, err := os.ReadDir(s.root); err != nil || len(entries) != 0 {
		t.Errorf("something was written below the mount point: %v, %v", entries, err)
	}
}

func TestShortenedWhileRead(t *testing.T) {
	s := open(t)
	put(t, s, "a", "0123456789")
	body, size, err := s.Open(t.Context(), "a", 0, -1)
	if err != nil || size != 10 {
		t.Fatal(size, err)
	}
	defer body.Close()
	if err := os.Truncate(filepath.Join(s.root, "a"), 4); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if !errors.Is(err, io.ErrUnexpectedEOF) || string(got) != "0123" {
		t.Errorf("read %q, %v; want 4 bytes and io.ErrUnexpectedEOF", got, err)
	}
}

func TestFault(t *testing.T) {
	for _, tt := range []struct {
		err   error
		retry bool
	}{
		{&fs.PathError{Op: "write", Path: "/a", Err: syscall.ENOSPC}, true},
		{&fs.PathError{Op: "write", Path: "/a", Err: syscall.ESTALE}, true},
		{&fs.PathError{Op: "open", Path: "/a", Err: syscall.EACCES}, false},
		{&fs.PathError{Op: "read", Path: "/a", Err: syscall.EIO}, false},
	} {
		if err := fault("create x", tt.err); errors.Is(err, archive.ErrUnreachable) != tt.retry || !errors.Is(err, tt.err) {
			t.Errorf("fault(%v) = %v, worth a retry: %v", tt.err, err, !tt.retry)
		}
	}
}

// TestFullDisk fills a tiny file system, which needs root to mount.
func TestFullDisk(t *testing.T) {
	mount := faults.SmallDisk(t, "1m")
	s, err := Open(mount)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "small", "x")
	big := make([]byte, 2<<20)
	if err := s.Create(t.Context(), "big", bytes.NewReader(big), int64(len(big))); !errors.Is(err, archive.ErrUnreachable) {
		t.Errorf("Create on a full disk: %v, want archive.ErrUnreachable", err)
	}
	if _, _, err := s.Open(t.Context(), "big", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open: %v; part of an object must not show", err)
	}
	put(t, s, "after", "the half-written file gave its space back")
}

// BenchmarkListTail finds one key in a directory of 100,000.
func BenchmarkListTail(b *testing.B) {
	s, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.root, "e/segments"), 0o700); err != nil {
		b.Fatal(err)
	}
	for i := range 100_000 {
		if err := os.WriteFile(filepath.Join(s.root, "e/segments", fmt.Sprintf("%016x.seg", i)), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		got, err := s.List(b.Context(), "e/segments/", fmt.Sprintf("e/segments/%016x.seg", 50_000), 1)
		if err != nil || len(got) != 1 {
			b.Fatal(got, err)
		}
	}
}
