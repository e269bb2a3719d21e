package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// pipe sends prepared statements one after another without waiting for their
// results, and checks each result when it comes. pgconn has a pipeline of its own, which
// asks for a description of every execution's result and allocates for each.
//
// What may be on its way at once is bounded by flight: its results fit into
// the socket's buffers, so that neither side can block the other by writing.
type pipe struct {
	conn     *pgconn.PgConn
	buf      []byte      // messages not written yet
	stop     func() bool // ends the watch on the context
	ctx      context.Context
	unsynced int       // statements sent since the last Sync
	syncs    int       // Syncs sent and not answered
	queue    []waiting // what the server has yet to answer, from head on
	head     int
	names    int // prepared statements so far
}

// waiting is a message that the server will answer.
type waiting struct {
	what answer
	op   op // answerExec: what it is part of
}

type answer uint8

const (
	answerParse answer = iota
	answerExec
	answerSync
)

const (
	syncEvery = 500     // statements between two Syncs at most
	syncBytes = 1 << 20 // and bytes, about
	flight    = 2       // Syncs on their way at most
)

func newPipe(ctx context.Context, conn *pgconn.PgConn) *pipe {
	p := &pipe{conn: conn, ctx: ctx}
	// Reads and writes below know no context: a deadline in the past ends them.
	p.stop = context.AfterFunc(ctx, func() { _ = conn.Conn().SetDeadline(time.Unix(1, 0)) })
	return p
}

func (p *pipe) close() { p.stop() }

// name returns a name for a prepared statement.
func (p *pipe) name() string {
	p.names++
	return "r" + strconv.Itoa(p.names)
}

// prepare sends a statement under a name, or without one for the next exec only.
func (p *pipe) prepare(name, sql string) error {
	var err error
	p.buf, err = (&pgproto3.Parse{Name: name, Query: sql}).Encode(p.buf)
	p.queue = append(p.queue, waiting{what: answerParse})
	return err
}

// exec sends an execution of a prepared statement. What its result must be is in o.
func (p *pipe) exec(bind *pgproto3.Bind, o op) (err error) {
	if p.buf, err = bind.Encode(p.buf); err != nil {
		return err
	}
	if p.buf, err = (&pgproto3.Execute{}).Encode(p.buf); err != nil {
		return err
	}
	p.queue = append(p.queue, waiting{what: answerExec, op: o})
	p.unsynced++
	if p.unsynced >= syncEvery || len(p.buf) >= syncBytes {
		return p.sync()
	}
	return nil
}

// flush writes what is buffered.
func (p *pipe) flush() error {
	_, err := p.conn.Conn().Write(p.buf)
	if p.buf = p.buf[:0]; cap(p.buf) > 4*syncBytes { // a large row went through
		p.buf = nil
	}
	if err != nil {
		return p.broken(err)
	}
	return nil
}

// sync makes the server answer what it was sent, and waits while too much is on its
// way.
func (p *pipe) sync() error {
	var err error
	if p.buf, err = (&pgproto3.Sync{}).Encode(p.buf); err != nil {
		return err
	}
	p.queue = append(p.queue, waiting{what: answerSync})
	p.unsynced = 0
	p.syncs++
	if err := p.flush(); err != nil {
		return err
	}
	for p.syncs > flight {
		if err := p.answers(); err != nil {
			return err
		}
	}
	return nil
}

// drain returns when everything sent has been answered as it must be.
func (p *pipe) drain() error {
	if p.unsynced > 0 || p.syncs == 0 && p.head < len(p.queue) {
		if err := p.sync(); err != nil {
			return err
		}
	}
	for p.syncs > 0 {
		if err := p.answers(); err != nil {
			return err
		}
	}
	return nil
}

