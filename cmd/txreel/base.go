package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/capture"
	"txreel/restore"
	pgtarget "txreel/restore/postgres"
	"txreel/sources"
)

type baseCmd struct {
	archiveFlag
	Source string `placeholder:"URL" help:"The database, as capture takes it; not needed with --from-history."`
	databaseOptions
	FromHistory bool          `help:"Make it of the last base and the record behind that, and do not read the source (MySQL, MariaDB: with --scratch)."`
	Memory      byteSize      `default:"1GiB" help:"With --from-history: what working that out may take; with less, the record is read several times."`
	Scratch     string        `placeholder:"URL" help:"With --from-history: a server to make it on where the record alone does not tell, such as behind a change of the schema; a database is made there, and removed. MySQL, MariaDB: an empty server of the source's series, which is restored into, and emptied again."`
	Serve       string        `placeholder:"HOST:PORT" help:"MySQL, MariaDB: where a scratch server on another machine reaches this one."`
	Reason      string        `default:"asked for" help:"Why, for the record."`
	Proof       bool          `help:"PostgreSQL: make it a place in the order of commits, so that a restore from another base can be compared with it; takes a free slot, and waits for running write transactions."`
	Schedule    time.Duration `placeholder:"AGE" help:"Stay, and take a base whenever the last one is this old, such as 24h (beside a capture with --base-every 0)."`
	JSON        bool          `help:"Print JSON."`
}

func (c *baseCmd) database() database {
	return (&databaseFlags{sourceFlag: sourceFlag{Source: c.Source}, databaseOptions: c.databaseOptions}).database()
}

// scheduleRetry is how long a base on schedule waits after one that failed.
const scheduleRetry = time.Minute

// Run implements the command.
func (c *baseCmd) Run(a *app) error {
	if c.Schedule < 0 {
		return &usageError{"--schedule takes a duration such as 24h"}
	}
	if c.Source == "" && !c.FromHistory {
		return &usageError{"name the database to read with --source, or let the archive do with --from-history"}
	}
	if c.Proof && c.FromHistory {
		return &usageError{"--proof is for what the source holds; --from-history does not look at it"}
	}
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	if c.Scratch != "" && !c.FromHistory {
		return &usageError{"--scratch goes with --from-history"}
	}
	if c.FromHistory {
		if ar.Identity.Engine != enginePostgres && c.Scratch == "" {
			return &usageError{"a record of " + ar.Identity.Engine + " is made into a base on a server: name an empty one with --scratch"}
		}
		boundMemory(int64(c.Memory))
	}
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
	epoch, err := c.epoch(ctx, ar)
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

// epoch returns the epoch that gets the base.
func (c *baseCmd) epoch(ctx context.Context, ar *archive.Archive) (uint64, error) {
	if !c.FromHistory {
		return liveEpoch(ctx, ar, c.database())
	}
	return lastEpoch(ctx, ar)
}

// take takes one base, and says so.
func (c *baseCmd) take(a *app, ar *archive.Archive) error {
	if c.FromHistory {
		return c.rollForward(a, ar)
	}
	db := c.database()
	epoch, err := liveEpoch(a.ctx, ar, db)
	if err != nil {
		return err
	}
	bars := newBars(a.stderr, c.JSON)
	started := time.Now()
	b, err := db.takeBase(a.ctx, ar, epoch, sources.BaseRequest{Reason: c.Reason, Proof: c.Proof}, func(p sources.BaseProgress) {
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
	return c.print(a, b, started)
}

// rollForward makes one base of the record, and says so.
func (c *baseCmd) rollForward(a *app, ar *archive.Archive) error {
	bars := newBars(a.stderr, c.JSON)
	started := time.Now()
	at := &scratch{url: c.Scratch, serve: c.Serve, pgDump: c.PgDump, pgRestore: c.PgRestore, log: zerolog.Nop(), told: func(why error) {
		fmt.Fprintf(a.stderr, "made on the scratch server, since %v\n", why)
	}}
	b, err := rollForward(a.ctx, ar, at, pgtarget.RollForwardOptions{
		Jobs: c.BaseJobs, Memory: int64(c.Memory), SpillDir: c.SpillDir, Reason: c.Reason,
		Progress: func(done, total int64, unit string) {
			bars.set("base", done, total, fmt.Sprintf("%s of %s %s", humanize.Comma(done), humanize.Comma(total), unit))
		},
	})
	bars.close()
	if err != nil {
		return err
	}
	return c.print(a, b, started)
}

// rollForward makes a base of the last one of the record and what follows it, or returns that if it holds all there is. An error
// that wraps pgtarget.ErrOnlyLive says that the record does not tell enough, and that there is no scratch server which would do.
func rollForward(ctx context.Context, ar *archive.Archive, at *scratch, o pgtarget.RollForwardOptions) (*archive.Base, error) {
	if ar.Identity.Engine != enginePostgres {
		return at.mysqlBase(ctx, ar, o)
	}
	plan, err := restore.MakePlan(ctx, ar, pgtarget.Dialect{}, restore.Goal{Kind: restore.Latest})
	if errors.Is(err, restore.ErrDefinitionChanged) {
		return nil, fmt.Errorf("%w: %w", pgtarget.ErrOnlyLive, err)
	}
	if err != nil {
		return nil, err
	}
	release, err := ar.PinBase(ctx, plan.Base, "a base from history by "+whoami())
	defer release()
	if errors.Is(err, archive.ErrPruned) {
		return nil, err
	}
	b, err := pgtarget.RollForward(ctx, ar, plan, o)
	if errors.Is(err, pgtarget.ErrOnlyLive) && at.url != "" {
		return at.base(ctx, ar, plan, o, err)
	}
	if b == nil && err == nil {
		return plan.Base, nil
	}
	return b, err
}

// print says which base there is now.
func (c *baseCmd) print(a *app, b *archive.Base, started time.Time) error {
	if c.JSON {
		return writeJSON(a.stdout, baseLine(b))
	}
	l := baseLine(b)
	_, err := fmt.Fprintf(a.stdout, "base %s %s: %d tables, %s rows, %s, in %s\n", l.ID, l.place, l.Tables, humanize.Comma(l.Rows), humanize.IBytes(uint64(l.Bytes)), time.Since(started).Round(time.Millisecond))
	return err
}

func lastEpoch(ctx context.Context, ar *archive.Archive) (uint64, error) {
	epochs, err := ar.Epochs(ctx)
	if err != nil {
		return 0, err
	}
	if len(epochs) == 0 {
		return 0, errors.New("the archive has no epoch yet: start `txreel capture` first; it takes the first base by itself")
	}
	return epochs[len(epochs)-1].Number, nil
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
	last, err := lastEpoch(ctx, ar)
	if err != nil {
		return 0, err
	}
	gap, err := ar.Gap(ctx, last)
	if err == nil && gap != nil {
		err = fmt.Errorf("%w: epoch %d ends in one and nothing is being recorded: run capture with --new-epoch first", capture.ErrGap, last)
	}
	return last, err
}
