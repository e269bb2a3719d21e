package postgres

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"txreel/change"
	"txreel/sources/postgres/lsn"
	"txreel/sources/postgres/pgoutput"
)

// Next implements capture.Source.
func (s *Source) Next(ctx context.Context) (*change.Message, error) {
	m, err := s.next(ctx)
	if err == nil && m.Position != "" {
		s.position = m.Position
		if err := s.passed(m); err != nil {
			s.fail(err)
			return nil, err
		}
	}
	return m, err
}

// passed counts what came, and looks at idle moments whether a fence is missing.
func (s *Source) passed(m *change.Message) error {
	switch {
	case m.Kind == change.KindCommit && m.Note == "":
		s.traffic.Add(1)
	case m.Kind == change.KindIdle:
		return s.parser.fences(s.written.Load())
	}
	return nil
}

// Position implements capture.Source.
func (s *Source) Position() change.Position { return s.position }

func (s *Source) next(ctx context.Context) (*change.Message, error) {
	for {
		if m, err := s.parser.rest(); m != nil || err != nil {
			return m, s.alive(ctx, err)
		}
		if s.cur != nil && s.at < len(s.cur.items) {
			m, err := s.item()
			if err != nil {
				s.fail(err)
				return nil, err
			}
			s.release()
			if m != nil {
				s.told = true
				return m, nil
			}
			continue
		}
		if s.cur != nil {
			s.recycle()
			if !s.told {
				return s.idle(), nil // pieces of transactions that have not ended may come for hours
			}
		}
		if err := ctx.Err(); err != nil { // also while the stream never pauses
			return nil, err
		}
		select { // without a look at the clock while the stream flows
		case b, ok := <-s.batches:
			if !ok {
				return nil, s.ended(ctx)
			}
			s.cur, s.at, s.told = b, 0, false
			continue
		default:
		}
		s.timer.Reset(idleTick)
		select {
		case b, ok := <-s.batches:
			if !ok {
				return nil, s.ended(ctx)
			}
			s.cur, s.at, s.told = b, 0, false
		case <-s.timer.C:
			return s.idle(), nil
		case <-s.wake:
			return s.idle(), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// alive fails the stream with err, and otherwise looks at ctx from time to time: a transaction that is replayed may be
// of any size.
func (s *Source) alive(ctx context.Context, err error) error {
	if err != nil {
		s.fail(err)
		return err
	}
	if s.replayed++; s.replayed%lookEvery != 0 {
		return nil
	}
	return ctx.Err()
}

// lookEvery is how many messages pass between two looks at ctx.
const lookEvery = 1 << 12

// item reads the next message of the current batch; nil means that there is
// nothing to report of it.
func (s *Source) item() (*change.Message, error) {
	it := &s.cur.items[s.at]
	start := 0
	if s.at > 0 {
		start = s.cur.items[s.at-1].end
	}
	s.at++
	if it.keepalive {
		s.parser.keepalive(it.walEnd)
		if s.parser.end > 0 { // past the record's end
			if err := s.parser.proof.passed(); err != nil {
				return nil, err
			}
		}
		if s.parser.open {
			return nil, nil
		}
		return s.idle(), nil
	}
	s.parser.received = s.cur.received
	return s.parser.message(s.cur.data[start:it.end:it.end])
}

// Wake implements capture.Source.
func (s *Source) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Source) idle() *change.Message {
	s.parser.pass(s.fence.Load())
	return s.parser.idle()
}

func (s *Source) recycle() {
	if cap(s.cur.data) > keepBatch {
		s.cur.data = nil
	}
	s.cur.data, s.cur.items = s.cur.data[:0], s.cur.items[:0]
	s.free <- s.cur
	s.cur = nil
}

// ended returns why the stream ended.
func (s *Source) ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	<-s.failed
	return s.failure
}

// parser turns pgoutput messages into those of the record. It walks them only as
// far as the index needs; values are not looked at (Invariant 5).
type parser struct {
	start     lsn.LSN // transactions that commit before it are in the archive
	xid       uint64  // the 64-bit transaction id met last
	relations map[uint32]*relation
	lastID    uint32
	last      *relation
	types     [][]byte // Type messages since the last Relation message
	met       uint64   // descriptions and pieces of transactions met so far
	streams   streams
	chain     string // of the fences that this stream writes
	fenced    uint64 // number of the fence met last
	proof     proof

	open bool        // inside a transaction
	skip bool        // the open transaction is in the archive already
	end  lsn.LSN     // everything before it has been delivered; 0 when nothing is known beyond start
	time change.Time // every transaction that commits up to then ends at or before end

	received change.Time // when the messages that are read now had arrived

	msg     change.Message
	defs    []*change.Definition
	touched []change.Touch
	ids     []uint32
	queue   []change.Message // rest of a message that becomes a transaction of its own
	strays  uint64           // messages that announce nothing
}

// relation is a table as its last Relation message described it.
type relation struct {
	def   *change.Definition
	table *change.Table
	met   uint64 // parser.met when the server sent that last
}

// rest returns the next message that needs nothing more from the server; nil when there is none.
func (p *parser) rest() (*change.Message, error) {
	if p.streams.replaying {
		return p.replayed()
	}
	return p.queued(), nil
}

func (p *parser) queued() *change.Message {
	if len(p.queue) == 0 {
		return nil
	}
	p.msg, p.queue = p.queue[0], p.queue[1:]
	return &p.msg
}

// keepalive remembers how far the server has sent everything. After a restart the
// server decodes again from where the oldest open transaction began, and for that time
// names positions that lie before start: the record must not go back to them. Its
// clock says nothing: it may still have much to decode.
func (p *parser) keepalive(walEnd lsn.LSN) {
	if !p.open && p.streams.block == nil && walEnd >= p.start {
		p.end = max(p.end, walEnd)
	}
}

// fence is a moment of the source's clock, and a position behind everything that
// committed before it.
type fence struct {
	at   lsn.LSN
	time change.Time
}

// pass takes note of the source's time when the stream has come past a fence.
func (p *parser) pass(f *fence) {
	if f != nil && !p.open && p.end >= f.at {
		p.time = max(p.time, f.time)
	}
}

func (p *parser) idle() *change.Message {
	p.msg = change.Message{Kind: change.KindIdle}
	if !p.open && p.end > 0 {
		p.msg.Position, p.msg.CommitTime = p.end.Position(), p.time
	}
	return &p.msg
}

// message reads one pgoutput message.
func (p *parser) message(m []byte) (*change.Message, error) {
	if len(m) == 0 {
		return nil, fmt.Errorf("empty message in the stream")
	}
	p.defs, p.touched = p.defs[:0], p.touched[:0]
	if p.streams.block != nil {
		return nil, p.piece(m)
	}
	kind := change.KindData
	switch m[0] {
	case pgoutput.TagInsert, pgoutput.TagUpdate, pgoutput.TagDelete:
		if p.skip {
			return nil, nil
		}
		id, err := pgoutput.RelationID(m)
		if err != nil {
			return nil, err
		}
		if err := p.touch(id, rowOp(m[0])); err != nil {
			return nil, err
		}
	case pgoutput.TagBegin:
		return p.begin(m)
	case pgoutput.TagCommit:
		return p.commit(m)
	case pgoutput.TagType, pgoutput.TagRelation:
		p.met++
		return nil, p.describe(m, p.met)
	case pgoutput.TagStreamStart:
		if p.open {
			return nil, fmt.Errorf("a piece of a transaction inside another")
		}
		return nil, p.streams.start(m)
	case pgoutput.TagStreamCommit:
		return p.streamCommit(m)
	case pgoutput.TagStreamAbort:
		// PostgreSQL 18 also sends one for a transaction of which it sent nothing else.
		known, err := p.streams.abort(m)
		if !known && err == nil {
			p.strays++
		}
		return nil, err
	case pgoutput.TagTruncate:
		ids, err := pgoutput.TruncateIDs(m, p.ids[:0])
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			if err := p.touch(id, change.OpTruncate); err != nil {
				return nil, err
			}
		}
		p.ids = ids
	case pgoutput.TagMessage:
		if !p.open {
			return p.standalone(m)
		}
	}
	switch {
	case p.skip:
		return nil, nil
	case !p.open:
		if len(p.touched) > 0 {
			return nil, fmt.Errorf("message %q outside a transaction", m[0])
		}
		p.strays++ // between transactions nothing is announced that was committed
		return nil, nil
	}
	p.msg = change.Message{Kind: kind, Raw: m, Defs: p.defs, Touched: p.touched}
	return &p.msg, nil
}

