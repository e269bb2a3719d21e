package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"txreel/archive"
	"txreel/capture"
	"txreel/sources/postgres"
)

type baseCmd struct {
	archiveFlag
	sourceFlag
	Publication string `default:"txreel" help:"Name of the publication."`
	baseFlags
	SpillDir string `placeholder:"DIR" help:"Where large parts wait to be stored (default: the system's temporary folder)."`
	Reason   string `default:"asked for" help:"Why, for the record."`
	JSON     bool   `help:"Print JSON."`
}

// Run implements the command.
func (c *baseCmd) Run(a *app) error {
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	epoch, err := liveEpoch(a.ctx, ar, c.Source)
	if err != nil {
		return err
	}
	opts := c.options(c.Source, c.Publication, c.SpillDir)
	opts.Reason = c.Reason
	bars := newBars(a.stderr, c.JSON)
	opts.Progress = func(p postgres.BaseProgress) {
		bars.set("base", p.Pages, p.TotalPages, fmt.Sprintf("%s rows, %s", humanize.Comma(p.Rows), humanize.IBytes(uint64(p.Bytes))))
	}
	started := time.Now()
	b, err := postgres.TakeBase(a.ctx, ar, epoch, opts)
	bars.close()
	if err != nil {
		return err
	}
	if !c.JSON {
		fmt.Fprintf(a.stderr, "waiting for the capture to pass %s\n", b.Position)
	}
	if err := postgres.FinishBase(a.ctx, ar, b, nil); err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(a.stdout, baseLine(b))
	}
	l := baseLine(b)
	_, err = fmt.Fprintf(a.stdout, "base %s after %s: %d tables, %s rows, %s, in %s\n", l.ID, l.Seq, l.Tables, humanize.Comma(l.Rows), humanize.IBytes(uint64(l.Bytes)), time.Since(started).Round(time.Millisecond))
	return err
}

// liveEpoch returns the epoch that a capture of the source is writing now, for
// commands that add to the record of a live database.
func liveEpoch(ctx context.Context, ar *archive.Archive, source string) (uint64, error) {
	id, err := postgres.Identify(ctx, source)
	if err != nil {
		return 0, err
	}
	if ar.Identity.System != id.System || ar.Identity.Database != id.Database {
		return 0, fmt.Errorf("%w: %s holds system %s database %q, the source is system %s database %q",
			archive.ErrOtherDatabase, ar.Store, ar.Identity.System, ar.Identity.Database, id.System, id.Database)
	}
	epochs, err := ar.Epochs(ctx)
	if err != nil {
		return 0, err
	}
	if len(epochs) == 0 {
		return 0, errors.New("the archive has no epoch yet: start `txreel capture` first; it takes the first base by itself")
	}
	last := epochs[len(epochs)-1].Number
	gap, err := ar.Gap(ctx, last)
	if err == nil && gap != nil {
		err = fmt.Errorf("%w: epoch %d ends in one and nothing is being recorded: run capture with --new-epoch first", capture.ErrGap, last)
	}
	return last, err
}
