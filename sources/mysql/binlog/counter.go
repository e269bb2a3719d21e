package binlog

import (
	"io"

	"txreel/change"
)

// Counter says which tables events touch, and how many of their rows. It looks at
// the outline of rows, never at values. Make one with NewCounter. It is not safe for concurrent
// use.
type Counter struct {
	tables   map[uint64]*layout
	held     int // bytes of the bodies in tables
	names    map[string]*change.Table
	key      []byte
	mapped   TableMap
	touched  []change.Touch
	cursor   cursor
	inflater Inflater

	// For the events of a payload, and for those that come in pieces.
	unpacker Unpacker
	inner    cursor
	outer    cursor
	event    Event
	body     []byte
	pieces   *pieces
}

// NewCounter returns a Counter.
func NewCounter() *Counter {
	return &Counter{tables: make(map[uint64]*layout), names: make(map[string]*change.Table)}
}

// The most that a Counter keeps of mapped tables, before it forgets them all. A server maps a
// table again in every statement.
const (
	maxTables     = 20_000
	maxTableBytes = 32 << 20
)

// maxInner bounds what is brought to memory of an event in a payload: nothing but table
// maps and statements.
const maxInner = 16 << 20

// Count returns what the event does to which tables. Whole is false if it does something that could not be
// counted: a row that makes no sense, a table that was not mapped, a column type
// of a later server. Then touched holds what could be. The slice is valid until the next
// call; its tables are the same pointer for the same schema and name as long as the
// Counter lives. An event of which only the first piece is there is counted as far as it goes, and
// the row that is cut off as one; CountFirst counts all of it.
func (c *Counter) Count(e *Event, f *Format) (touched []change.Touch, whole bool) {
	c.touched = c.touched[:0]
	switch e.Type {
	case TypeFormatDescription: // ids may mean other tables now
		clear(c.tables)
		c.held = 0
		whole = true
	case TypeTableMap:
		whole = c.mapTable(e, f)
	case TypeQuery, TypeQueryCompressed:
		c.statement(e)
		whole = true
	case TypeTransactionPayload:
		whole = c.payload(e, f)
	case TypePartialRowData:
	default:
		whole = !e.Type.HoldsRows() || c.rows(e, f)
	}
	return c.touched, whole
}

// mapTable takes note of a table map.
func (c *Counter) mapTable(e *Event, f *Format) bool {
	id := reader{b: e.Body}
	table := id.tableID(f, TypeTableMap)
	l := c.tables[table]
	if l != nil && l.of(e.Body) {
		return true
	}
	if err := c.mapped.Parse(e, f); err != nil {
		delete(c.tables, table)
		return false
	}
	if len(c.tables) >= maxTables || c.held > maxTableBytes {
		clear(c.tables)
		c.held, l = 0, nil
	}
	if l == nil {
		l = new(layout)
		c.tables[table] = l
	}
	c.held += len(e.Body)
	l.set(e.Body, c.table(c.mapped.Schema, c.mapped.Name), c.mapped.Columns)
	return true
}

// table returns the one Table of that name.
func (c *Counter) table(schema, name []byte) *change.Table {
	c.key = appendTableKey(c.key[:0], schema, name)
	t := c.names[string(c.key)]
	if t == nil {
		t = &change.Table{Schema: string(schema), Name: string(name)}
		c.names[string(c.key)] = t
	}
	return t
}

// touch adds rows to what the event did to a table.
func (c *Counter) touch(table *change.Table, op change.Op, rows uint64) {
	for i := range c.touched {
		if t := &c.touched[i]; t.Table == table && t.Op == op {
			t.Rows += rows
			return
		}
	}
	c.touched = append(c.touched, change.Touch{Table: table, Op: op, Rows: rows})
}

// rows counts the rows of one event.
func (c *Counter) rows(e *Event, f *Format) bool {
	rows, err := ParseRows(e, f)
	if err != nil {
		return false
	}
	c.cursor.over(rows.Data)
	if rows.Compressed {
		size, err := c.inflater.open(rows.Data)
		if err != nil {
			return false
		}
		c.cursor.from(c.inflater.z, size)
	}
	whole := c.images(&rows, &c.cursor)
	if !whole && uint64(e.Size) > uint64(len(e.Raw)) && c.tables[rows.TableID] != nil { // the rest of a row is in the next piece
		c.touch(c.tables[rows.TableID].table, rows.Op, 1)
	}
	return whole
}

