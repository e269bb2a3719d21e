package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/capture"
	"txreel/sources/postgres"
)

type captureCmd struct {
	archiveFlag
	sourceFlag
	slotFlags
	FlushAge  time.Duration `default:"1s" help:"Ship a segment when its oldest commit is this old."`
	FlushSize byteSize      `default:"8MiB" help:"Ship a segment when it is this large, compressed."`
	Heartbeat time.Duration `default:"1m" help:"Ship a segment at least this often, also when nothing happens."`
	Metrics   string        `placeholder:"ADDR" help:"Serve Prometheus metrics and /healthz there, such as 127.0.0.1:9187."`
	NewEpoch  bool          `help:"Go on behind a gap: begin a new epoch, with a new base."`
	SpillDir  string        `placeholder:"DIR" help:"Where huge segments wait to be shipped (default: the system's temporary folder)."`
	baseFlags
	LogFormat string `enum:"auto,json,text" default:"auto" help:"auto, json or text: auto is text on a terminal."`
}

// baseFlags tune how bases are taken.
type baseFlags struct {
	BaseJobs    int           `default:"2" help:"Parts of tables a base reads at once."`
	LockTimeout time.Duration `default:"10s" help:"How long a base or a new slot waits for running write transactions and for locks."`
	PgDump      string        `placeholder:"PATH" help:"The pg_dump to use (default: the newest one installed)."`
}

// reconnectWait is how long a capture that was interrupted waits for the slot: longer
// than a server takes to notice that a connection is dead.
const reconnectWait = 90 * time.Second

