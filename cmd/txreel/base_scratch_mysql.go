package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"txreel/archive"
	"txreel/restore"
	mysqltarget "txreel/restore/mysql"
	pgtarget "txreel/restore/postgres"
	"txreel/sources"
	"txreel/sources/mysql"
)

// mysqlBase restores the end of the record of MySQL or MariaDB into the server, reads a base of that, and removes it again. Where the last base
// holds all there is, it returns that. The source is not read. An error that wraps pgtarget.ErrOnlyLive says that it must be.
func (s *scratch) mysqlBase(ctx context.Context, ar *archive.Archive, o pgtarget.RollForwardOptions) (*archive.Base, error) {
	url, err := mysqlURL(s.url)
	if err != nil {
		return nil, fmt.Errorf("scratch server: %w", err)
	}
	t, err := mysqltarget.OpenScratch(ctx, url, ar.Identity.Archive, mysqltarget.Options{Serve: s.serve})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	plan, err := s.mysqlPlan(ctx, ar, t)
	if err != nil || plan.Transactions == 0 {
		return plan.Base, err
	}
	release, err := ar.PinBase(ctx, plan.Base, "a base from history by "+whoami()) // whoever may only read goes without
	defer release()
	if errors.Is(err, archive.ErrPruned) {
		return nil, err
	}
	b, err := s.readMySQL(ctx, ar, plan, t, url, o)
	if errors.Is(err, mysqltarget.ErrOnlySource) {
		return nil, fmt.Errorf("%w: %w", pgtarget.ErrOnlyLive, err)
	}
	if err != nil {
		return nil, err
	}
	if err := t.Discard(ctx); err != nil {
		return nil, fmt.Errorf("base %s is made; %w", b.ID, err)
	}
	// One that was gone on with may stand before a base that was taken meanwhile, or in an epoch that has ended.
	behind, err := outdated(ctx, ar, b)
	if err != nil || !behind {
		return b, err
	}
	t.Close()
	return s.mysqlBase(ctx, ar, o)
}

// outdated reports whether the record has a base behind one.
func outdated(ctx context.Context, ar *archive.Archive, b *archive.Base) (bool, error) {
	epoch, err := lastEpoch(ctx, ar)
	if err != nil || epoch != b.Epoch {
		return true, err
	}
	bases, err := ar.Bases(ctx, epoch)
	return slices.ContainsFunc(bases, func(other archive.Base) bool { return other.Seq > b.Seq }), err
}

// mysqlPlan plans to go on where an interrupted run was, unless its base is there, or to the end of the record. The plan is never nil.
func (s *scratch) mysqlPlan(ctx context.Context, ar *archive.Archive, t *mysqltarget.Scratch) (*restore.Plan, error) {
	dialect := mysqltarget.Dialect{Flavor: flavor(ar.Identity.Engine)}
	goal, continued := t.Goal()
	if continued {
		bases, err := ar.Bases(ctx, goal.Epoch)
		if err != nil {
			return &restore.Plan{}, err
		}
		for i := range bases {
			if from := bases[i].From; from != nil && from.Base == goal.Base && bases[i].Seq == goal.Seq {
				continued = false
			}
		}
		if !continued {
			if err := t.Discard(ctx); err != nil {
				return &restore.Plan{}, err
			}
			goal, _ = t.Goal()
		}
	}
	plan, err := restore.MakePlan(ctx, ar, dialect, goal)
	switch {
	case err != nil && continued:
		return &restore.Plan{}, fmt.Errorf("the scratch server holds what an interrupted run has left on the way to transaction %s, and the archive does not let it go on: initialise a fresh server: %w", goal.Seq, err)
	case err != nil:
		return &restore.Plan{}, err
	case continued:
		s.told(fmt.Errorf("an interrupted run has left there what it restored; this one goes on to the same transaction %s", goal.Seq))
	}
	return plan, nil
}

// readMySQL restores what a plan says, and reads and commits a base of that.
func (s *scratch) readMySQL(ctx context.Context, ar *archive.Archive, p *restore.Plan, t *mysqltarget.Scratch, url string, o pgtarget.RollForwardOptions) (*archive.Base, error) {
	if o.Progress == nil {
		o.Progress = func(int64, int64, string) {}
	}
	progress := func(_ restore.Phase, done, total int64, unit string) { o.Progress(done, total, unit) }
	if _, err := restore.Run(ctx, ar, p, t, restore.Options{Log: s.log, Jobs: o.Jobs, SpillDir: o.SpillDir, Progress: progress, Who: whoami()}); err != nil {
		return nil, err
	}
	b, err := archive.NewBase(p.Epoch, o.Reason)
	if err != nil {
		return nil, err
	}
	t.Place(b)
	r := mysql.Restored{From: p.Base, Accounts: t.Accounts, Same: t.Same, EventState: t.EventState, File: t.File, Offset: t.Offset, Doubts: t.Doubts(), Alone: t.Alone}
	return b, mysql.ReadRestored(ctx, ar, b, r, mysql.BaseOptions{
		URL: url, Reason: o.Reason, Jobs: o.Jobs, SpillDir: o.SpillDir,
		Progress: func(p sources.BaseProgress) { o.Progress(p.Done, p.Total, "bytes of the scratch server") },
	})
}
