package mysql

import (
	"bytes"
	"fmt"

	"txreel/change"
	"txreel/sources/mysql/binlog"
)

// counter finds what the index says of a group: tables, rows and a note. What cannot be counted
// is in the record all the same.
type counter struct {
	*binlog.Counter
	inflater binlog.Inflater
	missed   bool // something of the group could not be counted
}

// uncounted is the note of a group of which not everything could be counted, unless it has another.
const uncounted = "not all of it could be counted"

// event counts the rows of an event, of which only the first packet is there if it comes in
// pieces.
func (c *counter) event(e *binlog.Event, f *binlog.Format, pieces bool) []change.Touch {
	if pieces {
		c.CountFirst(e, f)
		return nil
	}
	touched, whole := c.Count(e, f)
	c.missed = c.missed || !whole
	return touched
}

// more counts the next piece.
func (c *counter) more(piece []byte) []change.Touch {
	touched, whole, done := c.CountMore(piece)
	c.missed = c.missed || done && !whole
	return touched
}

// maxQuery bounds a statement that is brought back from its compressed form for a note.
const maxQuery = 1 << 20

// note returns what a group that has this event is noted as; "" if the event is no
// statement of its own.
func (c *counter) note(e *binlog.Event) string {
	switch e.Type {
	case binlog.TypeQuery, binlog.TypeQueryCompressed, binlog.TypeExecuteLoadQuery:
	case binlog.TypeXAPrepare: // nothing is committed yet
		x, err := binlog.ParseXAPrepare(e)
		if err != nil || x.OnePhase {
			return ""
		}
		return fmt.Sprintf("XA PREPARE X'%x',X'%x',%d", x.Global, x.Branch, x.Format)
	default:
		return ""
	}
	q, err := binlog.ParseQuery(e)
	if err != nil {
		return ""
	}
	text, err := c.inflater.Text(&q, maxQuery)
	if err != nil || frames(text) {
		return ""
	}
	return binlog.Note(text, string(q.Schema), q.Mode())
}

// frames reports whether a statement only frames a transaction.
func frames(text []byte) bool {
	for _, word := range [...]string{"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "XA START", "XA END"} {
		if len(text) >= len(word) && bytes.EqualFold(text[:len(word)], []byte(word)) {
			return true
		}
	}
	return false
}
