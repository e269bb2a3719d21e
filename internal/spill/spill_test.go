package spill

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// TestModel compares a Buffer with a slice under random writes, cuts, reads and
// resets, on both sides of the memory limit and of the write buffer.
func TestModel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pattern := make([]byte, 4<<20)
	for i := range pattern {
		pattern[i] = byte(i ^ i>>8 ^ i>>16)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := New(dir, rapid.SampledFrom([]int{0, 10, 3 << 19, 4 << 20}).Draw(t, "limit"))
		defer b.Reset()
		var want []byte
		size := rapid.OneOf(rapid.IntRange(0, 30), rapid.SampledFrom([]int{blockSize - 1, blockSize, blockSize + 1, writeChunk - 1, writeChunk, writeChunk + 1}), rapid.IntRange(0, 2<<20))
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				p := pattern[rapid.IntRange(0, 1<<20).Draw(t, "from"):][:size.Draw(t, "size")]
				if n, err := b.Write(p); n != len(p) || err != nil {
					t.Fatalf("wrote %d of %d: %v", n, len(p), err)
				}
				want = append(want, p...)
			},
			"truncate": func(t *rapid.T) {
				n := rapid.IntRange(0, len(want)).Draw(t, "size")
				if err := b.Truncate(int64(n)); err != nil {
					t.Fatal(err)
				}
				want = want[:n]
			},
			"truncate beyond": func(t *rapid.T) {
				if b.Truncate(int64(len(want)+1)) == nil || b.Truncate(-1) == nil {
					t.Fatal("truncated to a size it does not have")
				}
			},
			"read": func(t *rapid.T) {
				off := rapid.IntRange(0, len(want)+1).Draw(t, "offset")
				p := make([]byte, size.Draw(t, "size"))
				n, err := b.ReadAt(p, int64(off))
				rest := want[min(off, len(want)):]
				if n != min(len(p), len(rest)) || !bytes.Equal(p[:n], rest[:n]) || (n < len(p)) != (err == io.EOF) || n == len(p) && err != nil {
					t.Fatalf("read %d of %d at %d of %d: %v", n, len(p), off, len(want), err)
				}
			},
			"reset": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "often") == 0 {
					b.Reset()
					want = want[:0]
				}
			},
			"": func(t *rapid.T) {
				if b.Size() != int64(len(want)) {
					t.Fatalf("size %d, want %d", b.Size(), len(want))
				}
				if max(b.limit, writeChunk) < b.held {
					t.Fatalf("%d bytes in memory", b.held)
				}
			},
		})
		got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("holds %d bytes, want %d: %v", len(got), len(want), err)
		}
	})
}

func TestReaderAt(t *testing.T) {
	t.Parallel()
	b := New(t.TempDir(), 100)
	defer b.Reset()
	want := bytes.Repeat([]byte("0123456789abcdef"), writeChunk/8)
	for p := range 4 { // some of it in the file, some in memory
		part := want[len(want)*p/4 : len(want)*(p+1)/4]
		if _, err := b.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Write([]byte("tail")); err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(io.NewSectionReader(b, b.Size()-2000, 2000), append(bytes.Clone(want[len(want)-1996:]), "tail"...)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadAt(make([]byte, 1), -1); err == nil {
		t.Fatal("read at a negative offset")
	}
}

// TestNoFileIsLeft demands that the temporary file has no name while it is used
// and no descriptor afterwards.
func TestNoFileIsLeft(t *testing.T) {
	dir := t.TempDir()
	b := New(dir, 10)
	for range 3 {
		if _, err := b.Write(make([]byte, 3*writeChunk)); err != nil {
			t.Fatal(err)
		}
		if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
			t.Fatalf("%v in the folder, %v", names, err)
		}
		if n := openFiles(t, dir); n != 1 {
			t.Fatalf("%d temporary files open while spilling", n)
		}
		b.Reset()
		if n := openFiles(t, dir); n != 0 {
			t.Fatalf("%d temporary files open after Reset", n)
		}
		if b.Size() != 0 {
			t.Fatalf("%d bytes after Reset", b.Size())
		}
	}
}

// openFiles counts this process's descriptors of files below dir.
func openFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(links) == 0 {
		t.Fatalf("no descriptors listed: %v", err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir) {
			n++
		}
	}
	return n
}

func TestNoRoom(t *testing.T) {
	t.Parallel()
	b := New(filepath.Join(t.TempDir(), "missing"), 10)
	if _, err := b.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, os.ErrNotExist) || b.Size() != 10 {
		t.Fatalf("no folder to spill to: %v, %d bytes", err, b.Size())
	}

	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b = New("", 10)
	b.file = full
	defer b.Reset()
	if _, err := b.Write([]byte("gathered")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and it says so again
		if n, err := b.Write(make([]byte, writeChunk)); n != 0 || !errors.Is(err, syscall.ENOSPC) || b.Size() != 8 {
			t.Fatalf("wrote %d to a full disk: %v, %d bytes", n, err, b.Size())
		}
	}

	b = New(t.TempDir(), 10)
	defer b.Reset()
	if _, err := b.Write(make([]byte, 2*writeChunk)); err != nil {
		t.Fatal(err)
	}
	if err := b.file.Truncate(100); err != nil { // a file that lost its end
		t.Fatal(err)
	}
	if _, err := b.ReadAt(make([]byte, 200), 0); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		t.Fatalf("read of a shortened file: %v", err)
	}
	if err := b.file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Truncate(1); !errors.Is(err, os.ErrClosed) || b.Size() != 2*writeChunk {
		t.Fatalf("cut of a closed file: %v", err)
	}
}
