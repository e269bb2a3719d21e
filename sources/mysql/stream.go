package mysql

import (
	"context"
	"errors"
	"fmt"
	"time"

	"txreel/change"
	"txreel/sources/mysql/binlog"
)

// Next implements capture.Source.
func (s *Source) Next(ctx context.Context) (*change.Message, error) {
	for {
		if m := s.parser.queued(); m != nil {
			return m, nil
		}
		if s.cur != nil && s.at < len(s.cur.data) {
			m, err := s.packet()
			if err != nil {
				s.fail(err)
				return nil, err
			}
			if m != nil {
				return m, nil
			}
			continue
		}
		if s.cur != nil {
			s.recycle()
		}
		if err := ctx.Err(); err != nil { // also while the stream never pauses
			return nil, err
		}
		select { // without a look at the clock while the stream flows
		case b, ok := <-s.batches:
			if !ok {
				return nil, s.ended(ctx)
			}
			s.begin(b)
			continue
		default:
		}
		s.timer.Reset(idleTick)
		select {
		case b, ok := <-s.batches:
			if !ok {
				return nil, s.ended(ctx)
			}
			s.begin(b)
		case <-s.timer.C:
			if err := s.stalled(); err != nil {
				s.fail(err)
				return nil, err
			}
			return s.idle(), nil
		case <-s.wake:
			return s.idle(), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Position implements capture.Source. It is the set of all transactions in the record.
func (s *Source) Position() change.Position {
	position := s.parser.position()
	if s.opts.Sync != 0 {
		s.waits.offer(position, s.parser.ended)
	}
	return position
}

// Wake implements capture.Source.
func (s *Source) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Source) begin(b *batch) {
	s.cur, s.at = b, 0
	s.parser.received = b.received
}

// packet reads the next packet of the current batch; nil means that there is nothing to
// report of it. The reader has checked its frame.
func (s *Source) packet() (*change.Message, error) {
	length := packetLength(s.cur.data[s.at:])
	payload := s.cur.data[s.at+packetHeader:][:length:length]
	s.at += packetHeader + length
	full := length == maxPayload
	if s.parser.more {
		s.parser.more = full
		return s.parser.piece(payload, full)
	}
	s.parser.more = full
	raw := s.framer.event(payload)
	h, err := binlog.ParseHeader(raw)
	if err != nil {
		return nil, err
	}
	m, err := s.parser.event(&h, raw, full)
	if m == nil && err == nil && h.Type.Frames() && !s.parser.open {
		// A heartbeat, or the like: as good a moment to say how far we are as the clock's.
		return s.idle(), nil
	}
	return m, err
}

func (s *Source) idle() *change.Message {
	if s.opts.Sync != 0 && !s.parser.open {
		s.waits.passed(s.parser.at, s.parser.position())
	}
	s.parser.pass(s.fence.Load())
	return s.parser.idle()
}

// stalled refuses a stream that does not move although the source's log is known to go on:
// the server's half of it reads a file that nobody writes any more.
func (s *Source) stalled() error {
	f := s.fence.Load()
	if f == nil || s.parser.at.passed(f.at) || s.parser.at != s.stood {
		s.stood, s.since = s.parser.at, time.Now()
		return nil
	}
	limit := 3 * s.opts.silence
	if !s.arrived.Load() {
		limit = max(limit, seekLimit)
	}
	if long := time.Since(s.since); long > limit {
		return unreachable(fmt.Errorf("its stream stands at %s for %s, and its log goes on to %s", s.stood, long.Round(time.Second), f.at))
	}
	return nil
}

func (s *Source) recycle() {
	s.free <- s.cur
	s.cur = nil
}

// ended returns why the stream ended.
func (s *Source) ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	<-s.failed
	var truncated *truncatedError
	if errors.As(s.failure, &truncated) {
		return truncated.explain(s.parser.cameOn)
	}
	return s.failure
}
