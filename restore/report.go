package restore

import (
	"encoding/json"
	"fmt"
	"strings"

	"txreel/archive"
	"txreel/change"
)

// Point is a transaction of the record in plans and reports.
type Point struct {
	Seq        change.Seq      `json:"seq"`
	Kind       string          `json:"kind"`
	XID        string          `json:"xid,omitempty"`
	Position   change.Position `json:"position,omitempty"`
	CommitTime string          `json:"commit_time,omitempty"` // RFC 3339, UTC
}

func point(t *change.Txn) *Point {
	if t == nil {
		return nil
	}
	if t.Kind == 0 { // see Plan.Next
		return &Point{Seq: t.Seq, Kind: "damaged"}
	}
	return &Point{Seq: t.Seq, Kind: t.Kind.String(), XID: t.XID, Position: t.Position, CommitTime: t.CommitTime.String()}
}

// String prints the point on one line.
func (p *Point) String() string {
	s := fmt.Sprintf("%s %s", p.Kind, p.Seq)
	if p.CommitTime == "" {
		return fmt.Sprintf("transaction %s, which cannot be read", p.Seq)
	}
	if p.XID != "" {
		s += ", id " + p.XID
	}
	return fmt.Sprintf("%s, position %s, committed %s", s, p.Position, p.CommitTime)
}

// BasePoint is the base of a plan.
type BasePoint struct {
	ID       string          `json:"id"`
	Seq      change.Seq      `json:"seq"`
	Position change.Position `json:"position"`
	Finished string          `json:"finished"`
	Server   string          `json:"server"`
	Tables   int             `json:"tables"`
}

func basePoint(b *archive.Base) BasePoint {
	return BasePoint{ID: b.ID, Seq: b.Seq, Position: b.Position, Finished: b.Finished, Server: b.Server, Tables: len(b.Tables)}
}

// mends names the partial bases.
func (p *Plan) mends() []BasePoint {
	var all []BasePoint
	for i := range p.Mends {
		all = append(all, basePoint(&p.Mends[i]))
	}
	return all
}

// MarshalJSON adds base, cut and next in the form of reports.
func (p *Plan) MarshalJSON() ([]byte, error) {
	type plain Plan
	return json.Marshal(struct {
		*plain
		Base     BasePoint          `json:"base"`
		Proof    string             `json:"proof,omitempty"` // the base at the cut
		Mends    []BasePoint        `json:"partial_bases,omitempty"`
		Cut      *Point             `json:"chosen"`
		Next     *Point             `json:"next_excluded"`
		Coverage []archive.Coverage `json:"coverage"`
	}{(*plain)(p), basePoint(p.Base), p.proof(), p.mends(), point(p.Cut), point(p.Next), p.Base.Coverage})
}

// proof names the base at the cut; "" when there is none.
func (p *Plan) proof() string {
	if p.Proof == nil {
		return ""
	}
	return p.Proof.ID
}

// String prints the plan for people.
func (p *Plan) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-14s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("archive", "%s, epoch %d, database %s", p.Store, p.Epoch, p.Database)
	line("asked for", "%s", p.Goal)
	if c := point(p.Cut); c != nil {
		line("restores to", "%s", c)
	} else {
		line("restores to", "the base snapshot, as the epoch began")
	}
	if n := point(p.Next); n != nil {
		line("leaves out", "%s, and all after it", n)
	} else {
		line("leaves out", "nothing that is recorded")
	}
	line("base", "%s %s, finished %s, server %s: %d tables, %d rows, %d bytes stored",
		p.Base.ID, p.Base.Place(), p.Base.Finished, p.Base.Server, len(p.Base.Tables), p.BaseRows, p.BaseBytes)
	if p.Partial != nil {
		p.Partial.print(line)
	}
	if p.Proof != nil {
		line("proof", "base %s was taken at this very point: the result is compared with it", p.Proof.ID)
	}
	line("replay", "%d transactions, %d rows, %d bytes, from %d segments of %d bytes", p.Transactions, p.Rows, p.Bytes, p.Segments, p.SegmentBytes)
	line("estimate", "%s", p.Estimate)
	if n := len(p.Definitions); n > 0 {
		line("definitions", "%d of them change the schema, and say how", n)
	}
	for i := range p.Mends {
		m := &p.Mends[i]
		line("partial base", "%s after %s: %d tables, put in place there: %s", m.ID, m.Seq, len(m.Tables), m.Reason)
	}
	if text := p.protection(); text != "" {
		line("zero-loss", "%s", text)
	}
	if len(p.Roles) > 0 {
		line("roles", "%s: what of them the target lacks is made without login, password or memberships; --globals makes it as it was", strings.Join(p.Roles, ", "))
	}
	if p.Globals != nil {
		p.Globals.print(&b, false)
	}
	return b.String()
}

// protection says in a sentence what zero-loss mode promises of the point and of what the archive does not hold.
func (p *Plan) protection() string {
	n := len(p.Protection)
	if n == 0 {
		return ""
	}
	text := "COMMIT of the chosen transaction did not wait for the archive"
	if archive.Protected(p.Protection, p.Seq) {
		text = "COMMIT of the chosen transaction waited for the archive"
	}
	if p.Next != nil {
		return text
	}
	if last := p.Protection[n-1]; !last.Protected {
		return text + fmt.Sprintf("; from %s on none did (%s): some that are not recorded may have been lost", last.From, last.Reason)
	}
	return text + "; every transaction that was acknowledged since is recorded"
}

