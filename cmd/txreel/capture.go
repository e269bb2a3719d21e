package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/capture"
	"txreel/change"
	pgtarget "txreel/restore/postgres"
	"txreel/sources/mysql"
	"txreel/sources/postgres"
)

type captureCmd struct {
	archiveFlag
	databaseFlags
	spoolFlags
	budgetFlags
	FlushAge       time.Duration `default:"1s" help:"Ship a segment when its oldest commit is this old."`
	FlushSize      byteSize      `default:"8MiB" help:"Ship a segment when it is this large, compressed."`
	Heartbeat      time.Duration `default:"1m" help:"Ship a segment at least this often, also when nothing happens."`
	BaseEvery      time.Duration `default:"24h" help:"Take a base when the last one is this old and not all there is; 0: never for that reason."`
	BaseFrom       string        `enum:"source,history" default:"source" help:"What such a base is made of: source reads every table; history the last base and the record behind that, and the source only where these do not tell (MySQL, MariaDB: with --base-scratch)."`
	BaseScratch    string        `placeholder:"URL" help:"With --base-from history: a server to make it on where the record alone does not tell, such as behind a change of the schema; a database is made there, and removed. MySQL, MariaDB: an empty server of the source's series, which is restored into, and emptied again."`
	BaseServe      string        `placeholder:"HOST:PORT" help:"MySQL, MariaDB: where that server, on another machine, reaches this one."`
	SchemaEvery    time.Duration `default:"1h" help:"PostgreSQL without a log of definitions: look this often what the schema is; 0: never."`
	SequenceSample time.Duration `default:"10s" help:"PostgreSQL: sample sequences into the record this often at most, while there is traffic; 0 switches it off."`
	GlobalsEvery   time.Duration `default:"1m" help:"PostgreSQL: look this often whether roles and settings have changed, and record them if so; 0 switches it off."`
	syncFlags
	Metrics   string `placeholder:"ADDR" help:"Serve Prometheus metrics and /healthz there, such as 127.0.0.1:9187."`
	NewEpoch  bool   `help:"Go on behind a gap: begin a new epoch, with a new base."`
	NewSystem string `name:"accept-system" placeholder:"ID" help:"PostgreSQL, with --new-epoch: the system identifier of the cluster that took the recorded one's place."`
	LogFormat string `enum:"auto,json,text" default:"auto" help:"auto, json or text: auto is text on a terminal."`
}

// historyMemory is what a capture may take besides, to make bases of the record.
const historyMemory = 64 << 20

// folding is how many bytes that is.
func (c *captureCmd) folding() (int64, error) {
	switch {
	case c.BaseFrom != fromHistory && c.BaseScratch != "":
		return 0, &usageError{"--base-scratch goes with --base-from history"}
	case c.BaseFrom != fromHistory:
		return 0, nil
	}
	if isMySQL(c.Source) && c.BaseScratch == "" {
		return 0, &usageError{"--base-from history makes bases of MySQL and MariaDB on a server: name an empty one with --base-scratch"}
	}
	return historyMemory, nil
}

// fromHistory is the value of --base-from that spares the source.
const fromHistory = "history"

