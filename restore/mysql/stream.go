package mysql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"txreel/change"
	"txreel/internal/failpoint"
	"txreel/restore/mysql/reduce"
	"txreel/segment"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
)

// sender sends the record to one replica, from the first transaction that it lacks.
type sender struct {
	primary *primary
	have    *gtid.Set
	replica uint32 // the replica's own server id, by its word
	v2      bool   // the replica understands HEARTBEAT_V2
	period  time.Duration

	mu   sync.Mutex // held from the first event of a transaction to its last one
	wire *wire

	format  *binlog.Format  // of the events that follow; nil before the first definition
	defined []byte          // the FORMAT_DESCRIPTION event of that format
	told    bool            // it was sent, as the head of the current file
	fresh   bool            // it was not sent yet: another file of the source began
	sum     binlog.Checksum // what the replica expects
	file    int             // number of the file that the replica believes to read
	start   int64           // wire.sent where that file began
	clock   int64           // MySQL: the last sequence number in it
	highest uint32          // position that an event in it says it has, in its own file
	buf     []byte

	txn    segment.Record // the open transaction
	g      gtid.GTID
	stage  stage
	front  [][]byte // what stands before its GTID event
	before int64    // wire.sent where it began
	left   int64    // of an event that comes in pieces
}

// stage tells what happens with the messages of the open transaction.
type stage uint8

const (
	waiting  stage = iota // for its GTID event
	sending               // with mu held
	skipping              // the replica has it
)

const (
	// fileSize is how much is served under one file name: a replica's idea of its
	// position must stay below the 4 GiB that a heartbeat can name.
	fileSize = 1 << 30
	// maxFront bounds what may stand before a transaction's GTID event.
	maxFront = 1000
	// maxStatement bounds the statements that are looked at: no CREATE EVENT is as long.
	maxStatement = 16 << 20
)

// dump sends what the replica lacks, up to the cut, and then an error that makes the
// replica's receiver end: its applier goes on.
func (s *session) dump(have *gtid.Set, replica uint32, v2 bool) error {
	p := s.primary
	if p.startsAgain() {
		return fatal(againText)
	}
	ctx, done, err := p.takeOver()
	if err != nil {
		return fatal("txreel: the restore has ended")
	}
	defer done()
	p.ledger.received(have)
	link := s.conn.Conn.Conn
	defer context.AfterFunc(ctx, func() { _ = link.Close() })() // a write may be waiting
	w := newWire(link, s.conn.Sequence)
	d := &sender{primary: p, have: have, replica: replica, v2: v2, period: s.period, wire: w,
		sum: binlog.ChecksumCRC32} // as the conversation has promised
	err = d.run(ctx)
	s.conn.Sequence = w.seq
	switch {
	case ctx.Err() != nil:
		return fatal("txreel: the restore has ended")
	case w.err != nil: // the replica went away and will come back
		p.note("the connection broke: " + plain(w.err).Error())
		return w.err
	case err != nil:
		p.fail(err)
		return fatal("txreel: the restore has failed: " + err.Error())
	}
	p.mu.Lock()
	p.complete = true
	p.mu.Unlock()
	return fatal(endText)
}

// run sends until the cut.
func (d *sender) run(ctx context.Context) (err error) {
	warm, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		d.keepWarm(warm)
	}()
	defer func() { // joins it, with mu free
		if d.stage == sending {
			d.mu.Unlock()
		}
		stop()
		wg.Wait()
	}()
	d.mu.Lock()
	err = d.rotate()
	d.mu.Unlock()
	if err != nil {
		return err
	}
	p := d.primary
	from := p.ledger.at()
	if from >= p.cut {
		return d.end()
	}
	record := p.open(from)
	defer record.Close()
	p.catalog.connected(d.end)
	stream := reduce.NewStream(record, p.catalog, p.window)
	defer func() { p.leftOut.Add(stream.LeftOut()) }()
	for {
		rec, err := stream.Next(ctx)
		if errors.Is(err, io.EOF) {
			return d.end()
		}
		if err == nil {
			err = d.record(ctx, &rec)
		}
		if err != nil {
			return err
		}
	}
}

func (d *sender) end() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wire.flush()
}

// record takes the next record.
func (d *sender) record(ctx context.Context, rec *segment.Record) error {
	switch rec.Kind {
	case segment.Definition:
		return d.define(rec.Raw)
	case segment.Begin:
		d.txn, d.stage, d.front, d.left = *rec, waiting, d.front[:0], 0
		return nil
	case segment.Message:
		if err := d.message(ctx, rec.Raw); err != nil {
			return d.failed(err)
		}
		return nil
	}
	return d.commit(ctx, rec)
}