// piece takes a message between Stream Start and Stream Stop.
func (p *parser) piece(m []byte) error {
	switch m[0] {
	case pgoutput.TagStreamStop:
		return p.streams.stop()
	case pgoutput.TagStreamStart:
		return p.streams.start(m)
	case pgoutput.TagBegin, pgoutput.TagCommit, pgoutput.TagStreamCommit, pgoutput.TagStreamAbort:
		return fmt.Errorf("message %q inside a piece of transaction %d", m[0], p.streams.block.xid)
	}
	p.met++
	return p.streams.keep(m, p.met)
}

func rowOp(tag byte) change.Op {
	switch tag {
	case pgoutput.TagInsert:
		return change.OpInsert
	case pgoutput.TagUpdate:
		return change.OpUpdate
	}
	return change.OpDelete
}

// touch notes for the index what the message does to a relation.
func (p *parser) touch(id uint32, op change.Op) error {
	r := p.last
	if r == nil || id != p.lastID {
		if r = p.relations[id]; r == nil || !p.streams.knows(id) {
			return fmt.Errorf("row of relation %d before any description of it", id)
		}
		p.last, p.lastID = r, id
	}
	p.defs = append(p.defs, r.def)
	p.touched = append(p.touched, change.Touch{Table: r.table, Op: op, Rows: 1})
	return nil
}

