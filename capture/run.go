package capture

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/failpoint"
)

// Options tune Run. The zero value is sane.
type Options struct {
	Log zerolog.Logger
	// FlushAge is how old a commit may get before its segment is shipped. Default 1 s.
	FlushAge time.Duration
	// FlushSize is the compressed size at which a segment is shipped. Default 8 MiB.
	FlushSize int64
	// Heartbeat is how long an idle source goes without a segment. Default 1 minute.
	Heartbeat time.Duration
	// Grace is how long Run goes on shipping what is whole once it was told to
	// stop or the source has ended. Default 10 s.
	Grace time.Duration
	// Sync says that COMMIT on the source waits for Ack: whatever is whole is shipped as soon
	// as the segment before it has arrived, and so is the end of an idle source's log,
	// which commits that are none of ours may wait for.
	Sync bool
	// Start opens an empty epoch with a heartbeat: the place, and the source's time,
	// from which the record is unbroken.
	Start *change.Message
	// Beat, if not nil, asks for a heartbeat before its time, as soon as the source
	// is idle: somebody waits for the archive to pass a position.
	Beat <-chan struct{}
	// Status, if not nil, is kept up to date.
	Status *Status
	// Arrived, if not nil, is called after each segment became durable, and before the next one
	// is sent, on a goroutine that Run joins. It must return when its context ends.
	Arrived func(context.Context, *archive.Sealed)
	// Shipped, if not nil, is called after each segment became durable and was
	// acknowledged, on Run's goroutine, in order.
	Shipped func(*archive.Sealed)
}

