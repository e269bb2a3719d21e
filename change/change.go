// Package change is the vocabulary the rest of txreel speaks: positions,
// sequence numbers, transactions, source messages, and the rows decoded from
// them. It depends on the standard library only and does no I/O.
package change

import (
	"fmt"
	"strconv"
	"time"
)

// Seq numbers the transactions of an epoch 1, 2, 3 … without holes
// (Invariant 4). Zero means "none". It prints, and is typed, as hexadecimal.
type Seq uint64

// String returns the Seq as 16 hexadecimal digits, so that text order is
// numeric order.
func (s Seq) String() string { return fmt.Sprintf("%016x", uint64(s)) }

// MarshalText encodes the Seq as String does.
func (s Seq) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts what ParseSeq accepts.
func (s *Seq) UnmarshalText(b []byte) error {
	v, err := ParseSeq(string(b))
	if err != nil {
		return err
	}
	*s = v
	return nil
}

// ParseSeq reads a Seq as printed: hexadecimal, leading zeros optional.
func ParseSeq(text string) (Seq, error) {
	v, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a Seq: give its hexadecimal digits as `txreel log` prints them", text)
	}
	return Seq(v), nil
}

// Position is a place in the source's own log, in the source's own notation: an
// LSN such as "16/B374D848", a GTID set, or a file and offset. It is opaque:
// only the source that made it can order two of them. It has at most MaxPosition bytes.
type Position string

// MaxPosition bounds a Position: a GTID set of some 20,000 servers.
const MaxPosition = 1 << 20

// Brief returns the position for a line that a person reads: the beginning of a long one, and
// how much more there is.
func (p Position) Brief() string {
	const most = 200
	if len(p) <= most {
		return string(p)
	}
	return fmt.Sprintf("%s… (%d characters more)", string(p[:most]), len(p)-most)
}

// Time is a moment in microseconds since 1970-01-01 00:00:00 UTC, by the
// clock of the source. Commit times may go backwards in commit order.
type Time int64

// String returns the time as RFC 3339 in UTC with microseconds.
func (t Time) String() string {
	return time.UnixMicro(int64(t)).UTC().Format("2006-01-02T15:04:05.000000Z07:00")
}

// TxnKind tells what a transaction of the record is.
type TxnKind uint8

// The kinds of transactions. The numbers are part of the segment format.
const (
	// TxnSource is a transaction the source committed.
	TxnSource TxnKind = 1
	// TxnHeartbeat holds no messages: it records that the source was read up to
	// its Position and that nothing happened since the transaction before it.
	TxnHeartbeat TxnKind = 2
)

// String returns the kind's name.
func (k TxnKind) String() string {
	switch k {
	case TxnSource:
		return "transaction"
	case TxnHeartbeat:
		return "heartbeat"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Txn is what the index of a segment says of one transaction.
type Txn struct {
	Seq        Seq
	Kind       TxnKind
	XID        string   // the source's own id: a 64-bit transaction id, a GTID; "" for heartbeats
	Position   Position // where the source's log continues after the commit
	CommitTime Time
	// Received is when capture had the whole of it, by capture's own clock; zero
	// where that was not recorded.
	Received Time
	// Note says in a few words what the counts of Tables do not show, such as the
	// beginning of a DDL statement. Passwords are redacted from it.
	Note     string
	Messages uint64 // source messages stored for it
	Bytes    uint64 // their size before compression
	Tables   []TableCount
}

// Rows returns the number of rows the transaction inserted, updated or deleted.
func (t *Txn) Rows() uint64 {
	var n uint64
	for i := range t.Tables {
		n += t.Tables[i].Rows()
	}
	return n
}

// TableCount counts what one transaction did to one table.
type TableCount struct {
	Table     *Table
	Inserts   uint64
	Updates   uint64
	Deletes   uint64
	Truncates uint64
}

// Rows returns the number of rows inserted, updated or deleted.
func (c *TableCount) Rows() uint64 { return c.Inserts + c.Updates + c.Deletes }

// Table names a table for an index. A source hands out the same *Table for the
// same definition, so that pointers can be compared.
type Table struct {
	Schema string
	Name   string
	// Version changes whenever the source reports another definition of the
	// table (columns, types, or a table created anew under the name). Zero means
	// the source does not track it.
	Version uint64
}

// String returns schema and name, unquoted.
func (t *Table) String() string { return t.Schema + "." + t.Name }

// Op is what a message does.
type Op uint8

// The operations.
const (
	OpInsert Op = iota + 1
	OpUpdate
	OpDelete
	OpTruncate
	OpMessage // a message written into the log by an application or by txreel
	// OpStatement is a statement that the log holds as text: DDL, or changes that the
	// source logged as the statement that made them.
	OpStatement
)

// String returns the operation's name in lower case.
func (o Op) String() string {
	switch o {
	case OpInsert:
		return "insert"
	case OpUpdate:
		return "update"
	case OpDelete:
		return "delete"
	case OpTruncate:
		return "truncate"
	case OpMessage:
		return "message"
	case OpStatement:
		return "statement"
	}
	return fmt.Sprintf("op %d", uint8(o))
}

// Kind tells what a Message is to the capture loop.
type Kind uint8

// The kinds of messages.
const (
	// KindIdle carries nothing to record: the source has delivered all it has up
	// to Position, and no transaction is open. A source sends one at least every
	// quarter of a second while it is quiet, so that the loop can look at its clock.
	// An empty Position means that nothing is known beyond the last commit.
	KindIdle Kind = iota + 1
	// KindBegin opens a transaction.
	KindBegin
	// KindData is a message inside a transaction.
	KindData
	// KindCommit ends a transaction; XID, Position and CommitTime are set.
	KindCommit
)

// Message is one step of a source's stream. All its slices belong to the source
// and are valid until the next message is asked for.
type Message struct {
	Kind Kind
	// Raw is the source's own message, stored verbatim (Invariant 5). It may be
	// empty for KindBegin and KindCommit.
	Raw []byte
	// Defs are what a reader must have seen before Raw can be decoded.
	Defs []*Definition
	// Touched says what Raw does to which tables, for the index.
	Touched []Touch

	XID        string
	Position   Position
	CommitTime Time
	Received   Time   // KindCommit: see Txn
	Note       string // KindCommit: see Txn; at most MaxNote bytes
}

// MaxNote bounds Txn.Note, in bytes.
const MaxNote = 256

// Touch counts rows of one table changed by one message.
type Touch struct {
	Table *Table
	Op    Op
	Rows  uint64
}

// Definition is source material that later messages refer to, such as
// PostgreSQL's Relation and Type messages. Its identity is its pointer: a source
// makes a new Definition when the material changes, and never alters one.
type Definition struct {
	Messages [][]byte // verbatim, in the order a reader must see them
}
