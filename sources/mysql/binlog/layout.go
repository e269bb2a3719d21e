package binlog

import (
	"bytes"

	"txreel/change"
)

// layout is what a Counter must know of a mapped table to tell its rows apart.
type layout struct {
	body   []byte // of the TABLE_MAP event that it was made from
	table  *change.Table
	widths []width
	// runs says the same of images that hold every column and no NULL: fixed bytes, and
	// then a value with its length before it, if there is a prefix.
	runs []width
	json int // the number of JSON columns
	ok   bool
}

// set makes the layout that of a table map.
func (l *layout) set(body []byte, table *change.Table, columns []Column) {
	l.body = append(l.body[:0], body...)
	l.table, l.widths, l.runs, l.json, l.ok = table, l.widths[:0], l.runs[:0], 0, true
	var run width
	for _, c := range columns {
		w := c.width()
		l.widths = append(l.widths, w)
		l.ok = l.ok && w.prefix != noWidth
		if c.Type == ColumnJSON {
			l.json++
		}
		run.fixed += w.fixed
		if w.prefix > 0 {
			run.prefix = w.prefix
			l.runs = append(l.runs, run)
			run = width{}
		}
	}
	if run.fixed > 0 {
		l.runs = append(l.runs, run)
	}
}

// of reports whether the layout was made from such a body.
func (l *layout) of(body []byte) bool { return bytes.Equal(l.body, body) }

// images counts the rows that a cursor walks over, until its end or the first that
// makes no sense. An update has two images.
func (l *layout) images(c *cursor, rows *Rows) (n uint64, ok bool) {
	if rows.Width != len(l.widths) {
		return 0, false
	}
	var presence [2][]byte
	list := presence[:0]
	if rows.Before != nil {
		list = append(list, rows.Before)
	}
	if rows.After != nil {
		list = append(list, rows.After)
	}
	var counts [2]int
	for i := range list {
		counts[i] = present(list[i], rows.Width)
	}
	if counts[0] == 0 && counts[1] == 0 { // rows of no bytes would never end
		return 0, c.rest() == 0
	}
	for c.rest() > 0 {
		for i, columns := range list {
			if rows.Partial && i == len(list)-1 {
				l.options(c)
			}
			l.image(c, columns, counts[i])
		}
		if c.bad {
			return n, false
		}
		n++
	}
	return n, true
}

// options passes over what stands before the image after a partial update: if its lowest
// bit is set, a bit follows for every JSON column of the table.
func (l *layout) options(c *cursor) {
	if c.packed()&1 != 0 {
		c.skip(uint64(l.json+7) / 8)
	}
}

// image passes over one image that holds count of the columns.
func (l *layout) image(c *cursor, columns []byte, count int) {
	nulls := c.take((count + 7) / 8)
	if count == len(l.widths) && allClear(nulls, count) && l.ok {
		for _, run := range l.runs {
			skip(c, run)
		}
		return
	}
	if c.bad {
		return
	}
	if c.src != nil { // the window moves on
		c.kept = append(c.kept[:0], nulls...)
		nulls = c.kept
	}
	k := 0
	for i, w := range l.widths {
		if !bit(columns, i) {
			continue
		}
		if !bit(nulls, k) {
			if w.prefix == noWidth {
				c.fail()
				return
			}
			skip(c, w)
		}
		k++
	}
}

// skip passes over the bytes of a width.
func skip(c *cursor, w width) {
	if uint64(w.fixed) <= uint64(len(c.b)) {
		c.b = c.b[w.fixed:]
	} else {
		c.skip(uint64(w.fixed))
	}
	if w.prefix == 0 {
		return
	}
	if n := c.number(w.prefix); n <= uint64(len(c.b)) {
		c.b = c.b[n:]
	} else {
		c.skip(n)
	}
}

// allClear reports whether the first n bits are zero.
func allClear(bitmap []byte, n int) bool {
	for i, b := range bitmap {
		if rest := n - 8*i; rest < 8 {
			b &= 1<<rest - 1
		}
		if b != 0 {
			return false
		}
	}
	return len(bitmap) == (n+7)/8
}