// Run implements the command.
func (c *captureCmd) Run(a *app) error {
	log := newLogger(a.stderr, c.LogFormat, isTerminal(a.stderr))
	status := &capture.Status{}
	monitor, err := startMetrics(c.Metrics, status)
	if err != nil {
		return err
	}
	defer monitor.stop()
	store, release, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer release()

	r := recording{captureCmd: c, store: store, log: log, status: status, monitor: monitor}
	// The one recovery path: whatever happened, everything is opened anew the way
	// a first start does it.
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 500*time.Millisecond, 30*time.Second
	for {
		begun := time.Now()
		err := r.once(a.ctx)
		if a.ctx.Err() != nil {
			return c.stopped(a, log, err)
		}
		if !r.again(err) {
			return err
		}
		monitor.failures.Inc()
		if time.Since(begun) > time.Minute {
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
	store   archive.Store
	log     zerolog.Logger
	status  *capture.Status
	monitor *monitor
	worked  bool      // an attempt has got as far as streaming
	beaten  time.Time // when another writer's segment was last found in our place
	renewed bool      // a gap has been answered with a new epoch
}

// lasting reports whether err stays until a person has done something.
func lasting(err error) bool {
	for _, e := range []error{capture.ErrGap, capture.ErrOtherCapture, archive.ErrCorrupt, archive.ErrVersion, archive.ErrOtherDatabase, archive.ErrOverwrites} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// again reports whether err may go away by itself.
func (r *recording) again(err error) bool {
	switch {
	case errors.Is(err, capture.ErrGap) && r.NewEpoch && !r.renewed:
		// It is on record now, and was expected. Once: a second gap right behind the
		// first is a cause that a new epoch does not mend.
		r.renewed = true
		return true
	case lasting(err):
		return false
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

// once opens archive and source and captures until something fails.
func (r *recording) once(ctx context.Context) error {
	id, err := postgres.Identify(ctx, r.Source)
	if err != nil {
		return err
	}
	if err := r.preflight(ctx); err != nil {
		return err
	}
	a, err := archive.Init(ctx, r.store, archive.Identity{Engine: "postgres", System: id.System, Database: id.Database})
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
	if err = sameTimeline(epoch, id); err == nil {
		err = r.stream(ctx, a, epoch, w)
	}
	if errors.Is(err, capture.ErrGap) {
		return r.recordGap(context.WithoutCancel(ctx), a, epoch, w.Tail(), err)
	}
	return err
}

// sameTimeline refuses to go on with a record on a server that was promoted, or
// restored, since the epoch began: the last of what is recorded may never have happened
// there, and what happened there instead may be missing, without a trace in the
// positions (Invariant 6).
func sameTimeline(epoch archive.Epoch, id postgres.Incarnation) error {
	was, is := epoch.Source["timeline"], fmt.Sprint(id.Timeline)
	if was == "" || was == is {
		return nil
	}
	return fmt.Errorf("%w: the source was on timeline %s when epoch %d began and is on timeline %s now: it was promoted or restored, and where the record ends is not certain to be in its history: run capture with --new-epoch to go on behind the gap", capture.ErrGap, was, epoch.Number, is)
}

// recordGap puts a gap on record (Invariant 6), once it is certain that it is the
// record's. tail is where this process left the archive.
func (r *recording) recordGap(ctx context.Context, a *archive.Archive, epoch archive.Epoch, tail archive.Tail, gap error) error {
	slot, publication := epoch.Source["slot"], epoch.Source["publication"]
	if (slot != r.Slot || publication != r.Publication) && !r.NewEpoch {
		// Nothing is known of the slot the record depends on.
		return fmt.Errorf("epoch %d is recorded through slot %q and publication %q; slot %q and publication %q cannot continue it: give --slot %s --publication %s",
			epoch.Number, slot, publication, r.Slot, r.Publication, slot, publication)
	}
	// A slot that was read after the archive is ahead of it also when another capture
	// went on with both in between.
	now, err := a.Tail(ctx, epoch.Number)
	if err == nil && now.Seq > tail.Seq {
		return fmt.Errorf("%w: it recorded up to %s while this one looked at the slot", archive.ErrOtherWriter, now.Position)
	}
	if err == nil {
		err = a.RecordGap(ctx, epoch.Number, sentence(gap))
	}
	if err != nil {
		return errors.Join(gap, err)
	}
	return gap
}

// epoch returns the epoch to go on with, beginning one where that is due.
func (r *recording) epoch(ctx context.Context, a *archive.Archive, id postgres.Incarnation) (archive.Epoch, error) {
	epochs, err := a.Epochs(ctx)
	if err != nil {
		return archive.Epoch{}, err
	}
	source := map[string]string{"system": id.System, "timeline": fmt.Sprint(id.Timeline), "database": id.Database, "slot": r.Slot, "publication": r.Publication}
	if len(epochs) == 0 {
		e, err := a.StartEpoch(ctx, nil, archive.CauseFirst, "", source)
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
	if !r.NewEpoch {
		return last, fmt.Errorf("%w: epoch %d ends at %s (%s): %s", capture.ErrGap, last.Number, gap.Tail.Position, gap.Detected, gap.Detail)
	}
	e, err := a.StartEpoch(ctx, epochs, archive.CauseGap, gap.Detail, source)
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%w: it began epoch %d just now", archive.ErrOtherWriter, last.Number+1)
	}
	return e, err
}

// preflight refuses, before anything is written, to begin an archive for a source
// that is not set up, or with a slot that another archive may depend on.
func (r *recording) preflight(ctx context.Context) error {
	a, err := archive.Open(ctx, r.store)
	if err == nil {
		var epochs []archive.Epoch
		if epochs, err = a.Epochs(ctx); err == nil && len(epochs) > 0 {
			return nil
		}
	}
	if err != nil && !errors.Is(err, archive.ErrNoArchive) {
		return err
	}
	conn, err := postgres.Connect(ctx, r.Source)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	exists, err := postgres.PublicationExists(ctx, conn, r.Publication)
	if err != nil {
		return err
	}
	if !exists {
		return fmt.Errorf("publication %q does not exist in the source: run `txreel setup --source … --apply` first", r.Publication)
	}
	slot, err := postgres.ReadSlot(ctx, conn, r.Slot)
	if err == nil && slot.Exists {
		err = fmt.Errorf("slot %q exists already and this archive is new: another archive may depend on the slot; choose another name with --slot, or drop it with: SELECT pg_drop_replication_slot('%s')", r.Slot, r.Slot)
	}
	return err
}

// ensureSlot makes the slot of an epoch that holds nothing yet. One that exists
// was left by an attempt that died, or is the old one behind a gap.
func (r *recording) ensureSlot(ctx context.Context) error {
	conn, err := postgres.Connect(ctx, r.Source)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	slot, err := postgres.ReadSlot(ctx, conn, r.Slot)
	if err != nil {
		return err
	}
	predates, err := postgres.SlotPredates(ctx, conn, r.Slot, r.Publication)
	if err != nil {
		return err
	}
	if slot.Lost || predates {
		if err := postgres.DropSlot(ctx, conn, r.Slot); err != nil {
			return err
		}
		slot.Exists = false
	}
	if slot.Exists {
		return nil
	}
	// The publication must be there before the slot: see CreateSlot.
	exists, err := postgres.PublicationExists(ctx, conn, r.Publication)
	if err == nil && !exists {
		err = fmt.Errorf("publication %q does not exist in the source: run `txreel setup --source … --apply` first", r.Publication)
	}
	if err != nil {
		return err
	}
	return postgres.CreateSlot(ctx, r.Source, r.Slot, int(r.LockTimeout.Milliseconds()))
}

// stream captures into one epoch.
func (r *recording) stream(ctx context.Context, a *archive.Archive, epoch archive.Epoch, w *archive.Writer) error {
	if w.Tail().Seq == 0 {
		if err := r.ensureSlot(ctx); err != nil {
			return err
		}
	}
	opts := postgres.SourceOptions{URL: r.Source, Slot: r.Slot, Publication: r.Publication, Tail: w.Tail().Position, Latest: w.Tail().Latest}
	if r.worked {
		// When the network broke the slot is still held by ourselves, until the server
		// gives up our old connection.
		opts.BusyWait = reconnectWait
	}
	src, err := postgres.Open(ctx, opts)
	if err != nil {
		return err
	}
	defer src.Close()
	r.monitor.source.Store(src)
	defer r.monitor.source.Store(nil)
	r.worked = true
	r.log.Info().Str("archive", r.store.String()).Uint64("epoch", epoch.Number).Str("seq", w.Tail().Seq.String()).
		Str("position", string(src.Start().Position)).Msg("capture started")

	// The keeper takes bases beside the stream; it ends with it.
	keeper := newBaseKeeper(a, epoch.Number, r.baseOptions(), r.log)
	ctx, cancel := context.WithCancel(ctx)
	var joined sync.WaitGroup
	joined.Go(func() { keeper.run(ctx) })
	defer joined.Wait()
	defer cancel()
	return capture.Run(ctx, src, w, capture.Options{
		Log: r.log.With().Uint64("epoch", epoch.Number).Logger(), FlushAge: r.FlushAge, FlushSize: int64(r.FlushSize), Heartbeat: r.Heartbeat,
		Start: src.Start(), Status: r.status, Shipped: keeper.shipped, Beat: keeper.beat,
	})
}

func (r *recording) baseOptions() postgres.BaseOptions {
	return r.options(r.Source, r.Publication, r.SpillDir)
}

func (f baseFlags) options(source, publication, spillDir string) postgres.BaseOptions {
	return postgres.BaseOptions{
		URL: source, Publication: publication, Jobs: f.BaseJobs, PgDump: f.PgDump, SpillDir: spillDir,
		LockTimeout: int(f.LockTimeout.Milliseconds()),
	}
}

// newLogger writes JSON lines for machines and short lines for people; watched says
// that a person watches.
func newLogger(w io.Writer, format string, watched bool) zerolog.Logger {
	if format == "text" || format == "auto" && watched {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.RFC3339, NoColor: !watched}
	}
	return zerolog.New(w).With().Timestamp().Logger()
}
