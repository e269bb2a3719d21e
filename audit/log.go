package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"time"

	"txreel/archive"
	"txreel/change"
)

// clockSlack is how far the source's clock may have been set back without Log
// missing a transaction that committed before Until: commit times follow the
// clock, and commit order does not.
const clockSlack = change.Time(time.Hour / time.Microsecond)

// Query says which transactions Log lists. The zero Query lists all of them,
// newest first. A transaction is listed when it passes every filter that is set.
type Query struct {
	Epoch uint64     // zero: every epoch
	From  change.Seq // the first transaction; needs Epoch when there are several
	To    change.Seq // the last one, itself included; zero: the tail
	// Since and Until bound the commit time, both included; zero is open. Every
	// transaction is judged by its own commit time, also when the source's clock went
	// backwards by up to an hour.
	Since, Until change.Time
	// Tables are patterns as in schema.table, or table for any schema; * stands for
	// any characters. A transaction passes when it changed a table that matches one.
	Tables []string
	XID    string
	// Ops limits Tables and MinRows to changes of these kinds.
	Ops []change.Op
	// MinRows is how many rows the transaction changed at least, counting only
	// Tables and Ops.
	MinRows    uint64
	Heartbeats bool // list heartbeats and fences too, unless Tables, XID, Ops or MinRows is set
	Limit      int  // stop after so many transactions; zero lists all
	Reverse    bool // oldest first
}

// The kinds of entries.
const (
	KindTransaction = "transaction"
	KindHeartbeat   = "heartbeat"
	KindFence       = "fence" // change.Fence: of capture's own making, as heartbeats are
	// KindGap stands where an epoch ends in a gap: Seq, Position and CommitTime are
	// those of the last thing the epoch holds, and behind it transactions may be missing.
	KindGap = "gap"
	// KindPruned stands where an epoch begins no more with its first transaction: Seq, Position and CommitTime are those of
	// the last thing that was removed.
	KindPruned = "pruned"
)

// Entry is a line of the log.
type Entry struct {
	Kind       string          `json:"kind"`
	Seq        change.Seq      `json:"seq"`
	Epoch      uint64          `json:"epoch"`
	XID        string          `json:"xid,omitempty"`
	CommitTime Time            `json:"commit_time"`
	Received   Time            `json:"received,omitempty"` // by capture's clock; absent where it was not recorded
	Position   change.Position `json:"position"`
	Note       string          `json:"note,omitempty"` // what Tables do not show, such as the beginning of a DDL statement
	Tables     []Table         `json:"tables"`         // all it changed, whatever the filters
	Rows       uint64          `json:"rows"`
	Bytes      uint64          `json:"bytes"` // of its messages, before compression
	Detail     string          `json:"detail,omitempty"`
}

// Table says what a transaction did to a table.
type Table struct {
	Schema    string `json:"schema"`
	Table     string `json:"table"`
	Inserts   uint64 `json:"inserts"`
	Updates   uint64 `json:"updates"`
	Deletes   uint64 `json:"deletes"`
	Truncates uint64 `json:"truncates"`
}

// Time is a change.Time that is RFC 3339 in UTC with microseconds in JSON.
type Time change.Time

// MarshalText encodes the time.
func (t Time) MarshalText() ([]byte, error) { return []byte(change.Time(t).String()), nil }

// String returns the time as RFC 3339.
func (t Time) String() string { return change.Time(t).String() }

// errStop unwinds a walk that has listed enough.
var errStop = errors.New("stop")

