package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/change"
	pgtarget "txreel/restore/postgres"
	"txreel/segment"
	"txreel/sources"
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

// baseKeeper sees to it that the end of the record can be restored, and within bounded time: it takes a base when the epoch has none,
// when the last one is old, and whenever something is not what it says and the record does not tell how that came about.
type baseKeeper struct {
	archive *archive.Archive
	epoch   uint64
	source  database
	times   keeperTimes
	log     zerolog.Logger
	wake    chan struct{}
	beat    chan struct{} // asks the capture for a heartbeat
	// history, if not nil, makes a base of the record, of one that is old.
	history func(ctx context.Context, reason string) (*archive.Base, error)

	// Of run's goroutine.
	rest time.Time     // no base begins before that
	last *archive.Base // the last whole base
	mend *archive.Base // the last one of some tables behind it; nil when there is none
	look *archive.Base // the last one of the schema behind it; nil when there is none

	mu       sync.Mutex
	base     *archive.Base     // the last base; nil while there is none
	versions map[string]uint64 // its table definitions; nil while there is no base
	stales   bool              // it becomes stale when they change
	changed  string            // a table seen with another definition behind base
}

// keeperTimes says how old what is known of the source may get, while the record goes on; 0 is as old as it likes.
type keeperTimes struct {
	base   time.Duration
	schema time.Duration // where changes of it are in no record
}

func newBaseKeeper(a *archive.Archive, epoch uint64, source database, times keeperTimes, log zerolog.Logger) *baseKeeper {
	return &baseKeeper{archive: a, epoch: epoch, source: source, times: times, log: log, wake: make(chan struct{}, 1), beat: make(chan struct{}, 1)}
}

// shipped looks through a segment that became durable. It runs on the capture
// loop, and fast.
func (k *baseKeeper) shipped(s *archive.Sealed) {
	k.mu.Lock()
	defer k.mu.Unlock()
	watched := k.source.watched()
	if k.versions == nil || !k.stales && watched == "" || k.changed != "" {
		return
	}
	x, err := s.Index()
	if err != nil {
		return // the keeper looks by itself, too
	}
	if k.stales {
		k.compare(x)
	}
	if k.changed != "" || !k.stales && slices.ContainsFunc(x.Tables, func(t change.Table) bool { return t.String() == watched }) {
		k.poke()
	}
}

