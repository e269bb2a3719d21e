// Package dir keeps an archive's objects as files below one directory.
//
// An object is written to a temporary file, synced, and linked to its name:
// link(2) refuses a name that is taken, so creating once needs no lock. What a
// Store has shown to a reader is durable, also when the process that wrote it
// was killed before it could sync the directory: the first use of each directory
// syncs it.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"txreel/archive"
)

// tmpDir holds files not yet linked to their name. It is on the root's file
// system, and no key can reach it.
const tmpDir = ".tmp"

// Store is an archive.Store in a directory. It holds no resources between calls.
type Store struct {
	root string

	mu       sync.Mutex
	prepared bool            // root and tmpDir were made or found by this Store
	synced   map[string]bool // directories, absolute, known to be durable
}

var _ archive.Store = (*Store)(nil)

// Open returns the store below path. It writes nothing: a path that does not
// exist is made by the first Create, if its parent exists.
func Open(path string) (*Store, error) {
	root, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("archive directory %s: %w", path, err)
	}
	s := &Store{root: root, synced: make(map[string]bool)}
	info, err := os.Stat(root)
	switch {
	case err == nil && !info.IsDir():
		return nil, fmt.Errorf("archive directory %s is a file: name a directory", root)
	case err == nil:
		return s, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fault(fmt.Sprintf("archive directory %s", root), err)
	}
	parent, err := os.Stat(filepath.Dir(root))
	if err != nil {
		return nil, fault(fmt.Sprintf("archive directory %s has no parent directory; create it or correct the path", root), err)
	}
	if !parent.IsDir() {
		return nil, fmt.Errorf("archive directory %s: %s is a file", root, filepath.Dir(root))
	}
	return s, nil
}

// String returns the store's absolute path.
func (s *Store) String() string { return s.root }

// Open implements archive.Store.
func (s *Store) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, int64, error) {
	path, err := s.path(key)
	if err != nil {
		return nil, 0, err
	}
	if err := ctx.Err(); err != nil {
		return nil, 0, fmt.Errorf("open %s: %w", path, err)
	}
	f, err := os.Open(path)
	if err != nil {
		if missing(err) {
			err = fs.ErrNotExist
		}
		return nil, 0, fault("open "+path, err)
	}
	body, size, err := s.slice(f, path, off, n)
	if err != nil {
		f.Close() // read only
		return nil, 0, err
	}
	return body, size, nil
}

// slice cuts the range [off, off+n) out of f as archive.Store.Open defines it.
func (s *Store) slice(f *os.File, path string, off, n int64) (io.ReadCloser, int64, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, fault("open "+path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("open %s: %w: it is not a file", path, fs.ErrNotExist)
	}
	if err := s.settle(filepath.Dir(path)); err != nil {
		return nil, 0, err
	}
	size := info.Size()
	if off < 0 {
		off, n = max(size+off, 0), -1
	}
	if off > size {
		return nil, 0, fmt.Errorf("open %s: offset %d is past its end at %d", path, off, size)
	}
	if n < 0 || n > size-off {
		n = size - off
	}
	return &body{f: f, path: path, off: off, left: n}, size, nil
}

// path returns the file of key.
func (s *Store) path(key string) (string, error) {
	if err := archive.CheckKey(key); err != nil {
		return "", err
	}
	if reserved(key) {
		return "", fmt.Errorf("key %q: %s is the store's own directory", key, tmpDir)
	}
	return filepath.Join(s.root, filepath.FromSlash(key)), nil
}

// body reads left bytes of f from off.
type body struct {
	f    *os.File
	path string
	off  int64
	left int64
}

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.f.ReadAt(p[:min(int64(len(p)), b.left)], b.off)
	b.off += int64(n)
	b.left -= int64(n)
	switch {
	case n > 0:
		return n, nil // an error comes back with the next read
	case err == io.EOF:
		return 0, fmt.Errorf("read %s: %w: %d bytes are missing; the file was shortened while it was read",
			b.path, io.ErrUnexpectedEOF, b.left)
	case err != nil:
		return 0, fault("read "+b.path, err)
	}
	return 0, nil
}

func (b *body) Close() error { return b.f.Close() }