// Log yields the transactions that q asks for, in commit order or against it, and
// a KindGap entry wherever an epoch in between ends in a gap, and a KindPruned one where its beginning is not
// there any more. It reads indexes and
// rollups only, and no more of them than Limit needs. The Entry is valid during
// the call of yield; an error of yield ends Log and is returned. An error that wraps archive.ErrPruned
// says that q names a transaction that was pruned, or that no transaction passes and others were pruned which might.
func Log(ctx context.Context, a *archive.Archive, q Query, yield func(*Entry) error) error {
	tables, err := parsePatterns(q.Tables)
	if err != nil {
		return err
	}
	if q.From > q.To && q.To > 0 || q.Since > q.Until && q.Until != 0 {
		return errors.New("the log's range ends before it begins")
	}
	epochs, err := a.Epochs(ctx)
	if err != nil {
		return err
	}
	if q.Epoch == 0 && len(epochs) > 1 && (q.From > 0 || q.To > 0) {
		return fmt.Errorf("the archive has epochs %d to %d, each with a Seq of its own: name the epoch as well", epochs[0].Number, epochs[len(epochs)-1].Number)
	}
	l := logger{archive: a, query: q, tables: tables, yield: yield}
	first, last := 0, len(epochs)-1
	if q.Epoch > 0 {
		first = slices.IndexFunc(epochs, func(e archive.Epoch) bool { return e.Number == q.Epoch })
		if last = first; first < 0 {
			return fmt.Errorf("epoch %d: %w", q.Epoch, fs.ErrNotExist)
		}
	}
	for n := first; n <= last; n++ {
		i := n
		if !q.Reverse {
			i = last - (n - first)
		}
		var next *archive.Epoch
		if i+1 < len(epochs) {
			next = &epochs[i+1]
		}
		if err := l.epoch(ctx, epochs[i].Number, next); err != nil {
			if errors.Is(err, errStop) {
				return nil
			}
			return err
		}
	}
	if l.listed == 0 && l.pruned != nil && q.chooses() {
		return &archive.PrunedError{Pruned: *l.pruned, Asked: "what was asked for"}
	}
	return nil
}

// chooses reports whether q asks for less than everything.
func (q *Query) chooses() bool {
	return q.Since != 0 || q.Until != 0 || len(q.Tables) > 0 || q.XID != "" || len(q.Ops) > 0 || q.MinRows > 0
}

type logger struct {
	archive *archive.Archive
	query   Query
	tables  patterns
	yield   func(*Entry) error
	listed  int
	pruned  *archive.Pruned // the newest that what is asked for reaches into
	entry   Entry
}

func (l *logger) epoch(ctx context.Context, epoch uint64, next *archive.Epoch) error {
	p, err := l.archive.Pruned(ctx, epoch)
	if err != nil {
		return err
	}
	if p != nil {
		for _, seq := range []change.Seq{l.query.From, l.query.To} {
			if seq > 0 && seq <= p.Tail.Seq {
				return &archive.PrunedError{Pruned: *p, Asked: fmt.Sprintf("transaction %s of epoch %d", seq, epoch)}
			}
		}
		if l.query.From > 0 || l.query.Since > p.Tail.Latest {
			p = nil // what is asked for begins behind it
		}
	}
	if l.query.Reverse {
		if err := l.prune(p); err != nil {
			return err
		}
		if err := l.forward(ctx, epoch, p); err != nil {
			return err
		}
		return l.gap(ctx, epoch, next)
	}
	if err := l.gap(ctx, epoch, next); err != nil {
		return err
	}
	if err := l.backward(ctx, epoch); err != nil {
		return err
	}
	return l.prune(p)
}

// prune yields what was pruned of an epoch, if what is asked for reaches into it.
func (l *logger) prune(p *archive.Pruned) error {
	if p == nil {
		return nil
	}
	if l.pruned == nil || p.Epoch > l.pruned.Epoch {
		l.pruned = p
	}
	return l.yield(&Entry{
		Kind: KindPruned, Seq: p.Tail.Seq, Epoch: p.Epoch, Position: p.Tail.Position,
		CommitTime: Time(p.Tail.Latest), Tables: []Table{}, Detail: p.String(),
	})
}

// forward lists from the oldest on; p is what was pruned in front, where what is asked for reaches into that.
func (l *logger) forward(ctx context.Context, epoch uint64, p *archive.Pruned) error {
	from := l.query.From // zero: the first one there is
	if l.query.Since != 0 && p == nil {
		e, ok, err := l.archive.FirstAfter(ctx, epoch, l.query.Since-1)
		if err != nil || !ok {
			return err
		}
		from = max(from, e.Seq)
	}
	for x, err := range l.archive.Segments(ctx, epoch, from) {
		if err != nil {
			return err
		}
		for i := range x.Txns {
			if err := l.txn(epoch, &x.Txns[i].Txn); err != nil {
				return err
			}
		}
		if l.query.To > 0 && x.Last() >= l.query.To || l.query.Until != 0 && x.Latest-clockSlack > l.query.Until {
			return nil
		}
	}
	return nil
}

