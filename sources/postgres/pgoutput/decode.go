// Package pgoutput decodes the messages of PostgreSQL's logical replication
// plug-in pgoutput, protocol version 1 in text mode, without copying values.
//
// Source of all message layouts: PostgreSQL documentation, section "Logical
// Replication Message Formats".
package pgoutput

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"

	"txreel/change"
)

// The tags a message begins with.
const (
	TagBegin    = 'B'
	TagCommit   = 'C'
	TagOrigin   = 'O'
	TagRelation = 'R'
	TagType     = 'Y'
	TagInsert   = 'I'
	TagUpdate   = 'U'
	TagDelete   = 'D'
	TagTruncate = 'T'
	TagMessage  = 'M'
	// TagStreamAbort may arrive outside any stream from PostgreSQL 18, even in
	// protocol 1; it announces nothing a reader has seen.
	TagStreamAbort = 'A'
	// TagStreamStart and the two below it are of protocol version 2, which an archive does not hold.
	TagStreamStart  = 'S'
	TagStreamStop   = 'E'
	TagStreamCommit = 'c'
)

// pgEpoch is 2000-01-01 00:00:00 UTC in microseconds since 1970: PostgreSQL's
// timestamps count from there.
const pgEpoch = 946684800 * 1000000

// Errors that callers tell apart.
var (
	// ErrUnknown is wrapped when a message has a tag this build does not know.
	ErrUnknown = errors.New("unknown message")
	// ErrMalformed is wrapped when a message contradicts its format.
	ErrMalformed = errors.New("malformed message")
)

// Time converts a timestamp of the protocol.
func Time(v uint64) change.Time { return change.Time(int64(v) + pgEpoch) }

// Begin is a Begin message.
type Begin struct {
	FinalLSN   uint64 // where the commit record starts
	CommitTime change.Time
	XID        uint32
}

// ParseBegin reads a Begin message.
func ParseBegin(m []byte) (Begin, error) {
	if len(m) != 21 || m[0] != TagBegin {
		return Begin{}, malformed("Begin", m)
	}
	return Begin{
		FinalLSN:   binary.BigEndian.Uint64(m[1:]),
		CommitTime: Time(binary.BigEndian.Uint64(m[9:])),
		XID:        binary.BigEndian.Uint32(m[17:]),
	}, nil
}

// Commit is a Commit message.
type Commit struct {
	CommitLSN  uint64 // where the commit record starts
	EndLSN     uint64 // where the next record may start
	CommitTime change.Time
}

// ParseCommit reads a Commit message.
func ParseCommit(m []byte) (Commit, error) {
	if len(m) != 26 || m[0] != TagCommit {
		return Commit{}, malformed("Commit", m)
	}
	return Commit{
		CommitLSN:  binary.BigEndian.Uint64(m[2:]),
		EndLSN:     binary.BigEndian.Uint64(m[10:]),
		CommitTime: Time(binary.BigEndian.Uint64(m[18:])),
	}, nil
}

// RelationID returns the relation an Insert, Update, Delete, Relation or Type
// message names.
func RelationID(m []byte) (uint32, error) {
	if len(m) < 5 {
		return 0, malformed("message", m)
	}
	return binary.BigEndian.Uint32(m[1:]), nil
}

// TruncateIDs appends the relations a Truncate message names to ids.
func TruncateIDs(m []byte, ids []uint32) ([]uint32, error) {
	if len(m) < 6 || m[0] != TagTruncate {
		return ids, malformed("Truncate", m)
	}
	n := binary.BigEndian.Uint32(m[1:])
	if uint64(len(m)) != 6+4*uint64(n) {
		return ids, malformed("Truncate", m)
	}
	for i := range int(n) {
		ids = append(ids, binary.BigEndian.Uint32(m[6+4*i:]))
	}
	return ids, nil
}

// LogicalMessage is a message written by pg_logical_emit_message. Content aliases
// the message it was read from.
type LogicalMessage struct {
	Transactional bool
	LSN           uint64
	Prefix        string
	Content       []byte
}

// ParseLogicalMessage reads a Message message.
func ParseLogicalMessage(m []byte) (LogicalMessage, error) {
	d := reader{b: m}
	d.skip(1)
	l := LogicalMessage{Transactional: d.byte()&1 != 0, LSN: d.u64(), Prefix: string(d.cstr())}
	l.Content = d.bytes(d.u32())
	if !d.done() || m[0] != TagMessage {
		return l, malformed("Message", m)
	}
	return l, nil
}

