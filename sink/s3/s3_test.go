package s3

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"runtime"
	"strings"
	"testing"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/sink/sinktest"
)

// optionsFor returns what opens g's bucket.
func optionsFor(g *dbtest.Gateway, prefix string) Options {
	return Options{Bucket: g.Bucket, Prefix: prefix, Endpoint: g.URL, Region: g.Region,
		AccessKey: g.AccessKey, SecretKey: g.SecretKey, PartSize: minPartSize}
}

func open(t *testing.T, opts Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, open(t, optionsFor(dbtest.S3(t), "a/prefix")))
}

// TestAtTheBucketsRoot checks that a Store without a prefix sees the same objects
// as one that has a prefix, under longer keys.
func TestAtTheBucketsRoot(t *testing.T) {
	t.Parallel()
	g := dbtest.S3(t)
	root, below := open(t, optionsFor(g, "")), open(t, optionsFor(g, "a/prefix"))
	if err := below.Create(t.Context(), "key", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	err := root.Create(t.Context(), "a/prefix/key", strings.NewReader("x"), 1)
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create: %v, want fs.ErrExist", err)
	}
	got, err := root.List(t.Context(), "a/", "a/prefix/ke", 5)
	if err != nil || len(got) != 1 || got[0].Key != "a/prefix/key" {
		t.Errorf("List = %v, %v", got, err)
	}
}

// TestMemoryStaysFlat uploads an object of many parts, and allows for less
// memory over the whole upload than a few parts would take.
func TestMemoryStaysFlat(t *testing.T) {
	const size, bound = 48 << 20, 4 << 20
	s := open(t, optionsFor(dbtest.S3(t), ""))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := s.Create(t.Context(), "large", pattern{}, size); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > bound {
		t.Errorf("uploading %d MiB allocated %d KiB, want at most %d", size>>20, grown>>10, bound>>10)
	}
	body, got, err := s.Open(t.Context(), "large", 0, -1)
	if err != nil || got != size {
		t.Fatal(got, err)
	}
	defer body.Close()
	buf, want := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(buf)) {
		if _, err := io.ReadFull(body, buf); err != nil {
			t.Fatal(err)
		}
		if _, err := (pattern{}).ReadAt(want, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf, want) {
			t.Fatalf("the MiB at %d differs from what was created", off)
		}
	}
}

// pattern is an endless body that differs at every 8 bytes.
type pattern struct{}

func (pattern) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		at := off + int64(i)
		p[i] = byte((at >> 3) >> (8 * (at & 7)))
	}
	return len(p), nil
}

// failingBody fails after its first bytes.
type failingBody struct{ err error }

func (f failingBody) ReadAt(p []byte, off int64) (int, error) {
	if off >= 1<<20 {
		return 0, f.err
	}
	return len(p), nil
}

func TestBodyFailureIsFinal(t *testing.T) {
	t.Parallel()
	s := open(t, optionsFor(dbtest.S3(t), ""))
	broken := errors.New("disk broken")
	for _, size := range []int64{4 << 20, 20 << 20} {
		err := s.Create(t.Context(), "broken", failingBody{broken}, size)
		if !errors.Is(err, broken) || errors.Is(err, archive.ErrUnreachable) {
			t.Errorf("Create of %d bytes: %v, want the body's own error", size, err)
		}
	}
	if got, err := s.List(t.Context(), "", "", 5); err != nil || len(got) != 0 {
		t.Errorf("List = %v, %v, want nothing", got, err)
	}
}

// TestFolderMarks checks that objects whose names are no keys do not show, and do
// not take the place of those that do.
func TestFolderMarks(t *testing.T) {
	t.Parallel()
	s := open(t, optionsFor(dbtest.S3(t), "base"))
	for _, name := range []string{"base/", "base/a b", "base/folder/", "base/x"} {
		if _, err := s.core.PutObject(t.Context(), s.bucket, name, strings.NewReader(""), 0, "", "", createOnce()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.List(t.Context(), "", "", 1)
	if err != nil || len(got) != 1 || got[0].Key != "x" {
		t.Errorf("List = %v, %v, want x", got, err)
	}
}
