package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/failpoint"
	"txreel/restore"
	"txreel/segment"
	"txreel/sources/postgres/pgoutput"
)

// A transaction of the target holds many of the source's, up to these bounds. They are
// low, since the versions that a transaction makes of one row stay in the way of its next update
// until it commits.
const (
	batchRows  = 1000
	batchBytes = 4 << 20
)

const (
	// copyFrom is how many rows of one table in a row are worth a COPY.
	copyFrom = 50
	// pendingMax is how many bytes of inserted rows wait at most.
	pendingMax = 8 << 20
	copyPiece  = 256 << 10
	// patternsMax is how many forms of UPDATE and DELETE of one table stay prepared.
	patternsMax = 512
)

// replay applies records. Rows inserted into a table wait until the table is needed
// otherwise, or the transaction ends: without triggers and foreign keys, which
// do not exist yet, only the order within a table matters.
type replay struct {
	target  *Target
	conn    *pgx.Conn
	pipe    *pipe
	decoder pgoutput.Decoder
	event   change.Event
	bind    pgproto3.Bind
	keys    arena

	heaps    map[uint32]*heap // by the relation's number in the source
	tables   map[string]*table
	waiting  []*heap // with pending rows
	pending  int     // bytes of them
	pattern  []byte
	deferred bool // a deferrable key exists

	begin, commit, progress, immediate, defer_ string // prepared statements

	open  bool       // a transaction of the target is open
	seq   change.Seq // the transaction being applied
	held  bool       // the base holds it: it is passed over
	whole change.Seq // the last one applied whole
	noted change.Seq // what the target's progress says
	rows  int        // since the target's transaction began
	bytes int

	counts map[string]int64 // rows each table must have

	mends []*archive.Base // partial bases to come

	ahead *merged // what is merged already; nil: nothing

	passed map[relationName]bool // tables made since the base that a partial restore leaves out, or does not

	definer  *definer
	defining bool // the transaction being applied changes definitions
}

// op is what a statement is part of, for errors, and what its result must be.
type op struct {
	verb string
	heap *heap
	seq  change.Seq
	key  []byte
	want int64 // rows; negative when any number will do
	done func(tag []byte) error
}

func (o *op) fail(err error) error {
	what := o.verb
	if o.heap != nil {
		what += " " + o.heap.name
	}
	if len(o.key) > 0 {
		what += " (" + string(o.key) + ")"
	}
	return &restore.RecordError{Seq: o.seq, Err: fmt.Errorf("%s: %w", what, err)}
}

func newReplay(ctx context.Context, t *Target, counts map[string]int64) (*replay, error) {
	conn, err := t.connect(ctx, workerApp, map[string]string{
		"synchronous_commit": "off", "jit": "off",
		// A plan made while a table is small must do when it is large.
		"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off",
	})
	if err != nil {
		return nil, err
	}
	r := &replay{target: t, conn: conn, heaps: make(map[uint32]*heap), tables: make(map[string]*table), passed: make(map[relationName]bool),
		counts: maps.Clone(counts), whole: t.applied, noted: t.applied}
	for i := range t.tables {
		r.tables[t.tables[i].name()] = &t.tables[i]
	}
	r.definer = newDefiner(r, t.applied)
	if r.mends, err = t.nextMends(ctx); err == nil {
		err = r.findDeferrable(ctx)
	}
	if err == nil {
		r.ahead, _, err = t.readMerged(ctx)
	}
	if err != nil {
		hangUp(conn)
		return nil, err
	}
	r.pipe = newPipe(ctx, conn.PgConn())
	for _, s := range []struct {
		name *string
		sql  string
	}{
		{&r.begin, "BEGIN"}, {&r.commit, "COMMIT"},
		{&r.immediate, "SET CONSTRAINTS ALL IMMEDIATE"}, {&r.defer_, "SET CONSTRAINTS ALL DEFERRED"},
		{&r.progress, "UPDATE txreel_restore.progress SET seq = $1, rows = $2 WHERE seq = $3"},
	} {
		*s.name = r.pipe.name()
		if err = r.pipe.prepare(*s.name, s.sql); err != nil {
			break
		}
	}
	if err == nil {
		err = r.pipe.drain()
	}
	if err != nil {
		r.close()
		return nil, fmt.Errorf("prepare the replay: %w", err)
	}
	return r, nil
}

func (r *replay) findDeferrable(ctx context.Context) error {
	err := r.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE condeferrable)").Scan(&r.deferred)
	if err != nil {
		return fmt.Errorf("look at constraints: %w", err)
	}
	return nil
}

func (r *replay) close() {
	r.pipe.close()
	hangUp(r.conn)
}

