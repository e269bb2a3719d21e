package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"txreel/capture"
	"txreel/change"
	"txreel/internal/failpoint"
	"txreel/sources/postgres/lsn"
)

const (
	// batchBytes is how much the reader gathers before it hands over: a channel
	// operation per message would cost more than the message.
	batchBytes = 256 << 10
	// batchesAhead bounds what is read but not yet asked for.
	batchesAhead = 4
	// keepBatch is the size up to which a batch's memory is used again.
	keepBatch = 4 << 20
)

// batch is a run of messages, one behind the other in data.
type batch struct {
	data     []byte
	items    []item
	received change.Time // when all of it was here: one look at the clock for many commits
}

// item is a message of the stream: data up to end, or a keepalive.
type item struct {
	end       int
	keepalive bool
	walEnd    lsn.LSN
}

// read fills batches until the connection ends. It owns the reading side of the
// connection.
func (s *Source) read(ctx context.Context) {
	defer close(s.batches)
	front := s.conn.Frontend()
	var b *batch
	for {
		if b == nil {
			select {
			case b = <-s.free:
			case <-ctx.Done():
				return
			}
		}
		msg, err := front.Receive()
		if err == nil {
			err = s.take(b, msg)
		} else {
			err = explainStream(err)
		}
		if err != nil {
			s.fail(err)
		}
		// Hand over when the batch is full, or rather than wait for the network.
		if err != nil || len(b.data) >= batchBytes || s.socket.Buffered()+front.ReadBufferLen() == 0 {
			if len(b.items) > 0 {
				b.received = change.Time(time.Now().UnixMicro())
				select {
				case s.batches <- b:
				case <-ctx.Done():
					return
				}
				b = nil
			}
		}
		if err != nil {
			return
		}
	}
}

// take adds one protocol message to b.
func (s *Source) take(b *batch, msg pgproto3.BackendMessage) error {
	switch m := msg.(type) {
	case *pgproto3.CopyData:
		return s.takeCopyData(b, m.Data)
	case *pgproto3.ErrorResponse:
		return s.explain(pgconn.ErrorResponseToPgError(m))
	case *pgproto3.NoticeResponse:
		// PostgreSQL 18 goes on without a publication that is missing, skipping
		// what it would have published, and says so in a warning only.
		if m.Code == "55000" {
			return fmt.Errorf("%w: %s: changes were skipped by the source: run `txreel setup --remove` and `txreel setup --apply`, then capture with --new-epoch", capture.ErrGap, m.Message)
		}
		return nil
	case *pgproto3.CopyDone, *pgproto3.CommandComplete:
		return fmt.Errorf("%w: it ended the stream, as a server that shuts down does", capture.ErrUnreachable)
	case *pgproto3.ParameterStatus:
		return nil
	}
	return fmt.Errorf("unexpected message %T in the stream", msg)
}

// explain is explainStream for an error that the server reports in the stream. Decoding what has not ended yet is the
// harder task for it, in which catalogs may be missing what was rolled back since: an internal error gets another chance in one piece.
func (s *Source) explain(err *pgconn.PgError) error {
	if err.Code == "XX000" && !s.opts.Whole { // internal_error
		return fmt.Errorf("%w: %w: it is read again in one piece", ErrPieces, err)
	}
	return explainStream(err)
}

func (s *Source) takeCopyData(b *batch, data []byte) error {
	if len(data) == 0 {
		return errors.New("empty message in the stream")
	}
	switch data[0] {
	case pglogrepl.XLogDataByteID:
		const header = 25 // tag, start, end, time
		if len(data) < header+1 {
			return fmt.Errorf("stream message of %d bytes", len(data))
		}
		b.data = append(b.data, data[header:]...)
		b.items = append(b.items, item{end: len(b.data)})
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		if len(data) != 18 {
			return fmt.Errorf("keepalive of %d bytes", len(data))
		}
		b.items = append(b.items, item{end: len(b.data), keepalive: true, walEnd: lsn.LSN(binary.BigEndian.Uint64(data[1:]))})
		if data[17] != 0 {
			select {
			case s.nudge <- struct{}{}:
			default:
			}
		}
	default:
		return fmt.Errorf("unknown message %q in the stream", data[0])
	}
	return nil
}

