package fold

import (
	"bytes"
	"fmt"
	"io"
)

// Filter reads a part of a table of the base, and lets through what remains of it: the lines of rows that the record leaves
// alone, and those of rows that it has changed in part, as they have become. Filters of one table may be used at the same
// time, unless its Result is Unordered.
type Filter struct {
	fold  *Fold
	table *table
	in    io.Reader
	buf   []byte // what has been read and not looked at
	out   []byte // what has not been fetched
	sent  int    // of out
	err   error

	plain  []byte // a key being put together
	fields [][]byte
	read   int64
	taken  int64
	rows   int64
}

// filterRead is how many bytes are read at a time.
const filterRead = 256 << 10

// Filter returns a Filter of lines that in delivers. It does not close it.
func (f *Fold) Filter(table int, in io.Reader) *Filter {
	t := &f.tables[table]
	return &Filter{fold: f, table: t, in: in, fields: make([][]byte, len(t.Columns))}
}

// Seen returns how many rows were read.
func (r *Filter) Seen() int64 { return r.read }

// Taken returns how many rows the record had something to say about.
func (r *Filter) Taken() int64 { return r.taken }

// Rows returns how many rows were let through.
func (r *Filter) Rows() int64 { return r.rows }

// Err returns the error that ended the reading; nil at the end, and before.
func (r *Filter) Err() error {
	if r.err == io.EOF {
		return nil
	}
	return r.err
}

// Read implements io.Reader. Errors wrap ErrContradiction if the base has a row that the record speaks against.
func (r *Filter) Read(p []byte) (int, error) {
	for r.sent == len(r.out) {
		if r.err != nil {
			return 0, r.err
		}
		r.out, r.sent = r.out[:0], 0
		r.err = r.more()
	}
	n := copy(p, r.out[r.sent:])
	r.sent += n
	return n, nil
}

// more reads on and looks at the lines that are whole.
func (r *Filter) more() error {
	used := len(r.buf)
	if cap(r.buf)-used < filterRead {
		grown := make([]byte, used, max(2*cap(r.buf), 2*filterRead))
		copy(grown, r.buf)
		r.buf = grown
	}
	n, err := r.in.Read(r.buf[used : used+filterRead])
	r.buf = r.buf[:used+n]
	end := bytes.LastIndexByte(r.buf[used:], '\n') + 1
	if end > 0 {
		end += used
		if err := r.lines(r.buf[:end]); err != nil {
			return err
		}
		r.buf = r.buf[:copy(r.buf, r.buf[end:])]
	}
	if err == io.EOF && len(r.buf) > 0 {
		return fmt.Errorf("a line of table %s.%s has no end", r.table.Schema, r.table.Name)
	}
	return err
}

func (r *Filter) lines(b []byte) error {
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n') + 1
		if err := r.line(b[:end]); err != nil {
			return fmt.Errorf("table %s.%s: %w", r.table.Schema, r.table.Name, err)
		}
		b = b[end:]
	}
	return nil
}

// line looks at a line, its end included.
func (r *Filter) line(line []byte) error {
	t, f := r.table, r.fold
	r.read++
	k, err := r.keyOf(line[:len(line)-1])
	if err != nil {
		return err
	}
	mine := f.mine(k)
	if !mine && f.foreign == 0 {
		return nil
	}
	x := t.keys.find(k)
	switch {
	case x == nil || !mine && x.n == 0:
		if mine {
			r.pass(line)
		}
		return nil
	case len(t.key) == 0:
		if x.n == 0 {
			r.pass(line)
			return nil
		}
		x.n--
	case mine && !x.live:
		return fmt.Errorf("%w: %w", ErrContradiction, errThere)
	case x.n > 0:
		if err := r.merge(&f.waiters[x.n-1], line[:len(line)-1]); err != nil {
			return err
		}
	}
	r.taken++
	return nil
}

func (r *Filter) pass(line []byte) {
	r.out = append(r.out, line...)
	r.rows++
}

// keyOf hashes what a line is known by.
func (r *Filter) keyOf(line []byte) (key, error) {
	t := r.table
	if len(t.key) == 0 {
		return hashKey(line, r.fold.seed), nil
	}
	if len(t.key) == 1 && t.key[0] == 0 {
		field, _ := cutField(line)
		if bytes.IndexByte(field, '\\') >= 0 {
			r.plain = appendPlain(r.plain[:0], field)
			field = r.plain
		}
		return hashKey(field, r.fold.seed), nil
	}
	if err := r.split(line); err != nil {
		return key{}, err
	}
	r.plain = r.plain[:0]
	for _, i := range t.key {
		from := len(r.plain)
		if len(t.key) > 1 {
			r.plain = append(r.plain, 0, 0, 0, 0)
		}
		r.plain = appendPlain(r.plain, r.fields[i])
		if n := len(r.plain) - from - 4; len(t.key) > 1 {
			r.plain[from], r.plain[from+1], r.plain[from+2], r.plain[from+3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
		}
	}
	return hashKey(r.plain, r.fold.seed), nil
}

// split cuts a line into its fields.
func (r *Filter) split(line []byte) error {
	for i := range r.fields {
		if line == nil && i > 0 {
			return fmt.Errorf("a line of the base has %d fields instead of %d", i, len(r.fields))
		}
		r.fields[i], line = cutField(line)
	}
	if line != nil {
		return fmt.Errorf("a line of the base has more than %d fields", len(r.fields))
	}
	return nil
}

// merge lets a row through as the record has it, with what that leaves alone from the line.
func (r *Filter) merge(w *waiter, line []byte) error {
	if err := r.split(line); err != nil {
		return err
	}
	for i, v := range w.fields {
		if i > 0 {
			r.out = append(r.out, '\t')
		}
		if v == nil {
			v = r.fields[i]
		}
		r.out = append(r.out, v...)
	}
	r.out = append(r.out, '\n')
	r.rows++
	return nil
}
