package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/capture"
	"txreel/change"
	"txreel/sources/postgres"
)

// syncFlags are the options of zero-loss mode, and of a capture that stands by for another.
type syncFlags struct {
	Standby     bool          `help:"Wait until no other capture of the archive is at work, and take its place."`
	Sync        bool          `help:"Zero-loss mode: COMMIT on the source returns only once the archive holds the transaction durably."`
	SyncTimeout time.Duration `default:"1s" help:"With --sync: the longest a COMMIT may wait. Then all go on without waiting, and the record says so."`
}

// waiters are the COMMITs that wait on a source.
type waiters interface {
	// Waiting returns for how long one has been waiting, the longest.
	Waiting(ctx context.Context) (time.Duration, error)
	// Expose lets all go on, and no more wait.
	Expose(ctx context.Context) error
	// Guard has the source itself see to it, from now on, that none waits for longer than a limit when Waiting is not
	// called any more. Only Dismiss ends that, and not Close.
	Guard(ctx context.Context, limit time.Duration) error
	Dismiss(ctx context.Context) error
	Close()
}

// standBy waits until no other capture of the archive is at work on the source.
func standBy(ctx context.Context, d database, store archive.Store, log zerolog.Logger) error {
	const every = 500 * time.Millisecond
	a, err := archive.Open(ctx, store)
	if err != nil {
		return err // there is nothing to stand by for
	}
	for said := false; ; {
		taken, err := d.taken(ctx, a)
		if err != nil || !taken {
			return err
		}
		if !said {
			said = true
			log.Info().Msg("standing by: another capture is at work")
		}
		if !sleep(ctx, every) {
			return ctx.Err()
		}
	}
}

// breaker sees to it that no COMMIT waits for longer than it may, whatever the capture and its archive do: the
// source comes first. It works on a session of its own, and as long as the process, also while that only stands by. For
// the case that the process itself is what fails, it leaves a guard in the source.
type breaker struct {
	open    func(ctx context.Context) (waiters, error) // nil, nil for a server that stops to wait by itself
	timeout time.Duration
	log     zerolog.Logger
	trips   *atomic.Int64 // times it let them go
	armed   atomic.Bool   // this process, and not one that it stands by for, had them wait
	ready   atomic.Bool   // it looks, and so does the guard: COMMIT may be made to wait
}

// start lets the breaker work until ctx ends or stop is called, which waits for its end.
func (b *breaker) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var joined sync.WaitGroup
	joined.Go(func() { b.run(ctx) })
	return func() {
		cancel()
		joined.Wait()
	}
}

// run works until ctx ends, and then lets the COMMITs go that this process had wait: nobody else would.
func (b *breaker) run(ctx context.Context) {
	guarded := b.work(ctx)
	if guarded != nil {
		defer guarded.Close()
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteLimit)
	defer cancel()
	if b.armed.Load() {
		if err := b.release(after); err != nil {
			b.log.Error().Err(err).Msg("COMMIT may wait for a capture that has ended")
			return // the guard has something left to do
		}
	}
	if guarded != nil {
		if err := guarded.Dismiss(after); err != nil {
			b.log.Warn().Err(err).Msg("the source guards COMMIT for a moment yet")
		}
	}
}

// release lets COMMITs go, on a session of its own: one that was asked something when ctx ended is of no more use.
func (b *breaker) release(ctx context.Context) error {
	w, err := b.open(ctx)
	if err != nil || w == nil {
		return err
	}
	defer w.Close()
	return w.Expose(ctx)
}

// work looks until ctx ends, and returns the session under guard, if there is one.
func (b *breaker) work(ctx context.Context) waiters {
	pause := min(max(b.timeout/4, 50*time.Millisecond), time.Second) // before another look at a source that could not be asked
	said := false
	for ctx.Err() == nil {
		w, err := b.open(ctx)
		if err == nil && w == nil {
			b.ready.Store(true)
			return nil
		}
		if err == nil {
			if err = w.Guard(ctx, b.timeout); err == nil {
				said = false
				b.ready.Store(true)
				err = b.watch(ctx, w)
				b.ready.Store(false)
			}
			if ctx.Err() != nil {
				return w
			}
			w.Close()
		}
		if ctx.Err() == nil && !said {
			said = true
			b.log.Warn().Err(err).Msg("cannot see which COMMITs wait")
		}
		sleep(ctx, pause)
	}
	return nil
}

