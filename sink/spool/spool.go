// Package spool keeps what is created in a Store on the connector's own disk until it has
// arrived there: durable after an fsync instead of a request, and while the store is away.
//
// What has an order (segments, rollups) goes through one queue, a file for each object, and
// arrives in the order in which it was created. What may refer to it waits until everything
// created before has arrived, and passes straight through; so does what refers to nothing.
// Readers of the Store see the queue and the store behind it as one.
//
// The queue is a part of the archive as long as it holds anything: a Store that is opened on
// files of a process that died ships them before it takes anything new. That is also the
// fence: if another writer has gone on with the archive meanwhile, its object is under the
// key of our first file, nothing that is new is taken, and the files stay where they are.
package spool

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"
	"sync"
	"time"

	"txreel/archive"
)

// DefaultLimit is how many bytes a Store keeps on the disk if Options do not say otherwise.
const DefaultLimit = 10 << 30

// Options tune a Store. The zero value is sane.
type Options struct {
	// Limit bounds the bytes on the disk. A Create that would pass it waits. 0 is DefaultLimit.
	Limit int64
	// RetryMax bounds the pause between two tries to ship. 0 is 30 s.
	RetryMax time.Duration
	// Report, if not nil, is called when shipping begins to fail or succeeds again, and
	// when the spool becomes full or has room again. It must not call the Store.
	Report func(Stats)

	kind func(key string) archive.KeyKind // archive.KindOf, except in tests
	step func(name string) error          // called before each step; an error keeps it from being taken
}

func (o *Options) defaults() {
	if o.Limit <= 0 {
		o.Limit = DefaultLimit
	}
	if o.RetryMax <= 0 {
		o.RetryMax = 30 * time.Second
	}
	if o.Report == nil {
		o.Report = func(Stats) {}
	}
	if o.kind == nil {
		o.kind = archive.KindOf
	}
	if o.step == nil {
		o.step = func(string) error { return nil }
	}
}

// Stats is what a Store holds at one moment.
type Stats struct {
	Objects int
	Bytes   int64     // on the disk
	Oldest  time.Time // when the oldest object was created; zero when there is none
	Full    bool      // a Create waits for room
	Trouble error     // why the last try to ship failed; nil after one that did not
	Lasting bool      // Trouble stays until a person has done something
}

// Store is an archive.Store in front of another one.
type Store struct {
	inner archive.Store
	dir   string
	o     Options

	lock   *os.File // flock(2)ed as long as the Store is open
	folder *os.File // dir itself, to sync names

	turn chan struct{} // held by the Create that writes into the queue; guards what follows
	buf  []byte
	sum  hash.Hash

	mu        sync.Mutex
	changed   chan struct{} // closed, and made anew, when something below has changed
	queue     []*entry      // oldest first
	keys      map[string]*entry
	bytes     int64
	next      uint64 // number of the next file
	shipped   uint64 // files up to here have arrived
	recovered uint64 // files up to here were found by Open: nothing is created before they arrived
	identity  string // SHA-256 of the archive's identity; the shipper's once Open has returned
	gone      recent
	unlinked  bool  // a file was removed, and its name may come back with a power cut
	full      bool  // a Create waits for room
	trouble   error // of the last try to ship
	failed    error // lasting: nothing is shipped or taken any more
	closed    bool

	cancel context.CancelFunc // ends the shipper
	done   chan struct{}      // closed when it has ended
}

var _ archive.Store = (*Store)(nil)

// Open returns a Store that keeps in dir what is on its way to inner. It makes dir if that
// does not exist, its parent must. One process uses a dir at a time, for one archive. The
// caller closes the Store, and inner after it.
func Open(ctx context.Context, dir string, inner archive.Store, o Options) (*Store, error) {
	o.defaults()
	s := &Store{
		inner: inner, dir: dir, o: o, turn: make(chan struct{}, 1), sum: sha256.New(),
		changed: make(chan struct{}), keys: make(map[string]*entry), next: 1, done: make(chan struct{}),
	}
	if err := s.recover(ctx); err != nil {
		s.release()
		return nil, fmt.Errorf("spool %s: %w", dir, err)
	}
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go s.shipper(ctx) // joined by Close
	return s, nil
}

// String names the store behind the spool.
func (s *Store) String() string { return s.inner.String() }

// Stats returns what the Store holds now.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats()
}

func (s *Store) stats() Stats {
	st := Stats{Objects: len(s.queue), Bytes: s.bytes, Full: s.full, Trouble: s.trouble, Lasting: s.failed != nil}
	if len(s.queue) > 0 {
		st.Oldest = s.queue[0].since
	}
	return st
}

// Close ships what is there until ctx ends, and lets go of the folder. No other call may be
// under way. It returns an error when something stays: the next Open ships it.
func (s *Store) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.notify()
	s.mu.Unlock()
	drained := s.await(ctx, func() (bool, error) { return len(s.queue) == 0, s.failed })
	s.cancel()
	<-s.done
	s.release()
	if drained == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	why := s.trouble
	if why == nil {
		why = drained
	}
	return fmt.Errorf("spool %s keeps %d objects, %d bytes, that have not arrived in %s; they are shipped when a capture starts "+
		"with the same spool: %w", s.dir, len(s.queue), s.bytes, s.inner, why)
}

// release lets go of the folder.
func (s *Store) release() {
	for _, f := range []*os.File{s.folder, s.lock} {
		if f != nil {
			f.Close() // read only
		}
	}
}

var errClosed = errors.New("the spool is closed")

// notify wakes everybody who waits for a change. The caller holds mu.
func (s *Store) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// await waits until holds, which is called with mu held, reports true or an error, or ctx ends.
func (s *Store) await(ctx context.Context, holds func() (bool, error)) error {
	for {
		s.mu.Lock()
		ok, err := holds()
		changed := s.changed
		s.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
