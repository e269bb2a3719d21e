package mysql

import (
	"bytes"
	"fmt"

	"txreel/capture"
	"txreel/change"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
)

// parser turns the events of a stream into messages of the record. It looks at them only
// as far as groups and the index need; nothing that it cannot read is lost, or stops it
// (Invariant 5).
type parser struct {
	held    *gtid.Set // the transactions of the record
	cameOn  bool      // since the stream began
	text    change.Position
	torn    string // the GTID of a group that is known to have no end
	grouper binlog.Grouper
	count   counter
	at      place                // behind the last event
	ended   place                // behind the last transaction
	format  *binlog.Format       // of the file that is read
	defs    []*change.Definition // its FORMAT_DESCRIPTION event

	open   bool // inside a group
	opened gtid.GTID
	skip   bool // the open group is in the record already, or was torn
	note   string
	more   bool // the next packet continues the event of piece
	last   struct {
		place binlog.Place
		when  uint32 // the event's own seconds
	}
	strays   [][]byte // events between groups that belong to none, of the record nevertheless
	received change.Time

	known bool        // a fence was passed since the last commit
	time  change.Time // every transaction that commits up to then is in held

	msg   change.Message
	queue []change.Message // the rest of what one event becomes
	names []byte
}

func (p *parser) queued() *change.Message {
	if len(p.queue) == 0 {
		return nil
	}
	p.msg, p.queue = p.queue[0], p.queue[1:]
	return &p.msg
}

// position is where the record ends, in the notation of sets.
func (p *parser) position() change.Position {
	if p.text == "" {
		p.text = position(p.held)
	}
	return p.text
}

// fence is a moment of the source's clock, and a place behind everything that had
// committed by then.
type fence struct {
	at   place
	time change.Time
}

// pass takes note of the source's time when the stream has come past a fence.
func (p *parser) pass(f *fence) {
	if f != nil && !p.open && p.at.passed(f.at) {
		p.known, p.time = true, max(p.time, f.time)
	}
}

func (p *parser) idle() *change.Message {
	p.msg = change.Message{Kind: change.KindIdle}
	if p.known && !p.open {
		p.msg.Position, p.msg.CommitTime = p.position(), p.time
	}
	return &p.msg
}

// event reads the first packet of an event, which is all of it unless full is set. It
// returns nil if there is nothing to tell.
func (p *parser) event(h *binlog.Header, raw []byte, full bool) (*change.Message, error) {
	var e binlog.Event
	var err error
	pieces := uint64(len(raw)) < uint64(h.Size) // else all of it is there, though an empty packet may follow
	if pieces {
		e = binlog.Event{Header: *h, Raw: raw, Body: raw[binlog.HeaderSize:]}
	} else {
		sum := binlog.ChecksumNone
		if p.format != nil {
			sum = p.format.Checksum
		}
		if e, err = parse(h, raw, sum); err != nil {
			return nil, err
		}
	}
	made := artificial(h)
	if !made {
		p.at.pass(h)
	}
	where, torn, err := p.grouper.Next(&e)
	if torn && p.open {
		if !p.skip {
			return nil, p.tornError()
		}
		p.open = false
	}
	if err != nil {
		return nil, err
	}
	if e.Type == binlog.TypeIncident {
		return nil, p.incident(&e)
	}
	p.last.place, p.last.when = where, h.Timestamp
	switch where {
	case binlog.Frame:
		if full {
			return nil, fmt.Errorf("a %s event of %d bytes", h.Type, h.Size)
		}
		return nil, p.frame(&e, made)
	case binlog.Stray:
		if !made {
			p.strays = append(p.strays, bytes.Clone(raw))
		}
		return nil, nil
	case binlog.Begins:
		return p.begin(&e)
	}
	if p.skip {
		if where == binlog.Ends && !full {
			return nil, p.skipped()
		}
		return nil, nil
	}
	if p.note == "" {
		p.note = p.count.note(&e)
	}
	touched := p.count.event(&e, p.format, pieces)
	return p.inside(raw, touched, where == binlog.Ends && !full)
}

// piece reads a packet that continues an event, the last one of it unless full is set.
func (p *parser) piece(raw []byte, full bool) (*change.Message, error) {
	switch {
	case p.last.place == binlog.Stray:
		p.strays = append(p.strays, bytes.Clone(raw))
		return nil, nil
	case p.skip:
		if p.last.place == binlog.Ends && !full {
			return nil, p.skipped()
		}
		return nil, nil
	}
	return p.inside(raw, p.count.more(raw), p.last.place == binlog.Ends && !full)
}