// watch lets COMMITs go that wait for too long, until it cannot see them.
func (b *breaker) watch(ctx context.Context, w waiters) error {
	every := postgres.LookEvery(b.timeout)
	for ctx.Err() == nil {
		longest, err := w.Waiting(ctx)
		if err != nil {
			return err
		}
		if longest > 0 && longest >= b.timeout-3*every { // what letting go takes is part of the wait
			if err := w.Expose(ctx); err != nil {
				b.log.Error().Err(err).Dur("waiting", longest).Msg("COMMITs wait for the archive, and cannot be let go")
				return err
			}
			b.trips.Add(1)
			b.log.Error().Dur("waited", longest).Msg("COMMIT does not wait for the archive any more: it would have taken too long; transactions from here on can be lost with the source until it waits again")
		}
		sleep(ctx, every)
	}
	return ctx.Err()
}

// protectable is a capture.Source that COMMIT can wait for.
type protectable interface {
	// Protect has COMMIT wait for Ack, and returns a position: what commits behind it waits.
	Protect(ctx context.Context) (change.Position, error)
	// Expose lets COMMIT return without waiting, and those that wait.
	Expose(ctx context.Context) error
	// Exposed says why a COMMIT may have returned without waiting since Protect, or "".
	Exposed(ctx context.Context) (string, error)
	// Holds reports whether a record that ends at end holds everything up to a position.
	Holds(end, position change.Position) (bool, error)
}

// protector has COMMIT on a source wait for the archive whenever that keeps up, and puts on record for which
// transactions it did.
type protector struct {
	archive *archive.Archive
	epoch   uint64
	source  protectable
	status  *capture.Status
	log     zerolog.Logger
	breaker *breaker
	on      *atomic.Bool // what the metrics say

	durable atomic.Pointer[durable] // not nil
	record  []archive.Protection
	sure    *durable           // the end of the record when COMMIT was last seen to wait
	claimed atomic.Bool        // the record says, or is about to say, that COMMIT waits
	look    chan chan struct{} // asks for a look at the source, and is answered when what it showed is on record
	ended   chan struct{}      // closed when nobody looks any more
	unsure  int                // segments that arrived since the last look that was asked for; arrived's own
}

func newProtector(a *archive.Archive, epoch uint64, record []archive.Protection, src protectable, end durable) *protector {
	p := &protector{archive: a, epoch: epoch, record: record, source: src, sure: &end, look: make(chan chan struct{}), ended: make(chan struct{})}
	p.durable.Store(&end)
	return p
}

// unsureSegments is how many segments may arrive before somebody has looked whether their COMMITs waited. Those at the end
// of a record, and no others, are uncertain when the capture is killed.
const unsureSegments = 16

// arrived notes a segment that became durable. No segment follows too many of which nobody knows.
func (p *protector) arrived(ctx context.Context, s *archive.Sealed) {
	p.durable.Store(&durable{s.Last, s.End})
	if !p.claimed.Load() {
		p.unsure = unsureSegments // those that arrived before the claim count, too: the first look comes at once
		return
	}
	if p.unsure++; p.unsure < unsureSegments {
		return
	}
	answered, asked := make(chan struct{}), p.look
	for p.claimed.Load() {
		select {
		case asked <- answered:
			asked = nil
			continue
		case <-time.After(lookAgain / 10): // a protection that ends unasked is claimed no more once that is on record
			continue
		case <-answered:
		case <-p.ended:
		case <-ctx.Done():
		}
		break
	}
	p.unsure = 0
}

// interrupted puts on record that nobody knows of the COMMITs behind a transaction whether they waited, unless the record
// does not say that they did: they came while no capture was there, or one that could not say how its protection ended.
// It has to be on record before they are, whatever the next capture does, and returns what is. The transaction is sure,
// where a stream of this process has found out, or else the last one of which any capture must have known.
func interrupted(ctx context.Context, a *archive.Archive, epoch uint64, tail, sure change.Seq) ([]archive.Protection, error) {
	have, err := a.Protections(ctx, epoch)
	n := len(have)
	if err != nil || n == 0 || !have[n-1].Protected {
		return have, err
	}
	if sure > tail {
		sure = tail
		segments := 0
		for x, err := range a.Backward(ctx, epoch, tail) {
			if err != nil {
				return have, err
			}
			sure = x.Txns[0].Seq - 1
			if segments++; segments == unsureSegments || sure < have[n-1].From {
				break
			}
		}
	}
	sure = max(sure, have[n-1].From-1) // what came before that was known when it was noted
	return a.RecordProtection(ctx, have, archive.Protection{Epoch: epoch, From: sure + 1, Protected: false, Reason: "the capture was interrupted"})
}

// durable is an end of the record.
type durable struct {
	seq change.Seq
	end change.Position
}

