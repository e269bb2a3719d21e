package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"

	"txreel/change"
	"txreel/sources/postgres/lsn"
	"txreel/sources/postgres/pgoutput"
)

// streams keeps the transactions that the server sends before they have ended (protocol 2), so that it
// need not keep them on its own disk. Each is turned, when it commits, into what the server would have sent in one
// piece: the archive holds the messages of protocol 1, whichever way they came. Nothing here outlives the connection:
// the server sends an open transaction again from its beginning.
type streams struct {
	spool spool
	open  map[uint32]*streamed
	block *streamed // whose messages arrive now
	// empties says that the server announces transactions without changes, as version 14 does, when it sends them in
	// one piece: then one of which nothing is left is one too.
	empties bool

	replay        tapeReader
	replaying     bool
	begin, commit []byte
	described     map[uint32]*relation // relations as they were described before what is replayed
}

// streamed is a transaction that has not ended. Its tape holds records: their length, 4 bytes; their
// kind, 1 byte; the message without the id of the subtransaction.
type streamed struct {
	xid  uint32
	tape tape
	last uint32 // the (sub)transaction that wrote last; zero when that is to be looked up
	subs []sub  // in ascending order
	// told is where the logical messages begin, plus one, that end the tape; zero when others do. The server sends those
	// of subtransactions under the id of the whole transaction.
	told int64
	// doubt is the same of messages that were rolled back, or not: see ErrPieces.
	doubt int64
}

// sub is a subtransaction that can still be rolled back on its own.
type sub struct {
	xid uint32
	at  int64 // what it and its own subtransactions wrote begins here
	// told is streamed.told before that: those messages may be the subtransaction's own.
	told int64
}

// ErrPieces is wrapped by an error of Next after which the stream has to be read in one piece (SourceOptions.Whole): the
// server rolled back a part of a transaction that it had sent, and does not say whether a logical message was in that
// part; or it failed to decode a transaction that has not ended, and may never have to.
var ErrPieces = errors.New("the source cannot be read piece by piece")

// Kinds of records.
const (
	recordData       = 0
	recordDefinition = 1 // 8 bytes come before the message: see parser.met
	recordHeader     = 5
)

// start begins a block of a transaction.
func (s *streams) start(m []byte) error {
	b, err := pgoutput.ParseStreamStart(m)
	if err != nil {
		return err
	}
	if s.block != nil {
		return fmt.Errorf("a piece of transaction %d begins inside one of %d", b.XID, s.block.xid)
	}
	t := s.open[b.XID]
	switch {
	case t == nil && !b.First:
		return fmt.Errorf("the beginning of transaction %d is missing in the stream", b.XID)
	case t == nil:
		if s.open == nil {
			s.open = make(map[uint32]*streamed)
		}
		t = &streamed{xid: b.XID}
		s.open[b.XID] = t
	case b.First:
		return fmt.Errorf("transaction %d begins a second time in the stream", b.XID)
	}
	s.block = t
	return t.certain()
}

func (s *streams) stop() error {
	if s.block == nil {
		return fmt.Errorf("the end of a piece of a transaction outside any")
	}
	t := s.block
	s.block = nil
	return s.spool.rest(&t.tape)
}

// keep takes a message of the block.
func (s *streams) keep(m []byte, met uint64) error {
	t := s.block
	xid, ok := pgoutput.Streamed(m)
	tag, rest := m[:1], m[1:]
	if ok {
		rest = m[5:]
	}
	switch {
	case m[0] != pgoutput.TagMessage:
		if ok {
			t.wrote(xid)
		}
		t.told = 0
	case t.told == 0:
		t.told = t.tape.size + 1
	}
	size, kind := len(tag)+len(rest), byte(recordData)
	if m[0] == pgoutput.TagRelation || m[0] == pgoutput.TagType {
		size, kind = size+8, recordDefinition
	}
	var head [recordHeader + 8 + 1]byte
	binary.LittleEndian.PutUint32(head[:], uint32(size))
	head[4] = kind
	h := head[:recordHeader]
	if kind == recordDefinition {
		h = binary.LittleEndian.AppendUint64(h, met)
	}
	if err := s.spool.write(&t.tape, append(h, tag...)); err != nil {
		return err
	}
	return s.spool.write(&t.tape, rest)
}

// wrote notes who writes the next record. Only one subtransaction is active at a time, with those it is nested in, and
// ids ascend: what has a higher id than the one that writes now was nested in it and has been released. Released means
// that it can only be rolled back together with what it was nested in, which wrote something: one entry is enough for both.
func (t *streamed) wrote(xid uint32) {
	if xid == t.last {
		return
	}
	t.last = xid
	if xid == t.xid {
		t.subs = t.subs[:0]
		return
	}
	next := sub{xid: xid, at: t.tape.size, told: t.told}
	for n := len(t.subs); n > 0; n-- {
		last := t.subs[n-1]
		if last.xid == xid {
			return
		}
		if precedes(last.xid, xid) {
			break
		}
		next.at, next.told, t.subs = last.at, last.told, t.subs[:n-1]
	}
	t.subs = append(t.subs, next)
}

