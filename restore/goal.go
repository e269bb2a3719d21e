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
	// Base is the id of the base to begin with; empty is the last one at or before the point.
	Base string
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
	// Position checks a position as a user types it and returns what finds it in the
	// record. before excludes what stands exactly there.
	Position(text string, before bool) (Finder, error)
	// XID checks a transaction id as a user types it and returns what compares it with ids of the record.
	XID(text string) (match func(xid string) XIDMatch, err error)
	// Ours reports whether a table is txreel's own and no part of the user's database: a restore leaves it out.
	Ours(t *change.Table) bool
	// Defines reports whether the source writes down in a table of ours how its definitions change: a target can follow
	// what is on record there.
	Defines(t *change.Table) bool
	// Pace says how fast restores go.
	Pace() Pace
}

// Finder looks for the last transaction that belongs to a position. It is used for
// one epoch.
type Finder interface {
	// Covered reports whether a record that is complete up to end holds all the
	// position asks for.
	Covered(end change.Position) (bool, error)
	// From reports whether the search may begin behind a base taken at position base:
	// the position asked for is not before it.
	From(base change.Position) (bool, error)
	// Look is shown the transactions in order, and reports whether it wants to see more.
	Look(t *change.Txn) (more bool, err error)
	// Cut returns the last transaction that belongs to the position; ok is false when none
	// of those seen does. An error says why the position cannot be found.
	Cut() (cut change.Seq, ok bool, err error)
}

// Ordered returns the Finder of the position want for a source whose positions are in
// order: compare is negative when a comes before b. It takes the transactions whose
// position is not higher than want, or with before lower.
func Ordered(want change.Position, before bool, compare func(a, b change.Position) (int, error)) Finder {
	return &ordered{want: want, before: before, compare: compare}
}

type ordered struct {
	want    change.Position
	before  bool
	compare func(a, b change.Position) (int, error)
	cut     change.Seq
	found   bool
}

// Covered implements Finder.
func (o *ordered) Covered(end change.Position) (bool, error) {
	c, err := o.compare(o.want, end)
	return c <= 0, err
}

// From implements Finder.
func (o *ordered) From(base change.Position) (bool, error) {
	c, err := o.compare(base, o.want)
	return c <= 0, err
}

// Look implements Finder.
func (o *ordered) Look(t *change.Txn) (bool, error) {
	c, err := o.compare(t.Position, o.want)
	if err != nil || c > 0 || c == 0 && o.before {
		return false, err
	}
	o.cut, o.found = t.Seq, true
	return true, nil
}

// Cut implements Finder.
func (o *ordered) Cut() (change.Seq, bool, error) { return o.cut, o.found, nil }
