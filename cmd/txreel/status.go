package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"txreel/archive"
	"txreel/change"
	"txreel/sources"
)

type statusCmd struct {
	archiveFlag
	Source string `placeholder:"URL" help:"Also look at the source: how much log it keeps, and for how long."`
	Slot   string `default:"txreel" help:"PostgreSQL: name of the replication slot."`
	JSON   bool   `help:"Print JSON."`
}

// statusReport is what status prints.
type statusReport struct {
	Archive  archive.Identity   `json:"archive"`
	Store    string             `json:"store"`
	Epochs   []epochStatus      `json:"epochs"`
	Holds    []archive.Hold     `json:"holds,omitempty"` // what prune has to leave alone
	Source   *sources.Retention `json:"source,omitempty"`
	AgeSecs  float64            `json:"age_seconds"` // since the last moment on record
	Recorded string             `json:"recorded_until,omitempty"`
}

type epochStatus struct {
	Epoch    uint64             `json:"epoch"`
	Cause    string             `json:"cause"`
	Started  string             `json:"started"`
	Pruned   *archive.Pruned    `json:"pruned,omitempty"` // what was removed of its beginning
	From     string             `json:"from,omitempty"`   // commit time of the first transaction that is kept
	Until    string             `json:"until,omitempty"`  // latest commit time
	Seq      change.Seq         `json:"seq"`
	Position change.Position    `json:"position"`
	Gap      *archive.Gap       `json:"gap,omitempty"`
	Bases    []baseStatus       `json:"bases"`
	Marks    []archive.Mark     `json:"marks,omitempty"`
	Coverage []archive.Coverage `json:"coverage,omitempty"`
	// Protection says for which transactions COMMIT waited for the archive.
	Protection []archive.Span `json:"protection,omitempty"`
}

type baseStatus struct {
	ID  string     `json:"id"`
	Seq change.Seq `json:"seq"`
	// Ahead is how many transactions behind Seq it holds too, up to Upto; restores from it end there or later.
	Ahead    int        `json:"ahead,omitempty"`
	Upto     change.Seq `json:"upto"`
	Reason   string     `json:"reason"`
	Finished string     `json:"finished"`
	Tables   int        `json:"tables"`
	Rows     int64      `json:"rows"`
	Bytes    int64      `json:"bytes"`
	// Partial says that it holds some tables only, which a restore from a base of before puts in place.
	Partial bool `json:"partial,omitempty"`
	// From is the base that it was made of, with the record behind that; nil when the source was read.
	From *archive.BaseOrigin `json:"from,omitempty"`

	place string
}

func baseLine(b *archive.Base) baseStatus {
	s := baseStatus{ID: b.ID, Seq: b.Seq, Ahead: len(b.Ahead), Upto: b.Upto(), Partial: b.Partial, From: b.From, Reason: b.Reason, Finished: b.Finished, Tables: len(b.Tables), Bytes: b.Size(), place: b.Place()}
	for i := range b.Tables {
		s.Rows += b.Tables[i].Rows
	}
	return s
}

// Run implements the command.
func (c *statusCmd) Run(a *app) error {
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	r, err := c.report(a.ctx, ar)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(a.stdout, r)
	}
	return r.print(a)
}

