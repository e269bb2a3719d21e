package restore

import (
	"fmt"

	"txreel/change"
)

// Kind tells how a Goal names its point.
type Kind uint8

// The kinds of goals.
const (
	// Latest is the last transaction the archive holds. It is the zero Kind.
	Latest Kind = iota
	// AtSeq is the transaction Goal.Seq; Seq 0 is the state an epoch began with.
	AtSeq
	// AtXID is the transaction with the source's own id Goal.Text.
	AtXID
	// AtPosition is the moment at which the source's log had been written up to
	// the position Goal.Text: it holds every transaction that `txreel log` shows with that
	// position or a lower one.
	AtPosition
	// AtTime is the moment Goal.Time: it holds the transactions before the first
	// one, in commit order, that committed later.
	AtTime
	// AtMark is the transaction that carries the mark Goal.Text.
	AtMark
)

// Goal is what the user asked for. The zero Goal is everything the last epoch
// holds.
type Goal struct {
	Kind Kind
	Text string      // transaction id, position or mark, as typed
	Seq  change.Seq  // AtSeq
	Time change.Time // AtTime
	// Before excludes the point itself: the transaction named, those at the position
	// or later, those at the moment or later.
	Before bool
	// Epoch is the epoch meant; zero is the last one, or for AtXID, AtPosition, AtTime
	// and AtMark the newest one that holds the point.
	Epoch uint64
}

// String names the goal as the command line does.
func (g Goal) String() string {
	var s string
	switch g.Kind {
	case Latest:
		s = "latest"
	case AtSeq:
		s = "Seq " + g.Seq.String()
	case AtXID:
		s = "transaction " + g.Text
	case AtPosition:
		s = "position " + g.Text
	case AtTime:
		s = "time " + g.Time.String()
	case AtMark:
		s = "mark " + g.Text
	default:
		s = fmt.Sprintf("goal %d", g.Kind)
	}
	if g.Before {
		s = "before " + s
	}
	return s
}

// MarshalText encodes the goal as String does.
func (g Goal) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// XIDMatch tells how well a transaction id fits what the user typed.
type XIDMatch uint8

// How an id fits.
const (
	// NoMatch is another transaction.
	NoMatch XIDMatch = iota
	// ShortMatch fits a shortened notation, which may fit several transactions.
	ShortMatch
	// ExactMatch is the transaction.
	ExactMatch
)

// Dialect is what planning must know of an engine.
type Dialect interface {
	// ParsePosition checks a position as a user types it.
	ParsePosition(text string) (change.Position, error)
	// ComparePositions returns a negative number when a comes before b, a positive one
	// when it comes after.
	ComparePositions(a, b change.Position) (int, error)
	// XID checks a transaction id as a user types it and returns what compares it with ids of the record.
	XID(text string) (match func(xid string) XIDMatch, err error)
	// Ours reports whether a table is txreel's own and no part of the user's database: a restore leaves it out.
	Ours(t *change.Table) bool
}
