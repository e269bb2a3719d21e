package mysql

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"txreel/archive"
	"txreel/internal/rowsum"
	"txreel/internal/spill"
	"txreel/sources/mysql/mybase"
)

const (
	// chunkMemory is how much of a compressed chunk stays in memory.
	chunkMemory = 16 << 20
	// historyEvery is how often the history list is looked at.
	historyEvery = 10 * time.Second
	// lineBuffer is how much text is gathered before it is compressed. An object is a series
	// of Zstandard frames of that size (RFC 8878 has their content follow on one another): larger
	// ones are no smaller together, and leave the processor's cache.
	lineBuffer = 512 << 10
)

// copyTables reads the rows of all tables, the largest pieces first.
func (b *baseRun) copyTables(ctx context.Context) error {
	pieces, err := b.plan(ctx, b.readers[0])
	if err != nil {
		return err
	}
	slices.SortStableFunc(pieces, func(x, y piece) int {
		// What is not in the snapshot first, while it is close to it.
		if tx, ty := b.tables[x.table].Transactional, b.tables[y.table].Transactional; tx != ty {
			if ty {
				return -1
			}
			return 1
		}
		return cmp.Compare(y.bytes, x.bytes)
	})
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	done, watched := make(chan struct{}), make(chan struct{})
	go func() { // joined below
		defer close(watched)
		if err := b.watchHistory(ctx, done); err != nil {
			abort(err)
		}
	}()
	err = b.copyPieces(ctx, pieces)
	close(done)
	<-watched
	if err != nil {
		return err
	}
	return b.collect(pieces)
}

// collect puts the objects of each table into the manifest.
func (b *baseRun) collect(pieces []piece) error {
	byTable := make([][]*piece, len(b.tables))
	for i := range pieces {
		p := &pieces[i]
		byTable[p.table] = append(byTable[p.table], p)
	}
	for i, t := range b.tables {
		slices.SortFunc(byTable[i], func(x, y *piece) int { return cmp.Compare(x.number, y.number) })
		var chunks []archive.BaseObject
		var rows int64
		var content rowsum.Sum
		for _, p := range byTable[i] {
			chunks = append(chunks, p.objects...)
			content.Merge(p.content)
		}
		for _, o := range chunks {
			rows += o.Rows
		}
		if content.Rows != rows {
			return fmt.Errorf("table %s: %d rows were stored and %d summed up: take another base", t.quoted(), rows, content.Rows)
		}
		entry, err := t.entry(chunks, content)
		if err != nil {
			return err
		}
		b.base.Tables = append(b.base.Tables, entry)
	}
	return nil
}

// copyPiece reads the rows of a piece into as many objects as they need. The savepoint
// gives the lock on the table's definition back when the piece is read, and keeps the
// snapshot: nobody waits longer than for one piece to alter the table. The last object may
// still be on its way to the store.
func (b *baseRun) copyPiece(ctx context.Context, c *Conn, w *chunkWriter, p *piece) error {
	t := b.tables[p.table]
	if err := c.Exec(ctx, "SAVEPOINT txreel"); err != nil {
		return wrapSQL("read table "+t.quoted(), err)
	}
	w.begin(ctx, p)
	w.content.Begin(&t.Table)
	if err := c.streamLines(ctx, t.selectSQL(p.where, c.mariaDB()), w); err != nil {
		return t.explainRead(err, b)
	}
	if err := w.finish(); err != nil {
		return err
	}
	if err := t.unchanged(ctx, c); err != nil {
		return t.explainRead(err, b)
	}
	if err := c.Exec(ctx, "ROLLBACK TO SAVEPOINT txreel"); err != nil {
		return wrapSQL("read table "+t.quoted(), err)
	}
	p.content = w.content.Sum
	b.report(p.bytes, 0, 0)
	return nil
}

// selectSQL reads a piece in the order of the primary key, where rows are in that order
// anyway.
func (t *baseTable) selectSQL(where string, mariadb bool) string {
	list := t.SelectList()
	if list == "" {
		list = "''" // a table of generated columns only
	}
	sql := "SELECT " + list + " FROM " + t.quoted()
	if mariadb { // others will not read all of it again
		sql = "SELECT SQL_NO_CACHE " + list + " FROM " + t.quoted()
	}
	if t.Versioned {
		sql += " FOR SYSTEM_TIME ALL"
	}
	if where != "" {
		sql += " FORCE INDEX (PRIMARY) WHERE " + where
	}
	return sql
}

// report adds to the progress.
func (b *baseRun) report(done, rows, text int64) {
	b.mu.Lock()
	b.progress.Done += done
	b.progress.Rows += rows
	b.progress.Bytes += text
	p := b.progress
	b.mu.Unlock()
	if b.Progress != nil {
		b.Progress(p)
	}
}

