package reduce

import (
	"bytes"
	"fmt"
	"hash/maphash"

	"txreel/change"
	"txreel/sources/mysql/binlog"
)

// tracked is what is known of the rows of a table.
type tracked struct {
	*Table
	shape binlog.Shape
	key   []int // of Guarded, those that the primary key has
	// latest holds, by the hash of a row's key, the last update of the row: an index of rows. It stands there only as long as it may go
	// when another one overwrites the row.
	latest map[uint64]uint32
}

// forget keeps all updates before from going for the sake of one behind.
func (w *window) forget() {
	for _, t := range w.tracked {
		clear(t.latest)
	}
}

// track follows what an event of a plain transaction does to rows.
func (w *window) track(u *unit, e *event, domain uint32) error {
	raw := w.arena[e.from:e.to]
	switch t := binlog.Type(raw[4]); {
	case t == binlog.TypeTableMap:
		parsed, err := u.format.Parse(raw)
		if err != nil {
			return err
		}
		return w.mapTable(u.format, &parsed)
	case !t.HoldsRows():
		return nil
	}
	parsed, err := u.format.Parse(raw)
	if err != nil {
		return err
	}
	rows, err := binlog.ParseRows(&parsed, u.format)
	if err != nil {
		return err
	}
	m := w.mapped[rows.TableID]
	if m == nil || m.table == nil {
		return nil // of these none may go
	}
	t := m.table
	if rows.Width != t.Columns || rows.Before != nil && !t.shape.Whole(rows.Before) || rows.After != nil && !t.shape.Whole(rows.After) {
		clear(t.latest) // what the replica keeps of a row is not in the event
		return nil
	}
	end := e.to - uint32(u.format.Checksum.Size())
	e.rows, e.first = end-uint32(len(rows.Data)), uint32(len(w.rows))
	if err := w.walk(t, &rows, end, domain); err != nil {
		return fmt.Errorf("%w: the rows of a %s event do not end with their columns", err, parsed.Type)
	}
	e.last = uint32(len(w.rows))
	u.reduced = u.reduced || e.first < e.last
	return nil
}

// mapTable notes what a number means from here on.
func (w *window) mapTable(f *binlog.Format, e *binlog.Event) error {
	if err := w.parsed.Parse(e, f); err != nil {
		return err
	}
	m := w.mapped[w.parsed.ID]
	if m != nil && bytes.Equal(m.body, e.Body) {
		return nil
	}
	key := TableKey(string(w.parsed.Schema), string(w.parsed.Name))
	t := w.tracked[key]
	if t == nil {
		if known := w.tables[key]; known != nil {
			t = &tracked{Table: known, key: known.key(), latest: make(map[uint64]uint32)}
			w.tracked[key] = t
		}
	}
	if t != nil && !t.shape.Equal(w.parsed.Columns) {
		clear(t.latest)
		if !t.shape.Set(w.parsed.Columns) {
			t = nil
		}
	}
	w.mapped[w.parsed.ID] = &mapped{body: bytes.Clone(e.Body), table: t}
	return nil
}

// walk follows the rows of an event, whose data ends at end in the arena.
func (w *window) walk(t *tracked, rows *binlog.Rows, end uint32, domain uint32) error {
	w.before, w.after, w.stored = sized(w.before, len(t.Guarded)), sized(w.after, len(t.Guarded)), sized(w.stored, len(t.Guarded))
	for data := rows.Data; len(data) > 0; {
		from := end - uint32(len(data))
		n, ok := t.shape.Image(data, t.Guarded, w.before)
		if !ok {
			return binlog.ErrMalformed
		}
		data = data[n:]
		hash := w.overwrite(t, w.before, domain)
		if rows.Op != change.OpUpdate {
			continue
		}
		n, ok = t.shape.Image(data, t.Guarded, w.after)
		if !ok {
			return binlog.ErrMalformed
		}
		data = data[n:]
		if equal(w.before, w.after) {
			t.latest[hash] = uint32(len(w.rows))
		}
		w.rows = append(w.rows, row{from: from, to: end - uint32(len(data)), domain: domain})
	}
	return nil
}

// overwrite lets the last update of a row go, as the next event is about the same row. It returns the hash of the row's key.
func (w *window) overwrite(t *tracked, values [][]byte, domain uint32) (hash uint64) {
	w.key = w.key[:0]
	for _, i := range t.key {
		w.key = append(w.key, values[i]...)
	}
	hash = maphash.Bytes(w.seed, w.key)
	i, ok := t.latest[hash]
	if !ok {
		return hash
	}
	delete(t.latest, hash)
	r := &w.rows[i]
	if r.domain != domain || !t.shape.Values(w.arena[r.from:r.to], t.Guarded, w.stored) {
		return hash
	}
	for _, i := range t.key {
		if !bytes.Equal(values[i], w.stored[i]) {
			return hash // another row, with the same hash
		}
	}
	r.gone = true
	w.leftOut++
	return hash
}

// equal reports whether values are the same bytes. An empty one is NULL.
func equal(a, b [][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// sized returns a slice for n values, in the memory of an earlier one if that is enough.
func sized(values [][]byte, n int) [][]byte {
	if cap(values) < n {
		return make([][]byte, n)
	}
	return values[:n]
}
