package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"

	"txreel/archive"
	"txreel/change"
	"txreel/sources"
	"txreel/sources/postgres"
	"txreel/sources/postgres/ddl"
)

// slotFlags name what txreel keeps on a PostgreSQL source.
type slotFlags struct {
	Slot        string `default:"txreel" help:"PostgreSQL: name of the replication slot."`
	Publication string `default:"txreel" help:"PostgreSQL: name of the publication."`
}

// baseFlags tune how bases are taken.
type baseFlags struct {
	BaseJobs    int           `default:"2" help:"Parts of tables a base reads at once."`
	LockTimeout time.Duration `default:"10s" help:"How long a base or a new slot waits for running write transactions and for locks."`
	PgDump      string        `placeholder:"PATH" help:"PostgreSQL: the pg_dump to use (default: the one on PATH if it is new enough, else the newest installed)."`
	PgRestore   string        `placeholder:"PATH" help:"PostgreSQL: the pg_restore to use for a base that is made on a scratch server (default: as for pg_dump)."`
}

// postgresDatabase is a PostgreSQL database.
type postgresDatabase struct {
	*databaseFlags
	whole  bool       // the next stream is to be read in one piece: see postgres.ErrPieces
	budget *walBudget // of a capture; nil in other commands
}

func (d *postgresDatabase) identify(ctx context.Context) (incarnation, error) {
	id, err := postgres.Identify(ctx, d.Source)
	return incarnation{
		Identity: archive.Identity{Engine: enginePostgres, System: id.System, Database: id.Database},
		terms: map[string]string{"system": id.System, "timeline": fmt.Sprint(id.Timeline), "database": id.Database,
			"slot": d.Slot, "publication": d.Publication},
	}, err
}

// belongs accepts the cluster that is recorded: the first one, or the one that took its place with the last epoch.
func (d *postgresDatabase) belongs(ctx context.Context, a *archive.Archive, id incarnation) error {
	if a.Identity.Engine != id.Engine || a.Identity.Database != id.Database {
		return otherDatabase(a, id)
	}
	recorded := a.Identity.System
	epochs, err := a.Epochs(ctx)
	if err != nil {
		return err
	}
	if n := len(epochs); n > 0 && epochs[n-1].Source["system"] != "" {
		recorded = epochs[n-1].Source["system"]
	}
	if id.System == recorded || id.System == d.AcceptSystem { // the stream ends the last epoch, if it was another's
		return nil
	}
	return fmt.Errorf("%w: the last epoch of %s is of system %s, the source is system %s; if its cluster took the recorded one's place (pg_upgrade, dump and restore), run capture with --new-epoch --accept-system %s",
		archive.ErrOtherDatabase, a.Store, recorded, id.System, id.System)
}

// fresh also refuses a slot that another archive may depend on.
func (d *postgresDatabase) fresh(ctx context.Context) error {
	if d.SyncWait != 0 { // before there is a slot
		w, err := d.waiters(ctx)
		if err != nil {
			return err
		}
		w.Close()
	}
	return d.connected(ctx, func(conn *pgx.Conn) error {
		exists, err := postgres.PublicationExists(ctx, conn, d.Publication)
		if err != nil {
			return err
		}
		if !exists {
			return d.noPublication()
		}
		slot, err := postgres.ReadSlot(ctx, conn, d.Slot)
		if err == nil && slot.Exists {
			err = fmt.Errorf("slot %q exists already and this archive is new: another archive may depend on the slot; choose another name with --slot, or drop it with: SELECT pg_drop_replication_slot('%s')", d.Slot, d.Slot)
		}
		return err
	})
}

func (d *postgresDatabase) noPublication() error {
	return fmt.Errorf("publication %q does not exist in the source: run `txreel setup --source … --apply` first", d.Publication)
}

func (d *postgresDatabase) connected(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := postgres.Connect(ctx, d.Source)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return do(conn)
}

// reconnectWait is how long a capture that was interrupted waits for the slot: longer
// than a server takes to notice that a connection is dead.
const reconnectWait = 90 * time.Second