// Run implements the command.
func (c *captureCmd) Run(a *app) error {
	folding, err := c.folding()
	if err != nil {
		return err
	}
	boundMemory(folding)
	log := newLogger(a.stderr, c.LogFormat, isTerminal(a.stderr))
	if c.NewSystem != "" && (!c.NewEpoch || isMySQL(c.Source)) {
		return &usageError{"--accept-system goes with --new-epoch, and with a PostgreSQL source"}
	}
	c.AcceptSystem = c.NewSystem
	c.SequenceEvery = c.SequenceSample
	status := &capture.Status{}
	monitor, err := startMetrics(c.Metrics, status)
	if err != nil {
		return err
	}
	defer monitor.stop()
	breaker := &breaker{open: c.database().waiters, timeout: c.SyncTimeout, log: log, trips: &monitor.trips}
	if c.Sync {
		c.SyncWait = c.SyncTimeout
		defer breaker.start(a.ctx)() // before anything that may take long: COMMITs may be waiting
	}
	store, release, held, err := c.openSpooled(a.ctx, log, monitor)
	if err != nil && a.ctx.Err() != nil {
		return c.stopped(a, log, err)
	}
	if err != nil {
		return err
	}
	defer release()

	r := recording{captureCmd: c, database: c.database(), store: store, log: log, status: status, monitor: monitor, worked: held, sure: math.MaxUint64, breaker: breaker}
	guard := func(context.Context) error { return nil }
	if pg, ok := r.database.(*postgresDatabase); ok {
		pg.budget = &walBudget{budgetFlags: c.budgetFlags, log: log}
		guard = pg.guard
	}
	// The one recovery path: whatever happened, everything is opened anew the way
	// a first start does it.
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 500*time.Millisecond, 30*time.Second
	if c.Sync {
		wait.MaxInterval = time.Second // COMMITs wait for us
	}
	for {
		shipped := status.Snapshot().Segments
		err := r.attempt(a.ctx)
		if a.ctx.Err() != nil {
			return c.stopped(a, log, err)
		}
		if !r.again(err) {
			return err
		}
		monitor.failures.Inc()
		if err := guard(a.ctx); err != nil {
			log.Warn().Err(err).Msg("budget for retained log not checked")
		}
		if status.Snapshot().Segments > shipped { // it got on: what is in the way now is another matter
			wait.Reset()
		}
		pause := wait.NextBackOff()
		log.Warn().Err(err).Dur("retry_in", pause).Msg("capture interrupted")
		select {
		case <-a.ctx.Done():
			return c.stopped(a, log, nil)
		case <-time.After(pause):
		}
	}
}

// stopped ends a capture that was told to stop. SIGTERM is how services are
// stopped, and no failure.
func (c *captureCmd) stopped(a *app, log zerolog.Logger, err error) error {
	var signal *signalError
	switch {
	case err == nil, err.Error() == context.Canceled.Error(), errors.As(err, &signal):
	case lasting(err):
		return err
	default:
		// Nothing is lost: the source keeps what the archive does not hold.
		log.Warn().Err(err).Msg("capture was failing when it was stopped")
	}
	log.Info().Msg("capture stopped")
	if a.stopped() == os.Interrupt {
		return fmt.Errorf("%w%w", errQuiet, context.Canceled)
	}
	return nil
}

// recording is one capture process, over all its attempts.
type recording struct {
	*captureCmd
	database database
	store    archive.Store
	log      zerolog.Logger
	status   *capture.Status
	monitor  *monitor
	breaker  *breaker   // works with --sync
	worked   bool       // an attempt has got as far as streaming
	beaten   time.Time  // when another writer's segment was last found in our place
	renewed  bool       // a gap has been answered with a new epoch
	overrun  time.Time  // when a gap by choice was last answered so
	sure     change.Seq // up to where the protector of the last stream knew whether COMMIT had waited
	warned   string     // what the last stream warned of, so that it is said once
}