func (c *statusCmd) report(ctx context.Context, ar *archive.Archive) (*statusReport, error) {
	r := &statusReport{Archive: ar.Identity, Store: ar.Store.String(), Epochs: []epochStatus{}}
	epochs, err := ar.Epochs(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range epochs {
		s, err := epochReport(ctx, ar, e)
		if err != nil {
			return nil, err
		}
		r.Epochs = append(r.Epochs, s)
	}
	holds, err := ar.Holds(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range holds {
		if !h.Lifted {
			r.Holds = append(r.Holds, h)
		}
	}
	if n := len(r.Epochs); n > 0 && r.Epochs[n-1].Until != "" {
		r.Recorded = r.Epochs[n-1].Until
		tail, err := ar.Tail(ctx, epochs[n-1].Number)
		if err != nil {
			return nil, err
		}
		r.AgeSecs = time.Since(time.UnixMicro(int64(tail.Latest))).Seconds()
	}
	if c.Source == "" {
		return r, nil
	}
	var held change.Position
	if n := len(r.Epochs); n > 0 {
		held = r.Epochs[n-1].Position
	}
	flags := &databaseFlags{sourceFlag: sourceFlag{Source: c.Source}, databaseOptions: databaseOptions{slotFlags: slotFlags{Slot: c.Slot}}}
	r.Source, err = flags.database().retention(ctx, held)
	return r, err
}

func epochReport(ctx context.Context, ar *archive.Archive, e archive.Epoch) (epochStatus, error) {
	s := epochStatus{Epoch: e.Number, Cause: e.Cause, Started: e.Started, Bases: []baseStatus{}}
	tail, err := ar.Tail(ctx, e.Number)
	if err != nil {
		return s, err
	}
	s.Seq, s.Position = tail.Seq, tail.Position
	if s.Pruned, err = ar.Pruned(ctx, e.Number); err != nil {
		return s, err
	}
	if tail.Seq > 0 {
		s.Until = tail.Latest.String()
		first, ok, err := ar.Lookup(ctx, e.Number, s.Pruned.From())
		if err != nil {
			return s, err
		}
		if ok {
			s.From = first.CommitTime.String()
		}
	}
	if s.Gap, err = ar.Gap(ctx, e.Number); err != nil {
		return s, err
	}
	bases, err := ar.Bases(ctx, e.Number)
	if err != nil {
		return s, err
	}
	for i := range bases {
		s.Bases = append(s.Bases, baseLine(&bases[i]))
		s.Coverage = bases[i].Coverage
	}
	parts, err := ar.PartialBases(ctx, e.Number)
	if err != nil {
		return s, err
	}
	for i := range parts {
		s.Bases = append(s.Bases, baseLine(&parts[i]))
	}
	slices.SortStableFunc(s.Bases, func(a, b baseStatus) int { return cmp.Compare(a.Seq, b.Seq) })
	protections, err := ar.Protections(ctx, e.Number)
	if err != nil {
		return s, err
	}
	s.Protection = archive.Spans(protections)
	s.Marks, err = ar.Marks(ctx, e.Number)
	return s, err
}

// shownSpans is how many of an epoch's spans a person is shown.
const shownSpans = 6

func printSpans(w io.Writer, spans []archive.Span) {
	if skipped := len(spans) - shownSpans; skipped > 0 {
		fmt.Fprintf(w, "  zero-loss  %d more spans before these: --json lists all\n", skipped)
		spans = spans[skipped:]
	}
	for _, s := range spans {
		state, to := "NOT protected", "on"
		if s.Protected {
			state = "protected"
		}
		if s.To != 0 {
			to = "to " + s.To.String()
		}
		fmt.Fprintf(w, "  zero-loss  %s from %s %s, noted %s: %s\n", state, s.From, to, s.Noted, s.Reason)
	}
}

func (r *statusReport) print(a *app) error {
	w := a.stdout
	fmt.Fprintf(w, "archive   %s  (%s, system %s, database %s)\n", r.Store, r.Archive.Engine, r.Archive.System, r.Archive.Database)
	for i := range r.Holds {
		fmt.Fprintf(w, "hold      %s\n", holdText(&r.Holds[i]))
	}
	for _, e := range r.Epochs {
		fmt.Fprintf(w, "\nepoch %d   began %s (%s)\n", e.Epoch, e.Started, e.Cause)
		if p := e.Pruned; p != nil {
			fmt.Fprintf(w, "  pruned  up to %s (%s), on %s by %s\n", p.Tail.Seq, p.Tail.Latest, p.On, p.By)
		}
		switch {
		case e.Seq > 0 && e.From == "":
			fmt.Fprintln(w, "  record  nothing any more")
		case e.Seq > 0:
			fmt.Fprintf(w, "  record  %s to %s, Seq %s at %s\n", e.From, e.Until, e.Seq, e.Position.Brief())
		default:
			fmt.Fprintln(w, "  record  nothing yet")
		}
		for _, b := range e.Bases {
			what := "base   "
			if b.Partial {
				what = "partial"
			}
			why := b.Reason
			if b.From != nil {
				why += "; made of base " + b.From.Base + " and the record"
			}
			fmt.Fprintf(w, "  %s %s %s: %d tables, %s rows, %s (%s)\n", what, b.ID, b.place, b.Tables, humanize.Comma(b.Rows), humanize.IBytes(uint64(b.Bytes)), why)
		}
		if len(e.Bases) == 0 && (e.Pruned == nil || e.From != "") {
			fmt.Fprintln(w, "  base    none: nothing of this epoch can be restored yet")
		}
		for _, m := range e.Marks {
			fmt.Fprintf(w, "  mark    %s at %s (%s)\n", m.Name, m.Seq, m.CommitTime)
		}
		printSpans(w, e.Protection)
		if e.Gap != nil {
			fmt.Fprintf(w, "  GAP     behind %s, found %s: %s\n", e.Gap.Tail.Position.Brief(), e.Gap.Detected, e.Gap.Detail)
		}
	}
	if n := len(r.Epochs); n > 0 && len(r.Epochs[n-1].Coverage) > 0 {
		fmt.Fprintln(w, "\ncoverage, as of the last base")
		for _, c := range r.Epochs[n-1].Coverage {
			fmt.Fprintf(w, "  %-8s %s: %s\n", c.Class, c.What, c.Detail)
		}
	}
	if r.Recorded != "" {
		fmt.Fprintf(w, "\nrecorded until %s, %s ago\n", r.Recorded, time.Duration(r.AgeSecs*float64(time.Second)).Round(time.Second))
	}
	if r.Source != nil {
		fmt.Fprintln(w, r.Source.Text)
	}
	return nil
}
