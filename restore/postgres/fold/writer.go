package fold

import (
	"context"
)

// batchBytes is how many bytes of lines a Sink is given at a time, about.
const batchBytes = 1 << 20

// heldBytes is how many bytes of lines wait at most for others of their tables.
const heldBytes = 16 << 20

// writer makes lines of final rows. One goroutine uses it.
type writer struct {
	fold    *Fold
	worker  int
	sink    Sink
	free    chan<- *piece
	batches map[int]*batch
	held    int
	row     row
}

// batch is lines of one table.
type batch struct {
	lines []byte
	rows  int64
}

func (w *writer) run(ctx context.Context, pieces <-chan *piece) error {
	w.batches = make(map[int]*batch)
	for p := range pieces {
		if w.sink != nil {
			if err := w.write(ctx, p); err != nil {
				return err
			}
		}
		w.free <- p // it has room for all
	}
	return w.flushAll(ctx)
}

func (w *writer) write(ctx context.Context, p *piece) error {
	for _, i := range p.keep {
		s := &p.steps[i]
		m := p.raw[s.at : s.at+s.size]
		if err := w.row.read(s.shape, m); err != nil {
			return err
		}
		b := w.batch(s.shape.table)
		before := len(b.lines)
		b.lines = append(s.shape.appendLine(b.lines, w.row.new), '\n')
		if err := w.wrote(ctx, s.shape.table, b, before); err != nil {
			return err
		}
	}
	for i := range p.made {
		b := w.batch(p.made[i].table)
		before := len(b.lines)
		b.lines = append(append(b.lines, p.made[i].line...), '\n')
		if err := w.wrote(ctx, p.made[i].table, b, before); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) batch(table int) *batch {
	b := w.batches[table]
	if b == nil {
		b = &batch{}
		w.batches[table] = b
	}
	return b
}

// wrote counts a line that was appended to a batch.
func (w *writer) wrote(ctx context.Context, table int, b *batch, before int) error {
	b.rows++
	w.held += len(b.lines) - before
	if len(b.lines) >= batchBytes {
		return w.flush(ctx, table, b)
	}
	if w.held >= heldBytes {
		return w.flushAll(ctx)
	}
	return nil
}

func (w *writer) flush(ctx context.Context, table int, b *batch) error {
	if b.rows == 0 {
		return nil
	}
	err := w.sink.Rows(ctx, w.worker, table, b.lines, b.rows)
	w.held -= len(b.lines)
	b.lines, b.rows = b.lines[:0], 0
	if cap(b.lines) > 4*batchBytes { // a large row went through
		b.lines = nil
	}
	return err
}

func (w *writer) flushAll(ctx context.Context) error {
	for table, b := range w.batches {
		if err := w.flush(ctx, table, b); err != nil {
			return err
		}
	}
	return nil
}
