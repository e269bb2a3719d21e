package fold

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"txreel/archive"
	"txreel/segment"
	"txreel/sources/postgres/pgoutput"
)

// History goes through the record for one pass, and gives sink the final rows of the keys that belong to it, as far as the record
// has them whole. Without a sink it only learns what a Filter must know. Errors wrap ErrNotFoldable, ErrMemory or ErrContradiction
// where they are about that; what sink was given then is not to be kept.
func (f *Fold) History(ctx context.Context, pass int, sink Sink) error {
	merger, merging := sink.(Merger)
	f.merging = merging
	f.reset(pass)
	jobs := f.jobs()
	free := make(chan *piece, f.pieces())
	for range cap(free) {
		free <- &piece{}
	}
	whole := ctx
	g, ctx := errgroup.WithContext(ctx) // joins every goroutine below
	order := make(chan *task, jobs)     // in which they are folded
	work := make(chan *task, jobs)
	g.Go(func() error {
		defer close(order)
		defer close(work)
		return f.list(ctx, order, work)
	})
	for range jobs {
		g.Go(func() error {
			r := f.newReader(free)
			defer r.close()
			for t := range work {
				t.err = r.run(ctx, t)
				close(t.pieces)
			}
			return nil
		})
	}
	write := make(chan *piece)
	for i := range jobs {
		g.Go(func() error {
			w := writer{fold: f, worker: i, sink: sink, free: free}
			return w.run(ctx, write)
		})
	}
	g.Go(func() error {
		defer close(write)
		return f.gather(ctx, order, write)
	})
	if err := g.Wait(); err != nil || !merging {
		return err
	}
	return f.rest(whole, merger)
}

// list hands out the segments of the span, the last one first.
func (f *Fold) list(ctx context.Context, order, work chan<- *task) error {
	for x, err := range f.archive.Backward(ctx, f.span.Epoch, f.span.To) {
		if err != nil {
			return err
		}
		if x.Last() <= f.span.From {
			return nil
		}
		t := &task{index: archive.SegmentIndex{Tail: x.Tail, Key: x.Key}, pieces: make(chan *piece)}
		if f.span.Passed != nil && f.span.Passed(x.First()) {
			t.hash, t.passed = x.Hash, true
			close(t.pieces)
			select {
			case order <- t:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		for _, to := range []chan<- *task{order, work} {
			select {
			case to <- t:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// gather folds pieces in the opposite order of the record.
func (f *Fold) gather(ctx context.Context, order <-chan *task, write chan<- *piece) error {
	var behind *segment.Hash // what the segment behind names as the one before it
	var done int64
	for t := range order {
		for p := range t.pieces {
			if err := f.fold(p); err != nil {
				return err
			}
			done += p.txns
			if f.opts.Progress != nil {
				f.opts.Progress(done)
			}
			if f.memory() > f.opts.Memory/2 {
				return fmt.Errorf("%w: %d bytes", ErrMemory, f.opts.Memory)
			}
			select {
			case write <- p:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if t.err != nil {
			return t.err
		}
		if behind != nil && t.hash != *behind {
			return fmt.Errorf("%w: the segment behind %s does not continue it: the hash it names is %x, the segment's is %x", archive.ErrCorrupt, t.index.Key, *behind, t.hash)
		}
		behind = &t.prev
		if t.passed { // what it names as the one before it stands in the segment itself
			behind = nil
		}
	}
	if err := ctx.Err(); err != nil {
		return err // the list may have ended before its time
	}
	return f.finish()
}

// fold goes through a piece from its end to its beginning, and notes which of its rows are final.
func (f *Fold) fold(p *piece) error {
	for i := len(p.steps) - 1; i >= 0; i-- {
		s := &p.steps[i]
		t := &f.tables[s.shape.table]
		if t.closed {
			continue
		}
		if !t.touched {
			t.touched, t.key, t.id = true, s.shape.inKey, s.shape.id
		} else if !sameKey(t.key, s.shape.inKey) {
			return fmt.Errorf("%w: the replica identity of table %s changes", ErrNotFoldable, s.shape.name)
		}
		var err error
		switch {
		case s.op == pgoutput.TagTruncate:
			t.closed = true
		case len(s.shape.key) == 0:
			err = f.count(p, i, t)
		default:
			err = f.change(p, i, t)
		}
		if err != nil {
			return fmt.Errorf("table %s: %w", s.shape.name, err)
		}
	}
	return nil
}

func sameKey(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// count folds a change of a multiset.
func (f *Fold) count(p *piece, i int, t *table) error {
	s := &p.steps[i]
	if s.op != pgoutput.TagDelete {
		t.delta++
		if f.mine(s.key) {
			if k := t.keys.find(s.key); k != nil && k.n > 0 {
				k.n--
				t.expected--
			} else {
				p.keep = append(p.keep, int32(i))
			}
		}
	}
	if s.old >= 0 {
		t.delta--
		if k := p.olds[s.old]; f.mine(k) {
			x := t.keys.find(k)
			if x == nil {
				x = t.keys.add(k)
			}
			x.n++
			t.expected++
		}
	}
	return nil
}