// compare looks for a table whose definition is not the base's, in transactions
// that the base does not hold. The caller holds mu, and has seen a base.
func (k *baseKeeper) compare(x *segment.Index) {
	if x.Last() <= k.base.Seq {
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
			if !k.base.Holds(e.Seq) && k.versions[c.Table.String()] != c.Table.Version {
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
		due, err := k.due(ctx)
		if err == nil && due.Reason != "" {
			if left := time.Until(k.rest); left > 0 {
				k.log.Warn().Str("reason", due.Reason).Time("until", k.rest).Msg("base put off, so that the source is not read all the time; without a log of definitions points since the change are not restorable until it is taken")
				pause, wake = left, nil
			} else if err = k.make(ctx, due); err == nil {
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

// baseDue is a base that must be taken; none without a Reason.
type baseDue struct {
	sources.BaseRequest
	aged bool // for no other reason than that the last one is old
}

func wanted(r sources.BaseRequest) baseDue { return baseDue{BaseRequest: r} }

// due returns which base must be taken, if any.
func (k *baseKeeper) due(ctx context.Context) (none baseDue, err error) {
	if k.versions == nil {
		bases, err := k.archive.Bases(ctx, k.epoch)
		if err != nil {
			return none, err
		}
		if len(bases) == 0 {
			return wanted(sources.BaseRequest{Reason: "first base of the epoch"}), nil
		}
		parts, err := k.archive.PartialBases(ctx, k.epoch)
		if err != nil {
			return none, err
		}
		if err := k.adopt(ctx, &bases[len(bases)-1]); err != nil {
			return none, err
		}
		for i := range parts {
			k.adoptPart(&parts[i])
		}
	}
	k.mu.Lock()
	changed := k.changed
	k.mu.Unlock()
	if changed != "" {
		return wanted(sources.BaseRequest{Reason: "the definition of " + changed + " changed"}), nil
	}
	age, err := k.old(ctx, k.last, k.times.base)
	if err != nil {
		return none, err
	}
	if age > 0 {
		return baseDue{sources.BaseRequest{Reason: fmt.Sprintf("the last base is %s old", age.Round(time.Second))}, true}, nil
	}
	due, err := k.source.lacking(ctx, k.last, k.mend) // what no row has shown yet
	if err != nil || due.Reason != "" || !k.looks() {
		return wanted(due), err
	}
	known := k.last
	if k.look != nil {
		known = k.look
	}
	if age, err = k.old(ctx, known, k.times.schema); err != nil || age <= 0 {
		return none, err
	}
	return wanted(sources.BaseRequest{Reason: fmt.Sprintf("the schema was looked at %s ago", age.Round(time.Second)), Schema: true}), nil
}

// looks reports whether the schema is to be looked at from time to time: its changes are in no record.
func (k *baseKeeper) looks() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stales
}

// old returns the age of a base that is too old, and not all there is; else 0.
func (k *baseKeeper) old(ctx context.Context, b *archive.Base, most time.Duration) (time.Duration, error) {
	started, err := time.Parse(time.RFC3339, b.Started)
	age := time.Since(started)
	if err != nil || most <= 0 || age < most {
		return 0, nil // a base that does not say when it was taken has not been kept by this program
	}
	tail, err := k.archive.Tail(ctx, k.epoch)
	if err != nil || tail.Seq <= b.Seq {
		return 0, err
	}
	return age, nil
}

// adoptPart makes b the partial base to compare with, if it is behind the last whole one.
func (k *baseKeeper) adoptPart(b *archive.Base) {
	part := &k.mend
	if b.SchemaOnly() {
		part = &k.look
	}
	if b.Seq >= k.last.Seq && (*part == nil || b.Seq >= (*part).Seq) {
		*part = b
	}
	k.restFor(b)
}

// restFor leaves the source alone after a base was taken of it; the archive says how long that took, so that a restart
// knows it too.
func (k *baseKeeper) restFor(b *archive.Base) {
	if b.From != nil {
		return
	}
	started, err1 := time.Parse(time.RFC3339, b.Started)
	ended, err2 := time.Parse(time.RFC3339, b.Finished)
	if err1 == nil && err2 == nil {
		k.restAfter(started, ended)
	}
}

// adopt makes b the base to compare with, and looks through what was recorded
// since.
func (k *baseKeeper) adopt(ctx context.Context, b *archive.Base) error {
	stales, err := k.source.stales(b)
	if err != nil {
		return err
	}
	versions := b.Versions()
	k.last, k.mend, k.look = b, nil, nil
	k.mu.Lock()
	k.base, k.versions, k.stales, k.changed = b, versions, stales, ""
	k.mu.Unlock()
	k.restFor(b)
	if !stales {
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

// make makes a base of the record if that will do, and else takes one of the source.
func (k *baseKeeper) make(ctx context.Context, due baseDue) error {
	if !due.aged || k.history == nil {
		return k.take(ctx, due.BaseRequest)
	}
	started := time.Now()
	k.log.Info().Str("reason", due.Reason).Msg("base started from history")
	b, err := k.history(ctx, due.Reason)
	if errors.Is(err, pgtarget.ErrOnlyLive) {
		k.log.Info().Err(err).Msg("the source is read")
		return k.take(ctx, due.BaseRequest)
	}
	if err != nil {
		return fmt.Errorf("base from history: %w", err)
	}
	k.finished(b, started)
	return k.adopt(ctx, b)
}

func (k *baseKeeper) take(ctx context.Context, due sources.BaseRequest) error {
	started := time.Now()
	k.log.Info().Str("reason", due.Reason).Bool("partial", due.Partial()).Msg("base started")
	b, err := k.source.takeBase(ctx, k.archive, k.epoch, due, nil)
	k.restAfter(started, time.Now())
	if err != nil {
		return fmt.Errorf("base: %w", err)
	}
	if err := k.source.finishBase(ctx, k.archive, b, k.hurry); err != nil {
		return fmt.Errorf("base: %w", err)
	}
	k.finished(b, started)
	if b.Partial {
		k.adoptPart(b)
		return nil
	}
	return k.adopt(ctx, b)
}

func (k *baseKeeper) finished(b *archive.Base, started time.Time) {
	var rows int64
	for i := range b.Tables {
		rows += b.Tables[i].Rows
	}
	k.log.Info().Str("base", b.ID).Str("seq", b.Seq.String()).Int("tables", len(b.Tables)).Int64("rows", rows).
		Int64("bytes", b.Size()).Dur("took", time.Since(started)).Msg("base finished")
}
