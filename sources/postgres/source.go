package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/archive"
	"txreel/capture"
	"txreel/change"
	"txreel/sources/postgres/lsn"
)

// SourceOptions says what to stream.
type SourceOptions struct {
	URL         string
	Slot        string
	Publication string
	// Tail is where the archive's record ends; the stream begins there. Empty is
	// allowed while the record is empty: the slot's own position counts then.
	Tail change.Position
	// Held returns the last transaction on record behind a position, as LastBehind does. It is asked when the slot stands
	// before Tail: the source then has to show that its history is the record's (see proof). Nil asks for no proof.
	Held func(ctx context.Context, from change.Position) (*Last, error)
	// BusyWait is how long a slot that another process holds is waited for; the
	// walsender of a capture that died lingers a moment. Zero means 10 s.
	BusyWait time.Duration
	// Latest is the latest commit time of the record: the earliest that a message
	// without a time of its own can have.
	Latest change.Time
	// SpillDir is where transactions that have not ended yet wait when they are too large for
	// memory. Empty means the system's temporary folder.
	SpillDir string
	// Whole asks for every transaction in one piece once it has committed (protocol 1). The server then collects large
	// ones on its own disk: ErrPieces is the only reason to ask for it.
	Whole bool
	// DropAtBudget ends the stream with ErrOverBudget when the source keeps Budget bytes of log for the slot. A zero
	// Budget is the server's own limit.
	DropAtBudget bool
	Budget       int64
	// Looked, if not nil, is called with what Health returns from then on. Calls do not overlap, and have ended when
	// Close returns.
	Looked func(*Health)

	// SequenceEvery is how often, at most, sequences are sampled into the record while there is traffic; zero means never.
	SequenceEvery time.Duration

	// Sync makes the stream one that COMMIT can wait for: see Protect.
	Sync bool

	// Zero means the constants below; tests have less time.
	statusEvery, silence, stopGrace time.Duration
	spoolPages                      int
	fenceEvery                      time.Duration // negative: no fences
}

func (o *SourceOptions) defaults() {
	if o.BusyWait == 0 {
		o.BusyWait = defaultBusyWait
	}
	if o.statusEvery == 0 {
		o.statusEvery = statusInterval
	}
	if o.silence == 0 {
		o.silence = silenceLimit
	}
	if o.stopGrace == 0 {
		o.stopGrace = stopGrace
	}
	if o.fenceEvery == 0 {
		o.fenceEvery = fenceInterval
	}
	if o.SequenceEvery > 0 && o.fenceEvery > 0 { // a sample is part of a fence
		o.fenceEvery, o.statusEvery = min(o.fenceEvery, o.SequenceEvery), min(o.statusEvery, o.SequenceEvery)
	}
	if o.spoolPages == 0 {
		o.spoolPages = spoolPages
	}
}

const (
	defaultBusyWait = 10 * time.Second
	// idleTick is the longest Next stays silent.
	idleTick = 200 * time.Millisecond
	// statusInterval is how often the server is told our position and asked for
	// its own, also while nobody calls Next: well within a third of senderTimeout.
	statusInterval = 10 * time.Second
	// senderTimeout is the wal_sender_timeout of our walsender, whatever the server's
	// is: while the store is slow nobody reads the questions it asks when half of it is
	// over, and our own status must come in time.
	senderTimeout = "60s"
	// silenceLimit is how long a server that was asked may stay silent.
	silenceLimit = 45 * time.Second
	// fenceInterval is how often, at most, a fence is written.
	fenceInterval = 10 * time.Second
	// stopGrace is how long a source that shuts down is read on, so that what is
	// sealed can still be acknowledged, before its walsender is let go.
	stopGrace = 1500 * time.Millisecond
)

