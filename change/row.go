package change

import "fmt"

// State tells what is known of a column's value. The four are different things
// and never stand in for one another (Invariant 7).
type State uint8

// The states of a Value.
const (
	// NotLogged means the source's log does not hold the value.
	NotLogged State = iota
	// Null is SQL NULL.
	Null
	// Text means Bytes holds the value in the server's own text notation.
	Text
	// Binary means Bytes holds the value in the server's own binary notation.
	Binary
	// Unchanged means an update left the value as it was and the log does not
	// repeat it (PostgreSQL: unchanged TOAST).
	Unchanged
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case NotLogged:
		return "not logged"
	case Null:
		return "null"
	case Text:
		return "text"
	case Binary:
		return "binary"
	case Unchanged:
		return "unchanged"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Value is one column of one row image. Bytes aliases the message it was decoded
// from.
type Value struct {
	State State
	Bytes []byte
}

// Column describes one column as the log does.
type Column struct {
	Name string
	Type string // the server's type name, schema-qualified unless it is built in
	Key  bool   // part of the identity that old images carry
}

// Relation describes a table as the log does, at one moment of its history.
type Relation struct {
	ID      uint32 // the source's own number for it
	Schema  string
	Name    string
	Columns []Column
}

// String returns schema and name, unquoted.
func (r *Relation) String() string { return r.Schema + "." + r.Name }

// Event is one decoded change. Old and New have one Value per column of
// Relation, or are nil when the log has no such image. All slices are valid until the
// decoder that filled the Event is used again.
type Event struct {
	Op       Op
	Relation *Relation
	Old      []Value // update, delete: the identity columns, or the whole row
	New      []Value // insert, update

	// Truncate only.
	Relations       []*Relation
	Cascade         bool
	RestartIdentity bool

	// OpMessage: its prefix; "query" for the statement that MySQL's log gives beside the
	// rows it changed. OpStatement: the default database it ran in.
	Prefix string
	// OpMessage: its content. OpStatement: its text.
	Content []byte
}
