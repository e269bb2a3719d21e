package spool

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"txreel/archive"
	"txreel/internal/failpoint"
)

const (
	dirMode  = 0o700
	fileMode = 0o600 // the record holds the whole database

	chunk = 1 << 20 // bytes per system call
)

// Create implements archive.Store. A segment or a rollup is durable on the disk when it
// returns; everything else is in the store behind the spool, where everything created before
// it is, too, if it may refer to that.
func (s *Store) Create(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if err := archive.CheckKey(key); err != nil {
		return err
	}
	if size < 0 {
		return fmt.Errorf("create %s: size %d is negative", key, size)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	var err error
	switch s.o.kind(key) {
	case archive.KeySegment, archive.KeyRollup:
		err = s.enqueue(ctx, key, body, size)
	case archive.KeyFree:
		err = s.pass(ctx, false, key, body, size)
	default:
		err = s.pass(ctx, true, key, body, size)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	return nil
}

// pass creates an object in the store behind the spool: once what was found at the start has
// arrived, and with behind everything that was created before.
func (s *Store) pass(ctx context.Context, behind bool, key string, body io.ReaderAt, size int64) error {
	s.mu.Lock()
	last := s.recovered
	if behind {
		last = s.next - 1
	}
	s.mu.Unlock()
	if err := s.arrived(ctx, last); err != nil {
		return err
	}
	if behind {
		// What has arrived must not come back with a power cut when this object says
		// that nothing follows.
		if err := s.settle(); err != nil {
			return err
		}
	}
	return s.inner.Create(ctx, key, body, size)
}

// arrived waits until the files up to last have arrived. While the store cannot be reached it
// does not wait: the caller hears what it would hear from the store itself.
func (s *Store) arrived(ctx context.Context, last uint64) error {
	return s.await(ctx, func() (bool, error) {
		switch {
		case s.failed != nil:
			return false, s.failed
		case s.closed:
			return false, errClosed
		case s.shipped >= last:
			return true, nil
		case s.trouble != nil:
			return false, fmt.Errorf("%d objects in the spool must arrive first: %w", len(s.queue), s.trouble)
		}
		return false, nil
	})
}

// enqueue makes an object durable on the disk.
func (s *Store) enqueue(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.arrived(ctx, s.recovered); err != nil { // recovered never changes
		return err
	}
	s.mu.Lock()
	number := s.next
	taken := s.keys[key] != nil || s.gone.has(key)
	s.mu.Unlock()
	if taken {
		return fs.ErrExist
	}
	e := &entry{number: number, key: key, size: size, bytes: size + int64(len(key)) + trailerSize, name: fileName(number, key)}
	fits := func() bool { return s.bytes+e.bytes <= s.o.Limit }
	for {
		room, err := s.room(ctx, fits)
		if err != nil {
			return err
		}
		if !room {
			return s.direct(ctx, key, body, size)
		}
		err = s.write(ctx, e, body)
		if err == nil {
			s.mu.Lock()
			s.push(e)
			s.mu.Unlock()
			return nil
		}
		if !noSpace(err) {
			return err
		}
		// Somebody else fills the disk, too: try again when an object of ours has left it.
		s.mu.Lock()
		held := len(s.queue)
		s.mu.Unlock()
		fits = func() bool { return len(s.queue) < held }
	}
}

// direct creates an object that the disk cannot take in the store behind the spool. The queue
// is empty: the order is kept.
func (s *Store) direct(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	err := s.inner.Create(ctx, key, body, size)
	if err == nil || errors.Is(err, fs.ErrExist) {
		s.mu.Lock()
		s.gone.add(key)
		s.mu.Unlock()
	}
	return err
}

// room waits until fits, which is called with mu held, says that there is room; it reports
// false when there is none although the queue is empty.
func (s *Store) room(ctx context.Context, fits func() bool) (ok bool, err error) {
	err = s.await(ctx, func() (bool, error) {
		switch {
		case s.failed != nil:
			return false, s.failed
		case s.closed:
			return false, errClosed
		}
		ok = fits()
		s.setFull(!ok && len(s.queue) > 0)
		return ok || len(s.queue) == 0, nil
	})
	if err != nil { // nobody waits any more
		s.mu.Lock()
		s.setFull(false)
		s.mu.Unlock()
	}
	return ok, err
}

// setFull notes whether somebody waits for room. The caller holds mu.
func (s *Store) setFull(full bool) {
	if full != s.full {
		s.full = full
		s.o.Report(s.stats())
	}
}

// write makes the file of an entry. The order in which bytes become durable is: the file's
// content, then its name. The caller has the turn.
func (s *Store) write(ctx context.Context, e *entry, body io.ReaderAt) (err error) {
	tmp, path := filepath.Join(s.dir, incoming), filepath.Join(s.dir, e.name)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, fileMode)
	if err != nil {
		return s.fault(err)
	}
	err = s.fill(ctx, f, e, body)
	if err == nil {
		err = s.do("sync", f.Sync)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = s.do("rename", func() error { return os.Rename(tmp, path) })
	}
	if err != nil {
		_ = s.do("remove incoming", func() error { return os.Remove(tmp) }) // it is only litter
		return s.fault(err)
	}
	if err := s.syncFolder(); err != nil {
		// Whether the name is durable is not known, and must not be left open: a later
		// sync that succeeds would not say that this one's work is done.
		if gone := s.do("take back", func() error { return os.Remove(path) }); gone != nil {
			s.fail(fmt.Errorf("spool %s: a file could be neither synced nor removed; restart the capture: %w", s.dir, errors.Join(err, gone)))
		}
		return s.fault(err)
	}
	e.since = time.Now()
	return nil
}

// fill writes the object, and what follows it, to f.
func (s *Store) fill(ctx context.Context, f *os.File, e *entry, body io.ReaderAt) error {
	if s.buf == nil {
		s.buf = make([]byte, chunk)
	}
	end := trailer(e.number, e.key, e.size)
	s.sum.Reset()
	for off := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := s.buf[:min(e.size-off, chunk)]
		if n, err := body.ReadAt(b, off); n < len(b) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("body of %d bytes ends after %d: %w", e.size, off+int64(n), err)
		}
		off += int64(len(b))
		last := off == e.size && len(b)+len(end)+sha256.Size <= chunk
		if last { // one system call for what is small
			b = append(b, end...)
		}
		s.sum.Write(b)
		if last {
			b = s.sum.Sum(b)
		}
		if err := s.do("write", func() error { _, err := f.Write(b); return err }); err != nil || last {
			return err
		}
	}
}

// do takes one step, unless a test keeps it from being taken.
func (s *Store) do(step string, f func() error) error {
	failpoint.Step("spool", step)
	if err := s.o.step(step); err != nil {
		return err
	}
	return f()
}

// syncFolder makes the names in the folder durable, and the absence of those removed.
func (s *Store) syncFolder() error {
	s.mu.Lock()
	s.unlinked = false // what is removed from now on is another sync's
	s.mu.Unlock()
	err := s.do("sync folder", s.folder.Sync)
	if err != nil {
		s.mu.Lock()
		s.unlinked = true
		s.mu.Unlock()
	}
	return err
}

// settle makes the absence of removed files durable, if it may not be.
func (s *Store) settle() error {
	s.mu.Lock()
	unlinked := s.unlinked
	s.mu.Unlock()
	if !unlinked {
		return nil
	}
	return s.fault(s.syncFolder())
}

// noSpace reports whether err says that the disk is full.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// fault wraps an error of the disk with the spool's name.
func (s *Store) fault(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("spool %s: %w", s.dir, err)
}
