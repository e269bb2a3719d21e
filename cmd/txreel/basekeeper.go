package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/change"
	"txreel/segment"
)

const (
	// catalogInterval is how often the source's table definitions are compared
	// with the last base's.
	catalogInterval = 30 * time.Second
	// baseRetry is how long the keeper waits at least after a base that failed.
	baseRetry = 15 * time.Second
	// baseRest is how many times as long as it was read the source is then left
	// alone: an application that makes and drops tables all day must not have its
	// database read all day.
	baseRest = 3
)

// baseKeeper sees to it that the end of the record can be restored: it takes a base
// when the epoch has none, and whenever a table is not what the last base says it is.
type baseKeeper struct {
	archive *archive.Archive
	epoch   uint64
	source  database
	log     zerolog.Logger
	wake    chan struct{}
	beat    chan struct{} // asks the capture for a heartbeat
	rest    time.Time     // no base begins before that; of run's goroutine
	last    *archive.Base // of run's goroutine, too

	mu       sync.Mutex
	base     change.Seq        // the last base holds transactions up to here
	versions map[string]uint64 // its table definitions; nil while there is no base
	tracked  bool              // versions say something: see tracked
	changed  string            // a table seen with another definition behind base
}

func newBaseKeeper(a *archive.Archive, epoch uint64, source database, log zerolog.Logger) *baseKeeper {
	return &baseKeeper{archive: a, epoch: epoch, source: source, log: log, wake: make(chan struct{}, 1), beat: make(chan struct{}, 1)}
}

// shipped looks through a segment that became durable. It runs on the capture
// loop, and fast.
func (k *baseKeeper) shipped(s *archive.Sealed) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.versions == nil || !k.tracked || k.changed != "" {
		return
	}
	x, err := s.Index()
	if err == nil {
		k.compare(x)
	}
	if k.changed != "" {
		k.poke()
	}
}

// tracked reports whether the source tells a table's definitions apart. One whose log holds
// the statements that change them does not: a restore runs them, and no base becomes stale. A base
// without tables says nothing of its source.
func tracked(versions map[string]uint64) bool {
	for _, version := range versions {
		if version != 0 {
			return true
		}
	}
	return len(versions) == 0
}

// compare looks for a table whose definition is not the base's, in transactions
// behind the base. The caller holds mu.
func (k *baseKeeper) compare(x *segment.Index) {
	if x.Last() <= k.base {
		return
	}
	known := true
	for _, t := range x.Tables {
		known = known && k.versions[t.String()] == t.Version
	}
	if known {
		return
	}
	for _, e := range x.Txns {
		for _, c := range e.Tables {
			if e.Seq > k.base && k.versions[c.Table.String()] != c.Table.Version {
				k.changed = c.Table.String()
				return
			}
		}
	}
}

func (k *baseKeeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// hurry asks the capture to move the archive on although nothing happens.
func (k *baseKeeper) hurry() {
	select {
	case k.beat <- struct{}{}:
	default:
	}
}

// run takes bases until ctx ends. A base that fails is tried again: capture goes
// on meanwhile, since what is not recorded is lost and a base is not.
func (k *baseKeeper) run(ctx context.Context) {
	for {
		pause, wake := catalogInterval, k.wake
		reason, err := k.due(ctx)
		if err == nil && reason != "" {
			if left := time.Until(k.rest); left > 0 {
				k.log.Warn().Str("reason", reason).Time("until", k.rest).Msg("base put off, so that the source is not read all the time; without a log of definitions points since the change are not restorable until it is taken")
				pause, wake = left, nil
			} else if err = k.take(ctx, reason); err == nil {
				continue // the definitions may have changed while it was taken
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			k.log.Warn().Err(err).Msg("base not taken; points since the last one may not be restorable until it is")
			pause = max(baseRetry, time.Until(k.rest))
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-time.After(pause):
		}
	}
}

// restAfter leaves the source alone after it was read from started to ended.
func (k *baseKeeper) restAfter(started, ended time.Time) {
	k.rest = ended.Add(baseRest * ended.Sub(started))
}

// due returns why a base must be taken, or "".
func (k *baseKeeper) due(ctx context.Context) (string, error) {
	if k.versions == nil {
		bases, err := k.archive.Bases(ctx, k.epoch)
		if err != nil {
			return "", err
		}
		if len(bases) == 0 {
			return "first base of the epoch", nil
		}
		if err := k.adopt(ctx, &bases[len(bases)-1]); err != nil {
			return "", err
		}
	}
	k.mu.Lock()
	changed := k.changed
	k.mu.Unlock()
	if changed != "" {
		return "the definition of " + changed + " changed", nil
	}
	return k.source.changed(ctx, k.last) // what no row has shown yet
}

// adopt makes b the base to compare with, and looks through what was recorded
// since.
func (k *baseKeeper) adopt(ctx context.Context, b *archive.Base) error {
	versions := b.Versions()
	k.last = b
	k.mu.Lock()
	k.base, k.versions, k.tracked, k.changed = b.Seq, versions, tracked(versions), ""
	k.mu.Unlock()
	started, err1 := time.Parse(time.RFC3339, b.Started)
	ended, err2 := time.Parse(time.RFC3339, b.Finished)
	if err1 == nil && err2 == nil { // from the archive, so that a restart knows it too
		k.restAfter(started, ended)
	}
	if !k.tracked { // which nobody but this goroutine sets
		return nil
	}
	for x, err := range k.archive.Segments(ctx, k.epoch, b.Seq+1) {
		if err != nil {
			k.mu.Lock()
			k.versions = nil // try again
			k.mu.Unlock()
			return err
		}
		k.mu.Lock()
		k.compare(x.Index)
		done := k.changed != ""
		k.mu.Unlock()
		if done {
			return nil
		}
	}
	return nil
}

func (k *baseKeeper) take(ctx context.Context, reason string) error {
	started := time.Now()
	k.log.Info().Str("reason", reason).Msg("base started")
	b, err := k.source.takeBase(ctx, k.archive, k.epoch, reason, nil)
	k.restAfter(started, time.Now())
	if err != nil {
		return fmt.Errorf("base: %w", err)
	}
	if err := k.source.finishBase(ctx, k.archive, b, k.hurry); err != nil {
		return fmt.Errorf("base: %w", err)
	}
	var rows int64
	for i := range b.Tables {
		rows += b.Tables[i].Rows
	}
	k.log.Info().Str("base", b.ID).Str("seq", b.Seq.String()).Int("tables", len(b.Tables)).Int64("rows", rows).
		Int64("bytes", b.Size()).Dur("took", time.Since(started)).Msg("base finished")
	return k.adopt(ctx, b)
}