// describe remembers a description; it reaches the record with the first row that
// needs it. The server repeats descriptions: one that says the same again stays the
// same Definition. met is when the server sent it.
func (p *parser) describe(m []byte, met uint64) error {
	if m[0] == pgoutput.TagType {
		p.types = append(p.types, bytes.Clone(m))
		return nil
	}
	r, err := pgoutput.ParseRelation(m)
	if err != nil {
		return err
	}
	msgs := append(p.types, bytes.Clone(m))
	p.types, p.last = nil, nil
	old := p.relations[r.ID]
	p.streams.describes(r.ID, old)
	if old != nil && equalMessages(old.def.Messages, msgs) {
		old.met = max(old.met, met)
		return nil
	}
	if p.relations == nil {
		p.relations = make(map[uint32]*relation)
	}
	p.relations[r.ID] = &relation{
		def:   &change.Definition{Messages: msgs},
		table: &change.Table{Schema: r.Schema, Name: r.Name, Version: r.Version()},
		met:   met,
	}
	return nil
}

func equalMessages(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

func (p *parser) begin(m []byte) (*change.Message, error) {
	b, err := pgoutput.ParseBegin(m)
	if err != nil {
		return nil, err
	}
	if p.open {
		return nil, fmt.Errorf("transaction %d begins inside another", b.XID)
	}
	p.open = true
	// A commit record that starts before the archive's tail ends before or at it: the
	// server sends again what it does not know to be confirmed. One that starts at
	// the tail is new: positions are ends, and ends may equal starts.
	if p.skip = lsn.LSN(b.FinalLSN) < p.start; p.skip {
		p.proof.xid = b.XID
		return nil, nil
	}
	if err := p.proof.passed(); err != nil {
		return nil, err
	}
	p.xid = fullXID(p.xid, b.XID)
	p.msg = change.Message{Kind: change.KindBegin, Raw: m}
	return &p.msg, nil
}

// fullXID completes a 32-bit transaction id by the 64-bit one met before it: of the
// candidates, the nearest. Ids that are decoded one after the other are
// never 2^31 apart: the slot's catalog_xmin keeps the server from that.
func fullXID(near uint64, xid uint32) uint64 {
	full := near&^uint64(1<<32-1) | uint64(xid)
	switch {
	case full > near+1<<31 && full >= 1<<32:
		return full - 1<<32
	case full+1<<31 < near:
		return full + 1<<32
	}
	return full
}

func (p *parser) commit(m []byte) (*change.Message, error) {
	c, err := pgoutput.ParseCommit(m)
	if err != nil {
		return nil, err
	}
	if !p.open {
		return nil, fmt.Errorf("commit at %s outside a transaction", lsn.LSN(c.CommitLSN))
	}
	p.open = false
	if p.skip {
		p.skip = false
		return nil, p.proof.shown(&c)
	}
	end := lsn.LSN(c.EndLSN)
	p.end, p.time = max(p.end, end), max(p.time, c.CommitTime)
	p.msg = change.Message{
		Kind: change.KindCommit, Raw: m,
		XID: strconv.FormatUint(p.xid, 10), Position: end.Position(), CommitTime: c.CommitTime, Received: p.received,
	}
	return &p.msg, nil
}

// standalone makes a transaction of its own of a message that was written outside
// any. The LSN such a message names is the end of its log record, unlike a commit's: a
// position behind it would skip a commit record that starts there.
func (p *parser) standalone(m []byte) (*change.Message, error) {
	l, err := pgoutput.ParseLogicalMessage(m)
	if err != nil {
		return nil, err
	}
	end := lsn.LSN(l.LSN)
	if end <= p.start {
		return nil, nil
	}
	if err := p.proof.passed(); err != nil {
		return nil, err
	}
	note, n := p.fenceOf(&l)
	if n > 0 {
		if err := p.meet(n); err != nil {
			return nil, err
		}
	}
	p.end = max(p.end, end)
	p.queue = append(p.queue[:0],
		change.Message{Kind: change.KindBegin},
		change.Message{Kind: change.KindData, Raw: m},
		change.Message{Kind: change.KindCommit, Position: end.Position(), CommitTime: p.time, Received: p.received, Note: note})
	return p.queued(), nil
}
