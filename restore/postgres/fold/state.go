package fold

import (
	"errors"
	"fmt"

	"txreel/sources/postgres/pgoutput"
)

// waiter is a final row of which values are to be found in an older image.
type waiter struct {
	shape  *shape
	fields [][]byte // as lines have them; nil for what is missing
	key    []byte   // of the row that has the rest, as far as the record has been gone through; only for a Merger
	size   int64
}

// What a change can contradict.
var (
	errThere   = errors.New("a key has a row where the changes behind need it to be free")
	errGone    = errors.New("a key has no row where the changes behind need one")
	errPartial = errors.New("an inserted row is not whole")
)

// change folds a change of a table with a key.
func (f *Fold) change(p *piece, i int, t *table) error {
	s := &p.steps[i]
	switch {
	case s.op == pgoutput.TagInsert:
		t.delta++
		w, err := f.row(p, i, t, s.key)
		if err == nil && w > 0 {
			err = fmt.Errorf("%w: %w", ErrContradiction, errPartial)
		}
		f.before(t, s.key, false, 0)
		return err
	case s.op == pgoutput.TagDelete:
		t.delta--
		err := f.none(t, s.key)
		f.leave(p, i, t, s.key)
		f.before(t, s.key, true, 0)
		return err
	case s.old < 0:
		w, err := f.row(p, i, t, s.key)
		f.name(p, i, w)
		f.before(t, s.key, true, w)
		return err
	}
	// The row leaves one key, which is free from then on, and comes to another, which was free before. What it left
	// alone of itself is what it was under the former.
	old := p.olds[s.old]
	w, err := f.row(p, i, t, s.key)
	if err != nil {
		return err
	}
	f.before(t, s.key, false, 0)
	err = f.none(t, old)
	f.leave(p, i, t, old)
	f.name(p, i, w)
	f.before(t, old, true, w)
	return err
}

// leave notes for a Merger that a change leaves a key without a row, unless what is behind has dealt with that.
func (f *Fold) leave(p *piece, i int, t *table, k key) {
	if f.merging && f.mine(k) && t.keys.find(k) == nil {
		p.gone = append(p.gone, int32(i))
	}
}

// name notes for a Merger by which key a waiter's row was known before the change that fill has just looked at.
func (f *Fold) name(p *piece, i int, number int32) {
	if !f.merging || number == 0 {
		return
	}
	w, v := &f.waiters[number-1], f.scratch.old
	if len(v) == 0 {
		v = f.scratch.new
	}
	before := cap(w.key)
	w.key = p.steps[i].shape.appendKey(w.key[:0], v)
	grown := int64(cap(w.key) - before)
	w.size += grown
	f.spent += grown
}

// row takes it that a key has the new row of a change. It returns the waiter, plus one, that wants the row's older images; zero if there is none.
func (f *Fold) row(p *piece, i int, t *table, k key) (int32, error) {
	x, mine := t.keys.find(k), f.mine(k)
	switch {
	case x == nil && !mine:
		return 0, nil
	case x == nil:
		t.keys.add(k)
		if p.steps[i].partial {
			return f.wait(p, i, t)
		}
		p.keep = append(p.keep, int32(i))
		return 0, nil
	case mine && !x.live:
		return 0, fmt.Errorf("%w: %w", ErrContradiction, errThere)
	case x.n == 0:
		return 0, nil
	}
	w := x.n
	x.n = 0
	if !mine {
		f.foreign--
		t.expected -= f.fetched()
	}
	return f.fill(p, i, t, w)
}

// none takes it that a key has no row.
func (f *Fold) none(t *table, k key) error {
	if x := t.keys.find(k); x != nil && (x.n > 0 || x.live && f.mine(k)) {
		return fmt.Errorf("%w: %w", ErrContradiction, errGone)
	}
	return nil
}

// before notes whether a key must have a row in front of what was folded, and who wants its values.
func (f *Fold) before(t *table, k key, live bool, w int32) {
	x, mine := t.keys.find(k), f.mine(k)
	if x == nil {
		if !mine && w == 0 {
			return // another pass deals with it
		}
		x = t.keys.add(k)
	}
	x.n = w
	switch {
	case !mine && w > 0:
		f.foreign++
		t.expected += f.fetched()
	case mine && live && !x.live:
		t.expected++
	case mine && !live && x.live:
		t.expected--
	}
	x.live = live
}

// fetched is how many rows a Filter takes for one whose key belongs to another pass. A Merger joins them, and takes none.
func (f *Fold) fetched() int64 {
	if f.merging {
		return 0
	}
	return 1
}

// wait makes a waiter of the new row of a change.
func (f *Fold) wait(p *piece, i int, t *table) (int32, error) {
	s := p.steps[i].shape
	var w int32
	if n := len(f.free); n > 0 {
		w, f.free = f.free[n-1], f.free[:n-1]
	} else {
		f.waiters = append(f.waiters, waiter{})
		w = int32(len(f.waiters))
	}
	f.waiters[w-1] = waiter{shape: s, fields: make([][]byte, len(s.from))}
	t.waiting++
	return f.fill(p, i, t, w)
}

// fill gives a waiter what the new row of a change has of what it lacks. It returns 0 when nothing more is missing, and else the waiter.
func (f *Fold) fill(p *piece, i int, t *table, number int32) (int32, error) {
	const each = 64 // bytes that a field takes besides its own
	w, st := &f.waiters[number-1], &p.steps[i]
	if err := f.scratch.read(st.shape, p.raw[st.at:st.at+st.size]); err != nil {
		return 0, err
	}
	missing, length := 0, 0
	for k, from := range st.shape.from {
		if w.fields[k] == nil {
			if v := f.scratch.new[from]; v.kept {
				missing++
				continue
			} else {
				w.fields[k] = appendField(nil, v.bytes)
				if w.fields[k] == nil {
					w.fields[k] = []byte{} // an empty text
				}
				w.size += int64(cap(w.fields[k])) + each
				f.spent += int64(cap(w.fields[k])) + each
			}
		}
		length += len(w.fields[k]) + 1
	}
	if missing > 0 {
		return number, nil
	}
	line := make([]byte, 0, length)
	for k, v := range w.fields {
		if k > 0 {
			line = append(line, '\t')
		}
		line = append(line, v...)
	}
	p.made = append(p.made, made{table: st.shape.table, line: line})
	f.spent -= w.size
	t.waiting--
	*w = waiter{}
	f.free = append(f.free, number)
	return 0, nil
}
