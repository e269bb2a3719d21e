package main

import (
	"fmt"
	"io"

	"github.com/dustin/go-humanize"

	"txreel/archive"
)

type verifyCmd struct {
	archiveFlag
	Full  bool   `help:"Read every byte of every object again."`
	Epoch uint64 `placeholder:"N" help:"Check this epoch only."`
	JSON  bool   `help:"Print JSON."`
}

// Run implements the command.
func (c *verifyCmd) Run(a *app) error {
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	bars := newBars(a.stderr, c.JSON)
	report, err := ar.Verify(a.ctx, archive.VerifyOptions{Full: c.Full, Epoch: c.Epoch, Progress: func(done, total int64) {
		bars.set("verify", done, total, humanize.Comma(done)+" transactions")
	}})
	bars.close()
	if c.JSON {
		if err2 := writeJSON(a.stdout, report); err == nil {
			err = err2
		}
		return err
	}
	printVerified(a.stdout, report)
	return err
}

func printVerified(w io.Writer, r *archive.VerifyReport) {
	for _, e := range r.Epochs {
		fmt.Fprintf(w, "epoch %d (%s): %s segments, %s transactions, %s rows, %s, %d bases, %d marks\n", e.Epoch, e.Cause,
			humanize.Comma(e.Segments), humanize.Comma(e.Transactions), humanize.Comma(int64(e.Rows)), humanize.IBytes(uint64(e.Bytes)), e.Bases, e.Marks)
		if p := e.Pruned; p != nil {
			fmt.Fprintf(w, "  complete from %s: what came before, up to %s at %s, was pruned on %s by %s\n", p.From(), p.Tail.Latest, p.Tail.Position.Brief(), p.On, p.By)
		}
		if e.First != nil && e.Last != nil {
			fmt.Fprintf(w, "  from %s (%s) to %s (%s)\n", e.First.Seq, e.First.CommitTime, e.Last.Seq, e.Last.CommitTime)
		}
	}
	line := func(what string, p archive.Problem) {
		fmt.Fprintf(w, "%s %s", what, p.Key)
		if p.Offset > 0 {
			fmt.Fprintf(w, " at byte %d", p.Offset)
		}
		fmt.Fprintf(w, ": %s\n", p.Detail)
	}
	for _, p := range r.Notes {
		line("note:", p)
	}
	for _, p := range r.Problems {
		line("PROBLEM:", p)
	}
	how := "hashes of indexes, chain, numbering, bases, rollups and marks"
	if r.Full {
		how = "every byte"
	}
	fmt.Fprintf(w, "checked %s: %d problems, %s read\n", how, int64(len(r.Problems))+r.MoreProblems, humanize.IBytes(uint64(r.BytesRead)))
}
