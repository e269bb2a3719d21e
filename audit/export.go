package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"txreel/archive"
	"txreel/change"
	"txreel/segment"
)

// ExportOptions says what Export writes. The zero value exports all of an archive
// that has one epoch.
type ExportOptions struct {
	Epoch uint64     // zero: the archive's only one
	From  change.Seq // the first transaction; zero: the epoch's first
	To    change.Seq // the last one, itself included; zero: the tail
	// Since and Until narrow the range by commit time; zero is open. The range stays
	// a run of transactions in commit order: from the first that committed at or after
	// Since up to, and without, the first that committed after Until.
	Since, Until change.Time
	// AllowGap exports what the epoch holds although Since or Until reach over its
	// end, where transactions may be missing.
	AllowGap bool

	Tables []string    // patterns as in Query; messages and statements have no table and are then left out
	Ops    []change.Op // empty: all
	Types  bool        // write the types of the columns with every row
	Empty  bool        // write a line for each transaction of which no change is written

	// maxMessage bounds the messages that are put together to be decoded.
	maxMessage int64

	SpillDir string // where huge segments wait to be read; "": the system's temporary folder
	// Progress, if set, is called after each transaction with its Seq and the range's
	// last one.
	Progress func(done, last change.Seq)
}

// Export writes the changes of a run of transactions of one epoch to w as lines of
// JSON: a header, a line per change in commit order, and a trailer. The trailer is
// written last and only when every transaction of the range has been read and
// checked: an export without it is not complete. Memory grows with the largest message, up to
// maxMessage, and not with the size of a transaction. A message that dec cannot decode
// is written raw and counted.
func Export(ctx context.Context, a *archive.Archive, dec Decoder, opts ExportOptions, w io.Writer) (*Summary, error) {
	tables, err := parsePatterns(opts.Tables)
	if err != nil {
		return nil, err
	}
	head, err := plan(ctx, a, opts)
	if err != nil {
		return nil, err
	}
	if opts.maxMessage == 0 {
		opts.maxMessage = maxMessage
	}
	e := exporter{
		opts: opts, dec: dec, lines: lines{out: w}, tables: tables,
		known: make(map[*change.Relation]*table),
		sum:   Summary{Record: "trailer", Complete: true, Archive: head.Archive, Epoch: head.Epoch, From: head.From, To: head.To},
	}
	for op := change.OpInsert; op <= change.OpStatement; op++ {
		e.ops[op] = len(opts.Ops) == 0 && (op < change.OpMessage || len(tables) == 0)
	}
	for _, op := range opts.Ops {
		if op < change.OpInsert || op > change.OpStatement {
			return nil, fmt.Errorf("export of operation %q: there is none of that name", op)
		}
		e.ops[op] = true
	}
	e.archive = appendString([]byte(`,"archive":`), head.Archive)
	e.archive = fmt.Appendf(e.archive, `,"epoch":%d`, head.Epoch)
	if err := e.json(head); err != nil {
		return nil, err
	}
	if head.From <= head.To {
		if err := e.read(ctx, a, head); err != nil {
			return nil, err
		}
	}
	e.sum.GapBefore, e.sum.GapAfter, e.sum.PrunedBefore = head.GapBefore, head.GapAfter, head.PrunedBefore
	if err := e.json(&e.sum); err != nil {
		return nil, err
	}
	e.lines.flush()
	if e.lines.err != nil {
		return nil, fmt.Errorf("write export: %w", e.lines.err)
	}
	return &e.sum, nil
}

type exporter struct {
	opts   ExportOptions
	dec    Decoder
	lines  lines
	tables patterns
	ops    [change.OpStatement + 1]bool
	known  map[*change.Relation]*table
	last   *table // the one met last, to spare a look-up
	sum    Summary

	ev      change.Event
	parts   assembly
	archive []byte // `,"archive":…,"epoch":…`
	txn     []byte // what lines of the open transaction begin with, behind the kind of line
	ordinal uint64 // of the last change in the open transaction
	written uint64 // lines of the open transaction
}

