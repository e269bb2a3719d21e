package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"txreel/archive"
	"txreel/capture"
	"txreel/sources"
)

type baseCmd struct {
	archiveFlag
	databaseFlags
	Reason   string        `default:"asked for" help:"Why, for the record."`
	Schedule time.Duration `placeholder:"AGE" help:"Stay, and take a base whenever the last one is this old, such as 24h (beside a capture with --base-every 0)."`
	JSON     bool          `help:"Print JSON."`
}

// scheduleRetry is how long a base on schedule waits after one that failed.
const scheduleRetry = time.Minute

// Run implements the command.
func (c *baseCmd) Run(a *app) error {
	if c.Schedule < 0 {
		return &usageError{"--schedule takes a duration such as 24h"}
	}
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	if c.Schedule == 0 {
		return c.take(a, ar)
	}
	for {
		left, err := c.left(a.ctx, ar)
		if err == nil && left <= 0 {
			if err = c.take(a, ar); err == nil {
				continue
			}
		}
		if err != nil && a.ctx.Err() == nil {
			fmt.Fprintf(a.stderr, "txreel: %v; the next try is in %s\n", err, scheduleRetry)
			left = scheduleRetry
		}
		select {
		case <-a.ctx.Done():
			return nil // it was to stay until it was told to go
		case <-time.After(left):
		}
	}
}

// left is how long it takes until the last base of the record is as old as the schedule lets it become.
func (c *baseCmd) left(ctx context.Context, ar *archive.Archive) (time.Duration, error) {
	epoch, err := liveEpoch(ctx, ar, c.database())
	if err != nil {
		return 0, err
	}
	bases, err := ar.Bases(ctx, epoch)
	if err != nil || len(bases) == 0 {
		return 0, err
	}
	last := &bases[len(bases)-1]
	started, err := time.Parse(time.RFC3339, last.Started)
	if err != nil {
		return 0, fmt.Errorf("%w: manifest of base %s: when it was started: %w", archive.ErrCorrupt, last.ID, err)
	}
	return time.Until(started.Add(c.Schedule)), nil
}

// take takes one base, and says so.
func (c *baseCmd) take(a *app, ar *archive.Archive) error {
	db := c.database()
	epoch, err := liveEpoch(a.ctx, ar, db)
	if err != nil {
		return err
	}
	bars := newBars(a.stderr, c.JSON)
	started := time.Now()
	b, err := db.takeBase(a.ctx, ar, epoch, sources.BaseRequest{Reason: c.Reason}, func(p sources.BaseProgress) {
		bars.set("base", p.Done, p.Total, fmt.Sprintf("%s rows, %s", humanize.Comma(p.Rows), humanize.IBytes(uint64(p.Bytes))))
	})
	bars.close()
	if err != nil {
		return err
	}
	if !c.JSON {
		fmt.Fprintf(a.stderr, "waiting for the capture to pass %s\n", b.Position.Brief())
	}
	if err := db.finishBase(a.ctx, ar, b, nil); err != nil {
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
func liveEpoch(ctx context.Context, ar *archive.Archive, db database) (uint64, error) {
	id, err := db.identify(ctx)
	if err != nil {
		return 0, err
	}
	if err := db.belongs(ctx, ar, id); err != nil {
		return 0, err
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