// failed names the open transaction in an error that is not the connection's.
func (d *sender) failed(err error) error {
	if d.wire.err != nil {
		return err
	}
	return fmt.Errorf("transaction %s of the record: %w", d.txn.Seq, err)
}

// define takes a FORMAT_DESCRIPTION event. Segments repeat them.
func (d *sender) define(raw []byte) error {
	if bytes.Equal(raw, d.defined) {
		return nil
	}
	e, err := binlog.Parse(raw, binlog.ChecksumCRC32)
	if err != nil {
		return fmt.Errorf("definition in the record: %w", err)
	}
	if e.Type != binlog.TypeFormatDescription {
		return nil // what a later version adds
	}
	if d.format, err = binlog.ParseFormat(&e); err != nil {
		return fmt.Errorf("definition in the record: %w", err)
	}
	if d.format.Flavor != d.primary.flavor {
		return fmt.Errorf("definition in the record: it is one of %s, the archive's others are of %s", d.format.Flavor, d.primary.flavor)
	}
	d.defined, d.told, d.fresh = bytes.Clone(raw), false, true
	return nil
}

// message takes the next event of the open transaction, or a piece of one.
func (d *sender) message(ctx context.Context, raw []byte) error {
	if d.stage == skipping {
		return nil
	}
	if d.left > 0 { // the event goes on
		if int64(len(raw)) > d.left {
			return errPieces
		}
		d.left -= int64(len(raw))
		return d.wire.write(raw)
	}
	h, err := binlog.ParseHeader(raw)
	if err != nil {
		return err
	}
	if int64(len(raw)) > int64(h.Size) {
		return fmt.Errorf("%w: a %s event of %d bytes claims %d", binlog.ErrMalformed, h.Type, len(raw), h.Size)
	}
	if h.ServerID == d.replica { // the replica would drop it, and count it as executed
		return fmt.Errorf("its %s event carries server id %d, which is the target's own now: run the same restore again, it draws another for the target and continues",
			h.Type, h.ServerID)
	}
	if d.stage == waiting {
		return d.begin(&h, raw)
	}
	d.highest = max(d.highest, h.LogPos)
	if h.Type == binlog.TypeAnnotateRows && int(h.Size) == len(raw) {
		// The text of a client's statement, in front of its rows: for readers of a binary log. It is in the archive;
		// a replica does nothing with it, and has a system call and a lock for each event.
		return nil
	}
	if int(h.Size) == len(raw) && (h.Type == binlog.TypeQuery || h.Type == binlog.TypeQueryCompressed) {
		if err := d.statement(ctx, raw); err != nil {
			return err
		}
	}
	d.wire.begin(int64(h.Size))
	d.left = int64(h.Size) - int64(len(raw))
	err = d.wire.write(raw)
	failpoint.Hit(failpoint.RestoreMessageSent)
	return err
}

// begin waits for the event that tells which transaction this is, and decides.
func (d *sender) begin(h *binlog.Header, raw []byte) error {
	if d.format == nil {
		return errors.New("no FORMAT_DESCRIPTION event stands before it")
	}
	if int(h.Size) != len(raw) {
		return fmt.Errorf("an event of %d bytes stands before its GTID event", h.Size)
	}
	if !h.Type.Begins() {
		if len(d.front) == maxFront {
			return fmt.Errorf("%d events stand before its GTID event", maxFront)
		}
		d.front = append(d.front, bytes.Clone(raw))
		return nil
	}
	e, err := d.format.Parse(raw)
	if err != nil {
		return err
	}
	group, err := binlog.ParseGroup(&e)
	if err != nil {
		return err
	}
	d.g = group.GTID
	if d.g.IsZero() {
		return errors.New("it has no GTID")
	}
	if d.have.Has(d.g) {
		d.stage = skipping
		return nil
	}
	d.mu.Lock()
	d.stage = sending
	if group.SequenceNumber != 0 {
		// The numbers by which a replica's workers order transactions begin anew with each file.
		if group.SequenceNumber <= d.clock {
			d.told = false
		}
		d.clock = group.SequenceNumber
	}
	if d.wire.sent-d.start > fileSize {
		d.told = false
	}
	if err := d.head(); err != nil {
		return err
	}
	d.before = d.wire.sent
	for _, f := range d.front {
		if err := d.wire.event(f); err != nil {
			return err
		}
	}
	return d.wire.event(raw)
}