// lasting reports whether err stays until a person has done something.
func lasting(err error) bool {
	for _, e := range []error{capture.ErrGap, capture.ErrOtherCapture, capture.ErrLongPosition, archive.ErrCorrupt, archive.ErrVersion, archive.ErrOtherDatabase, archive.ErrOverwrites} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// again reports whether err may go away by itself.
func (r *recording) again(err error) bool {
	switch {
	case errors.Is(err, postgres.ErrOverBudget):
		return true // see postgresDatabase.guard
	case isBudget(err):
		// Twice within an hour a base is no answer either: it only reads the source once more.
		last := r.overrun
		r.overrun, r.worked = time.Now(), true // source and archive are as they should be
		return time.Since(last) > time.Hour
	case errors.Is(err, capture.ErrGap) && r.NewEpoch && !r.renewed:
		// It is on record now, and was expected. Once: a second gap right behind the
		// first is a cause that a new epoch does not mend.
		r.renewed = true
		return true
	case lasting(err):
		return false
	case errors.Is(err, mysql.ErrAwaited):
		return true // no mistake, and over soon
	case errors.Is(err, archive.ErrOtherWriter):
		// It may have been ourselves: a create that took effect after its answer was
		// given up. Opened anew the archive shows; twice in a row it was not.
		last := r.beaten
		r.beaten = time.Now()
		return time.Since(last) > time.Minute
	}
	// Before anything has worked a mistake is likelier than an outage.
	return r.worked
}

// attempt captures, once it is our turn.
func (r *recording) attempt(ctx context.Context) error {
	if !r.Standby {
		return r.once(ctx)
	}
	for {
		err := standBy(ctx, r.database, r.store, r.log)
		if err == nil {
			err = r.once(ctx)
		}
		if !errors.Is(err, capture.ErrOtherCapture) && !errors.Is(err, archive.ErrOtherWriter) {
			return err
		}
		r.log.Info().Err(err).Msg("another capture was faster")
	}
}

// once opens archive and source and captures until something fails.
func (r *recording) once(ctx context.Context) error {
	id, err := r.database.identify(ctx)
	if err != nil {
		return err
	}
	a, err := r.archive(ctx, id)
	if err != nil {
		return err
	}
	epoch, err := r.epoch(ctx, a, id)
	if err != nil {
		return err
	}
	w, err := a.NewWriter(ctx, epoch.Number, r.SpillDir)
	if err != nil {
		return err
	}
	defer w.Close()
	err = r.stream(ctx, a, epoch, w)
	if errors.Is(err, capture.ErrGap) {
		return r.recordGap(context.WithoutCancel(ctx), a, epoch, w.Tail(), err)
	}
	return err
}

// archive opens the archive, or begins one for a source that is ready for it.
func (r *recording) archive(ctx context.Context, id incarnation) (*archive.Archive, error) {
	a, err := archive.Open(ctx, r.store)
	if err != nil && !errors.Is(err, archive.ErrNoArchive) {
		return nil, err
	}
	recorded := false
	if err == nil {
		epochs, err := a.Epochs(ctx)
		if err != nil {
			return nil, err
		}
		recorded = len(epochs) > 0
		if err := r.database.belongs(ctx, a, id); err != nil {
			return nil, err
		}
		id.Identity = a.Identity
	}
	if !recorded {
		if err := r.database.fresh(ctx); err != nil {
			return nil, err
		}
	}
	return archive.Init(ctx, r.store, archive.Identity{Engine: id.Engine, System: id.System, Database: id.Database})
}

// recordGap puts a gap on record (Invariant 6), once it is certain that it is the
// record's. tail is where this process left the archive.
func (r *recording) recordGap(ctx context.Context, a *archive.Archive, epoch archive.Epoch, tail archive.Tail, gap error) error {
	if err := r.database.continues(epoch); err != nil && !r.NewEpoch {
		return err
	}
	// A source that was read after the archive is ahead of it also when another capture
	// went on with both in between.
	now, err := a.Tail(ctx, epoch.Number)
	if err != nil {
		return fmt.Errorf("make sure that the record has a gap (%s): %w", sentence(gap), err) // nothing is certain yet
	}
	if now.Seq > tail.Seq {
		return fmt.Errorf("%w: it recorded up to %s while this one looked at the source", archive.ErrOtherWriter, now.Position)
	}
	if err := a.RecordGap(ctx, epoch.Number, gapCause(gap), sentence(gap)); err != nil {
		return errors.Join(gap, err)
	}
	return gap
}

func gapCause(gap error) string {
	switch {
	case isBudget(gap):
		return archive.CauseBudget
	case errors.Is(gap, capture.ErrDiverged):
		return archive.CauseDiverged
	}
	return archive.CauseGap
}

// epoch returns the epoch to go on with, beginning one where that is due.
func (r *recording) epoch(ctx context.Context, a *archive.Archive, id incarnation) (archive.Epoch, error) {
	epochs, err := a.Epochs(ctx)
	if err != nil {
		return archive.Epoch{}, err
	}
	if len(epochs) == 0 {
		e, err := a.StartEpoch(ctx, nil, archive.CauseFirst, "", id.terms)
		if errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("%w: it began the first epoch just now", archive.ErrOtherWriter)
		}
		return e, err
	}
	last := epochs[len(epochs)-1]
	gap, err := a.Gap(ctx, last.Number)
	if err != nil || gap == nil {
		return last, err
	}
	if !r.NewEpoch && !consented(gap.Cause) {
		return last, fmt.Errorf("%w: epoch %d ends at %s (%s): %s", capture.ErrGap, last.Number, gap.Tail.Position, gap.Detected, gap.Detail)
	}
	e, err := a.StartEpoch(ctx, epochs, gap.Cause, gap.Detail, id.terms)
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%w: it began epoch %d just now", archive.ErrOtherWriter, last.Number+1)
	}
	return e, err
}

