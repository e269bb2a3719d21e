package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"txreel/archive"
)

// Open implements archive.Store: from the disk while the object is there.
func (s *Store) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, int64, error) {
	if err := archive.CheckKey(key); err != nil {
		return nil, 0, err
	}
	if err := ctx.Err(); err != nil {
		return nil, 0, fmt.Errorf("open %s: %w", key, err)
	}
	s.mu.Lock()
	e := s.keys[key]
	s.mu.Unlock()
	if e != nil {
		f, err := os.Open(filepath.Join(s.dir, e.name))
		if err == nil {
			return s.slice(f, e, off, n)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, 0, s.fault(err)
		}
		// It has arrived meanwhile.
	}
	if err := s.away(); err != nil {
		return nil, 0, fmt.Errorf("open %s: %w", key, err)
	}
	return s.inner.Open(ctx, key, off, n)
}

// slice cuts the range [off, off+n) out of an object as archive.Store.Open defines it.
func (s *Store) slice(f *os.File, e *entry, off, n int64) (io.ReadCloser, int64, error) {
	if off < 0 {
		off, n = max(e.size+off, 0), -1
	}
	if off > e.size {
		f.Close() // read only
		return nil, 0, fmt.Errorf("open %s: offset %d is past its end at %d", e.key, off, e.size)
	}
	if n < 0 || n > e.size-off {
		n = e.size - off
	}
	return &body{SectionReader: io.NewSectionReader(f, off, n), file: f, left: n}, e.size, nil
}

// body is a range of a file. What was removed meanwhile can be read to its end.
type body struct {
	*io.SectionReader
	file *os.File
	left int64
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.SectionReader.Read(p)
	if b.left -= int64(n); err == io.EOF && b.left > 0 {
		err = fmt.Errorf("read %s: %w: %d bytes are missing", b.file.Name(), io.ErrUnexpectedEOF, b.left)
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error { return b.file.Close() }

// List implements archive.Store.
func (s *Store) List(ctx context.Context, prefix, after string, max int) ([]archive.Object, error) {
	if max <= 0 {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list %s: %w", s.inner, err)
	}
	// The disk first: what leaves it in between is in the store by then.
	s.mu.Lock()
	var ours []archive.Object
	for _, e := range s.queue {
		if strings.HasPrefix(e.key, prefix) && e.key > after {
			ours = append(ours, archive.Object{Key: e.key, Size: e.size})
		}
	}
	s.mu.Unlock()
	if err := s.away(); err != nil {
		return nil, fmt.Errorf("list %s: %w", s.inner, err)
	}
	all, err := s.inner.List(ctx, prefix, after, max)
	if err != nil || len(ours) == 0 {
		return all, err
	}
	// Ours come first where both have a key, as Open has it.
	all = append(ours, all...)
	slices.SortStableFunc(all, func(a, b archive.Object) int { return strings.Compare(a.Key, b.Key) })
	all = slices.CompactFunc(all, func(a, b archive.Object) bool { return a.Key == b.Key })
	return all[:min(len(all), max)], nil
}

// away returns why the store behind the spool need not be asked now. Shipping finds out at
// intervals; a reader that waits each time until the store gives up would hold up the capture.
func (s *Store) away() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.trouble, archive.ErrUnreachable) {
		return s.trouble
	}
	return nil
}