// statement shows a statement to who watches them.
func (d *sender) statement(ctx context.Context, raw []byte) error {
	if len(raw) > maxStatement {
		return nil
	}
	e, err := d.format.Parse(raw)
	if err != nil {
		return err
	}
	q, err := binlog.ParseQuery(&e)
	if err != nil || q.Compressed {
		return nil //nolint:nilerr // the replica judges it
	}
	return d.primary.statement(ctx, q.Schema, q.Text)
}

// commit ends the open transaction.
func (d *sender) commit(ctx context.Context, rec *segment.Record) error {
	switch {
	case d.stage == waiting && d.txn.TxnKind == change.TxnSource:
		return d.failed(errors.New("it has no GTID event"))
	case d.stage == skipping:
		d.note(0)
		return nil
	case d.stage == waiting:
		return nil
	case d.left > 0:
		return d.failed(errPieces)
	case d.g.String() != rec.XID:
		return d.failed(fmt.Errorf("its index calls it %s, its events %s", rec.XID, d.g))
	}
	n := d.wire.sent - d.before
	d.stage = waiting
	d.mu.Unlock()
	d.note(n)
	failpoint.Hit(failpoint.RestoreTxnSent)
	return d.primary.ledger.wait(ctx)
}

// note notes that the replica has the open transaction, of which n bytes were sent.
func (d *sender) note(n int64) {
	p := d.primary
	p.ledger.add(d.g, d.txn.Seq, n, d.txn.Seq == p.cut || d.txn.Seq == p.catalog.altered)
}

// name is that of the file the replica believes to read.
func (d *sender) name() string { return fmt.Sprintf("txreel-bin.%06d", d.file) }

// rotate tells the replica that another file begins.
func (d *sender) rotate() error {
	d.file++
	d.buf = binlog.AppendRotate(d.buf[:0], binlog.Header{ServerID: d.primary.serverID, Flags: binlog.FlagArtificial},
		binlog.Rotate{Position: uint64(len(binlog.Magic)), Name: []byte(d.name())}, d.sum)
	err := d.wire.event(d.buf)
	d.start, d.highest = d.wire.sent, 0
	return err
}

// head begins another file if the events that follow need one.
func (d *sender) head() error {
	if d.told {
		return nil
	}
	first := d.start == d.wire.sent && d.file == 1
	if !first {
		if err := d.rotate(); err != nil {
			return err
		}
	}
	raw := d.defined
	e, err := d.format.Parse(raw)
	if err != nil {
		return err
	}
	if first || !d.fresh { // not, or not for sure, the beginning of the source's file
		raw = again(&e)
	}
	d.told, d.fresh, d.sum = true, false, d.format.Checksum
	return d.wire.event(raw)
}

// again returns a copy of a FORMAT_DESCRIPTION event without the time at which the source
// started, which would make a replica drop the temporary tables that later events need.
// All else stays, as a primary has it: behind the first part of a transaction, where a connection broke, MySQL 9.7 does
// not survive one that calls itself artificial or has no position.
func again(e *binlog.Event) []byte {
	const created = 2 + 50 // behind the version of the format and that of the server
	copied := *e
	copied.Body = bytes.Clone(e.Body)
	clear(copied.Body[created : created+4])
	return binlog.AppendMoved(nil, &copied, e.LogPos)
}

// keepWarm sends what waits in the buffer, and heartbeats while nothing else is
// sent, as the archive is slow or the replica behind: a silent primary counts as a dead
// one. Never inside a transaction.
func (d *sender) keepWarm(ctx context.Context) {
	const look = 50 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !d.mu.TryLock() {
			continue // a transaction is being sent
		}
		if d.period > 0 && time.Since(d.wire.last) >= d.period {
			d.heartbeat()
		}
		_ = d.wire.flush() // sticky: the sender meets it
		d.mu.Unlock()
	}
}

func (d *sender) heartbeat() {
	// The replica adds up the sizes of what it receives. MariaDB takes some positions from events instead, and
	// minds a heartbeat only if it stands before them.
	at := uint64(len(binlog.Magic)) + uint64(d.wire.sent-d.start)
	if d.primary.flavor == gtid.MariaDB {
		at = max(at, uint64(d.highest))
	}
	h := binlog.Header{ServerID: d.primary.serverID, LogPos: uint32(min(at, math.MaxUint32))}
	if d.v2 {
		d.buf = binlog.AppendHeartbeatV2(d.buf[:0], h, d.name(), at, d.sum)
	} else {
		d.buf = binlog.AppendHeartbeat(d.buf[:0], h, d.name(), d.sum)
	}
	sent := d.wire.sent
	_ = d.wire.event(d.buf) // sticky
	d.wire.sent = sent      // it counts for no position
}
