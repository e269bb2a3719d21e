package spool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cenkalti/backoff/v5"

	"txreel/archive"
)

// maxIdentity bounds the archive's identity object, in bytes.
const maxIdentity = 1 << 20

// shipper moves the queue into the store behind it, oldest first, until ctx ends or an error
// is found that a person must look at.
func (s *Store) shipper(ctx context.Context) {
	defer close(s.done)
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = min(500*time.Millisecond, s.o.RetryMax), s.o.RetryMax
	begun := false
	for {
		var e *entry
		if s.await(ctx, func() (bool, error) {
			if len(s.queue) > 0 {
				e = s.queue[0]
			}
			return e != nil, nil
		}) != nil {
			return
		}
		var err error
		if !begun {
			err = s.begin(ctx)
			begun = err == nil
		}
		if err == nil {
			err = s.ship(ctx, e)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			pause.Reset()
			s.setTrouble(nil)
			continue
		case lasting(err):
			s.fail(err)
			return
		}
		s.setTrouble(err)
		wait := pause.NextBackOff()
		if !errors.Is(err, archive.ErrUnreachable) {
			wait = s.o.RetryMax // credentials and the like: a person is needed
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// lasting reports whether an error of the shipper stays whatever is tried.
func lasting(err error) bool {
	return errors.Is(err, archive.ErrOtherWriter) || errors.Is(err, archive.ErrCorrupt) || errors.Is(err, archive.ErrOtherDatabase)
}

// setTrouble notes how the last try to ship went.
func (s *Store) setTrouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	report := (err == nil) != (s.trouble == nil)
	s.trouble = err
	s.notify()
	if report {
		s.o.Report(s.stats())
	}
}

// fail ends shipping and taking for good.
func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed, s.trouble = err, err
	s.notify()
	s.o.Report(s.stats())
}

// begin looks, once for each Open, whether the store still holds the archive that the queue
// belongs to.
func (s *Store) begin(ctx context.Context) error {
	identity, err := s.fingerprint(ctx)
	switch {
	case err != nil:
		return err
	case s.identity == "" && identity != "":
		if err := s.writeMarker(identity); err != nil {
			return s.fault(err)
		}
	case s.identity != identity:
		return fmt.Errorf("%w: the archive at %s is not the one that the files in the spool %s were written for; move the folder away",
			archive.ErrOtherDatabase, s.inner, s.dir)
	}
	// Invariant 6: what ends an epoch is on record behind all of it. When somebody else has
	// put it there, our files no longer belong to the record.
	s.mu.Lock()
	ends := make(map[string]bool)
	for _, e := range s.queue {
		if key := archive.EndKey(e.key); key != "" && e.number <= s.recovered {
			ends[key] = true
		}
	}
	s.mu.Unlock()
	for key := range ends {
		body, _, err := s.inner.Open(ctx, key, 0, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		body.Close() // read only
		return s.beaten("holds " + key + ", which ends the epoch that the files belong to")
	}
	return nil
}

// fingerprint returns the SHA-256 of the archive's identity, or "" when there is none.
func (s *Store) fingerprint(ctx context.Context) (string, error) {
	body, size, err := s.inner.Open(ctx, archive.IdentityKey, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer body.Close()
	if size > maxIdentity {
		return "", fmt.Errorf("%w: %s has %d bytes", archive.ErrCorrupt, archive.IdentityKey, size)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(body, maxIdentity)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// ship moves one object. It may be repeated at any time: an object that has arrived before is
// found there, with the same bytes.
func (s *Store) ship(ctx context.Context, e *entry) error {
	path := filepath.Join(s.dir, e.name)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.damaged(e.name, "it is gone")
	}
	if err != nil {
		return s.fault(err)
	}
	defer f.Close() // read only
	if err := s.verify(f, e); err != nil {
		return err
	}
	err = s.do("put", func() error { return s.inner.Create(ctx, e.key, f, e.size) })
	if errors.Is(err, fs.ErrExist) {
		// Invariant 3: it is ours, from a try whose answer was lost, or another writer's.
		err = s.compare(ctx, f, e)
	}
	if err != nil {
		return err
	}
	// Names vanish in order, also in a power cut: a gap in their numbers is damage.
	if err := s.settle(); err != nil {
		return err
	}
	if err := s.do("unlink", func() error { return os.Remove(path) }); err != nil {
		return s.fault(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unlinked = true
	s.pop()
	return nil
}

// compare returns nil if the object in the store is the one in f. A rollup that is there with
// other bytes is as good as ours: it is derived data, and what does not hold is told by verify.
func (s *Store) compare(ctx context.Context, f *os.File, e *entry) error {
	if s.o.kind(e.key) == archive.KeyRollup {
		return nil
	}
	there, size, err := s.inner.Open(ctx, e.key, 0, -1)
	if err != nil {
		return err
	}
	defer there.Close()
	same := size == e.size
	theirs, ours := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); same && off < size; {
		n := min(size-off, int64(len(theirs)))
		if _, err := io.ReadFull(there, theirs[:n]); err != nil {
			return err
		}
		if _, err := f.ReadAt(ours[:n], off); err != nil {
			return s.fault(err)
		}
		same = bytes.Equal(theirs[:n], ours[:n])
		off += n
	}
	if !same {
		return s.beaten("holds another object under " + e.key)
	}
	return nil
}

// beaten is the lasting error about an archive that somebody else went on with.
func (s *Store) beaten(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("%w: %s %s. The %d files in the spool %s, from %s on, were acknowledged to the source and are not in the archive; "+
		"they stay where they are. Stop the other capture, compare with `txreel log` what it has recorded, and move the folder away to go on",
		archive.ErrOtherWriter, s.inner, what, len(s.queue), s.dir, s.queue[0].name)
}