// writeStatus tells the server what is durable, whenever that changes and at
// least every statusInterval, no matter how long Next is not called. It owns the
// writing side of the connection.
func (s *Source) writeStatus(ctx context.Context) {
	tick := time.NewTicker(s.opts.statusEvery)
	defer tick.Stop()
	for {
		ask := false
		select {
		case <-ctx.Done():
			return
		case <-s.failed:
			return
		case <-s.nudge:
		case <-tick.C:
			ask = true
			if at := s.socket.waiting.Load(); at != 0 && time.Since(time.UnixMicro(at)) > s.opts.silence {
				s.fail(fmt.Errorf("%w: it has been silent for %s", capture.ErrUnreachable, time.Since(time.UnixMicro(at)).Round(time.Second)))
				return
			}
		}
		// Invariant 1: all three positions are what the archive holds durably, and
		// never zero: the server takes a missing one for "everything".
		at := pglogrepl.LSN(s.acked.Load())
		if hold := pglogrepl.LSN(s.hold.Load()); hold != 0 {
			at = min(at, hold)
		}
		if at == 0 {
			continue
		}
		_ = s.conn.Conn().SetWriteDeadline(time.Now().Add(s.opts.silence)) // a socket that cannot take one fails below
		failpoint.Hit(failpoint.SourceAcking)
		err := pglogrepl.SendStandbyStatusUpdate(ctx, s.conn, pglogrepl.StandbyStatusUpdate{
			WALWritePosition: at, WALFlushPosition: at, WALApplyPosition: at, ReplyRequested: ask,
		})
		if err != nil {
			s.fail(fmt.Errorf("acknowledge to the source: %w: %w", capture.ErrUnreachable, err))
			return
		}
		failpoint.Hit(failpoint.SourceAcked)
	}
}

// watch notices that the server wants to stop. A fast shutdown ends ordinary
// sessions first, and then waits without limit for every walsender whose client has not
// confirmed all it was sent; a client that keeps answering keepalives while its
// object store is down holds the shutdown for ever. So when our ordinary session ends,
// the replication connection follows it shortly after: nothing is lost, the slot
// keeps the log.
func (s *Source) watch(ctx context.Context) {
	var fencedAt time.Time
	for {
		h, err := s.look(ctx)
		if every := s.opts.fenceEvery; err == nil && every > 0 && time.Since(fencedAt) >= every {
			fencedAt = time.Now()
			err = s.writeFence(ctx)
		}
		if err == nil {
			s.health.Store(h)
			if s.opts.Looked != nil {
				s.opts.Looked(h)
			}
			if err := h.within(&s.opts); err != nil {
				s.fail(err)
				return
			}
			wait, cancel := context.WithTimeout(ctx, s.opts.statusEvery)
			_, err = s.control.WaitForNotification(wait)
			expired := wait.Err() != nil
			cancel()
			if ctx.Err() != nil {
				return
			}
			if err == nil || expired && !s.control.IsClosed() {
				continue
			}
		}
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, capture.ErrGap) {
			select { // let what is under way be acknowledged
			case <-time.After(s.opts.stopGrace):
			case <-s.failed:
			case <-ctx.Done():
				return
			}
			err = fmt.Errorf("%w: it ended our session: %w", capture.ErrUnreachable, err)
		}
		s.fail(err)
		return
	}
}

// look reads the slot's health and checks that the publication is still the one
// the stream began with.
func (s *Source) look(ctx context.Context) (*Health, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.silence)
	defer cancel()
	oid, err := publicationOID(ctx, s.control, s.opts.Publication)
	if err != nil {
		return nil, err
	}
	if oid != s.pubOID {
		return nil, fmt.Errorf("%w: publication %q was dropped or created anew: run `txreel setup --remove` and `txreel setup --apply`, then capture with --new-epoch", capture.ErrGap, s.opts.Publication)
	}
	if err := publishesAll(ctx, s.control, s.opts.Publication); err != nil {
		if errors.Is(err, errIncomplete) {
			err = fmt.Errorf("%w: %w, then capture with --new-epoch", capture.ErrGap, err)
		}
		return nil, err
	}
	f, err := readFence(ctx, s.control)
	if err != nil {
		return nil, err
	}
	s.fence.Store(f)
	return ReadHealth(ctx, s.control, s.opts.Slot)
}