// inside delivers a packet of the open group, with which the group may end.
func (p *parser) inside(raw []byte, touched []change.Touch, ends bool) (*change.Message, error) {
	p.msg = change.Message{Kind: change.KindData, Raw: raw, Touched: touched}
	if !ends {
		return &p.msg, nil
	}
	g := &p.grouper.Group
	if !p.held.Add(g.GTID) { // begin has asked
		return nil, fmt.Errorf("transaction %s ends twice", g.GTID)
	}
	p.open, p.known, p.cameOn, p.text, p.ended = false, false, true, "", p.at
	if p.note == "" && p.count.missed {
		p.note = uncounted
	}
	when := g.ImmediateCommit
	if when == 0 {
		when = change.Time(p.last.when) * 1_000_000
	}
	p.time = max(p.time, when)
	p.names = g.GTID.AppendTo(p.names[:0])
	id := len(p.names)
	p.names = p.at.appendTo(p.names)
	names := string(p.names) // one allocation for both
	p.msg.Kind = change.KindCommit
	p.msg.XID, p.msg.Position = names[:id], change.Position(names[id:])
	p.msg.CommitTime, p.msg.Received, p.msg.Note = when, p.received, p.note
	return &p.msg, nil
}

// begin opens a group, unless the record has it.
func (p *parser) begin(e *binlog.Event) (*change.Message, error) {
	g := &p.grouper.Group
	if g.Anonymous {
		return nil, errAnonymous()
	}
	p.open, p.skip, p.note, p.opened, p.count.missed = true, false, "", g.GTID, false
	if p.held.Has(g.GTID) {
		if err := p.ordered(g.GTID); err != nil {
			return nil, err
		}
		p.skip = true
	}
	if p.torn != "" && p.torn == g.GTID.String() {
		p.skip = true
	}
	strays := p.strays
	p.strays = nil
	if p.skip {
		return nil, nil // what stood before the group was recorded with it
	}
	first := change.Message{Kind: change.KindBegin, Raw: e.Raw, Defs: p.defs}
	if len(strays) > 0 {
		p.queue = append(p.queue[:0], change.Message{Kind: change.KindBegin, Defs: p.defs})
		for _, raw := range strays {
			p.queue = append(p.queue, change.Message{Kind: change.KindData, Raw: raw})
		}
		p.queue = append(p.queue, change.Message{Kind: change.KindData, Raw: e.Raw})
		return p.queued(), nil
	}
	p.msg = first
	return &p.msg, nil
}

// ordered refuses a transaction of MariaDB that has a number below one of its domain that
// came before: it cannot be told from one that is sent again, and a stream cannot be
// resumed at it. MySQL's servers do send transactions again.
func (p *parser) ordered(g gtid.GTID) error {
	last, ok := p.held.Last(g.Domain)
	if g.Flavor != gtid.MariaDB || !ok || last == g {
		return nil
	}
	return fmt.Errorf("%w: transaction %s follows %s in the source's log, although sequence numbers must rise within a domain: SET GLOBAL gtid_strict_mode = ON there, then run capture with --new-epoch", capture.ErrGap, g, last)
}

// skipped ends a group that was passed over. One that had no end when it was sent before, and has
// one now, must be sent once more.
func (p *parser) skipped() error {
	p.open = false
	if !p.held.Has(p.opened) {
		return &TornError{}
	}
	return nil
}

// TornError says that a group of the source's log has no end: the server crashed while it
// wrote it, and never committed it. A stream that is opened anew, and told so, comes past it.
type TornError struct {
	GTID string // "" if the group has an end after all
}

// Error says what happened.
func (e *TornError) Error() string {
	if e.GTID == "" {
		return "a transaction that had no end in the source's log has one now: it is read again"
	}
	return fmt.Sprintf("transaction %s has no end in the source's log: it was cut off by a crash, and is passed over", e.GTID)
}

// Unwrap makes it an error after which the source is opened again.
func (e *TornError) Unwrap() error { return capture.ErrUnreachable }

func (p *parser) tornError() error { return &TornError{GTID: p.opened.String()} }

func (p *parser) incident(e *binlog.Event) error {
	i, err := binlog.ParseIncident(e)
	if err != nil {
		return fmt.Errorf("%w: the source reports that its log lacks something, and not what: run capture with --new-epoch to go on behind it", capture.ErrGap)
	}
	return fmt.Errorf("%w: the source reports that its log lacks something (%s): run capture with --new-epoch to go on behind it", capture.ErrGap, i.Message)
}