// precedes compares transaction ids, which wrap.
func precedes(a, b uint32) bool { return int32(a-b) < 0 }

// abort cuts out what was rolled back, and reports whether anything is known of it.
func (s *streams) abort(m []byte) (bool, error) {
	a, err := pgoutput.ParseStreamAbort(m)
	if err != nil {
		return false, err
	}
	if s.block != nil {
		return false, fmt.Errorf("the rollback of transaction %d inside a piece of %d", a.XID, s.block.xid)
	}
	t := s.open[a.XID]
	if t == nil {
		return false, nil
	}
	if a.Sub == a.XID {
		s.spool.truncate(&t.tape, 0)
		delete(s.open, a.XID)
		return true, nil
	}
	for n := len(t.subs); n > 0 && !precedes(t.subs[n-1].xid, a.Sub); n-- {
		if last := t.subs[n-1]; last.xid == a.Sub {
			s.spool.truncate(&t.tape, last.at)
			t.subs, t.last, t.told = t.subs[:n-1], 0, last.told
			break
		}
	}
	// Those it was nested in may be rolled back next, and the messages with them.
	if t.doubt > t.tape.size {
		t.doubt = 0
	}
	if t.doubt == 0 {
		t.doubt = t.told
	}
	return true, nil
}

// certain returns an error wrapping ErrPieces when it is not certain what of the transaction was rolled back.
func (t *streamed) certain() error {
	if t.doubt == 0 {
		return nil
	}
	return fmt.Errorf("%w: it does not say whether a logical message was rolled back with a part of transaction %d, which is read again in one piece", ErrPieces, t.xid)
}

// describes notes that the transaction that is replayed describes a relation, and what was said of it before.
func (s *streams) describes(id uint32, before *relation) {
	if !s.replaying {
		return
	}
	if _, ok := s.described[id]; !ok {
		s.described[id] = before
	}
}

// knows reports whether rows may refer to a relation now: a streamed transaction describes all that it needs.
func (s *streams) knows(id uint32) bool {
	if !s.replaying {
		return true
	}
	_, ok := s.described[id]
	return ok
}

// streamCommit begins to replay a transaction that has come to its end.
func (p *parser) streamCommit(m []byte) (*change.Message, error) {
	s := &p.streams
	c, err := pgoutput.ParseStreamCommit(m)
	if err != nil {
		return nil, err
	}
	if p.open || s.block != nil {
		return nil, fmt.Errorf("commit of transaction %d inside another", c.XID)
	}
	t := s.open[c.XID]
	if t == nil {
		return nil, fmt.Errorf("commit of transaction %d, of which nothing was sent", c.XID)
	}
	if err := t.certain(); err != nil {
		return nil, err
	}
	delete(s.open, c.XID)
	s.begin, s.commit = c.Whole(s.begin[:0], s.commit[:0])
	if t.tape.size == 0 && !s.empties {
		if end := lsn.LSN(c.EndLSN); end > p.start { // not one that is sent again for a proof
			p.end = max(p.end, end)
		}
		return nil, nil
	}
	s.replay.spool = &s.spool
	s.replay.reset(t.tape)
	s.replaying, p.last = true, nil
	if s.described == nil {
		s.described = make(map[uint32]*relation)
	}
	msg, err := p.message(s.begin)
	if msg == nil && err == nil {
		return p.replayed() // of one that the archive holds, the descriptions count
	}
	return msg, err
}

// replayed returns the next message of the transaction that is replayed, and nil at last if
// the archive holds it already.
func (p *parser) replayed() (*change.Message, error) {
	s := &p.streams
	for s.replay.at < s.replay.tape.size {
		head, err := s.replay.next(recordHeader)
		if err != nil {
			return nil, err
		}
		kind := head[4]
		m, err := s.replay.next(int(binary.LittleEndian.Uint32(head)))
		if err != nil {
			return nil, err
		}
		if kind == recordDefinition {
			if len(m) < 8 {
				return nil, fmt.Errorf("a description of %d bytes in a temporary file", len(m))
			}
			err = p.describe(m[8:], binary.LittleEndian.Uint64(m))
		} else if msg, err := p.message(m); msg != nil || err != nil {
			return msg, err
		}
		if err != nil {
			return nil, err
		}
	}
	s.replay.done()
	s.replaying = false
	p.settle()
	return p.message(s.commit)
}

// settle decides, when a streamed transaction has ended, which description the rows of other transactions
// mean from now on: the one that the server sent last, in the order of the stream, which is not that of commits.
func (p *parser) settle() {
	s := &p.streams
	for id, was := range s.described {
		if now := p.relations[id]; was != nil && was.met > now.met {
			// Another Definition, although it says the same as before: in between rows had another one.
			p.relations[id] = &relation{def: &change.Definition{Messages: was.def.Messages}, table: was.table, met: was.met}
		}
	}
	clear(s.described)
	p.types, p.last = nil, nil
}