func (e *exporter) json(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	e.lines.bytes(b)
	return e.end()
}

func (e *exporter) end() error {
	if err := e.lines.end(); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}

// read writes the lines of the whole range.
func (e *exporter) read(ctx context.Context, a *archive.Archive, head *header) error {
	h, err := a.History(ctx, head.Epoch, head.From, head.To, e.opts.SpillDir)
	if err != nil {
		return err
	}
	defer h.Close()
	next := head.From
	var txn *change.Txn
	for {
		rec, err := h.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch rec.Kind {
		case segment.Definition:
			err = e.definition(rec.Raw)
		case segment.Begin:
			if txn, err = h.Txn(rec.Seq); err == nil {
				err = e.begin(txn)
			}
		case segment.Message:
			err = e.message(rec.Raw)
		case segment.Commit:
			if err := e.unfinished(); err != nil {
				return err
			}
			if txn.Seq != next || txn.XID != rec.XID || txn.Position != rec.Position || txn.CommitTime != rec.CommitTime ||
				txn.Received != rec.Received || txn.Note != rec.Note {
				return fmt.Errorf("%w: transaction %s of epoch %d is not the one its segment's index describes", archive.ErrCorrupt, next, head.Epoch)
			}
			next++
			err = e.commit(txn, head.To)
		}
		if err != nil {
			return err
		}
	}
	if next != head.To+1 {
		return fmt.Errorf("%w: epoch %d: transactions %s to %s were not delivered", archive.ErrCorrupt, head.Epoch, next, head.To)
	}
	key, hash, err := h.Finish()
	if err != nil {
		return err
	}
	last := archive.HexHash(hash)
	e.sum.FirstSeq, e.sum.LastSeq, e.sum.LastSegment, e.sum.LastHash = &head.From, &txn.Seq, key, &last
	e.sum.LastPosition, e.sum.LastCommitTime = txn.Position, Time(txn.CommitTime).String()
	return nil
}

func (e *exporter) begin(t *change.Txn) error {
	e.ordinal, e.written = 0, 0
	b := append(e.txn[:0], e.archive...)
	b = append(b, `,"seq":"`...)
	b = appendSeq(b, t.Seq)
	b = append(b, `","xid":`...)
	b = appendString(b, t.XID)
	b = append(b, `,"position":`...)
	b = appendString(b, string(t.Position))
	b = append(b, `,"commit_time":"`...)
	b = appendTime(b, t.CommitTime)
	if t.Received != 0 {
		b = append(b, `","received":"`...)
		b = appendTime(b, t.Received)
	}
	e.txn = append(b, '"')
	return nil
}

func (e *exporter) commit(t *change.Txn, last change.Seq) error {
	if t.Kind == change.TxnHeartbeat {
		e.sum.Heartbeats++
	} else {
		e.sum.Transactions++
	}
	if e.written == 0 && e.opts.Empty && t.Kind != change.TxnHeartbeat {
		e.lines.raw(`{"record":"transaction"`)
		e.lines.bytes(e.txn)
		if t.Note != "" {
			e.lines.raw(`,"note":`)
			e.lines.buf = appendString(e.lines.buf, t.Note)
		}
		e.lines.raw(`,"changes":`)
		e.lines.uint(e.ordinal)
		e.lines.raw("}")
		if err := e.end(); err != nil {
			return err
		}
	}
	if e.opts.Progress != nil {
		e.opts.Progress(t.Seq, last)
	}
	return nil
}

// definition shows the decoder a message outside any transaction.
func (e *exporter) definition(raw []byte) error {
	if err := e.dec.Decode(raw); err != nil {
		e.sum.Undecoded++
		e.lines.raw(`{"record":"undecoded"`)
		e.lines.bytes(e.archive)
		return e.undecoded(raw, err)
	}
	return nil
}

