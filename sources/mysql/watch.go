package mysql

import (
	"context"
	"fmt"
	"time"

	"txreel/capture"
	"txreel/change"
	"txreel/sources/mysql/gtid"
)

// healthEvery is how many looks at the server's clock go with one at its files.
const healthEvery = 6

// watch looks at the server from time to time: at its clock and the end of its log, so that
// the record can say that nothing happened until then, and at how long it keeps its log. It
// owns the control connection until Close.
//
// A server that shuts down ends ordinary sessions, and may then wait for those that carry its
// log to have sent it all, which never happens while the archive's store is down. So
// when our ordinary session ends, the stream follows it: nothing is lost by that.
func (s *Source) watch(ctx context.Context) {
	var end place
	for n := 0; ; n++ {
		err := s.look(ctx, &end, n%healthEvery == 0)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.fail(err)
			return
		}
		select {
		case <-time.After(s.opts.lookEvery):
		case <-s.failed:
			return
		case <-ctx.Done():
			return
		}
	}
}

// look reads a fence, and the health of the log if asked to. Last is where the log ended
// at the last look. A server whose log is reset under a stream says nothing of it there: the
// stream would go on for ever without another event.
func (s *Source) look(ctx context.Context, last *place, health bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.silence, unreachable(fmt.Errorf("it did not answer within %s", s.opts.silence)))
	defer cancel()
	f, err := readFence(ctx, s.control)
	if err != nil {
		return err
	}
	if last.file != "" && !f.at.passed(*last) {
		return fmt.Errorf("%w: the source's log ended at %s and ends at %s now: it was reset; run capture with --new-epoch to record from here on", capture.ErrDiverged, last, f.at)
	}
	*last = f.at
	position := s.start.Position
	if acked := s.acked.Load(); acked != nil {
		position = *acked
	}
	held, err := gtid.Parse(s.control.Flavor, string(position))
	if err != nil {
		return err
	}
	executed, err := s.control.executed(ctx)
	if err != nil {
		return err
	}
	if !executed.Contains(held) {
		waiting, err := s.control.semiSyncWaits(ctx)
		if err != nil || waiting { // nothing is known before they go on
			return err
		}
		if executed, err = s.control.settledOn(ctx, held); err != nil {
			return err
		}
	}
	if !executed.Contains(held) {
		return fmt.Errorf("%w: the source does not have transactions any more that are on record: %s: it was reset; run capture with --new-epoch to record from here on", capture.ErrDiverged, executed.Missing(held))
	}
	s.fence.Store(f)
	if !health {
		return nil
	}
	// How long the log is kept is good to know. Not to know it, because a file went while it was
	// asked for, or no connection was free, is no reason to end the stream.
	if h, err := ReadHealth(ctx, s.control, position); err == nil {
		s.health.Store(h)
	} else if s.control.Closed() {
		return err
	}
	return nil
}

// readFence reads the source's clock and then the end of its log: what commits by that time
// stands before that place. MySQL gives a transaction its time and its place under one
// lock.
func readFence(ctx context.Context, conn *Conn) (*fence, error) {
	f := &fence{}
	var err error
	if f.time, err = conn.settled(ctx); err != nil {
		return nil, err
	}
	f.at, err = conn.logEnd(ctx)
	return f, err
}

// settled returns the latest time that no transaction will be given any more that commits from
// now on, as far as that can be said. It is the clock for MySQL. MariaDB knows whole seconds,
// and those of when a statement began: what begins within the current second is
// given that second, and what has been running for longer an earlier one.
func (c *Conn) settled(ctx context.Context) (change.Time, error) {
	clock, err := Clock(ctx, c)
	if err == nil && c.Flavor == gtid.MariaDB {
		clock -= clock%1_000_000 + 1
	}
	return clock, err
}

// Ack implements capture.Source. The server keeps its log for a time, whoever needs it: what it is told is which
// commits need not wait any longer, if they do.
func (s *Source) Ack(position change.Position) {
	s.acked.Store(&position)
	if s.opts.Sync != 0 {
		s.waits.ack(position)
	}
}