// Relation is a Relation message.
type Relation struct {
	ID       uint32
	Schema   string
	Name     string
	Identity byte // pg_class.relreplident: d, n, f or i
	Columns  []Column
}

// Column is a column of a Relation.
type Column struct {
	Key  bool
	Name string
	Type uint32 // type OID
	Mod  int32  // type modifier
}

// ParseRelation reads a Relation message.
func ParseRelation(m []byte) (Relation, error) {
	d := reader{b: m}
	d.skip(1)
	r := Relation{ID: d.u32(), Schema: string(d.cstr()), Name: string(d.cstr()), Identity: d.byte()}
	if r.Schema == "" {
		r.Schema = "pg_catalog"
	}
	n := d.u16()
	for i := uint16(0); i < n && !d.bad; i++ {
		r.Columns = append(r.Columns, Column{Key: d.byte()&1 != 0, Name: string(d.cstr()), Type: d.u32(), Mod: int32(d.u32())})
	}
	if !d.done() || m[0] != TagRelation {
		return r, malformed("Relation", m)
	}
	return r, nil
}

// Version condenses what decides whether rows of the relation fit a table: its
// OID, names, and each column's name, type and modifier. It is never zero.
func (r *Relation) Version() uint64 {
	h := fnv.New64a()
	b := binary.BigEndian.AppendUint32(nil, r.ID)
	b = append(append(b, r.Schema...), 0)
	b = append(append(b, r.Name...), 0)
	for _, c := range r.Columns {
		b = append(append(b, c.Name...), 0)
		b = binary.BigEndian.AppendUint32(b, c.Type)
		b = binary.BigEndian.AppendUint32(b, uint32(c.Mod))
	}
	_, _ = h.Write(b)
	return max(h.Sum64(), 1)
}

// Decoder turns messages into events. It remembers Relation and Type messages, so
// it must be shown every message in order. The zero value is ready. It is not safe for
// concurrent use.
type Decoder struct {
	relations map[uint32]*change.Relation
	types     map[uint32]string
	old, new  []change.Value
	many      []*change.Relation
	ids       []uint32
	event     change.Event // of the message that Decode took
	pending   bool         // Next has not been asked for event
}

// Size implements audit.Decoder: a message of pgoutput is stored in one piece.
func (d *Decoder) Size(m []byte) int64 { return int64(len(m)) }

// Decode implements audit.Decoder.
func (d *Decoder) Decode(m []byte) (err error) {
	d.pending, err = d.Event(m, &d.event)
	d.pending = d.pending && err == nil
	return err
}

// Next implements audit.Decoder: a message is one event, or none.
func (d *Decoder) Next(ev *change.Event) (bool, error) {
	if !d.pending {
		return false, nil
	}
	*ev, d.pending = d.event, false
	return true, nil
}

// Event reads message m into ev and reports whether it is an event; messages
// that only frame or define are not. The event aliases m and memory of the Decoder,
// and is valid until the next call.
func (d *Decoder) Event(m []byte, ev *change.Event) (bool, error) {
	if len(m) == 0 {
		return false, malformed("message", m)
	}
	*ev = change.Event{}
	switch m[0] {
	case TagInsert, TagUpdate, TagDelete:
		return true, d.row(m, ev)
	case TagBegin, TagCommit, TagOrigin, TagStreamAbort:
		return false, nil
	case TagRelation:
		return false, d.relation(m)
	case TagType:
		return false, d.typ(m)
	case TagTruncate:
		return true, d.truncate(m, ev)
	case TagMessage:
		l, err := ParseLogicalMessage(m)
		ev.Op, ev.Prefix, ev.Content = change.OpMessage, l.Prefix, l.Content
		return true, err
	}
	return false, fmt.Errorf("%w: tag %q", ErrUnknown, m[0])
}

func (d *Decoder) relation(m []byte) error {
	r, err := ParseRelation(m)
	if err != nil {
		return err
	}
	rel := &change.Relation{ID: r.ID, Schema: r.Schema, Name: r.Name, Columns: make([]change.Column, len(r.Columns))}
	for i, c := range r.Columns {
		rel.Columns[i] = change.Column{Name: c.Name, Key: c.Key, Type: d.typeName(c.Type)}
	}
	if d.relations == nil {
		d.relations = make(map[uint32]*change.Relation)
	}
	d.relations[r.ID] = rel
	return nil
}