// Replay implements restore.Target.
func (t *Target) Replay(ctx context.Context, _ func(after change.Seq) *archive.Stream) (err error) {
	defer t.lost(&err)
	if err := t.replay.mendAt(ctx, t.applied); err != nil || t.applied == t.job.Plan.Seq {
		return err
	}
	if t.job.Plan.Partial != nil {
		return t.replayChosen(ctx)
	}
	return t.replayAll(ctx)
}

// replayStream applies all of a stream, and closes it.
func (t *Target) replayStream(ctx context.Context, s *archive.Stream) error {
	defer s.Close()
	base := t.job.Plan.Base.Seq
	total := int64(t.job.Plan.Seq - base)
	for {
		rec, err := s.Next()
		if errors.Is(err, io.EOF) {
			return t.replay.land()
		}
		if err != nil {
			return errors.Join(err, t.replay.land()) // keep what is whole
		}
		if err := t.replay.apply(ctx, &rec); err != nil {
			return err
		}
		if rec.Kind == segment.Begin && rec.Seq%256 == 0 {
			t.job.Progress(restore.PhaseReplay, int64(rec.Seq-base), total, "transactions")
		}
	}
}

// land returns when the target has committed all that was applied. In the middle of a
// transaction there is nothing it could commit.
func (r *replay) land() error {
	if r.seq != r.whole {
		return nil
	}
	if err := r.end(); err != nil {
		return err
	}
	return r.pipe.drain()
}

func (r *replay) apply(ctx context.Context, rec *segment.Record) error {
	switch rec.Kind {
	case segment.Begin:
		r.seq = rec.Seq
		r.held = r.target.job.Plan.Base.Holds(rec.Seq)
		if r.defining = r.definer.at(rec.Seq); r.defining {
			return r.definer.begin(ctx, rec.Seq)
		}
		return r.start()
	case segment.Definition:
		_, err := r.decoder.Event(rec.Raw, &r.event)
		return err
	case segment.Message:
		isEvent, err := r.decoder.Event(rec.Raw, &r.event)
		if err != nil {
			return &restore.RecordError{Seq: r.seq, Err: err}
		}
		if !isEvent || r.held {
			return nil
		}
		r.bytes += len(rec.Raw)
		err = r.change(ctx)
		failpoint.Hit(failpoint.RestoreMessageSent)
		return err
	case segment.Commit:
		r.whole = r.seq
		failpoint.Hit(failpoint.RestoreTxnSent)
		if r.deferred { // each transaction of the source held by itself
			if err := r.plain(r.immediate, "check constraints"); err != nil {
				return err
			}
			if err := r.plain(r.defer_, "defer constraints"); err != nil {
				return err
			}
		}
		if r.defining {
			if err := r.flushAll(); err != nil {
				return err
			}
			if err := r.definer.end(ctx); err != nil {
				return &restore.RecordError{Seq: r.seq, Err: err}
			}
		}
		if len(r.mends) > 0 && r.mends[0].Seq == r.seq {
			return r.mendAt(ctx, r.seq)
		}
		if r.defining || r.rows >= batchRows || r.bytes >= batchBytes {
			return r.end()
		}
	}
	return nil
}

// start begins a transaction of the target unless one is open.
func (r *replay) start() error {
	if r.open {
		return nil
	}
	r.open, r.rows, r.bytes = true, 0, 0
	if err := r.plain(r.begin, "begin"); err != nil {
		return err
	}
	if r.deferred {
		return r.plain(r.defer_, "defer constraints")
	}
	return nil
}

// plain executes a statement without parameters that changes no rows.
func (r *replay) plain(name, verb string) error {
	r.bind = pgproto3.Bind{PreparedStatement: name, Parameters: r.bind.Parameters[:0]}
	return r.pipe.exec(&r.bind, op{verb: verb, seq: r.seq, want: -1})
}

// end commits what is applied, whole transactions of the source and the progress
// with them. Nothing is committed before every statement's result has been checked.
func (r *replay) end() error {
	if !r.open || r.whole == r.noted {
		return r.pipe.drain()
	}
	if err := r.flushAll(); err != nil {
		return err
	}
	counts, err := json.Marshal(r.counts)
	if err != nil {
		return err
	}
	r.bind = pgproto3.Bind{PreparedStatement: r.progress,
		Parameters: append(r.bind.Parameters[:0], []byte(r.whole.String()), counts, []byte(r.noted.String()))}
	if err := r.pipe.exec(&r.bind, op{verb: "note progress", seq: r.seq, want: 1}); err != nil {
		return err
	}
	if err := r.pipe.drain(); err != nil {
		return err
	}
	failpoint.Hit(failpoint.RestoreBatchCommitting)
	r.bind = pgproto3.Bind{PreparedStatement: r.commit, Parameters: r.bind.Parameters[:0]}
	whole := r.whole
	// The answer may come later: should this fail, nothing behind it is committed, since
	// the next commit waits for all answers.
	err = r.pipe.exec(&r.bind, op{verb: "commit", seq: r.seq, want: -1, done: func(tag []byte) error {
		if string(tag) != "COMMIT" {
			return fmt.Errorf("the server answered %s", tag)
		}
		r.target.applied = whole
		failpoint.Hit(failpoint.RestoreBatchCommitted)
		return nil
	}})
	r.open, r.noted = false, whole
	return err
}

