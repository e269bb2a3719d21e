package main

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/restore"
	pgtarget "txreel/restore/postgres"
	"txreel/sources"
	"txreel/sources/postgres"
)

// scratch is a server on which bases are made that the record alone does not make.
type scratch struct {
	url               string // "" for none
	serve             string // where it reaches this machine; MySQL and MariaDB
	pgDump, pgRestore string
	log               zerolog.Logger
	told              func(why error) // is told why the server is used
}

// discardTimeout bounds how long it takes to remove what was made on a scratch server.
const discardTimeout = 30 * time.Second

// base, where the record alone does not do, and why, restores what a plan says into a database on the server, reads a base of that, and removes the database. The source is not read.
func (s *scratch) base(ctx context.Context, ar *archive.Archive, p *restore.Plan, o pgtarget.RollForwardOptions, why error) (b *archive.Base, err error) {
	s.told(why)
	t, err := pgtarget.OpenScratch(ctx, s.url, p, pgtarget.Options{PgRestore: s.pgRestore, Memory: o.Memory, TempDir: o.SpillDir})
	if err != nil {
		return nil, err
	}
	defer func() {
		rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
		defer cancel()
		err = errors.Join(err, t.Discard(rest))
	}()
	progress := func(_ restore.Phase, done, total int64, unit string) {
		if o.Progress != nil {
			o.Progress(done, total, unit)
		}
	}
	if _, err := restore.Run(ctx, ar, p, t, restore.Options{Log: s.log, Jobs: o.Jobs, SpillDir: o.SpillDir, Progress: progress, Who: whoami()}); err != nil {
		return nil, err
	}
	if b, err = archive.NewBase(p.Epoch, o.Reason); err != nil {
		return nil, err
	}
	b.Seq, b.Position, b.From = p.Seq, p.Cut.Position, &archive.BaseOrigin{Base: p.Base.ID, Seq: p.Base.Seq}
	c := postgres.Copied{From: p.Base, Numbers: t.Numbers, Doubts: t.Exactness}
	if len(p.Definitions) == 0 {
		c.Versions = p.Base.Versions()
	}
	if c.Globals, err = pgtarget.GlobalsAt(ctx, ar, p); err != nil {
		return nil, err
	}
	return b, postgres.CopyBase(ctx, ar, b, c, postgres.BaseOptions{
		URL: t.URL(), BaseRequest: sources.BaseRequest{Reason: o.Reason}, Jobs: o.Jobs, PgDump: s.pgDump, SpillDir: o.SpillDir,
		Progress: func(p sources.BaseProgress) {
			if o.Progress != nil {
				o.Progress(p.Done, p.Total, "blocks of the scratch database")
			}
		},
	})
}
