package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"txreel/change"
	"txreel/segment"
)

// rollupCheck reads the rollups of a level beside the segments, entry by entry.
type rollupCheck struct {
	v     *verifier
	epoch uint64
	level int
	// before is up to where the epoch was pruned: a rollup may begin there, and then speaks of segments that have gone.
	before change.Seq

	spans []span
	after string
	all   bool // spans holds the last there is

	cur    *rollupReader // nil between rollups
	span   span          // of cur
	read   change.Seq    // the last transaction of the entries of cur read so far
	frames *segment.FrameReader

	skip      change.Seq // what a damaged rollup holds ends here
	bare      change.Seq // the first transaction since the last rollup
	bareCount int        // segments since then
	bareBytes int        // of their indexes
}

func (r *rollupCheck) close() {
	if r.cur != nil {
		r.cur.close()
		r.cur = nil
	}
}

// next returns the rollup that follows those taken; ok is false when there is none.
func (r *rollupCheck) next(ctx context.Context) (s span, ok bool, err error) {
	for len(r.spans) == 0 && !r.all {
		objects, err := r.v.archive.Store.List(ctx, rollupsKey(r.epoch, r.level), r.after, page)
		if err != nil {
			return s, false, fmt.Errorf("list rollups of epoch %d: %w", r.epoch, err)
		}
		for _, o := range objects {
			r.after = o.Key
			if s, err := parseRollupKey(r.epoch, r.level, o); err != nil {
				r.v.problem(o.Key, 0, "not a key of a rollup")
			} else if s.last > r.before {
				r.spans = append(r.spans, s)
			}
		}
		r.all = len(objects) < page
	}
	if len(r.spans) == 0 {
		return s, false, nil
	}
	return r.spans[0], true, nil
}

// follow compares the entry for the segment that begins with seq with t, its index;
// nil when that is damaged.
func (r *rollupCheck) follow(ctx context.Context, seq change.Seq, t *segment.Tail) error {
	for r.cur == nil {
		s, ok, err := r.next(ctx)
		if err != nil {
			return err
		}
		if !ok || s.first > seq {
			r.without(seq, t)
			return nil
		}
		r.spans = r.spans[1:]
		if r.bareCount > 0 && !r.large() {
			r.v.note(rollupKey(r.epoch, r.level, r.bare, s.first-1), "no rollup of level %d holds these transactions: readers take longer", r.level)
		}
		r.bareCount, r.bareBytes = 0, 0
		r.v.report.Rollups++
		r.span, r.read = s, s.first-1
		if r.cur, err = r.v.archive.openRollup(ctx, s); err != nil {
			r.cur = nil
			if err := r.damage(err); err != nil {
				return err
			}
		}
	}
	return r.entry(ctx, seq, t)
}

// without counts a segment that no rollup of the level holds.
func (r *rollupCheck) without(seq change.Seq, t *segment.Tail) {
	if seq <= r.skip {
		return
	}
	if r.bareCount == 0 {
		r.bare = seq
	}
	r.bareCount++
	if t != nil {
		r.bareBytes += len(t.Packed)
	}
}

// large reports whether the level lacks a rollup because those of the level below it
// are as large as a rollup gets.
func (r *rollupCheck) large() bool {
	return r.level > 1 && r.bareBytes/r.bareCount >= rollupBytes/r.v.archive.fan/2
}

// entry reads entries of cur up to the one for seq.
func (r *rollupCheck) entry(ctx context.Context, seq change.Seq, t *segment.Tail) error {
	for {
		e, err := r.cur.next()
		if errors.Is(err, io.EOF) {
			r.end()
			return r.follow(ctx, seq, t)
		}
		if err != nil {
			return r.damage(err)
		}
		if t != nil && e.size == t.Size && bytes.Equal(e.packed, t.Packed) {
			r.read = t.Last()
			return nil
		}
		x, err := r.decode(&e)
		switch {
		case err != nil:
			return r.damage(err)
		case x.First() != r.read+1:
			return r.damage(fmt.Errorf("%w: it holds the index of segment %s where that of %s must be", ErrCorrupt, x.First(), r.read+1))
		case x.First() > seq:
			return r.damage(fmt.Errorf("%w: it does not hold the index of segment %s", ErrCorrupt, seq))
		}
		r.read = x.Last()
		if x.First() == seq && t != nil {
			return r.damage(fmt.Errorf("%w: its index of segment %s is not the segment's", ErrCorrupt, seq))
		}
		if x.First() == seq {
			return nil
		}
		if x.Last() <= r.before {
			continue
		}
		r.v.problem(SegmentKey(r.epoch, x.First()), 0, "missing: %s holds its index", r.span.key)
	}
}

func (r *rollupCheck) decode(e *rolled) (*segment.Tail, error) {
	if r.frames == nil {
		var err error
		if r.frames, err = segment.NewFrameReader(); err != nil {
			return nil, err
		}
	}
	return e.decode(r.frames)
}

// damage reports what is wrong with the rollup being read, and leaves it.
func (r *rollupCheck) damage(err error) error {
	r.close()
	r.skip = r.span.last
	var c *segment.CorruptError
	if errors.As(err, &c) { // its offset is one in the segment
		err = fmt.Errorf("%w: entry behind transaction %s: %w", ErrCorrupt, r.read, c.Err)
	}
	return r.v.damage(r.span.key, err)
}

// end closes the rollup being read, which has been read to its end.
func (r *rollupCheck) end() {
	r.close()
	if r.read != r.span.last {
		r.v.problem(r.span.key, 0, "it ends with transaction %s, not the one its key names", r.read)
	}
}

// beyond reports whether the rollups speak of transactions after last.
func (r *rollupCheck) beyond(ctx context.Context, last change.Seq) (bool, error) {
	if r.cur != nil && r.span.last > last {
		return true, nil
	}
	s, ok, err := r.next(ctx)
	return ok && s.last > last, err
}

// finish reports what the rollups hold beyond the epoch's last transaction.
func (r *rollupCheck) finish(ctx context.Context, last change.Seq) error {
	for r.cur != nil {
		e, err := r.cur.next()
		if errors.Is(err, io.EOF) {
			r.end()
			break
		}
		var x *segment.Tail
		if err == nil {
			x, err = r.decode(&e)
		}
		if err == nil && x.First() != r.read+1 {
			err = fmt.Errorf("%w: it holds the index of segment %s where that of %s must be", ErrCorrupt, x.First(), r.read+1)
		}
		if err != nil {
			if err := r.damage(err); err != nil {
				return err
			}
			break
		}
		r.read = x.Last()
		r.v.problem(SegmentKey(r.epoch, x.First()), 0, "missing: %s holds its index", r.span.key)
	}
	for {
		s, ok, err := r.next(ctx)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		r.spans = r.spans[1:]
		r.v.report.Rollups++
		if s.first > last {
			r.v.problem(SegmentKey(r.epoch, s.first), 0, "missing: %s holds its index", s.key)
		} else {
			r.v.problem(s.key, 0, "no segment begins with its first transaction")
		}
	}
	due := 1
	for range r.level {
		due *= r.v.archive.fan
	}
	if r.bareCount >= due && !r.large() {
		r.v.note(rollupsKey(r.epoch, r.level), "no rollup of level %d holds the transactions from %s on: readers take longer", r.level, r.bare)
	}
	return nil
}