// change applies the decoded event.
func (r *replay) change(ctx context.Context) error {
	ev := &r.event
	switch ev.Op {
	case change.OpMessage:
		return nil
	case change.OpTruncate:
		return r.truncate(ctx)
	}
	if ev.Relation.Schema == ourSchema {
		if !r.defining {
			return nil
		}
		if err := r.definer.row(ctx); err != nil {
			return &restore.RecordError{Seq: r.seq, Err: err}
		}
		return nil
	}
	if r.ahead.has(r.seq, ev.Relation) {
		return nil
	}
	if skip, err := r.passes(ctx, ev.Relation); skip || err != nil {
		return err
	}
	h, err := r.heap(ctx, ev.Relation)
	if err != nil {
		return &restore.RecordError{Seq: r.seq, Err: err}
	}
	r.rows++
	switch ev.Op {
	case change.OpInsert:
		return r.insert(h)
	case change.OpDelete:
		r.counts[h.name]--
	}
	return r.alter(h)
}

// heap finds the table a Relation message describes.
func (r *replay) heap(ctx context.Context, rel *change.Relation) (*heap, error) {
	h := r.heaps[rel.ID]
	if h != nil && h.relation == rel {
		return h, nil
	}
	if h != nil && same(h.relation, rel) { // repeated in the next segment
		h.relation = rel
		return h, nil
	}
	if h != nil {
		if err := r.flush(h); err != nil {
			return nil, err
		}
	}
	conn, at := r.target.control, rel
	if r.definer.whole { // what it looks at may be of this very transaction
		if err := r.pipe.drain(); err != nil {
			return nil, err
		}
		conn = r.conn
		var err error
		if at, err = r.definer.ready(ctx, rel); err != nil {
			return nil, err
		}
	}
	h, err := newHeap(ctx, conn, at, r.tables[at.String()])
	if err != nil {
		return nil, err
	}
	h.relation = rel
	r.heaps[rel.ID] = h
	return h, nil
}

// forget drops what is known of tables: their definitions are about to change, or have. No rows wait for any.
func (r *replay) forget() {
	clear(r.heaps)
	clear(r.tables)
	clear(r.passed)
}

func (r *replay) insert(h *heap) error {
	if h.pendingRows == 0 {
		r.waiting = append(r.waiting, h)
	}
	before := len(h.pending)
	if err := h.add(r.event.New); err != nil {
		return &restore.RecordError{Seq: r.seq, Err: err}
	}
	h.lastInsert = op{verb: "insert into", heap: h, seq: r.seq, want: 1}
	r.counts[h.name]++
	r.pending += len(h.pending) - before
	if r.pending >= pendingMax {
		return r.flushAll()
	}
	return nil
}

// alter sends an update or a delete.
func (r *replay) alter(h *heap) error {
	ev := &r.event
	o := op{verb: ev.Op.String(), heap: h, seq: r.seq, want: 1}
	if err := r.flush(h); err != nil {
		return err
	}
	old := ev.Old
	if old == nil {
		old = ev.New // the key is as it was
	}
	if len(h.key) == 0 && !h.byRow || h.byRow && ev.Old == nil && len(h.columns) > 0 {
		return o.fail(fmt.Errorf("the record does not say which row: the table had no replica identity"))
	}
	o.key = r.describe(h, old)
	if !h.byRow {
		for _, i := range h.key {
			if old[i].State != change.Text {
				return o.fail(fmt.Errorf("column %s of its key is %s", h.columns[i].quoted, old[i].State))
			}
		}
	}
	if ev.New != nil {
		for i := range ev.New {
			if s := ev.New[i].State; s == change.Binary || s == change.NotLogged {
				return o.fail(fmt.Errorf("column %s is %s", h.columns[i].quoted, s))
			}
		}
	}
	r.pattern = h.appendPattern(r.pattern[:0], ev, old)
	name, ok := h.changes[string(r.pattern)]
	if !ok {
		if len(h.changes) < patternsMax {
			name = r.pipe.name()
			h.changes[string(r.pattern)] = name
		}
		if err := r.pipe.prepare(name, h.changeSQL(r.pattern)); err != nil {
			return err
		}
	}
	r.bind = pgproto3.Bind{PreparedStatement: name, Parameters: h.appendParams(r.bind.Parameters[:0], ev, old)}
	return r.pipe.exec(&r.bind, o)
}