func (d *Decoder) typ(m []byte) error {
	r := reader{b: m}
	r.skip(1)
	oid, schema, name := r.u32(), string(r.cstr()), string(r.cstr())
	if !r.done() {
		return malformed("Type", m)
	}
	if d.types == nil {
		d.types = make(map[uint32]string)
	}
	if schema != "" && schema != "pg_catalog" {
		name = schema + "." + name
	}
	d.types[oid] = name
	return nil
}

func (d *Decoder) typeName(oid uint32) string {
	if name, ok := d.types[oid]; ok {
		return name
	}
	if name := builtin(oid); name != "" {
		return name
	}
	return "oid " + strconv.FormatUint(uint64(oid), 10)
}

func (d *Decoder) row(m []byte, ev *change.Event) error {
	if d.old == nil {
		d.old, d.new = make([]change.Value, 0, 16), make([]change.Value, 0, 16) // an image without columns is not a missing one
	}
	r := reader{b: m}
	r.skip(1)
	id := r.u32()
	rel := d.relations[id]
	if rel == nil {
		return fmt.Errorf("%w: row of relation %d, which no Relation message described", ErrMalformed, id)
	}
	ev.Relation = rel
	kind := r.byte()
	if m[0] != TagInsert && (kind == 'K' || kind == 'O') {
		d.old = r.tuple(d.old[:0], len(rel.Columns))
		if kind == 'K' { // a NULL in a key tuple means "not part of the identity"
			for i := range d.old {
				if d.old[i].State == change.Null {
					d.old[i].State = change.NotLogged
				}
			}
		}
		ev.Old = d.old
		if m[0] == TagUpdate {
			kind = r.byte()
		}
	}
	switch m[0] {
	case TagInsert:
		ev.Op = change.OpInsert
	case TagUpdate:
		ev.Op = change.OpUpdate
	case TagDelete:
		ev.Op = change.OpDelete
	}
	switch {
	case ev.Op == change.OpDelete:
		r.bad = r.bad || ev.Old == nil
	case kind != 'N':
		r.bad = true
	default:
		d.new = r.tuple(d.new[:0], len(rel.Columns))
		ev.New = d.new
	}
	if !r.done() {
		return malformed("row of "+rel.String(), m)
	}
	return nil
}

func (d *Decoder) truncate(m []byte, ev *change.Event) (err error) {
	if d.ids, err = TruncateIDs(m, d.ids[:0]); err != nil {
		return err
	}
	d.many = d.many[:0]
	for _, id := range d.ids {
		rel := d.relations[id]
		if rel == nil {
			return fmt.Errorf("%w: truncate of relation %d, which no Relation message described", ErrMalformed, id)
		}
		d.many = append(d.many, rel)
	}
	ev.Op, ev.Relations = change.OpTruncate, d.many
	ev.Cascade, ev.RestartIdentity = m[5]&1 != 0, m[5]&2 != 0
	return nil
}

// reader walks a message; after the first byte that is missing, bad stays set and
// everything reads as zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) skip(n uint32) { r.bytes(n) }

func (r *reader) byte() byte {
	if v := r.bytes(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if v := r.bytes(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if v := r.bytes(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if v := r.bytes(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (r *reader) cstr() []byte {
	i := bytes.IndexByte(r.b, 0)
	if i < 0 {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:i]
	r.b = r.b[i+1:]
	return v
}

// tuple reads a row image, which must have n columns.
func (r *reader) tuple(vs []change.Value, n int) []change.Value {
	if int(r.u16()) != n {
		r.bad = true
		return vs
	}
	for range n {
		v := change.Value{}
		switch r.byte() {
		case 'n':
			v.State = change.Null
		case 'u':
			v.State = change.Unchanged
		case 't':
			v.State, v.Bytes = change.Text, r.bytes(r.u32())
		case 'b':
			v.State, v.Bytes = change.Binary, r.bytes(r.u32())
		default:
			r.bad = true
		}
		if r.bad {
			return vs
		}
		vs = append(vs, v)
	}
	return vs
}

func (r *reader) done() bool { return !r.bad && len(r.b) == 0 }

func malformed(what string, m []byte) error {
	return fmt.Errorf("%w: %s of %d bytes", ErrMalformed, what, len(m))
}
