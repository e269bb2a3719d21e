package reduce

import (
	"hash/maphash"

	"txreel/segment"
	"txreel/sources/mysql/binlog"
)

// window holds a part of the record: whole transactions, what stands in front of them, and perhaps the beginning of a last one.
type window struct {
	format format // of the events that follow
	judge  judge  // of the last transaction
	tables Tables

	arena  []byte // the bytes of the events
	units  []unit
	events []event
	rows   []row // the updates that may go

	mapped  map[uint64]*mapped  // by the numbers that events call tables
	tracked map[string]*tracked // by TableKey
	seed    maphash.Seed
	parsed  binlog.TableMap
	before  [][]byte // values of the image before an update, or of an only one
	after   [][]byte
	stored  [][]byte // key of an update before
	key     []byte

	unit, at int // what is handed on next: the beginning of a unit, with at 1 and more its events, and then its end
	leftOut  int64
}

// unit is a transaction, or what stands in front of one.
type unit struct {
	begin, end segment.Record // without a kind where it has no beginning, or no end in this window
	format     *binlog.Format
	first      int // its events are events[first:last]
	last       int
	closed     bool // last is known
	reduced    bool // updates of it may go
}

// event is a message, or a definition.
type event struct {
	kind     segment.RecordKind
	from, to uint32 // in the arena; nothing if it was left out
	rows     uint32 // where its rows begin
	first    uint32 // its updates are rows[first:last]: all of them, or none
	last     uint32
}

// row is an update.
type row struct {
	from, to uint32 // in the arena: both images
	domain   uint32 // MariaDB: that it is executed in; others are executed beside it
	gone     bool
}

// mapped is what a number means.
type mapped struct {
	body  []byte   // of the TABLE_MAP event that said so
	table *tracked // nil if no update of it may go
}

// begin empties the window.
func (w *window) begin(tables Tables) {
	if w.mapped == nil {
		w.seed = maphash.MakeSeed()
	}
	w.arena, w.units, w.events, w.rows = w.arena[:0], w.units[:0], w.events[:0], w.rows[:0]
	w.mapped, w.tracked, w.tables = make(map[uint64]*mapped), make(map[string]*tracked), tables
	w.unit, w.at = 0, 0
}

// How many bytes are needed to know of something, about: of an update a row, and perhaps an entry of tracked.latest; of a transaction its beginning and its
// end with their texts.
const (
	rowSize   = 48
	eventSize = 24
	unitSize  = 512
)

// size returns how many bytes the window takes, about.
func (w *window) size() int {
	return len(w.arena) + rowSize*len(w.rows) + eventSize*len(w.events) + unitSize*len(w.units)
}

// define takes a definition, which stands in front of a transaction or of its first message. The numbers of tables may be those of another server from
// here on.
func (w *window) define(raw []byte) error {
	clear(w.mapped)
	if n := len(w.units); n > 0 && !w.units[n-1].closed {
		w.judge.odd = w.judge.odd || w.judge.events > 0
		w.hold(segment.Definition, raw)
	} else {
		w.units = append(w.units, unit{first: len(w.events)})
		w.hold(segment.Definition, raw)
		w.cut()
	}
	return w.format.set(raw)
}

// hold keeps the bytes of an event.
func (w *window) hold(kind segment.RecordKind, raw []byte) {
	from := len(w.arena)
	w.arena = append(w.arena, raw...)
	w.events = append(w.events, event{kind: kind, from: uint32(from), to: uint32(len(w.arena))})
}

// open begins a transaction.
func (w *window) open(rec *segment.Record) {
	w.judge = judge{seq: rec.Seq}
	w.units = append(w.units, unit{begin: *rec, first: len(w.events)})
}

// message takes a message of the open transaction.
func (w *window) message(raw []byte) error {
	if err := w.judge.message(w.format.Format, raw); err != nil {
		return err
	}
	w.hold(segment.Message, raw)
	return nil
}

// cut ends the window within the open transaction.
func (w *window) cut() {
	u := &w.units[len(w.units)-1]
	u.format, u.last, u.closed = w.format.Format, len(w.events), true
}

// commit ends the open transaction, and finds what it overwrites.
func (w *window) commit(rec *segment.Record) error {
	w.cut()
	u := &w.units[len(w.units)-1]
	u.end = *rec
	if !w.judge.plain() {
		w.forget()
		return nil
	}
	domain := domainOf(rec.XID)
	for i := u.first; i < u.last; i++ {
		if e := &w.events[i]; e.kind == segment.Message {
			if err := w.track(u, e, domain); err != nil {
				w.units = w.units[:len(w.units)-1] // it is not handed on
				return err
			}
		}
	}
	return nil
}

// dropOpen forgets the beginning of a transaction whose rest cannot be had.
func (w *window) dropOpen() {
	if n := len(w.units); n > 0 && !w.units[n-1].closed {
		w.units = w.units[:n-1]
	}
}

// next hands on the window, record by record; false at its end.
func (w *window) next() (segment.Record, bool) {
	for w.unit < len(w.units) {
		u := &w.units[w.unit]
		switch i := u.first + w.at - 1; {
		case w.at == 0:
			if u.reduced {
				w.reduce(u)
			}
			if w.at++; u.begin.Kind != 0 {
				return u.begin, true
			}
		case i < u.last:
			w.at++
			if e := &w.events[i]; e.from < e.to {
				return segment.Record{Kind: e.kind, Raw: w.arena[e.from:e.to]}, true
			}
		default:
			if w.unit, w.at = w.unit+1, 0; u.end.Kind != 0 {
				return u.end, true
			}
		}
	}
	return segment.Record{}, false
}