// whole writes the changes of a whole message.
func (e *exporter) whole(raw []byte) error {
	if err := e.dec.Decode(raw); err != nil {
		return e.refused(raw, err)
	}
	for {
		is, err := e.dec.Next(&e.ev)
		switch {
		case err != nil:
			return e.refused(raw, err)
		case !is:
			return nil
		}
		if err := e.event(); err != nil {
			return err
		}
	}
}

// refused writes a message of the open transaction raw.
func (e *exporter) refused(raw []byte, err error) error {
	e.ordinal++
	e.written++
	e.sum.Undecoded++
	e.lines.raw(`{"record":"undecoded"`)
	e.lines.bytes(e.txn)
	e.lines.raw(`,"ordinal":`)
	e.lines.uint(e.ordinal)
	return e.undecoded(raw, err)
}

// event writes the change in e.ev.
func (e *exporter) event() error {
	switch e.ev.Op {
	case change.OpInsert, change.OpUpdate, change.OpDelete:
		t := e.table(e.ev.Relation)
		if !e.change(e.ev.Op, t) {
			return nil
		}
		e.lines.row(t, &e.ev)
	case change.OpTruncate:
		return e.truncate()
	case change.OpMessage:
		if !e.change(change.OpMessage, nil) {
			return nil
		}
		e.lines.raw(`,"prefix":`)
		e.lines.text([]byte(e.ev.Prefix))
		e.lines.raw(`,"content":`)
		e.lines.text(e.ev.Content)
	case change.OpStatement:
		if !e.change(change.OpStatement, nil) {
			e.sum.SkippedStatements++
			return nil
		}
		e.lines.raw(`,"database":`)
		e.lines.text([]byte(e.ev.Prefix))
		e.lines.raw(`,"statement":`)
		e.lines.text(e.ev.Content)
	}
	e.lines.raw("}")
	return e.end()
}

// truncate writes a line per table: each is a change of its own.
func (e *exporter) truncate() error {
	for _, rel := range e.ev.Relations {
		if !e.change(change.OpTruncate, e.table(rel)) {
			continue
		}
		e.lines.raw(`,"cascade":`)
		e.lines.buf = strconv.AppendBool(e.lines.buf, e.ev.Cascade)
		e.lines.raw(`,"restart_identity":`)
		e.lines.buf = strconv.AppendBool(e.lines.buf, e.ev.RestartIdentity)
		e.lines.raw("}")
		if err := e.end(); err != nil {
			return err
		}
	}
	return nil
}

// change counts a change and begins its line if it is wanted. t is nil for a change
// that has no table.
func (e *exporter) change(op change.Op, t *table) bool {
	e.ordinal++
	if !e.ops[op] || t != nil && !t.wanted {
		e.sum.Skipped++
		return false
	}
	e.written++
	e.sum.Changes++
	e.lines.raw(`{"record":"change"`)
	e.lines.bytes(e.txn)
	e.lines.raw(`,"ordinal":`)
	e.lines.uint(e.ordinal)
	e.lines.raw(`,"op":"`)
	e.lines.raw(op.String())
	e.lines.raw(`"`)
	if t != nil {
		e.lines.raw(",")
		e.lines.bytes(t.name)
	}
	return true
}

func (e *exporter) undecoded(raw []byte, err error) error {
	e.lines.raw(`,"error":`)
	e.lines.buf = appendString(e.lines.buf, err.Error())
	e.lines.raw(`,"raw":`)
	e.lines.base64(raw)
	e.lines.raw("}")
	return e.end()
}

// maxTables bounds how many relations are kept prepared: decoders make a new one
// whenever the source describes a table again.
const maxTables = 1024

func (e *exporter) table(rel *change.Relation) *table {
	if e.last != nil && e.last.rel == rel {
		return e.last
	}
	t := e.known[rel]
	if t == nil {
		if len(e.known) >= maxTables {
			clear(e.known)
		}
		t = newTable(rel, e.tables.match(rel.Schema, rel.Name), e.opts.Types)
		e.known[rel] = t
	}
	e.last = t
	return t
}
