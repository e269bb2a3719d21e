package restore

import (
	"fmt"
	"strings"

	"txreel/archive"
	"txreel/internal/rowsum"
)

// Level is how closely a Target looks at what it holds.
type Level uint8

// The levels.
const (
	// VerifyContent reads every table whose content at the cut is on record, and compares it. It is the zero Level.
	VerifyContent Level = iota
	// VerifyRows counts rows.
	VerifyRows
)

// Evidence is what a restored table was compared by.
type Evidence string

// The evidence there can be.
const (
	// ByContent is every value of every row, by the sum that a base has on record.
	ByContent Evidence = "content"
	// ByRows is the number of rows, which base and changes make.
	ByRows Evidence = "rows"
	// ByPresence is that the table is there. What the record says does not tell how many rows it must have.
	ByPresence Evidence = "present"
)

// Untouched reports whether no transaction of the replay names the table in its counts.
func (p *Plan) Untouched(schema, name string) bool { return p.Changes[schema+"."+name] == nil }

// AtCut returns what a base that was taken at the very cut has on record of a table; nil if there is no such base, or it
// does not have the table.
func (p *Plan) AtCut(schema, name string) *archive.BaseTable {
	if p.Proof == nil {
		return nil
	}
	for i := range p.Proof.Tables {
		if t := &p.Proof.Tables[i]; t.Schema == schema && t.Name == name {
			return t
		}
	}
	return nil
}

// chooseProof finds a base at the cut: the plan's own when nothing is replayed, else the last one that was taken there. One that holds
// transactions ahead of others is the state after none.
func (p *Plan) chooseProof(bases []archive.Base) {
	if p.Seq == p.Base.Seq {
		p.Proof = p.Base
		return
	}
	for i := range bases {
		if bases[i].Seq == p.Seq && len(bases[i].Ahead) == 0 {
			p.Proof = &bases[i]
		}
	}
}

// HasContent reports whether the content of a table is on record in a way that this build computes.
func HasContent(t *archive.BaseTable) bool { return t != nil && rowsum.Comparable(t.Content) }

// Mismatch is a restored table that is not what is on record.
type Mismatch struct {
	Table string
	// Record says where the record speaks of the table, such as "base 20261122T101530Z-9f3a51c0".
	Record string
	Want   Found
	Found  Found
}

// Found is what a table holds. An empty Content was not looked at. A table that is not there has -1 rows.
type Found struct {
	Rows    int64
	Content string
}

// String says how much there is.
func (f Found) String() string {
	switch {
	case f.Rows < 0:
		return "no such table"
	case f.Content == "":
		return fmt.Sprintf("%d rows", f.Rows)
	}
	return fmt.Sprintf("%d rows of content %s", f.Rows, f.Content)
}

// String says what was expected, and what is there.
func (m *Mismatch) String() string {
	return fmt.Sprintf("table %s: on record (%s) are %s, the target has %s", m.Table, m.Record, m.Want, m.Found)
}

// MismatchError is returned by a Target's Verify if the target does not hold what is on record.
type MismatchError []Mismatch

// Error implements error.
func (e MismatchError) Error() string {
	const most = 20
	var lines []string
	for i := range e[:min(len(e), most)] {
		lines = append(lines, e[i].String())
	}
	if len(e) > most {
		lines = append(lines, fmt.Sprintf("and %d tables more", len(e)-most))
	}
	return "the target is not what is on record: " + strings.Join(lines, "; ") +
		". Do not use it: something else has written to it, or the record does not hold all that the source did; " +
		"run `txreel verify --full`, and restore again into a fresh target, from another base with --base"
}