// chunkWriter compresses lines, and stores an object whenever there are enough, while
// the next one fills.
type chunkWriter struct {
	run     *baseRun
	ctx     context.Context // of the piece being read
	zstd    *zstd.Encoder
	body    *spill.Buffer // being filled
	other   *spill.Buffer // being stored, or free
	gather  int           // lineBuffer, or what is enough for an object
	line    []byte
	packed  []byte // scratch for compression
	raw     int64
	rows    int64
	content mybase.Content // of the piece
	piece   *piece         // being read
	number  int            // of its next object
	storing chan error     // nil when nothing is
}

func newChunkWriter(b *baseRun) (*chunkWriter, error) {
	// The fastest level passes text without matches over, whatever its letters: digits
	// shrink to half by their frequency alone, so it is told to look at that. The manifest has a
	// SHA-256 of the object, which needs no other checksum.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20),
		zstd.WithAllLitEntropyCompression(true), zstd.WithEncoderCRC(false))
	gather := int(min(lineBuffer, b.ChunkBytes))
	return &chunkWriter{run: b, zstd: enc, gather: gather, line: make([]byte, 0, gather+gather/8),
		body: spill.New(b.SpillDir, chunkMemory), other: spill.New(b.SpillDir, chunkMemory)}, err
}

// close joins what is being stored.
func (w *chunkWriter) close() {
	_ = w.wait() // who closes early has an error of its own
	w.body.Reset()
	w.other.Reset()
}

func (w *chunkWriter) begin(ctx context.Context, p *piece) {
	w.ctx, w.piece, w.number = ctx, p, 0
	w.reset()
}

func (w *chunkWriter) reset() {
	w.body.Reset()
	w.line, w.raw, w.rows = w.line[:0], 0, 0
}

// ended is called behind the line of each row.
func (w *chunkWriter) ended() error {
	w.rows++
	if len(w.line) < w.gather {
		return nil
	}
	if err := w.flush(); err != nil || w.raw < w.run.ChunkBytes {
		return err
	}
	if err := w.store(); err != nil {
		return err
	}
	w.reset()
	return nil
}

// flush compresses the lines gathered.
func (w *chunkWriter) flush() error {
	if len(w.line) == 0 {
		return nil
	}
	w.raw += int64(len(w.line))
	w.packed = w.zstd.EncodeAll(w.line, w.packed[:0])
	w.line = w.line[:0]
	_, err := w.body.Write(w.packed)
	return err
}

// finish stores what is left.
func (w *chunkWriter) finish() error {
	if err := w.flush(); err != nil || w.rows == 0 {
		return err
	}
	return w.store()
}

// store hands what was gathered to the store, once that has taken what came before.
func (w *chunkWriter) store() error {
	if err := w.wait(); err != nil {
		return err
	}
	w.body, w.other = w.other, w.body
	ctx, body, p, raw, rows := w.ctx, w.other, w.piece, w.raw, w.rows
	name := fmt.Sprintf("data/%06d/%04d-%06d.tsv.zst", p.table, p.number, w.number)
	if p.tries > 0 { // the names without a number of tries may be taken
		name = fmt.Sprintf("data/%06d/%04d-%06d-%d.tsv.zst", p.table, p.number, w.number, p.tries)
	}
	w.number++
	w.storing = make(chan error, 1)
	go func(done chan<- error) { // joined by wait
		o, err := w.run.archive.CreateObject(ctx, w.run.base, name, body, body.Size())
		o.Raw, o.Rows = raw, rows
		p.objects = append(p.objects, o)
		w.run.report(0, rows, raw)
		done <- err
	}(w.storing)
	return nil
}

// wait returns when nothing is being stored.
func (w *chunkWriter) wait() error {
	if w.storing == nil {
		return nil
	}
	err := <-w.storing
	w.storing = nil
	return err
}

// watchHistory looks from time to time, until done is closed, at how many old rows the
// server keeps, for us among others.
func (b *baseRun) watchHistory(ctx context.Context, done <-chan struct{}) error {
	tick := time.NewTicker(historyEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		row, err := b.control.QueryRow(ctx, "SELECT COUNT FROM information_schema.INNODB_METRICS WHERE NAME = 'trx_rseg_history_len'")
		if err != nil {
			if isServer(err) || errors.Is(err, ErrNoRows) || ctx.Err() != nil {
				return nil // it may not be looked at
			}
			return err
		}
		if length, err := row[0].Int(); err == nil && length > b.MaxHistory {
			return fmt.Errorf("the server keeps %d old rows (InnoDB's history list), more than the %d allowed: the base was given up; take it when there is less to do", length, b.MaxHistory)
		}
	}
}

// isServer reports whether the server refused a statement and the session goes on.
func isServer(err error) bool {
	var refused *ServerError
	return errors.As(err, &refused) && !goesAway(refused)
}

// marshal encodes a part of the manifest.
func marshal(v any) (json.RawMessage, error) {
	b, err := json.Marshal(v)
	return b, err
}

// putJSON stores a document as an object of the base.
func (b *baseRun) putJSON(ctx context.Context, name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	packed := enc.EncodeAll(text, nil)
	o, err := b.archive.CreateObject(ctx, b.base, name, bytes.NewReader(packed), int64(len(packed)))
	o.Raw = int64(len(text))
	b.base.Objects = append(b.base.Objects, o)
	return err
}
