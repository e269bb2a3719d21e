// Package sources holds the words in which the sources of all engines report to a
// person: what doctor found, what setup does, how far a base has come, and how long the
// source will keep what the archive does not hold yet.
package sources

import (
	"fmt"
	"strings"
	"time"
)

// Severity says how much a Finding matters.
type Severity string

// The severities, from nothing to do to must be done.
const (
	SeverityOK      Severity = "ok"
	SeverityNote    Severity = "note"    // good to know
	SeverityWarning Severity = "warning" // works, but can hurt
	SeverityProblem Severity = "problem" // capture or restore cannot work
)

// Finding is what one check of a doctor found. Fix is the exact statement or step that
// mends it, where there is one.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	Detail   string   `json:"detail"`
	Fix      string   `json:"fix,omitempty"`
}

// Statement is one step of a plan and the reason for it. SQL is empty where the reason
// is all there is to say.
type Statement struct {
	SQL string `json:"sql,omitempty"`
	Why string `json:"why"`
}

// Script renders statements for review, and for the server's own client.
func Script(statements []Statement) string {
	// A line break in a table's name must not end the comment it stands in.
	breaks := strings.NewReplacer("\r\n", "\n-- ", "\n", "\n-- ", "\r", "\n-- ")
	var b strings.Builder
	for _, s := range statements {
		fmt.Fprintf(&b, "-- %s\n", breaks.Replace(s.Why))
		if s.SQL != "" {
			fmt.Fprintf(&b, "%s;\n", s.SQL)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// BaseRequest says what a base is to be taken of, and why.
type BaseRequest struct {
	Reason string // "" when none is asked for
	// Tables are the tables of a partial base, by the numbers that a PostgreSQL has for them.
	Tables []uint32
	// Schema asks for a partial base of the schema, without any rows.
	Schema bool
	// Proof asks for a base that is a place in the order of commits, so that what a restore makes can be compared with it, whatever that takes
	// of the source. Bases of MySQL and MariaDB always are.
	Proof bool
}

// Partial reports whether it is not the whole database that is asked for.
func (r *BaseRequest) Partial() bool { return r.Tables != nil || r.Schema }

// BaseProgress is how far a base has come.
type BaseProgress struct {
	Done, Total int64 // in a unit of the engine's own
	Rows, Bytes int64 // read so far, before compression
}

// Retention says how long a source keeps what the archive does not hold yet.
type Retention struct {
	At time.Time `json:"-"` // when this was read
	// Kept is the log that the source keeps for the capture, in bytes, and Limit the
	// most it will keep; a negative Limit is none.
	Kept  int64 `json:"retained_bytes"`
	Limit int64 `json:"limit_bytes"`
	// Budget is what the operator lets it keep, which a capture reports on; zero where nobody does.
	Budget int64 `json:"-"`
	// Purge is how long it takes until log that the archive lacks may be purged by age;
	// negative where age purges nothing.
	Purge time.Duration `json:"-"`
	// Text says all this in a line.
	Text string `json:"text"`
}