// Source streams a slot. Next is for one goroutine; Ack and Health may be called
// from any. It implements capture.Source.
type Source struct {
	opts     SourceOptions
	start    lsn.LSN     // transactions that commit before it are in the archive
	from     lsn.LSN     // where the stream begins: at start, or before it for a proof
	stands   lsn.LSN     // what is acknowledged before a proof: where the slot stands
	clock    change.Time // the source's, when the stream was opened
	conn     *pgconn.PgConn
	control  *pgx.Conn
	pubOID   uint32
	batches  chan *batch // closed by the reader
	free     chan *batch
	nudge    chan struct{} // asks the status writer to write now
	wake     chan struct{} // asks Next to return
	acked    atomic.Uint64
	hold     atomic.Uint64 // if not zero, nothing from here on is acknowledged for now
	commits  *Commits      // with Sync
	socket   *gatherConn   // beneath conn
	fence    atomic.Pointer[fence]
	health   atomic.Pointer[Health]
	cancel   context.CancelFunc
	joined   sync.WaitGroup
	failOnce sync.Once
	failure  error         // set before failed is closed
	failed   chan struct{} // closed by the first failure

	traffic atomic.Uint64          // transactions that came
	written atomic.Pointer[fenced] // the last fence
	// Of the watching goroutine: fences written, traffic at the last of them, and that none can be.
	fences, fencedTraffic uint64
	noFences              bool
	sequences             sampler

	position change.Position
	parser   parser
	cur      *batch
	at       int
	told     bool // something of cur was returned
	replayed uint
	timer    *time.Timer
}

// Health is what the server says of the slot, at most a few seconds old.
type Health struct {
	At            time.Time
	RetainedBytes int64 // WAL the slot holds back
	LimitBytes    int64 // max_slot_wal_keep_size; negative means no limit
	WALStatus     string
}

// Open checks that the slot continues where the archive ends, and starts to
// stream. It returns an error wrapping capture.ErrGap when it does not,
// capture.ErrOtherCapture when somebody else reads the slot, and capture.ErrUnreachable when
// waiting may help.
func Open(ctx context.Context, opts SourceOptions) (_ *Source, err error) {
	opts.defaults()
	s := &Source{
		opts: opts, batches: make(chan *batch, batchesAhead), free: make(chan *batch, batchesAhead+2),
		nudge: make(chan struct{}, 1), wake: make(chan struct{}, 1), failed: make(chan struct{}), timer: time.NewTimer(idleTick),
	}
	defer func() {
		if err != nil {
			s.closeConns()
		}
	}()
	if s.control, err = Connect(ctx, opts.URL); err != nil {
		return nil, err
	}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	name := "txreel"
	if opts.Sync {
		if s.commits, err = OpenCommits(ctx, opts.URL, opts.Slot); err != nil {
			return nil, err
		}
		name = opts.Slot // what synchronous_standby_names calls us
	}
	cfg, err := connConfig(opts.URL, name, true)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["wal_sender_timeout"] = senderTimeout
	socket := gatherReads(cfg)
	if s.conn, err = dial(ctx, cfg); err != nil {
		return nil, err
	}
	s.socket = socket()
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	s.acked.Store(uint64(s.stands))
	run, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	for range cap(s.free) {
		s.free <- &batch{}
	}
	s.socket.on.Store(!opts.Sync)       // who waits for every commit does not let them gather
	s.joined.Go(func() { s.read(run) }) // all three joined by Close
	s.joined.Go(func() { s.writeStatus(run) })
	s.joined.Go(func() { s.watch(run) })
	return s, nil
}

// check compares slot and publication with what the archive expects, and learns
// where 32-bit transaction ids stand.
func (s *Source) check(ctx context.Context) error {
	slot, err := readSlotState(ctx, s.control, s.opts.Slot)
	if err != nil {
		return err
	}
	if s.start, err = slot.continues(s.opts); err != nil {
		return err
	}
	if err := s.prepareProof(ctx, slot.confirmed); err != nil {
		return err
	}
	if s.pubOID, err = publicationOID(ctx, s.control, s.opts.Publication); err != nil {
		return err
	}
	if s.pubOID == 0 {
		return fmt.Errorf("%w: publication %q does not exist in the source; if it was dropped, changes made since then cannot be decoded: run `txreel setup --remove` and `txreel setup --apply`, then capture with --new-epoch", capture.ErrGap, s.opts.Publication)
	}
	if err := publishesAll(ctx, s.control, s.opts.Publication); err != nil {
		if s.opts.Tail != "" && errors.Is(err, errIncomplete) {
			err = fmt.Errorf("%w: %w, then capture with --new-epoch", capture.ErrGap, err)
		}
		return err
	}
	health, err := ReadHealth(ctx, s.control, s.opts.Slot)
	if err == nil {
		err = health.within(&s.opts)
	}
	if err != nil {
		return err
	}
	if s.clock, err = Clock(ctx, s.control); err != nil {
		return err
	}
	s.position = s.start.Position()
	s.parser.streams = streams{spool: spool{dir: s.opts.SpillDir, limit: s.opts.spoolPages}, empties: majorVersion(s.control.PgConn()) < 15}
	s.parser.start, s.parser.time = s.start, s.opts.Latest
	if s.parser.chain, err = newChain(); err != nil {
		return err
	}
	if s.opts.Tail == "" {
		s.parser.time = s.clock // what Start says
	}
	return wrapSQL("read the transaction id horizon", s.control.QueryRow(ctx,
		`select pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint`).Scan(&s.parser.xid))
}