func (c *Counter) images(rows *Rows, at *cursor) bool {
	l := c.tables[rows.TableID]
	if l == nil {
		return rows.TableID == dummyTable && at.rest() == 0
	}
	n, ok := l.images(at, rows)
	if n > 0 {
		c.touch(l.table, rows.Op, n)
	}
	return ok
}

// statement looks for TRUNCATE, whose rows no event counts.
func (c *Counter) statement(e *Event) {
	if e.Type == TypeQuery && !mayTruncate(queryText(e)) {
		return
	}
	q, err := ParseQuery(e)
	if err != nil || q.ErrorCode != 0 {
		return
	}
	text := q.Text
	if q.Compressed {
		if text = c.beginning(q.Text); !mayTruncate(text) {
			return
		}
	}
	if schema, name, ok := truncated(text, q.Mode()); ok {
		if schema == nil {
			schema = q.Schema
		}
		c.touch(c.table(schema, name), change.OpTruncate, 1)
	}
}

// beginning brings back what a compressed statement begins with: enough for TRUNCATE.
func (c *Counter) beginning(compressed []byte) []byte {
	const enough = 4096
	size, err := c.inflater.open(compressed)
	if err != nil {
		return nil
	}
	c.cursor.from(c.inflater.z, size)
	return c.cursor.take(int(min(size, enough)))
}

// payload counts the rows of all events of a payload, which pass through a window of bounded
// size.
func (c *Counter) payload(e *Event, f *Format) bool {
	p, err := ParsePayload(e)
	if err != nil {
		return false
	}
	return c.unpacker.Open(&p) == nil && c.innerEvents(f)
}

// innerEvents counts the events of the payload that is open.
func (c *Counter) innerEvents(f *Format) bool {
	whole := true
	for {
		ok, err := c.innerEvent(f)
		if err == io.EOF {
			return whole
		}
		if err != nil {
			return false
		}
		whole = whole && ok
	}
}

// innerEvent counts the next event of a payload. The error is io.EOF behind the last one.
func (c *Counter) innerEvent(f *Format) (whole bool, err error) {
	in := c.unpacker.in
	c.body = grown(c.body[:0], HeaderSize)
	if _, err := io.ReadFull(in, c.body); err != nil {
		return false, err
	}
	h, err := ParseHeader(c.body)
	if err != nil {
		return false, err
	}
	c.inner.from(in, uint64(h.Size)-HeaderSize)
	switch {
	case h.Type.HoldsRows():
		whole = c.streamRows(&c.inner, h, f)
	case h.Type == TypeTableMap && h.Size <= maxInner:
		for !c.inner.bad && c.inner.rest() > 0 {
			c.body = append(c.body, c.inner.take(int(min(c.inner.rest(), windowSize)))...)
		}
		if !c.inner.bad {
			c.event = Event{Header: h, Raw: c.body, Body: c.body[HeaderSize:]}
			whole = c.mapTable(&c.event, f)
		}
	default:
		whole = h.Type != TypeTableMap && h.Type != TypePartialRowData
	}
	c.inner.skip(c.inner.rest())
	if c.inner.bad && c.inner.src != nil {
		return false, io.ErrUnexpectedEOF
	}
	return whole, nil
}

// streamRows counts the rows of an event whose body the cursor walks over. What stands before them
// fits the window.
func (c *Counter) streamRows(at *cursor, h Header, f *Format) bool {
	head := int(min(at.rest(), windowSize/2))
	if len(at.b) < head && !at.more(head) {
		return false
	}
	c.body = append(c.body[:0], at.b[:head]...)
	c.event = Event{Header: h, Body: c.body}
	rows, err := ParseRows(&c.event, f)
	if err != nil {
		return false
	}
	at.skip(uint64(head - len(rows.Data)))
	if !rows.Compressed {
		return c.images(&rows, at)
	}
	size, n, err := inflated(rows.Data)
	if err != nil {
		return false
	}
	at.skip(uint64(n))
	if c.inflater.reset(at) != nil {
		return false
	}
	c.cursor.from(c.inflater.z, size)
	return c.images(&rows, &c.cursor)
}
