package binlog

import (
	"bytes"
	"encoding/binary"
	"io"
)

// Query is a QUERY or EXECUTE_LOAD_QUERY event: a statement as text. Its
// slices alias the event.
type Query struct {
	ThreadID   uint32 // the connection that ran it
	ExecTime   uint32 // seconds
	ErrorCode  uint16 // the error it ended with on its server
	StatusVars []byte // the settings it ran with, in the server's own encoding
	Schema     []byte // its default database
	// Text is the statement. In a QUERY_COMPRESSED event it is compressed: an Inflater
	// brings it back.
	Text       []byte
	Compressed bool

	// EXECUTE_LOAD_QUERY only: the statement names, from FileNameAt to FileNameEnd of
	// Text, a file that the event's blocks hold.
	FileID                  uint32
	FileNameAt, FileNameEnd uint32
}

// Mode is what of a statement's sql_mode decides how its text is read.
type Mode struct {
	// Known is false for text that came without its sql_mode.
	Known              bool
	ANSIQuotes         bool // "…" is a name
	NoBackslashEscapes bool // \ is a character like any other
}

// The variables of a QUERY event that stand before all others, and bits of sql_mode.
const (
	varFlags2  = 0
	varSQLMode = 1

	modeANSIQuotes         = 1 << 2
	modeNoBackslashEscapes = 1 << 20
)

// Mode returns how to read the statement.
func (q *Query) Mode() Mode {
	r := reader{b: q.StatusVars}
	code := r.u8()
	if code == varFlags2 {
		r.bytes(4)
		code = r.u8()
	}
	mode := r.u64()
	if r.bad || code != varSQLMode {
		return Mode{}
	}
	return Mode{Known: true, ANSIQuotes: mode&modeANSIQuotes != 0, NoBackslashEscapes: mode&modeNoBackslashEscapes != 0}
}

// queryFixed is the size of what stands before a QUERY event's variables.
const queryFixed = 13

// ParseQuery reads a QUERY, QUERY_COMPRESSED or EXECUTE_LOAD_QUERY event.
// It allocates nothing.
func ParseQuery(e *Event) (Query, error) {
	r := reader{b: e.Body}
	q := Query{ThreadID: r.u32(), ExecTime: r.u32()}
	schema := uint64(r.u8())
	q.ErrorCode = r.u16()
	vars := uint64(r.u16())
	switch e.Type {
	case TypeQuery:
	case TypeQueryCompressed:
		q.Compressed = true
	case TypeExecuteLoadQuery:
		q.FileID, q.FileNameAt, q.FileNameEnd = r.u32(), r.u32(), r.u32()
		r.u8() // what to do with duplicate keys
	default:
		r.bad = true
	}
	q.StatusVars = r.bytes(vars)
	q.Schema = r.bytes(schema)
	if zero := r.bytes(1); len(zero) == 1 && zero[0] != 0 {
		r.bad = true
	}
	q.Text = r.b
	if r.bad {
		return Query{}, malformed(e)
	}
	return q, nil
}

// queryText returns the text of a QUERY event as the boundary of a group needs it: without
// the rest of it, and nil if the event is malformed or its text is compressed. No
// statement that begins or ends a group is long enough to be compressed.
func queryText(e *Event) []byte {
	b := e.Body
	if e.Type != TypeQuery || len(b) < queryFixed {
		return nil
	}
	at := queryFixed + int(binary.LittleEndian.Uint16(b[11:])) + int(b[8]) + 1
	if at > len(b) {
		return nil
	}
	return b[at:]
}

// Note returns the note of a QUERY or EXECUTE_LOAD_QUERY event for an index, as the function Note makes
// it, and "" for those that only begin, divide and end transactions. It allocates for the
// others only.
func (i *Inflater) Note(e *Event) string {
	if isControl(queryText(e)) {
		return ""
	}
	q, err := ParseQuery(e)
	if err != nil {
		return ""
	}
	text := q.Text
	if q.Compressed {
		const enough = 64 << 10
		size, err := i.open(text)
		if err != nil {
			return ""
		}
		i.buf = grown(i.buf[:0], int(min(size, enough)))
		n, _ := io.ReadFull(i.z, i.buf)
		text = i.buf[:n]
	}
	schema := string(q.Schema)
	if e.Has(FlagSuppressUse) {
		schema = ""
	}
	return Note(text, schema, q.Mode())
}

// isControl reports whether a statement only begins, divides or ends a transaction.
func isControl(text []byte) bool {
	switch {
	case string(text) == "BEGIN", string(text) == "COMMIT", hasPrefix(text, "ROLLBACK"), hasPrefix(text, "SAVEPOINT "),
		hasPrefix(text, "XA START "), hasPrefix(text, "XA END "):
		return true
	}
	return false
}

// hasPrefix reports whether text begins with prefix, which is in upper case, in any
// case.
func hasPrefix(text []byte, prefix string) bool {
	return len(text) >= len(prefix) && bytes.EqualFold(text[:len(prefix)], []byte(prefix))
}

// ParseRowsQuery returns the statement in a ROWS_QUERY or ANNOTATE_ROWS event: what
// changed the rows behind it. The slice aliases the event.
func ParseRowsQuery(e *Event) ([]byte, error) {
	switch e.Type {
	case TypeAnnotateRows:
		return e.Body, nil
	case TypeRowsQuery: // the byte before the text is its length, or the low byte of it
		if len(e.Body) > 0 {
			return e.Body[1:], nil
		}
	}
	return nil, malformed(e)
}

// ParseXID returns the number that a storage engine knows the transaction by. It is not
// what a user calls the transaction's id.
func ParseXID(e *Event) (uint64, error) {
	r := reader{b: e.Body}
	id := r.u64()
	if r.bad || e.Type != TypeXID {
		return 0, malformed(e)
	}
	return id, nil
}

// ParseXAPrepare returns the id of the XA transaction that the event prepares, or
// commits in one phase.
func ParseXAPrepare(e *Event) (XAID, error) {
	r := reader{b: e.Body}
	x := XAID{OnePhase: r.u8() != 0, Format: r.u32()}
	global, branch := uint64(r.u32()), uint64(r.u32())
	x.Global, x.Branch = r.bytes(global), r.bytes(branch)
	if r.bad || e.Type != TypeXAPrepare {
		return XAID{}, malformed(e)
	}
	return x, nil
}