// prepareProof lets the stream begin where the slot stands, if that is before the end of the record. A record that
// cannot be read proves nothing, which is no reason to stop recording.
func (s *Source) prepareProof(ctx context.Context, confirmed lsn.LSN) error {
	s.from, s.stands = s.start, s.start
	if s.opts.Held == nil || s.opts.Tail == "" || confirmed == 0 || confirmed >= s.start {
		return nil
	}
	last, err := s.opts.Held(ctx, confirmed.Position())
	if errors.Is(err, archive.ErrCorrupt) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the last transaction on record: %w", err)
	}
	s.from, s.stands = confirmed, confirmed
	if last != nil { // what comes before it follows from it
		s.from = max(s.from, last.Before)
	}
	s.parser.proof = proof{asked: true, last: last, end: s.start}
	return nil
}

// release acknowledges the end of the record once the source has shown that it is its own. Before that the slot must stay
// where it stands: at the record's end it would prove anything.
func (s *Source) release() {
	if !s.parser.proof.done {
		return
	}
	s.parser.proof.done = false
	s.acked.Store(max(s.acked.Load(), uint64(s.start)))
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// begin starts the stream, waiting a while for a slot that is in use.
func (s *Source) begin(ctx context.Context) error {
	deadline := time.Now().Add(s.opts.BusyWait)
	for {
		// Both positions are given: 0/0 would mean "wherever the slot stands", and
		// the server raises a start below the slot's silently (facts of
		// START_REPLICATION), which check has excluded.
		err := pglogrepl.StartReplication(ctx, s.conn, s.opts.Slot, pglogrepl.LSN(s.from), pglogrepl.StartReplicationOptions{
			Mode:       pglogrepl.LogicalReplication,
			PluginArgs: s.pluginArgs(),
		})
		var pgErr *pgconn.PgError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &pgErr) && pgErr.Code == "55006": // object_in_use
			if time.Now().After(deadline) {
				return fmt.Errorf("%w: slot %q is read by another connection (%s): stop the other capture, or give this one a slot and an archive of its own", capture.ErrOtherCapture, s.opts.Slot, pgErr.Message)
			}
		default:
			return explainStream(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// pluginArgs asks for protocol 2, in which a large transaction is sent while it runs: in protocol 1 the server collects
// it on its own disk until it commits.
func (s *Source) pluginArgs() []string {
	args := []string{
		"publication_names " + quoteLiteral(quoteIdent(s.opts.Publication)),
		"messages 'true'",
	}
	if s.opts.Whole {
		return append(args, "proto_version '1'")
	}
	return append(args, "proto_version '2'", "streaming 'on'")
}

// Ack implements capture.Source. The position reaches the server at once, or with
// the next status when the connection is slow.
func (s *Source) Ack(position change.Position) {
	at, err := lsn.FromPosition(position)
	if err != nil {
		s.fail(fmt.Errorf("acknowledge: %w", err))
		return
	}
	if uint64(at) > s.acked.Load() {
		s.acked.Store(uint64(at))
	}
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// Health returns what is known of the slot; nil before the first look.
func (s *Source) Health() *Health { return s.health.Load() }

// fail ends the stream with err, the first one given. Closing the socket frees the
// reader and the server's walsender alike.
func (s *Source) fail(err error) {
	s.failOnce.Do(func() {
		s.failure = err
		close(s.failed)
		if s.conn != nil {
			_ = s.conn.Conn().Close() // what counts is that it is closed
		}
	})
}

// Close stops the stream and waits for everything it started. The slot stays.
func (s *Source) Close() {
	s.fail(errors.New("source closed"))
	s.cancel()
	for range s.batches { // free a reader that waits for Next
	}
	s.joined.Wait()
	s.closeConns()
	s.timer.Stop()
	s.parser.streams.spool.close()
}

func (s *Source) closeConns() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.conn != nil {
		_ = s.conn.Conn().Close()
	}
	if s.control != nil {
		_ = s.control.Close(ctx)
	}
	if s.commits != nil {
		s.commits.Close()
	}
}