const (
	// lookAgain is how often a source is asked whether its COMMITs still wait.
	lookAgain = time.Second
	// settledFor is how long a protection has lasted after which the next one is not put off for longer.
	settledFor = 10 * time.Minute
	// noteLimit is how long the end of a protection may take to be put on record. What is not is by the next capture.
	noteLimit = 5 * time.Second
	// nearEnd is how far behind the source a capture may be that COMMIT can wait for.
	nearEnd = 2 * time.Second
)

// run works until ctx ends. COMMITs go on waiting then: if the stream is not opened again in time, the breaker lets them
// go. Whatever is not certain counts as exposed: what is on record as protected was. When the end of a protection could not
// be put on record it returns an error: nothing more may be recorded then.
func (p *protector) run(ctx context.Context) error {
	defer close(p.ended)
	err := p.protect(ctx)
	p.on.Store(false)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	p.log.Error().Err(err).Msg("zero-loss mode has ended")
	if p.claimed.Load() {
		return fmt.Errorf("put the end of zero-loss mode on record: %w", err)
	}
	return nil
}

func (p *protector) protect(ctx context.Context) error {
	rest := backoff.NewExponentialBackOff()
	rest.InitialInterval, rest.MaxInterval = 5*time.Second, 5*time.Minute
	for {
		for !p.near() || !p.breaker.ready.Load() {
			if !sleep(ctx, lookAgain/10) {
				return nil
			}
		}
		begun := time.Now()
		reason, err := p.once(ctx)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if time.Since(begun) > settledFor {
			rest.Reset()
		}
		pause := rest.NextBackOff()
		p.log.Warn().Str("reason", reason).Dur("again_in", pause).Msg("COMMIT does not wait for the archive")
		sleep(ctx, pause)
	}
}

// near reports whether the capture has all, or nearly all, of what the source has.
func (p *protector) near() bool {
	s := p.status.Snapshot()
	latest := time.UnixMicro(int64(s.Latest))
	return time.Since(s.CaughtUp) < nearEnd || time.Since(s.Durable) < nearEnd && time.Since(latest) < nearEnd
}

// once protects until something is in the way, and says what.
func (p *protector) once(ctx context.Context) (reason string, err error) {
	p.breaker.armed.Store(true)
	at, err := p.source.Protect(ctx)
	if err != nil {
		return err.Error(), p.source.Expose(ctx)
	}
	p.sure = p.durable.Load() // every COMMIT that has not waited is of a transaction up to here, or in front of at
	var asked chan struct{}
	answer := func() {
		if asked != nil {
			close(asked)
			asked = nil
		}
	}
	defer answer() // when the end is on record
	for {
		now := p.durable.Load()
		if reason, err = p.source.Exposed(ctx); err != nil {
			reason = err.Error()
		}
		if reason != "" {
			break
		}
		p.sure = now
		answer()
		if !p.claimed.Load() {
			holds, err := p.source.Holds(now.end, at)
			if err != nil {
				return "", err
			}
			if holds {
				p.claimed.Store(true)
				if err := p.note(ctx, now.seq, true, "COMMIT waits for the archive"); err != nil {
					return "", err
				}
				p.on.Store(true)
				p.log.Info().Str("seq", (now.seq + 1).String()).Msg("COMMIT waits for the archive")
			}
		}
		pause := lookAgain
		if !p.claimed.Load() {
			pause /= 50
		}
		select {
		case <-ctx.Done():
			reason = "the capture was stopped"
		case asked = <-p.look:
		case <-time.After(pause):
		}
		if reason != "" {
			break
		}
	}
	p.on.Store(false)
	if n := len(p.record); n == 0 || !p.record[n-1].Protected {
		return reason, nil
	}
	after, cancel := context.WithCancel(context.WithoutCancel(ctx)) // a capture that is stopped says so
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if sleep(after, noteLimit) {
			cancel()
		}
	})()
	if err := p.note(after, p.sure.seq, false, reason); err != nil {
		return "", err
	}
	p.claimed.Store(false)
	return reason, nil
}

// note puts on record what holds of the transactions behind one. It waits for a store that cannot be reached; a
// capture that ends before that is followed by one that knows no better.
func (p *protector) note(ctx context.Context, behind change.Seq, protected bool, reason string) error {
	note := archive.Protection{Epoch: p.epoch, From: behind + 1, Protected: protected, Reason: reason,
		Noted: time.Now().UTC().Format(time.RFC3339)} // the same however often it is tried: one try may have taken effect unheard
	for {
		have, err := p.archive.RecordProtection(ctx, p.record, note)
		if err == nil {
			p.record = have
			return nil
		}
		if errors.Is(err, fs.ErrExist) || !errors.Is(err, archive.ErrUnreachable) || !sleep(ctx, lookAgain) {
			return err
		}
	}
}

// sleep waits, and reports whether ctx has not ended by then.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