// describe notes the values that find a row, for an error.
func (r *replay) describe(h *heap, old []change.Value) []byte {
	const most = 200
	r.keys.begin()
	columns := h.key
	if len(columns) == 0 {
		columns = h.hash
	}
	for n, i := range columns {
		if n > 0 {
			r.keys.add(", ")
		}
		r.keys.add(h.columns[i].quoted)
		r.keys.add(" = ")
		if v := &old[i]; v.State == change.Text {
			r.keys.block = append(r.keys.block, v.Bytes[:min(len(v.Bytes), most)]...)
		} else {
			r.keys.add(v.State.String())
		}
	}
	return r.keys.end()
}

// truncate empties the tables named, in one statement: the record lists every one, so
// it never cascades.
func (r *replay) truncate(ctx context.Context) error {
	o := op{verb: "truncate", seq: r.seq, want: -1}
	var names []string
	merged := false
	for _, rel := range r.event.Relations {
		if rel.Schema == ourSchema {
			continue
		}
		if r.ahead.has(r.seq, rel) {
			merged = true
			continue
		}
		if skip, err := r.passes(ctx, rel); err != nil {
			return o.fail(err)
		} else if skip {
			continue
		}
		h, err := r.heap(ctx, rel)
		if err != nil {
			return o.fail(err)
		}
		if err := r.flush(h); err != nil {
			return err
		}
		o.heap = h
		r.counts[h.name] = 0
		names = append(names, h.only+h.quoted)
	}
	if len(names) == 0 {
		return nil
	}
	if merged { // where a foreign key comes from what was named besides, the server refuses TRUNCATE
		return r.deleteAll(names, o)
	}
	sql := "TRUNCATE " + strings.Join(names, ", ")
	if r.event.RestartIdentity {
		sql += " RESTART IDENTITY"
	}
	if err := r.pipe.prepare("", sql); err != nil {
		return err
	}
	r.bind = pgproto3.Bind{Parameters: r.bind.Parameters[:0]}
	return r.pipe.exec(&r.bind, o)
}

// deleteAll empties tables one by one.
func (r *replay) deleteAll(names []string, o op) error {
	for _, name := range names {
		if err := r.pipe.prepare("", "DELETE FROM "+name); err != nil {
			return err
		}
		r.bind = pgproto3.Bind{Parameters: r.bind.Parameters[:0]}
		if err := r.pipe.exec(&r.bind, o); err != nil {
			return err
		}
	}
	return nil
}

func (r *replay) flushAll() error {
	for len(r.waiting) > 0 {
		if err := r.flush(r.waiting[len(r.waiting)-1]); err != nil {
			return err
		}
	}
	return nil
}

// flush sends the rows that wait for a table.
func (r *replay) flush(h *heap) error {
	if h.pendingRows == 0 {
		return nil
	}
	for i, w := range r.waiting {
		if w == h {
			last := len(r.waiting) - 1
			r.waiting[i] = r.waiting[last]
			r.waiting = r.waiting[:last]
			break
		}
	}
	rows, b, written := h.pendingRows, h.pending, 0
	for i := range h.columns {
		if !h.columns[i].generated {
			written++
		}
	}
	r.pending -= len(b)
	h.pendingRows, h.pending = 0, h.pending[:0]
	if cap(h.pending) > 2*pendingMax {
		h.pending = nil
	}
	if rows > copyFrom && written > 0 {
		return r.pipe.copyIn(h.copySQL, rows, h.lastInsert, func(buf []byte) ([]byte, bool) {
			for len(b) > 0 && len(buf) < copyPiece {
				for i := range written {
					if i > 0 {
						buf = append(buf, '\t')
					}
					var v []byte
					v, b = take(b)
					buf = appendCopy(buf, v)
				}
				buf = append(buf, '\n')
			}
			return buf, len(b) > 0
		})
	}
	if h.insert == "" {
		h.insert = r.pipe.name()
		if err := r.pipe.prepare(h.insert, h.insertSQL()); err != nil {
			return err
		}
	}
	for range rows {
		params := r.bind.Parameters[:0]
		for range written {
			var v []byte
			v, b = take(b)
			params = append(params, v)
		}
		r.bind = pgproto3.Bind{PreparedStatement: h.insert, Parameters: params}
		if err := r.pipe.exec(&r.bind, h.lastInsert); err != nil {
			return err
		}
	}
	return nil
}

// arena holds short byte strings for as long as something points at them, with an
// allocation now and then.
type arena struct {
	block []byte
	start int
}

func (a *arena) begin() {
	if cap(a.block)-len(a.block) < 1<<10 {
		a.block = make([]byte, 0, 64<<10)
	}
	a.start = len(a.block)
}

func (a *arena) add(s string) { a.block = append(a.block, s...) }

func (a *arena) end() []byte { return a.block[a.start:len(a.block):len(a.block)] }