// stream captures into one epoch.
func (r *recording) stream(ctx context.Context, a *archive.Archive, epoch archive.Epoch, w *archive.Writer) error {
	src, err := r.database.open(ctx, a, epoch, w.Tail(), r.worked)
	if err != nil {
		return err
	}
	defer src.Close()
	r.monitor.connected(src)
	defer r.monitor.connected(nil)
	r.worked = true
	r.log.Info().Str("archive", r.store.String()).Uint64("epoch", epoch.Number).Str("seq", w.Tail().Seq.String()).
		Str("position", src.Start().Position.Brief()).Msg("capture started")

	if warning := src.Warning(); warning != r.warned {
		if r.warned = warning; warning != "" {
			r.log.Warn().Msg(warning)
		}
	}

	protections, err := interrupted(ctx, a, epoch.Number, w.Tail().Seq, r.sure)
	if err != nil {
		return err
	}
	r.sure = math.MaxUint64

	// The keeper takes bases beside the stream; it ends with it.
	keeper := newBaseKeeper(a, epoch.Number, r.database, keeperTimes{base: r.BaseEvery, schema: r.SchemaEvery}, r.log)
	if r.BaseFrom == fromHistory {
		keeper.history = func(ctx context.Context, reason string) (*archive.Base, error) {
			at := &scratch{url: r.BaseScratch, serve: r.BaseServe, pgDump: r.PgDump, pgRestore: r.PgRestore, log: r.log, told: func(why error) { r.log.Info().AnErr("why", why).Msg("a base is made on the scratch server") }}
			return rollForward(ctx, a, at, pgtarget.RollForwardOptions{Jobs: r.BaseJobs, Memory: historyMemory, SpillDir: r.SpillDir, Reason: reason})
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var joined sync.WaitGroup
	joined.Go(func() { keeper.run(ctx) })
	if pg, ok := r.database.(*postgresDatabase); ok && r.GlobalsEvery > 0 {
		w := &globalsWatch{archive: a, epoch: epoch.Number, source: pg, every: r.GlobalsEvery, log: r.log}
		joined.Go(func() { w.run(ctx) })
	}
	o := capture.Options{
		Log: r.log.With().Uint64("epoch", epoch.Number).Logger(), FlushAge: r.FlushAge, FlushSize: int64(r.FlushSize), Heartbeat: r.Heartbeat, Sync: r.Sync,
		Start: src.Start(), Status: r.status, Shipped: keeper.shipped, Beat: keeper.beat,
	}
	var unnoted error
	if r.Sync {
		p := newProtector(a, epoch.Number, protections, src, durable{w.Tail().Seq, w.Tail().Position})
		p.status, p.log, p.breaker, p.on = r.status, r.log, r.breaker, &r.monitor.protected
		joined.Go(func() {
			if unnoted = p.run(ctx); unnoted != nil {
				cancel()
			}
			r.sure = p.sure.seq
		})
		o.Arrived = p.arrived
	}
	err = capture.Run(ctx, src, w, o)
	cancel()
	joined.Wait()
	if unnoted != nil {
		return unnoted
	}
	return err
}

// newLogger writes JSON lines for machines and short lines for people; watched says
// that a person watches.
func newLogger(w io.Writer, format string, watched bool) zerolog.Logger {
	if format == "text" || format == "auto" && watched {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.RFC3339, NoColor: !watched}
	}
	return zerolog.New(w).With().Timestamp().Logger()
}
