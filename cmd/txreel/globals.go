package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/change"
	"txreel/sources/postgres"
)

// globalsWatch puts roles and settings on record when they change. No log tells of that, so it looks from time to time. Nothing waits
// for it: while source or store are away it looks again later.
type globalsWatch struct {
	archive *archive.Archive
	epoch   uint64
	source  *postgresDatabase
	every   time.Duration
	log     zerolog.Logger

	// Of run's goroutine.
	known bool             // last was read from the archive
	last  *archive.Globals // on record; nil when there is none in the epoch
	same  change.Position  // where the source was last seen as last says; empty where that is not known
	said  string           // what was warned of, so that it is said once
}

// run looks until ctx ends.
func (w *globalsWatch) run(ctx context.Context) {
	for {
		err := w.look(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			w.said = ""
		case err.Error() != w.said:
			w.said = err.Error()
			w.log.Warn().Err(err).Msg("roles and settings not recorded; a restore knows them as of the last time")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.every):
		}
	}
}

func (w *globalsWatch) look(ctx context.Context) (err error) {
	if !w.known {
		if w.last, err = w.archive.LastGlobals(ctx, w.epoch); err != nil {
			return err
		}
		w.known, w.same = true, ""
	}
	hash := ""
	if w.last != nil {
		hash = w.last.Hash
	}
	var look *postgres.GlobalsLook
	err = w.source.connected(ctx, func(conn *pgx.Conn) (err error) {
		look, err = postgres.LookAtGlobals(ctx, conn, hash)
		return err
	})
	if err != nil {
		return err
	}
	if look.State == nil {
		w.same = look.After
		return nil
	}
	g := archive.Globals{Epoch: w.epoch, Before: w.same, Position: look.Position, Hash: look.Hash}
	if g.State, err = json.Marshal(look.State); err != nil {
		return err
	}
	recorded, err := w.archive.RecordGlobals(ctx, w.last, g)
	if errors.Is(err, fs.ErrExist) {
		w.known = false // by us, perhaps, and the answer was lost
		return nil
	}
	if err != nil {
		return err
	}
	w.log.Info().Uint64("epoch", w.epoch).Uint64("number", recorded.Number).Str("position", recorded.Position.Brief()).Msg("roles and settings recorded")
	w.last, w.same = recorded, look.After
	return nil
}