func (o *Options) defaults() {
	switch {
	case o.Sync:
		o.FlushAge = 0
	case o.FlushAge == 0:
		o.FlushAge = time.Second
	}
	if o.FlushSize == 0 {
		o.FlushSize = 8 << 20
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = time.Minute
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	if o.Status == nil {
		o.Status = &Status{}
	}
}

// fullFactor bounds, in FlushSizes, what is gathered while a store is slow: then
// the source has to wait.
const fullFactor = 4

// Run moves transactions from src, opened at w's tail, into the archive until ctx
// ends or something fails. It never recovers by itself: the caller opens everything
// anew and calls Run again, the same way after every failure (Invariant 2). What is
// whole when it stops is still shipped, within Grace. It returns ctx's error when
// ctx ended, and closes neither src nor w.
func Run(ctx context.Context, src Source, w *archive.Writer, o Options) error {
	o.defaults()
	// Uploads outlive ctx by the grace period.
	upload, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &run{src: src, w: w, o: o, ship: make(chan *archive.Sealed, 1), shipped: make(chan error, 1)}
	done := make(chan struct{})
	go func() { // joined below
		defer close(done)
		r.uploader(upload)
	}()
	err := r.loop(ctx)
	stop := time.AfterFunc(o.Grace, cancel)
	err = r.finish(err)
	close(r.ship)
	<-done
	stop.Stop()
	cancel()
	return err
}

type run struct {
	src Source
	w   *archive.Writer
	o   Options

	ship    chan *archive.Sealed // to the uploader
	shipped chan error           // from the uploader, one for each
	flight  *archive.Sealed      // handed to the uploader, no answer yet
	sentAt  time.Time
	since   time.Time // when the first of its commits arrived
	last    time.Time // when the last segment was sealed
	failed  bool      // a segment did not arrive, or a message found no place in one: nothing may follow it
	rows    uint      // messages of the open transaction, and of those before it
}

// lookEvery is how many messages of a huge transaction pass between two looks at
// the segment on its way and at the clock.
const lookEvery = 1 << 12

// uploader ships one segment after the other. Rollups come after the answer: they
// are derived data, and no acknowledgement waits for them.
func (r *run) uploader(ctx context.Context) {
	for s := range r.ship {
		err := r.w.Ship(ctx, s)
		r.shipped <- err
		if err != nil {
			continue
		}
		if r.o.Sync {
			r.src.Wake() // to be acknowledged at once
		}
		if r.o.Arrived != nil {
			r.o.Arrived(ctx, s)
		}
		if err := r.w.RollUp(ctx, s); err != nil {
			r.o.Log.Warn().Err(err).Msg("rollup not written; readers will take longer")
		}
	}
}

func (r *run) loop(ctx context.Context) error {
	r.last = time.Now()
	if start := r.o.Start; start != nil && r.w.Tail().Seq == 0 {
		if err := r.beat(start); err != nil {
			return err
		}
		if err := r.seal(); err != nil {
			return err
		}
	}
	for {
		m, err := r.src.Next(ctx)
		if err != nil {
			return err
		}
		failpoint.Hit(failpoint.CaptureRead)
		if err := r.w.Append(m); err != nil {
			// The source counts m as delivered: its position is one that the segment does not
			// reach, and must not end (Invariant 4). All of it is sent again.
			r.failed = true
			return err
		}
		failpoint.Hit(failpoint.CaptureAppended)
		switch m.Kind {
		case change.KindData:
			if r.rows++; r.rows%lookEvery == 0 {
				err = r.under()
			}
			if err == nil {
				err = r.grown(ctx)
			}
		case change.KindCommit:
			err = r.committed(ctx)
		case change.KindIdle:
			err = r.idle(m)
		}
		if err != nil {
			return err
		}
	}
}

// under is called from time to time while a huge transaction arrives: what was
// shipped before it is acknowledged, a store that failed is noticed, and receiving
// counts as getting on as long as no segment waits for the store.
func (r *run) under() error {
	if err := r.poll(); err != nil || r.flight != nil {
		return err
	}
	r.o.Status.received(time.Now())
	return nil
}

// committed decides whether the segment ends with the commit just appended.
func (r *run) committed(ctx context.Context) error {
	now := time.Now()
	if r.w.Txns() == 1 {
		r.since = now
	}
	if err := r.poll(); err != nil {
		return err
	}
	size := r.w.Size()
	full := r.w.Full()
	if size < r.o.FlushSize && now.Sub(r.since) < r.o.FlushAge && !full {
		return nil
	}
	if r.flight != nil {
		if size < fullFactor*r.o.FlushSize && !full {
			return nil // let it fill while the one before it is on its way
		}
		if err := r.wait(ctx); err != nil {
			return err
		}
	}
	return r.seal()
}

// carryBelow is the size up to which an open transaction may grow in a segment
// that holds whole ones.
const carryBelow = 256 << 10

// grown ships the whole transactions in front of one that turns out to be large, so
// that they do not wait for its end.
func (r *run) grown(ctx context.Context) error {
	if r.w.Held() < carryBelow || r.w.Txns() == 0 {
		return nil
	}
	if err := r.wait(ctx); err != nil {
		return err
	}
	return r.seal()
}

// idle ships what has become old, or a heartbeat when there is nothing.
func (r *run) idle(m *change.Message) error {
	if err := r.poll(); err != nil || r.flight != nil || r.w.Open() {
		return err
	}
	now := time.Now()
	if r.w.Txns() > 0 {
		if now.Sub(r.since) < r.o.FlushAge {
			return nil
		}
		return r.seal()
	}
	r.o.Status.idle(now)
	// The source may forget what the archive never saw only once the archive says
	// that there was nothing to see (Invariant 1).
	if m.Position == "" || now.Sub(r.last) < r.o.Heartbeat && !r.asked(m.Position) && !r.awaited(m.Position) {
		return nil
	}
	if err := r.beat(m); err != nil {
		return err
	}
	return r.seal()
}

// beat records that nothing else happened up to the position of an idle source.
func (r *run) beat(m *change.Message) error {
	if len(m.Position) > change.MaxPosition {
		return ErrLongPosition
	}
	return r.w.Heartbeat(m.Position, m.CommitTime)
}

// asked reports whether a heartbeat was asked for that would move the archive on.
func (r *run) asked(position change.Position) bool {
	if position == r.w.Tail().Position {
		return false
	}
	select {
	case <-r.o.Beat:
		return true
	default:
		return false
	}
}

// awaited reports whether commits that are not in the record, of another database or of nothing that is
// recorded, may wait for the position.
func (r *run) awaited(position change.Position) bool {
	return r.o.Sync && position != r.w.Tail().Position
}

// seal hands the segment to the uploader, which must be free.
func (r *run) seal() error {
	end := r.src.Position()
	if len(end) > change.MaxPosition {
		return ErrLongPosition
	}
	failpoint.Hit(failpoint.CaptureSealing)
	s, err := r.w.Seal(end)
	if err != nil {
		return err
	}
	failpoint.Hit(failpoint.CaptureSealed)
	r.last = time.Now()
	r.flight, r.sentAt = s, r.last
	r.ship <- s
	failpoint.Hit(failpoint.CaptureHanded)
	return nil
}

// poll looks whether the segment on its way has arrived.
func (r *run) poll() error {
	if r.flight == nil {
		return nil
	}
	select {
	case err := <-r.shipped:
		return r.landed(err)
	default:
		return nil
	}
}

// wait waits until nothing is on its way, or ctx ends.
func (r *run) wait(ctx context.Context) error {
	if r.flight == nil {
		return nil
	}
	select {
	case err := <-r.shipped:
		return r.landed(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// landed acknowledges a segment that has arrived.
func (r *run) landed(err error) error {
	s := r.flight
	r.flight = nil
	r.w.Release(s)
	if err != nil {
		r.failed = true
		return err
	}
	failpoint.Hit(failpoint.CaptureAcking)
	// Invariant 1: the only acknowledgement there is, of what Ship said is durable.
	r.src.Ack(s.End)
	failpoint.Hit(failpoint.CaptureAcked)
	took := time.Since(r.sentAt)
	r.o.Status.durable(s, time.Now())
	r.o.Log.Info().Str("seq", s.Last.String()).Str("position", s.End.Brief()).
		Int("transactions", int(s.Last-s.First+1)).Int64("bytes", s.Size).Dur("took", took).Msg("segment")
	if r.o.Shipped != nil {
		r.o.Shipped(s)
	}
	return nil
}

// finish ships what is whole after the loop ended with cause. What the source has delivered was all
// appended, so that its position is the end of the last commit in the segment. An error of the store
// matters more than the end of the source; a stop that went well is ctx's error.
func (r *run) finish(cause error) error {
	ctx := context.Background() // the uploader answers within the grace period
	err := r.wait(ctx)
	if err == nil && !r.failed && r.w.Txns() > 0 {
		if err = r.seal(); err == nil {
			err = r.wait(ctx)
		}
	}
	if err != nil && !errors.Is(cause, err) {
		return errors.Join(err, cause)
	}
	return cause
}
