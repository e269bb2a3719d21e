package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"txreel/archive"
	"txreel/change"
)

// Selection is what of a database is asked for.
type Selection struct {
	Tables  []Pattern
	Schemas []string
}

// Pattern names tables, as a user typed it.
type Pattern struct {
	Text  string
	Match func(schema, name string) bool
}

// Exact reports whether the pattern has nothing in it that stands for something else.
func (p Pattern) Exact() bool { return !strings.ContainsAny(p.Text, `*?`) }

// Empty reports whether everything is asked for.
func (s *Selection) Empty() bool { return len(s.Tables) == 0 && len(s.Schemas) == 0 }

// Names reports whether the selection names a table, whether or not the base has it.
func (s *Selection) Names(schema, name string) bool {
	return slices.Contains(s.Schemas, schema) || slices.ContainsFunc(s.Tables, func(p Pattern) bool { return p.Match(schema, name) })
}

// String names the selection the same way in whatever order it was asked for: an interrupted restore goes by it.
func (s *Selection) String() string {
	var all []string
	for _, p := range s.Tables {
		all = append(all, "--table "+p.Text)
	}
	for _, n := range s.Schemas {
		all = append(all, "--schema "+n)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}

// Chooser finds out what of a plan's base a selection means.
type Chooser func(ctx context.Context, p *Plan) (*Partial, error)

// Partial is what a restore of some tables takes, and leaves out.
type Partial struct {
	Selection Selection `json:"-"`
	Asked     string    `json:"asked"`
	Tables    []string  `json:"tables"` // those whose rows are restored
	// Structure names tables and views that those are made of, which come along without rows.
	Structure []string  `json:"structure_only,omitempty"`
	LeftOut   []LeftOut `json:"left_out,omitempty"`
	Roles     []string  `json:"-"` // that the chosen objects name
	Schemas   []string  `json:"-"` // those of the tables and views that are made
	// Into is the schema of a database in use that the tables go into; empty for a database of their own.
	Into string `json:"into_schema,omitempty"`

	// What is read of the archive, in bytes as stored, and what all of it would be.
	BaseBytes       int64 `json:"base_bytes"`
	BaseBytesAll    int64 `json:"base_bytes_whole"`
	Segments        int   `json:"segments"`
	SegmentsAll     int   `json:"segments_whole"`
	SegmentBytes    int64 `json:"segment_bytes"`
	SegmentBytesAll int64 `json:"segment_bytes_whole"`

	chosen map[string]bool
	// passed are the segments that hold nothing of it, as runs: the first transaction of the first, the last of the last.
	passed []passed
}

type passed struct{ first, last change.Seq }

// LeftOut is an object that belongs to what was chosen, or seems to, and is not restored.
type LeftOut struct {
	Object string `json:"object"`
	Why    string `json:"why"`
}

// Chosen reports whether the rows of a table of the base are restored. A nil Partial takes all.
func (p *Partial) Chosen(schema, name string) bool {
	return p == nil || p.chosen[schema+"."+name]
}

// Passed reports whether the segment that begins with a transaction holds nothing for the restore, by its index.
func (p *Partial) Passed(first change.Seq) bool {
	if p == nil {
		return false
	}
	i, found := slices.BinarySearchFunc(p.passed, first, func(s passed, q change.Seq) int {
		switch {
		case s.last < q:
			return -1
		case s.first > q:
			return 1
		}
		return 0
	})
	return found && p.passed[i].first <= first
}

// Next returns the next stretch of the record to be read behind a transaction, up to a last one: from, to. ok is false
// when nothing behind it is needed. The stretches leave out segments as a whole.
func (p *Partial) Next(after, last change.Seq) (from, to change.Seq, ok bool) {
	from, to = after+1, last
	if p != nil {
		for _, s := range p.passed {
			switch {
			case s.last < from:
			case s.first <= from:
				from = s.last + 1
			default:
				to = min(to, s.first-1)
				return from, to, from <= to
			}
		}
	}
	return from, to, from <= to
}

func (p *Partial) begin(b *archive.Base) {
	p.chosen = make(map[string]bool, len(p.Tables))
	for _, name := range p.Tables {
		p.chosen[name] = true
	}
	p.Asked, p.BaseBytesAll = p.Selection.String(), b.Size()
	p.BaseBytes = p.BaseBytesAll
	for i := range b.Tables {
		t := &b.Tables[i]
		if p.Chosen(t.Schema, t.Name) {
			continue
		}
		for _, c := range t.Chunks {
			p.BaseBytes -= c.Size
		}
	}
}

// pass notes a segment of which nothing is needed.
func (p *Partial) pass(x archive.SegmentIndex) {
	if n := len(p.passed); n > 0 && p.passed[n-1].last+1 == x.First() {
		p.passed[n-1].last = x.Last()
		return
	}
	p.passed = append(p.passed, passed{x.First(), x.Last()})
}

// wants reports whether the restore needs a segment's transactions. A change of definitions may make other names mean the
// chosen tables: it is needed, and everything behind it.
func (p *Plan) wants(d Dialect, t *change.Txn) bool {
	if p.Partial == nil || len(p.Definitions) > 0 {
		return true
	}
	for i := range t.Tables {
		c := t.Tables[i].Table
		if d.Defines(c) && t.Tables[i].Inserts > 0 || p.Partial.Chosen(c.Schema, c.Name) {
			return true
		}
	}
	return false
}

// print adds the lines of the selection to a plan or a report.
func (p *Partial) print(line func(name, format string, args ...any)) {
	line("chosen", "%s: %d tables: %s", p.Asked, len(p.Tables), strings.Join(p.Tables, ", "))
	if p.Into != "" {
		line("goes into", "schema %s of the target, beside what is there", p.Into)
	}
	if len(p.Structure) > 0 {
		line("without rows", "%s: the chosen ones are made of them", strings.Join(p.Structure, ", "))
	}
	line("reads", "%d of %d bytes of the base, %d of %d segments, of %d of %d bytes", p.BaseBytes, p.BaseBytesAll, p.Segments, p.SegmentsAll, p.SegmentBytes, p.SegmentBytesAll)
	for _, l := range p.LeftOut {
		line("left out", "%s: %s", l.Object, l.Why)
	}
}

// UnmatchedError says that a pattern or schema is nothing that the base has.
type UnmatchedError struct {
	Asked string
	Close []string // names that may have been meant
}

// Error implements error.
func (e *UnmatchedError) Error() string {
	s := fmt.Sprintf("%s matches nothing in the base that the restore begins with", e.Asked)
	if len(e.Close) > 0 {
		return s + ": did you mean " + strings.Join(e.Close, " or ") + "?"
	}
	return s + ": `txreel log` shows the names of tables as they are on record"
}
