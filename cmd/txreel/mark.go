package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"txreel/archive"
	"txreel/change"
)

type markCmd struct {
	archiveFlag
	sourceFlag
	Name    string        `arg:"" help:"Name of the mark: letters, digits, dots, dashes and underscores."`
	Timeout time.Duration `default:"1m" help:"How long to wait until the mark is durable in the archive."`
	JSON    bool          `help:"Print JSON."`
}

// Run implements the command.
func (c *markCmd) Run(a *app) error {
	if err := archive.CheckMarkName(c.Name); err != nil {
		return &usageError{err.Error()}
	}
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	m, err := c.mark(a.ctx, ar)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(a.stdout, m)
	}
	_, err = fmt.Fprintf(a.stdout, "mark %s is durable: transaction %s, Seq %s, %s\n", m.Name, m.XID, m.Seq, m.CommitTime)
	return err
}

func (c *markCmd) mark(ctx context.Context, ar *archive.Archive) (archive.Mark, error) {
	db := (&databaseFlags{sourceFlag: c.sourceFlag}).database()
	epoch, err := liveEpoch(ctx, ar, db)
	if err != nil {
		return archive.Mark{}, err
	}
	m := archive.Mark{Name: c.Name, Epoch: epoch}
	if _, err := ar.Mark(ctx, m.Epoch, m.Name); err == nil {
		return m, fmt.Errorf("mark %q exists already in epoch %d: marks never move; choose another name", m.Name, m.Epoch)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	before, err := ar.Tail(ctx, m.Epoch)
	if err != nil {
		return m, err
	}
	look, err := db.mark(ctx, m.Name)
	if err != nil {
		return m, err
	}
	wait, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	if err := find(wait, ar, look, &m, before.Seq+1); err != nil {
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			err = fmt.Errorf("the mark was written but the archive does not hold it after %s: is a capture running? See `txreel status`", c.Timeout)
		}
		return m, err
	}
	return m, ar.CreateMark(ctx, m)
}

// find waits until the archive holds the mark, at from or behind it.
func find(ctx context.Context, ar *archive.Archive, look marker, m *archive.Mark, from change.Seq) error {
	for {
		if found, err := look(ctx, ar, m, &from); found || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}