// PhaseTime is how long a phase took.
type PhaseTime struct {
	Phase   Phase   `json:"phase"`
	Seconds float64 `json:"seconds"`
}

// Report says what a finished restore did.
type Report struct {
	Archive  string         `json:"archive"`
	Epoch    uint64         `json:"epoch"`
	Goal     Goal           `json:"goal"`
	Base     BasePoint      `json:"base"`
	Cut      *Point         `json:"chosen"`
	Next     *Point         `json:"next_excluded"`
	Resumed  bool           `json:"resumed"` // continued an interrupted restore
	Replayed uint64         `json:"replayed_transactions"`
	Spans    []archive.Span `json:"protection,omitempty"`
	ZeroLoss string         `json:"zero_loss,omitempty"` // what the spans mean for the point
	Rows     uint64         `json:"replayed_rows"`
	// Folded is the transaction up to which the target was given only what all of them together have come to.
	Folded change.Seq `json:"folded_to,omitempty"`
	// Merged is how many transactions behind that were reduced to what they have come to as well, between changes of definitions; the others
	// were replayed one by one.
	Merged int64 `json:"merged,omitempty"`
	// Overwritten is how many updates of rows were not replayed, by this run, since a later transaction overwrites them: of MySQL and MariaDB.
	Overwritten int64       `json:"overwritten_rows,omitempty"`
	Proof       string      `json:"proof,omitempty"` // the base at the cut, which the tables were compared with
	Mends       []BasePoint `json:"partial_bases,omitempty"`
	Tables      []TableRows `json:"tables"`
	// Partial says what of the database was restored, if not all.
	Partial *Partial `json:"partial,omitempty"`
	// Sequences says what the values of sequences rest on, where the log does not tell them.
	Sequences *Sequences         `json:"sequences,omitempty"`
	Globals   *Globals           `json:"globals,omitempty"` // with roles and settings, if they were asked for
	Coverage  []archive.Coverage `json:"coverage"`
	Warnings  []string           `json:"warnings"`
	Phases    []PhaseTime        `json:"phases"`
	Seconds   float64            `json:"seconds"`
	Expected  float64            `json:"expected_seconds"` // by the plan's estimate
}

func newReport(p *Plan) *Report {
	return &Report{
		Archive: p.Archive, Epoch: p.Epoch, Goal: p.Goal, Base: basePoint(p.Base), Mends: p.mends(), Cut: point(p.Cut), Next: point(p.Next),
		Replayed: p.Transactions, Rows: p.Rows, Coverage: p.Base.Coverage,
		Spans: p.Protection, ZeroLoss: p.protection(), Proof: p.proof(), Partial: p.Partial, Expected: p.Estimate.Seconds,
	}
}

// String prints the report for people.
func (r *Report) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-14s %s\n", name, fmt.Sprintf(format, args...))
	}
	if r.Cut != nil {
		line("restored to", "%s", r.Cut)
	} else {
		line("restored to", "the base snapshot %s", r.Base.ID)
	}
	if r.Next != nil {
		line("left out", "%s, and all after it", r.Next)
	} else {
		line("left out", "nothing that is recorded")
	}
	if r.Partial != nil {
		r.Partial.print(line)
	}
	line("replayed", "%d transactions, %d rows on base %s", r.Replayed, r.Rows, r.Base.ID)
	if r.Folded > 0 {
		line("folded", "up to %s: of what they changed often only the last was written", r.Folded)
	}
	if r.Merged > 0 {
		line("merged", "%d transactions behind a change of definitions: of what they changed often only the last was written", r.Merged)
	}
	if r.Overwritten > 0 {
		line("overwritten", "%d updates of rows, which were not replayed: later transactions overwrite them", r.Overwritten)
	}
	for _, m := range r.Mends {
		line("partial base", "%s after %s: %d tables, put in place there", m.ID, m.Seq, m.Tables)
	}
	if r.ZeroLoss != "" {
		line("zero-loss", "%s", r.ZeroLoss)
	}
	by := make(map[Evidence]int)
	for _, t := range r.Tables {
		by[t.Verified]++
		line("table", "%s: %d rows, verified: %s", t.Table, t.Rows, t.Verified)
	}
	line("verified", "%d tables by content, %d by the number of rows, %d are there", by[ByContent], by[ByRows], by[ByPresence])
	if s := r.Sequences; s != nil {
		for _, text := range s.lines() {
			line("sequences", "%s", text)
		}
	}
	if r.Globals != nil {
		r.Globals.print(&b, true)
	}
	for _, c := range r.Coverage {
		line("coverage", "%s: %s: %s", c.Class, c.What, c.Detail)
	}
	for _, w := range r.Warnings {
		line("warning", "%s", w)
	}
	for _, p := range r.Phases {
		line("took", "%s: %.2f s", p.Phase, p.Seconds)
	}
	line("took", "%.2f s in all; %.2f s were expected of two cores", r.Seconds, r.Expected)
	return b.String()
}
