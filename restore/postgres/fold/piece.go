package fold

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"unsafe"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/spill"
	"txreel/segment"
	"txreel/sources/postgres/pgoutput"
)

// step is a change of one row, or a TRUNCATE of a table.
type step struct {
	shape *shape
	at    uint32 // of its message in the piece
	size  uint32
	op    byte // the message's tag
	key   key  // the new row's, or of a delete the old one's
	// partial tells that the new row leaves values out that the one before it has.
	partial bool
	old     int32 // the number of its other key among olds, the old row's; -1: it has one key
}

const stepSize = int(unsafe.Sizeof(step{}))

// piece is a part of a segment in memory, in the order of the record.
type piece struct {
	raw   []byte // messages, each behind its length
	steps []step
	olds  []key   // of steps with two keys
	keep  []int32 // steps whose new row is final
	gone  []int32 // steps whose old key has no row in the end, for a Merger
	made  []made  // lines that were made of several images
	txns  int64
}

// made is a row that was put together.
type made struct {
	table int
	line  []byte
}

// size is about how many bytes a piece takes.
func (p *piece) size() int { return len(p.raw) + len(p.steps)*stepSize }

func (p *piece) reset() {
	clear(p.made)
	*p = piece{raw: p.raw[:0], steps: p.steps[:0], olds: p.olds[:0], keep: p.keep[:0], gone: p.gone[:0], made: p.made[:0]}
}

// room takes memory for messages at once, where it is known how much they need.
func (p *piece) room(bytes, messages int) {
	p.raw = slices.Grow(p.raw, bytes)
	p.steps = slices.Grow(p.steps, messages)
}

// room is how much the first piece of a segment holds at most, and of how many messages.
func (f *Fold) room(x archive.SegmentIndex) (bytes, messages int) {
	const length = 4 // stands before a message
	for _, frame := range x.Frames {
		bytes += frame.Raw
	}
	for i := range x.Txns {
		messages += int(min(x.Txns[i].Messages, 1<<24))
	}
	bytes += length * messages
	if total := bytes + messages*stepSize; total > f.most {
		share := float64(f.most) / float64(total)
		bytes, messages = int(float64(bytes)*share), int(float64(messages)*share)
	}
	return bytes, messages
}

// add appends a message and returns where it stands now.
func (p *piece) add(m []byte) []byte {
	p.raw = binary.BigEndian.AppendUint32(p.raw, uint32(len(m)))
	at := len(p.raw)
	p.raw = append(p.raw, m...)
	return p.raw[at:]
}

// task is a segment that is read while others are folded.
type task struct {
	index  archive.SegmentIndex
	pieces chan *piece // from its end to its beginning; closed when there are no more
	err    error       // set before that
	prev   segment.Hash
	hash   segment.Hash
	passed bool // it is not fetched; hash is what the index says
}

// reader reads segments into pieces. One goroutine uses it.
type reader struct {
	fold     *Fold
	free     chan *piece // pieces not in use
	body     *spill.Buffer
	over     *spill.Buffer // full pieces of a segment that takes several
	segment  *segment.Reader
	shapes   map[uint32]*shape
	relation map[uint32][]byte // messages, to begin the next piece with
	row      row
	line     []byte
	scratch  []byte
	stored   []byte // a piece as it was in over
}

func (f *Fold) newReader(free chan *piece) *reader {
	const inMemory = 16 << 20
	return &reader{fold: f, free: free, body: spill.New(f.opts.SpillDir, inMemory), over: spill.New(f.opts.SpillDir, 0),
		shapes: make(map[uint32]*shape), relation: make(map[uint32][]byte)}
}

func (r *reader) close() {
	r.body.Reset()
	r.over.Reset()
}