func (l *logger) backward(ctx context.Context, epoch uint64) error {
	to := change.Seq(math.MaxUint64)
	if l.query.To > 0 {
		to = l.query.To
	}
	if l.query.Until != 0 {
		e, ok, err := l.archive.FirstAfter(ctx, epoch, l.query.Until+clockSlack)
		if errors.Is(err, archive.ErrPruned) {
			return nil
		}
		if err != nil {
			return err
		}
		if ok {
			to = min(to, e.Seq-1)
		}
	}
	for x, err := range l.archive.Backward(ctx, epoch, to) {
		if err != nil {
			return err
		}
		for i := range slices.Backward(x.Txns) {
			if err := l.txn(epoch, &x.Txns[i].Txn); err != nil {
				return err
			}
		}
		// Latest is the running maximum: nothing before this segment is later.
		if x.First() <= l.query.From || l.query.Since != 0 && x.Latest < l.query.Since {
			return nil
		}
	}
	return nil
}

// txn yields t if it passes the filters.
func (l *logger) txn(epoch uint64, t *change.Txn) error {
	if !l.passes(t) {
		return nil
	}
	e := &l.entry
	*e = Entry{
		Kind: KindTransaction, Seq: t.Seq, Epoch: epoch, XID: t.XID, CommitTime: Time(t.CommitTime), Received: Time(t.Received),
		Position: t.Position, Note: t.Note, Tables: e.Tables[:0], Rows: t.Rows(), Bytes: t.Bytes,
	}
	switch {
	case t.Kind == change.TxnHeartbeat:
		e.Kind = KindHeartbeat
	case isFence(t):
		e.Kind = KindFence
	}
	if e.Tables == nil {
		e.Tables = []Table{} // null in JSON would ask for a reader's special case
	}
	for i := range t.Tables {
		c := &t.Tables[i]
		e.Tables = append(e.Tables, Table{
			Schema: c.Table.Schema, Table: c.Table.Name,
			Inserts: c.Inserts, Updates: c.Updates, Deletes: c.Deletes, Truncates: c.Truncates,
		})
	}
	if err := l.yield(e); err != nil {
		return err
	}
	if l.listed++; l.listed == l.query.Limit {
		return errStop
	}
	return nil
}

func (l *logger) passes(t *change.Txn) bool {
	q := &l.query
	switch {
	case t.Seq < q.From || q.To > 0 && t.Seq > q.To,
		q.Since != 0 && t.CommitTime < q.Since,
		q.Until != 0 && t.CommitTime > q.Until,
		q.XID != "" && t.XID != q.XID,
		(t.Kind == change.TxnHeartbeat || isFence(t)) && !q.Heartbeats:
		return false
	case len(q.Tables) == 0 && len(q.Ops) == 0 && q.MinRows == 0:
		return true
	}
	var rows, truncates uint64
	touched := false
	for i := range t.Tables {
		c := &t.Tables[i]
		if !l.tables.matchTable(c.Table) {
			continue
		}
		touched = true
		rows += l.count(change.OpInsert, c.Inserts) + l.count(change.OpUpdate, c.Updates) + l.count(change.OpDelete, c.Deletes)
		truncates += l.count(change.OpTruncate, c.Truncates)
	}
	return touched && rows >= q.MinRows && (len(q.Ops) == 0 || rows+truncates > 0)
}

// isFence reports whether a transaction is nothing but a fence: those have no id.
func isFence(t *change.Txn) bool {
	_, ok := change.ParseFence(t.Note)
	return ok && t.XID == ""
}

// count returns n if the filter on operations lets op pass.
func (l *logger) count(op change.Op, n uint64) uint64 {
	if len(l.query.Ops) == 0 || slices.Contains(l.query.Ops, op) {
		return n
	}
	return 0
}

// gap yields the gap the epoch ends in, if what is asked for reaches there.
func (l *logger) gap(ctx context.Context, epoch uint64, next *archive.Epoch) error {
	g, err := l.archive.Gap(ctx, epoch)
	if err != nil {
		return err
	}
	var tail archive.Tail
	var detail string
	switch {
	case g != nil:
		tail, detail = g.Tail, g.Detail
	case next != nil && next.Previous != nil:
		tail, detail = *next.Previous, fmt.Sprintf("epoch %d began: %s %s", next.Number, next.Cause, next.Detail)
	default:
		return nil
	}
	q := &l.query
	if q.To > 0 && q.To <= tail.Seq || q.Until != 0 && q.Until < tail.Latest {
		return nil
	}
	if next != nil && q.Since != 0 {
		if began, err := time.Parse(time.RFC3339, next.Started); err == nil && change.Time(began.UnixMicro()) < q.Since {
			return nil
		}
	}
	return l.yield(&Entry{
		Kind: KindGap, Seq: tail.Seq, Epoch: epoch, Position: tail.Position,
		CommitTime: Time(tail.Latest), Tables: []Table{}, Detail: detail,
	})
}
