package mysql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"txreel/capture"
	"txreel/change"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
)

// SourceOptions says what to stream.
type SourceOptions struct {
	URL string
	// Tail is where the archive's record ends, a set of GTIDs; the stream is what is not in it. Empty is allowed
	// while the record is empty: then it begins with what is committed next.
	Tail change.Position
	// Last is the last transaction on record, which the server must show again; nil if there is none.
	Last *Last
	// Latest is the latest commit time of the record: the earliest that a message without a time of its own can have.
	Latest change.Time
	// Known is the System of the server that the record began on, if that is known: it tells a server that lost its
	// history from one that has nothing to do with the record.
	Known string
	// ServerID, and for MySQL ReplicaUUID, name us among the server's clients. They stay the same for an archive: the
	// server ends the connection of a capture that died when its successor comes.
	ServerID    uint32
	ReplicaUUID string
	// Torn is the GTID of the TornError that the attempt before ended with.
	Torn string

	// Sync makes the stream one that COMMIT waits for, for as long as the server is set to, which must not be longer
	// than this: see Protect. Zero means a stream that nothing waits for.
	Sync time.Duration

	// Zero means the constants below; tests have less time.
	heartbeat, silence, lookEvery time.Duration
	wrap                          func(net.Conn) net.Conn // of the stream's socket, in tests
}

func (o *SourceOptions) defaults() {
	if o.heartbeat == 0 {
		o.heartbeat = heartbeat
	}
	if o.silence == 0 {
		o.silence = silenceLimit
	}
	if o.lookEvery == 0 {
		o.lookEvery = lookEvery
	}
}

const (
	// idleTick is the longest Next stays silent.
	idleTick = 200 * time.Millisecond
	// heartbeat is how often a server that has nothing to send says so.
	heartbeat = time.Second
	// silenceLimit is how long a server may say nothing, or not answer, before it counts as gone.
	silenceLimit = 10 * time.Second
	// seekLimit is how long a stream may stay silent until its first event. MariaDB reads a file from its beginning
	// to the place that was asked for, and says nothing meanwhile; watch notices a server that is gone.
	seekLimit = 10 * time.Minute
	// killTimeout bounds how long Close tries to end the server's half of the stream.
	killTimeout = 3 * time.Second
	// lookEvery is how often the server is asked for its clock and its log.
	lookEvery = 5 * time.Second
)

// Source streams a server's binlog. Next is for one goroutine; Ack and Health may be called from any. It implements
// capture.Source.
type Source struct {
	opts     SourceOptions
	start    change.Message
	dump     *Conn       // carries the stream
	control  *Conn       // of watch, once that runs
	batches  chan *batch // closed by the reader
	free     chan *batch
	fence    atomic.Pointer[fence]
	arrived  atomic.Bool // something behind the stream's opening words
	health   atomic.Pointer[Health]
	acked    atomic.Pointer[change.Position]
	id       Incarnation
	warning  string // see Warning
	waits    commits
	wake     chan struct{} // asks Next to return
	cancel   context.CancelFunc
	joined   sync.WaitGroup
	failOnce sync.Once
	failure  error         // set before failed is closed
	failed   chan struct{} // closed by the first failure

	framer framer // of the reader
	rest   []byte // of the reader

	parser parser
	cur    *batch
	at     int   // in cur
	stood  place // of the parser when it was last idle, and since when
	since  time.Time
	timer  *time.Timer
}