// take returns a piece that is not in use.
func (r *reader) take(ctx context.Context) (*piece, error) {
	select {
	case p := <-r.free:
		p.reset()
		return p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run reads a segment from its beginning to its end, as its sums and its definitions want it, and hands its pieces over in
// the opposite order.
func (r *reader) run(ctx context.Context, t *task) (err error) {
	if err := r.fold.archive.FetchSegment(ctx, t.index, r.body); err != nil {
		return err
	}
	if r.segment, err = r.fold.archive.ReadFetched(r.fold.span.Epoch, t.index, r.body, r.segment); err != nil {
		return err
	}
	t.prev = r.segment.Header().Prev
	clear(r.shapes)
	clear(r.relation)
	r.over.Reset()
	var full [][2]int64 // pieces in r.over: where they begin, and end
	p, err := r.take(ctx)
	if err != nil {
		return err
	}
	p.room(r.fold.room(t.index))
	defer func() {
		if p != nil {
			r.free <- p
		}
	}()
	span, inside := &r.fold.span, false
	var at change.Seq
	for {
		rec, err := r.segment.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return archive.InObject(t.index.Key, err)
		}
		switch rec.Kind {
		case segment.Begin:
			at = rec.Seq
			inside = rec.Seq > span.From && rec.Seq <= span.To && (span.Skip == nil || !span.Skip(rec.Seq))
			if inside {
				p.txns++
			}
		case segment.Definition:
			err = r.message(p, rec.Raw)
		case segment.Message:
			if !inside && (len(rec.Raw) == 0 || rec.Raw[0] != pgoutput.TagRelation) {
				continue
			}
			if len(p.steps) > 0 && p.size()+len(rec.Raw) > r.fold.most {
				from := r.over.Size()
				if _, err := r.over.Write(p.raw); err != nil {
					return err
				}
				full = append(full, [2]int64{from, r.over.Size()})
				txns := p.txns
				p.reset()
				p.txns = txns
				for _, m := range r.relation {
					p.add(m)
				}
			}
			err = r.message(p, rec.Raw)
		}
		if err != nil {
			return fmt.Errorf("transaction %s: %w", at, err)
		}
	}
	t.hash = r.segment.Hash()
	for i := len(full); ; i-- {
		select {
		case t.pieces <- p:
			p = nil
		case <-ctx.Done():
			return ctx.Err()
		}
		if i == 0 {
			return nil
		}
		if p, err = r.take(ctx); err != nil {
			return err
		}
		if err := r.load(p, full[i-1][0], full[i-1][1]); err != nil {
			return err
		}
	}
}

// load reads a piece back.
func (r *reader) load(p *piece, from, to int64) error {
	r.stored = slices.Grow(r.stored[:0], int(to-from))[:to-from]
	stored := r.stored
	if _, err := r.over.ReadAt(stored, from); err != nil {
		return fmt.Errorf("read a temporary file: %w", err)
	}
	clear(r.shapes)
	for len(stored) > 0 {
		end := 4 + int(binary.BigEndian.Uint32(stored)) // as add wrote it
		if err := r.message(p, stored[4:end]); err != nil {
			return err
		}
		stored = stored[end:]
	}
	return nil
}

// message adds a message to a piece, if it changes a row or tells how to read those that do.
func (r *reader) message(p *piece, m []byte) error {
	if len(m) == 0 {
		return fmt.Errorf("%w: it is empty", pgoutput.ErrMalformed)
	}
	switch m[0] {
	case pgoutput.TagRelation:
		id, s, err := r.fold.shape(m)
		if err != nil {
			return err
		}
		p.add(m)
		r.shapes[id], r.relation[id] = s, bytes.Clone(m)
		return nil
	case pgoutput.TagInsert, pgoutput.TagUpdate, pgoutput.TagDelete:
		return r.change(p, m)
	case pgoutput.TagTruncate:
		return r.truncate(p, m)
	case pgoutput.TagBegin, pgoutput.TagCommit, pgoutput.TagOrigin, pgoutput.TagType, pgoutput.TagMessage, pgoutput.TagStreamAbort:
		return nil
	}
	return fmt.Errorf("%w: tag %q", pgoutput.ErrUnknown, m[0])
}

func (r *reader) truncate(p *piece, m []byte) error {
	ids, err := pgoutput.TruncateIDs(m, nil)
	if err != nil {
		return err
	}
	for _, id := range ids {
		s, ok := r.shapes[id]
		if !ok {
			return fmt.Errorf("%w: truncate of relation %d, which no Relation message described", pgoutput.ErrMalformed, id)
		}
		if s == nil {
			continue
		}
		if s.other {
			r.fold.others.Store(true)
			continue
		}
		if s.err != nil {
			return s.err
		}
		p.steps = append(p.steps, step{shape: s, op: pgoutput.TagTruncate})
	}
	p.add(m)
	return nil
}

func (r *reader) change(p *piece, m []byte) error {
	id, err := pgoutput.RelationID(m)
	if err != nil {
		return err
	}
	s, ok := r.shapes[id]
	if !ok {
		return fmt.Errorf("%w: row of relation %d, which no Relation message described", pgoutput.ErrMalformed, id)
	}
	if s == nil {
		return nil
	}
	if s.other {
		r.fold.others.Store(true)
		return nil
	}
	if s.err != nil {
		return s.err
	}
	st := step{shape: s, op: m[0], size: uint32(len(m)), old: -1}
	m = p.add(m)
	st.at = uint32(len(p.raw) - len(m))
	if err := r.row.read(s, m); err != nil {
		return err
	}
	if len(s.key) == 0 {
		err = r.multiset(p, s, &st)
	} else {
		err = r.keyed(p, s, &st)
	}
	if err == nil {
		p.steps = append(p.steps, st)
	}
	return err
}

// keyed works out the keys of a change.
func (r *reader) keyed(p *piece, s *shape, st *step) (err error) {
	row := &r.row
	if st.op == pgoutput.TagDelete {
		st.key, err = s.keyOf(row.old, r.fold.seed, &r.scratch)
		return err
	}
	st.partial = !s.complete(row.new)
	if st.key, err = s.keyOf(row.new, r.fold.seed, &r.scratch); err != nil || st.op == pgoutput.TagInsert {
		return err
	}
	if len(row.old) > 0 {
		old, err := s.keyOf(row.old, r.fold.seed, &r.scratch)
		if err != nil {
			return err
		}
		if old != st.key {
			st.old, p.olds = int32(len(p.olds)), append(p.olds, old)
		}
	}
	return nil
}

// multiset hashes the rows of a change of a table whose rows are compared whole.
func (r *reader) multiset(p *piece, s *shape, st *step) error {
	row := &r.row
	hash := func(v image) (key, error) {
		if !s.complete(v) {
			return key{}, fmt.Errorf("%w: a row of table %s that is not whole", ErrNotFoldable, s.name)
		}
		r.line = s.appendLine(r.line[:0], v)
		return hashKey(r.line, r.fold.seed), nil
	}
	if st.op != pgoutput.TagInsert {
		if !row.full {
			return fmt.Errorf("%w: the record does not say which row of table %s: it had no replica identity", ErrNotFoldable, s.name)
		}
		old, err := hash(row.old)
		if err != nil {
			return err
		}
		st.old, p.olds = int32(len(p.olds)), append(p.olds, old)
	}
	if st.op != pgoutput.TagDelete {
		k, err := hash(row.new)
		st.key = k
		return err
	}
	return nil
}