func (d *postgresDatabase) open(ctx context.Context, a *archive.Archive, epoch archive.Epoch, tail archive.Tail, again bool) (stream, error) {
	if tail.Seq > 0 {
		if err := d.budget.overrun(); err != nil {
			return nil, err
		}
	}
	id, err := d.identify(ctx)
	if err == nil {
		err = sameSystem(epoch, id.System)
	}
	if err == nil {
		err = sameTimeline(epoch, id.terms["timeline"], func(was, is int32) string { return d.forkedTail(ctx, a, tail, was, is) })
	}
	if err != nil {
		return nil, err
	}
	if tail.Seq == 0 {
		if err := d.connected(ctx, func(conn *pgx.Conn) error { return d.ensureSlot(ctx, conn) }); err != nil {
			return nil, err
		}
	}
	opts := postgres.SourceOptions{URL: d.Source, Slot: d.Slot, Publication: d.Publication, Tail: tail.Position, Latest: tail.Latest,
		SpillDir: d.SpillDir, Whole: d.whole, Sync: d.SyncWait != 0, SequenceEvery: d.SequenceEvery,
		Held: func(ctx context.Context, from change.Position) (*postgres.Last, error) {
			return postgres.LastBehind(ctx, a, tail, from)
		}}
	d.whole = false
	var chosen *archive.Choice
	if d.budget != nil {
		choice, err := d.budget.choose(ctx, a, epoch.Number)
		if err != nil {
			return nil, err
		}
		chosen = choice
		opts.Budget, opts.DropAtBudget, opts.Looked = choice.Budget, choice.AtBudget == archive.AtBudgetDrop, d.budget.looked
	}
	if again {
		// When the network broke the slot is still held by ourselves, until the server
		// gives up our old connection.
		opts.BusyWait = reconnectWait
	}
	s, err := postgres.Open(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &postgresStream{Source: s, database: d, choice: chosen}, nil
}

func (d *postgresDatabase) waiters(ctx context.Context) (waiters, error) {
	return postgres.OpenCommits(ctx, d.Source, d.Slot)
}

func (d *postgresDatabase) taken(ctx context.Context, _ *archive.Archive) (taken bool, err error) {
	err = d.connected(ctx, func(conn *pgx.Conn) error {
		slot, err := postgres.ReadSlot(ctx, conn, d.Slot)
		taken = slot.Active
		return err
	})
	return taken, err
}

// ensureSlot makes the slot of an epoch that holds nothing yet. One that exists
// was left by an attempt that died, or is the old one behind a gap.
func (d *postgresDatabase) ensureSlot(ctx context.Context, conn *pgx.Conn) error {
	slot, err := postgres.ReadSlot(ctx, conn, d.Slot)
	if err != nil {
		return err
	}
	predates, err := postgres.SlotPredates(ctx, conn, d.Slot, d.Publication)
	if err != nil {
		return err
	}
	if slot.Lost || predates {
		if err := postgres.DropSlot(ctx, conn, d.Slot); err != nil {
			return err
		}
		slot.Exists = false
	}
	if slot.Exists {
		return nil
	}
	// The publication must be there before the slot: see CreateSlot.
	exists, err := postgres.PublicationExists(ctx, conn, d.Publication)
	if err == nil && !exists {
		err = d.noPublication()
	}
	if err != nil {
		return err
	}
	if d.budget != nil {
		d.budget.dropped = "" // its gap is on record: this is the epoch behind it
	}
	return postgres.CreateSlot(ctx, d.Source, d.Slot, int(d.LockTimeout.Milliseconds()))
}

func (d *postgresDatabase) continues(epoch archive.Epoch) error {
	slot, publication := epoch.Source["slot"], epoch.Source["publication"]
	if slot == d.Slot && publication == d.Publication {
		return nil
	}
	// Nothing is known of the slot the record depends on.
	return fmt.Errorf("epoch %d is recorded through slot %q and publication %q; slot %q and publication %q cannot continue it: give --slot %s --publication %s",
		epoch.Number, slot, publication, d.Slot, d.Publication, slot, publication)
}

func (d *postgresDatabase) takeBase(ctx context.Context, a *archive.Archive, epoch uint64, r sources.BaseRequest, progress func(sources.BaseProgress)) (*archive.Base, error) {
	epochs, err := a.Epochs(ctx)
	if err != nil {
		return nil, err
	}
	var timeline string
	for i := range epochs {
		if epochs[i].Number == epoch {
			timeline = epochs[i].Source["timeline"]
		}
	}
	return postgres.TakeBase(ctx, a, epoch, postgres.BaseOptions{
		URL: d.Source, Publication: d.Publication, Timeline: timeline, BaseRequest: r, Jobs: d.BaseJobs, PgDump: d.PgDump, SpillDir: d.SpillDir,
		LockTimeout: int(d.LockTimeout.Milliseconds()), Progress: progress,
	})
}

func (d *postgresDatabase) finishBase(ctx context.Context, a *archive.Archive, b *archive.Base, hurry func()) error {
	return postgres.FinishBase(ctx, a, b, hurry)
}

func (d *postgresDatabase) watched() string { return ddl.Schema + "." + ddl.Table }

func (d *postgresDatabase) stales(b *archive.Base) (bool, error) {
	logged, err := postgres.Logged(b)
	return !logged, err
}

func (d *postgresDatabase) lacking(ctx context.Context, b, mend *archive.Base) (r sources.BaseRequest, err error) {
	stales, err := d.stales(b)
	if err != nil {
		return r, err
	}
	err = d.connected(ctx, func(conn *pgx.Conn) (err error) {
		if stales {
			r.Reason, err = changedTable(ctx, conn, b.Versions())
			return err
		}
		if r, err = postgres.Lacking(ctx, conn, b, mend); err != nil || r.Reason != "" {
			return err
		}
		return postgres.TrimDefinitions(ctx, conn, b)
	})
	return r, err
}

// changedTable looks for a table that is not what a base says of it; "" when there is none.
func changedTable(ctx context.Context, conn *pgx.Conn, versions map[string]uint64) (reason string, err error) {
	tables, err := postgres.Tables(ctx, conn)
	if err != nil {
		return "", err
	}
	for _, t := range tables {
		v, ok := versions[t.String()]
		switch {
		case !ok:
			return "table " + t.String() + " was created", nil
		case v != t.Version:
			return "the definition of " + t.String() + " changed", nil
		}
	}
	if len(tables) != len(versions) {
		return "a table was dropped", nil
	}
	return "", nil
}

// mark writes a message into the log, which becomes a transaction of the record.
func (d *postgresDatabase) mark(ctx context.Context, name string) (marker, error) {
	var xid string
	err := d.connected(ctx, func(conn *pgx.Conn) (err error) {
		xid, _, err = postgres.WriteMark(ctx, conn, name)
		return err
	})
	return func(ctx context.Context, a *archive.Archive, m *archive.Mark, from *change.Seq) (bool, error) {
		for x, err := range a.Segments(ctx, m.Epoch, *from) {
			if err != nil {
				return false, err
			}
			for i := range x.Txns {
				if t := &x.Txns[i]; t.XID == xid && t.Seq >= *from {
					m.XID, m.Seq, m.Position, m.CommitTime = xid, t.Seq, t.Position, t.CommitTime
					return true, nil
				}
			}
			*from = x.Last() + 1
		}
		return false, nil
	}, err
}

func (d *postgresDatabase) retention(ctx context.Context, _ change.Position) (r *sources.Retention, err error) {
	err = d.connected(ctx, func(conn *pgx.Conn) error {
		slot, err := postgres.ReadSlot(ctx, conn, d.Slot)
		if err != nil {
			return err
		}
		if !slot.Exists {
			r = &sources.Retention{Limit: -1, Purge: -1, Text: fmt.Sprintf("slot %s is missing", d.Slot)}
			return nil
		}
		h, err := postgres.ReadHealth(ctx, conn, d.Slot)
		if err == nil {
			r = slotRetention(d.Slot, h)
		}
		return err
	})
	return r, err
}

// slotRetention puts what a slot holds back into words.
func slotRetention(slot string, h *postgres.Health) *sources.Retention {
	limit := "without a limit (max_slot_wal_keep_size = -1): a capture that stays away fills the source's disk"
	if h.LimitBytes >= 0 {
		limit = "of " + humanize.IBytes(uint64(h.LimitBytes))
		if h.LimitBytes > 0 {
			limit += fmt.Sprintf(" (%.0f %%)", 100*float64(h.RetainedBytes)/float64(h.LimitBytes))
		}
	}
	return &sources.Retention{At: h.At, Kept: h.RetainedBytes, Limit: h.LimitBytes, Purge: -1,
		Text: fmt.Sprintf("slot %s %s, holds back %s %s", slot, h.WALStatus, humanize.IBytes(uint64(max(h.RetainedBytes, 0))), limit)}
}

// postgresStream is a stream of a slot.
type postgresStream struct {
	*postgres.Source
	database *postgresDatabase
	choice   *archive.Choice // nil without a budget
}

// Next implements capture.Source.
func (s *postgresStream) Next(ctx context.Context) (*change.Message, error) {
	m, err := s.Source.Next(ctx)
	if err != nil && errors.Is(err, postgres.ErrPieces) {
		s.database.whole = true
	}
	return m, err
}

// Warning implements stream: a slot belongs to one server's history.
func (s *postgresStream) Warning() string { return "" }

// Retention implements stream.
func (s *postgresStream) Retention() *sources.Retention {
	h := s.Health()
	if h == nil {
		return nil
	}
	r := slotRetention("", h)
	if s.choice != nil {
		r.Budget = budgetOf(s.choice, h)
	}
	return r
}