// Open checks that the server has all that is behind the archive's end, and starts to stream it. It returns an error
// wrapping capture.ErrGap when it has not, capture.ErrDiverged when its history is another one,
// capture.ErrOtherCapture when somebody uses our server id, and capture.ErrUnreachable when waiting may help.
func Open(ctx context.Context, opts SourceOptions) (_ *Source, err error) {
	opts.defaults()
	s := &Source{
		opts: opts, batches: make(chan *batch, 1), free: make(chan *batch, batchesInFlight),
		failed: make(chan struct{}), timer: time.NewTimer(idleTick), wake: make(chan struct{}, 1),
		waits: commits{nudge: make(chan struct{}, 1)},
	}
	defer func() {
		if err != nil {
			s.closeConns()
		}
	}()
	if s.control, err = Connect(ctx, opts.URL); err != nil {
		return nil, err
	}
	held, err := s.check(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.control.hold(ctx, opts.ReplicaUUID); err != nil {
		return nil, err
	}
	s.parser = parser{held: held, torn: opts.Torn, count: counter{Counter: binlog.NewCounter()}, time: opts.Latest}
	if opts.Tail == "" {
		s.parser.time = s.start.CommitTime
	}
	s.start.Kind, s.start.Position = change.KindIdle, s.parser.position()
	if err := s.prove(ctx, held, opts.Last); err != nil {
		return nil, s.related(ctx, held, err)
	}
	s.waits.durable = s.start.Position
	if s.dump, err = Connect(ctx, opts.URL); err != nil {
		return nil, err
	}
	if err := s.dump.sameAs(ctx, s.control); err != nil {
		return nil, err
	}
	if opts.Sync != 0 {
		if err := s.semiSync(ctx); err != nil {
			return nil, err
		}
	}
	from, err := s.control.before(ctx, held, opts.Last)
	if err != nil {
		return nil, err
	}
	if err := s.dump.request(ctx, from, &s.opts, onward); err != nil {
		return nil, err
	}
	if opts.wrap != nil {
		s.dump.wire.conn = opts.wrap(s.dump.wire.conn)
	}
	run, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	for range cap(s.free) {
		s.free <- &batch{}
	}
	s.joined.Go(func() { s.read(run) }) // all joined by Close
	s.joined.Go(func() { s.watch(run) })
	if opts.Sync != 0 {
		s.joined.Go(func() { s.release(run) })
	}
	if err := s.first(ctx); err != nil {
		s.halt(err)
		return nil, s.related(ctx, held, err)
	}
	return s, nil
}

// first waits for the server's first words: that it does not have what was asked for is one of the answers.
func (s *Source) first(ctx context.Context) error {
	select {
	case b, ok := <-s.batches:
		if ok && len(b.data) > 0 {
			s.begin(b)
			return nil
		}
		return s.ended(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Start returns where the stream begins, and the source's time when it was opened: what the first segment of an epoch
// has to say.
func (s *Source) Start() *change.Message {
	m := s.start
	return &m
}

// Health returns what is known of the server's log; nil before the first look.
func (s *Source) Health() *Health { return s.health.Load() }

// fail ends the stream with err, the first one given. Closing the socket frees the reader.
func (s *Source) fail(err error) {
	s.failOnce.Do(func() {
		s.failure = err
		close(s.failed)
		if s.dump != nil {
			_ = s.dump.wire.conn.Close() // what counts is that it is closed
		}
	})
}

// Close stops the stream, on the server too, and waits for everything it started.
func (s *Source) Close() { s.stop(errors.New("source closed")) }

func (s *Source) stop(err error) {
	s.halt(err)
	s.closeConns()
}

// halt ends all that was started. From then on the connections are the caller's alone.
func (s *Source) halt(err error) {
	s.fail(err)
	s.cancel()
	s.joined.Wait()
	s.parser.count.CountAbandon()
	s.timer.Stop()
}

// closeConns also ends the server's half of the stream, which would notice only when it next has something to send.
func (s *Source) closeConns() {
	if s.dump != nil {
		_ = s.dump.wire.conn.Close()
		s.kill()
	}
	if s.control != nil {
		s.control.Close()
	}
	if s.waits.conn != nil {
		s.waits.conn.Close()
	}
}

// revive opens the control connection again if a look at the server that was cut short has taken it along.
func (s *Source) revive(ctx context.Context) error {
	if !s.control.Closed() {
		return nil
	}
	conn, err := s.control.cfg.Connect(ctx)
	if err == nil {
		s.control = conn
	}
	return err
}

// kill ends the server's half of the stream. A server that was started again meanwhile gives our connection's number to others: only what carries a log to
// our own end of the connection is ended.
func (s *Source) kill() {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	if s.revive(ctx) != nil {
		return // the server is gone, and the stream with it
	}
	where := "id = " + s.dump.id() + " AND command LIKE 'Binlog Dump%'"
	if local, ok := s.dump.wire.conn.LocalAddr().(*net.TCPAddr); ok {
		where += fmt.Sprintf(" AND host LIKE '%%:%d'", local.Port)
	}
	if _, err := s.control.QueryRow(ctx, "SELECT id FROM information_schema.processlist WHERE "+where); err != nil {
		return // it has ended by itself
	}
	_ = s.control.Exec(ctx, "KILL "+s.dump.id())
}

// check compares the server with what the archive expects, and returns what the record holds.
func (s *Source) check(ctx context.Context) (*gtid.Set, error) {
	var err error
	if s.start.CommitTime, err = s.control.settled(ctx); err != nil { // before the sets: they may say more, not less
		return nil, err
	}
	id, err := s.control.identify(ctx)
	if err != nil {
		return nil, err
	}
	s.id = id
	if s.opts.ServerID == 0 || s.opts.ServerID == id.ServerID {
		return nil, fmt.Errorf("server id %d is not one that capture can have towards a server with server_id %d: give it another", s.opts.ServerID, id.ServerID)
	}
	if err := s.control.logs(ctx); err != nil {
		if s.opts.Tail != "" && errors.Is(err, errAnonymousNow) {
			// What was committed since the mode changed has no GTIDs, and will not be sent.
			err = fmt.Errorf("%w: %w; then %s", capture.ErrGap, err, newEpoch)
		}
		return nil, err
	}
	executed, err := gtid.Parse(id.Flavor, string(id.Executed))
	if err != nil || s.opts.Tail == "" {
		return executed, err
	}
	held, err := gtid.Parse(id.Flavor, string(s.opts.Tail))
	if err != nil {
		return nil, fmt.Errorf("the source is %s, and the record ends at %q: %w", id.Flavor, s.opts.Tail, err)
	}
	if !executed.Contains(held) {
		if executed, err = s.control.settledOn(ctx, held); err != nil {
			return nil, err
		}
		if !executed.Contains(held) {
			return nil, s.diverged(ctx, held, executed)
		}
	}
	if id.Flavor == gtid.MySQL {
		purged, err := s.control.readSet(ctx, "@@global.gtid_purged")
		if err != nil {
			return nil, err
		}
		if !held.Contains(purged) {
			return nil, fmt.Errorf("%w: the source has purged transactions that were not recorded: %s: run capture with --new-epoch to go on behind the gap, and let it keep its log longer (binlog_expire_logs_seconds)",
				capture.ErrGap, held.Missing(purged))
		}
	}
	return held, nil
}

// before returns held without its last transaction, if a MySQL can still send that: it then reads its log from there
// on, and not from the newest file that says it comes behind the record, and so cannot pass over transactions
// without GTIDs in silence.
func (c *Conn) before(ctx context.Context, held *gtid.Set, last *Last) (*gtid.Set, error) {
	if c.Flavor != gtid.MySQL || last == nil || last.print == nil || !held.Has(last.print.gtid) {
		return held, nil // there is none that could be asked for
	}
	purged, err := c.readSet(ctx, "@@global.gtid_purged")
	if err != nil || purged.Has(last.print.gtid) {
		return held, err
	}
	return last.without(held), nil
}

// lagLimit is how long a transaction may be in the log, and so in the record, before the
// server counts it among the executed ones.
const lagLimit = 10 * time.Second

// settledOn waits a while for a server that has written transactions to its log and not committed
// them yet, and returns what it has executed then. While sessions of it wait for a semi-synchronous
// replica that may be as long as somebody has chosen: then it returns ErrAwaited, and the source is to be asked again later.
func (c *Conn) settledOn(ctx context.Context, held *gtid.Set) (*gtid.Set, error) {
	for deadline := time.Now().Add(lagLimit); ; {
		executed, err := c.executed(ctx)
		if err != nil || executed.Contains(held) {
			return executed, err
		}
		waiting, err := c.semiSyncWaits(ctx)
		if err != nil {
			return nil, err
		}
		if waiting {
			return nil, unreachable(fmt.Errorf("%w: %s", ErrAwaited, executed.Missing(held)))
		}
		if time.Now().After(deadline) {
			return executed, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// semiSyncWaits reports whether sessions wait for the acknowledgement of a replica.
func (c *Conn) semiSyncWaits(ctx context.Context) (bool, error) {
	r, err := c.Query(ctx, "SHOW GLOBAL STATUS WHERE Variable_name IN ('Rpl_semi_sync_source_wait_sessions', 'Rpl_semi_sync_master_wait_sessions')")
	if err != nil {
		return false, wrapSQL("read the server's status", err)
	}
	for _, row := range r.Rows {
		if n, err := row[1].Int(); err == nil && n > 0 {
			return true, nil
		}
	}
	return false, nil
}

// diverged explains a record that holds what the server does not have.
func (s *Source) diverged(ctx context.Context, held, executed *gtid.Set) error {
	return s.related(ctx, held, fmt.Errorf("%w: the record holds transactions that the source does not have: %s: it was reset, restored or lost them, or another server that lacks them took its place; run capture with --new-epoch to record from here on",
		capture.ErrDiverged, executed.Missing(held)))
}

// related returns err, unless it says that histories diverged and the server's never had anything to do with the
// record's.
func (s *Source) related(ctx context.Context, held *gtid.Set, err error) error {
	if !errors.Is(err, capture.ErrDiverged) {
		return err
	}
	return cmp.Or(s.stranger(ctx, held), err)
}

// stranger refuses a server that has nothing to do with the record, which is none to record a gap for.
func (s *Source) stranger(ctx context.Context, held *gtid.Set) error {
	if s.opts.Known == s.id.System {
		return nil
	}
	executed, err := gtid.Parse(s.id.Flavor, string(s.id.Executed))
	if err != nil {
		return err
	}
	related := executed.Overlaps(held)
	if s.id.Flavor == gtid.MariaDB {
		if err := s.revive(ctx); err != nil {
			return err
		}
		if related, err = s.control.knows(ctx, held); err != nil {
			return err
		}
	}
	if related {
		return nil
	}
	return fmt.Errorf("the source is another server: it has committed none of the transactions on record (it is %s with %q, the record ends at %q): check the source URL, or give a new archive to a new server",
		s.id.System, executed, held)
}

// knows reports whether a server of MariaDB has logged, or as a replica applied, anything of a server that the record
// has transactions of.
func (c *Conn) knows(ctx context.Context, held *gtid.Set) (bool, error) {
	row, err := c.QueryRow(ctx, "SELECT CONCAT_WS(',', @@global.gtid_binlog_state, @@global.gtid_slave_pos)")
	if err != nil {
		return false, wrapSQL("read @@global.gtid_binlog_state", err)
	}
	for _, g := range gtidList(row[0].String()) {
		if last, ok := held.Last(g.Domain); ok && last.Server == g.Server {
			return true, nil
		}
	}
	return false, nil
}
