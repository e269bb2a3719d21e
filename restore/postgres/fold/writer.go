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
	batches map[target]*batch
	held    int
	row     row
}

// target says what lines are: rows of a table, or keys of it that are gone.
type target struct {
	table int
	gone  bool
}

// batch is lines of one target.
type batch struct {
	lines []byte
	rows  int64
}

func (w *writer) run(ctx context.Context, pieces <-chan *piece) error {
	w.batches = make(map[target]*batch)
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
		at := target{table: s.shape.table}
		b := w.batch(at)
		before := len(b.lines)
		b.lines = append(s.shape.appendLine(b.lines, w.row.new), '\n')
		if err := w.wrote(ctx, at, b, before); err != nil {
			return err
		}
	}
	for _, i := range p.gone {
		s := &p.steps[i]
		if err := w.row.read(s.shape, p.raw[s.at:s.at+s.size]); err != nil {
			return err
		}
		at := target{s.shape.table, true}
		b := w.batch(at)
		before := len(b.lines)
		b.lines = append(s.shape.appendKey(b.lines, w.row.old), '\n')
		if err := w.wrote(ctx, at, b, before); err != nil {
			return err
		}
	}
	for i := range p.made {
		at := target{table: p.made[i].table}
		b := w.batch(at)
		before := len(b.lines)
		b.lines = append(append(b.lines, p.made[i].line...), '\n')
		if err := w.wrote(ctx, at, b, before); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) batch(at target) *batch {
	b := w.batches[at]
	if b == nil {
		b = &batch{}
		w.batches[at] = b
	}
	return b
}

// wrote counts a line that was appended to a batch.
func (w *writer) wrote(ctx context.Context, at target, b *batch, before int) error {
	b.rows++
	w.held += len(b.lines) - before
	if len(b.lines) >= batchBytes {
		return w.flush(ctx, at, b)
	}
	if w.held >= heldBytes {
		return w.flushAll(ctx)
	}
	return nil
}

func (w *writer) flush(ctx context.Context, at target, b *batch) error {
	if b.rows == 0 {
		return nil
	}
	take := w.sink.Rows
	if at.gone {
		take = w.sink.(Merger).Gone // nobody else makes any
	}
	err := take(ctx, w.worker, at.table, b.lines, b.rows)
	w.held -= len(b.lines)
	b.lines, b.rows = b.lines[:0], 0
	if cap(b.lines) > 4*batchBytes { // a large row went through
		b.lines = nil
	}
	return err
}

func (w *writer) flushAll(ctx context.Context) error {
	for at, b := range w.batches {
		if err := w.flush(ctx, at, b); err != nil {
			return err
		}
	}
	return nil
}

// rest gives a Merger the rows that still lack values when all of the record has been gone through.
func (f *Fold) rest(ctx context.Context, m Merger) error {
	lines := make([]batch, len(f.tables))
	for i := range f.waiters {
		w := &f.waiters[i]
		if w.shape == nil { // it was filled, or was none
			continue
		}
		b := &lines[w.shape.table]
		b.lines = w.appendPartial(b.lines)
		b.rows++
		if len(b.lines) >= batchBytes {
			if err := m.Partial(ctx, w.shape.table, b.lines, b.rows); err != nil {
				return err
			}
			b.lines, b.rows = b.lines[:0], 0
		}
	}
	for table := range lines {
		if b := &lines[table]; b.rows > 0 {
			if err := m.Partial(ctx, table, b.lines, b.rows); err != nil {
				return err
			}
		}
	}
	return nil
}

// appendPartial appends a waiter as Merger.Partial has it.
func (w *waiter) appendPartial(b []byte) []byte {
	b = append(append(b, w.key...), '\t')
	for _, v := range w.fields {
		if v == nil {
			b = append(b, '1')
		} else {
			b = append(b, '0')
		}
	}
	for _, v := range w.fields {
		b = append(b, '\t')
		if v == nil {
			b = append(b, '\\', 'N')
		} else {
			b = append(b, v...)
		}
	}
	return append(b, '\n')
}