// answers reads up to the answer to the next Sync.
func (p *pipe) answers() error {
	for {
		m, err := p.receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.ParseComplete:
			if _, err := p.next(answerParse); err != nil {
				return err
			}
		case *pgproto3.BindComplete, *pgproto3.DataRow:
		case *pgproto3.CommandComplete:
			w, err := p.next(answerExec)
			if err != nil {
				return err
			}
			if n := affected(m.CommandTag); w.want >= 0 && n != w.want {
				return w.fail(fmt.Errorf("it changed %d rows instead of %d: the target is not what the record says it is", n, w.want))
			}
			if w.done != nil {
				if err := w.done(m.CommandTag); err != nil {
					return w.fail(err)
				}
			}
		case *pgproto3.ReadyForQuery:
			if _, err := p.next(answerSync); err != nil {
				return err
			}
			p.syncs--
			n := copy(p.queue, p.queue[p.head:]) // forget what is answered
			p.queue, p.head = p.queue[:n], 0
			return nil
		case *pgproto3.ErrorResponse:
			return p.refused(pgconn.ErrorResponseToPgError(m))
		default:
			return fmt.Errorf("the target's server sent an unexpected %T", m)
		}
	}
}

// receive returns the next message that is not an aside.
func (p *pipe) receive() (pgproto3.BackendMessage, error) {
	for {
		m, err := p.conn.ReceiveMessage(context.Background()) // see newPipe
		if err != nil {
			return nil, p.broken(err)
		}
		switch m.(type) {
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus, *pgproto3.NotificationResponse:
		default:
			return m, nil
		}
	}
}

func (p *pipe) next(want answer) (*op, error) {
	if p.head == len(p.queue) || p.queue[p.head].what != want {
		return nil, fmt.Errorf("the target's server answered out of order")
	}
	p.head++
	return &p.queue[p.head-1].op, nil
}

// refused names what the server refused: the first statement without an answer.
func (p *pipe) refused(err error) error {
	for _, w := range p.queue[p.head:] {
		if w.what == answerExec {
			return w.op.fail(err)
		}
	}
	return err
}

func (p *pipe) broken(err error) error {
	if cause := context.Cause(p.ctx); cause != nil {
		return cause
	}
	return fmt.Errorf("connection to the target: %w", err)
}

// copyIn sends rows in COPY's text format, through no pipeline: it waits for all that
// was sent before.
func (p *pipe) copyIn(sql string, rows int64, o op, fill func(buf []byte) (_ []byte, more bool)) error {
	if err := p.drain(); err != nil {
		return err
	}
	var err error
	if p.buf, err = (&pgproto3.Query{String: sql}).Encode(p.buf); err != nil {
		return err
	}
	if err := p.flush(); err != nil {
		return err
	}
	m, err := p.receive()
	if err != nil {
		return err
	}
	if e, ok := m.(*pgproto3.ErrorResponse); ok {
		return o.fail(pgconn.ErrorResponseToPgError(e))
	} else if _, ok := m.(*pgproto3.CopyInResponse); !ok {
		return fmt.Errorf("the target's server answered COPY with %T", m)
	}
	for more := true; more; {
		p.buf = append(p.buf[:0], 'd', 0, 0, 0, 0)
		p.buf, more = fill(p.buf)
		binary.BigEndian.PutUint32(p.buf[1:], uint32(len(p.buf)-1))
		if err := p.flush(); err != nil {
			return err
		}
	}
	if p.buf, err = (&pgproto3.CopyDone{}).Encode(p.buf); err != nil {
		return err
	}
	if err := p.flush(); err != nil {
		return err
	}
	for {
		m, err := p.receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CommandComplete:
			if n := affected(m.CommandTag); n != rows {
				return o.fail(fmt.Errorf("COPY took %d rows of %d", n, rows))
			}
		case *pgproto3.ReadyForQuery:
			return nil
		case *pgproto3.ErrorResponse:
			return o.fail(pgconn.ErrorResponseToPgError(m))
		default:
			return fmt.Errorf("the target's server ended COPY with %T", m)
		}
	}
}

// affected is the number at the end of a command tag; -1 when it has none.
func affected(tag []byte) int64 {
	i := bytes.LastIndexByte(tag, ' ')
	n := int64(0)
	if i < 0 || i+1 == len(tag) {
		return -1
	}
	for _, c := range tag[i+1:] {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
