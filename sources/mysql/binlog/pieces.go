package binlog

import (
	"io"
	"iter"

	"txreel/change"
)

// pieces is the count of an event that comes in pieces. It runs as a coroutine, which goes on
// whenever a piece comes, so that no more than one is ever in memory.
type pieces struct {
	at      []byte // of the current piece
	missing uint64 // bytes of the event that have not come
	yield   func(struct{}) bool
	next    func() (struct{}, bool)
	stop    func()
	whole   bool
}

// Read implements io.Reader for the count: it waits for the next piece.
func (p *pieces) Read(b []byte) (int, error) {
	for len(p.at) == 0 {
		if !p.yield(struct{}{}) {
			return 0, io.ErrUnexpectedEOF
		}
	}
	n := copy(b, p.at)
	p.at = p.at[n:]
	return n, nil
}

// CountFirst begins to count an event of which only the first piece is there: its Raw is shorter
// than its size, and Body is what there is behind the header. The rest is for CountMore, before
// anything else is counted.
func (c *Counter) CountFirst(e *Event, f *Format) {
	c.CountAbandon()
	if uint64(len(e.Raw)) < HeaderSize || uint64(e.Size) <= uint64(len(e.Raw)) {
		return
	}
	c.touched = c.touched[:0]
	p := &pieces{at: e.Raw[HeaderSize:], missing: uint64(e.Size) - uint64(len(e.Raw))}
	h, body := e.Header, uint64(e.Size)-HeaderSize
	if f != nil {
		body -= min(body, uint64(f.Checksum.Size()))
	}
	p.next, p.stop = iter.Pull(func(yield func(struct{}) bool) {
		p.yield = yield
		p.whole = c.stream(h, f, p, body)
	})
	c.pieces = p
	p.next()
	p.at = nil
}

// CountMore takes the next piece of that event. With the last one it returns what the whole event does, as
// Count does, and done.
func (c *Counter) CountMore(piece []byte) (touched []change.Touch, whole, done bool) {
	p := c.pieces
	if p == nil {
		return nil, false, true
	}
	p.at = piece
	p.next()
	p.at = nil // nobody keeps what belongs to the caller
	if p.missing > uint64(len(piece)) {
		p.missing -= uint64(len(piece))
		return nil, false, false
	}
	whole = p.whole && p.missing == uint64(len(piece))
	c.CountAbandon()
	return c.touched, whole, true
}

// CountAbandon ends the count of an event whose other pieces will not come. It may be called at any
// time.
func (c *Counter) CountAbandon() {
	if c.pieces != nil {
		c.pieces.stop()
		c.pieces = nil
	}
}

// stream counts an event whose body of n bytes comes from in.
func (c *Counter) stream(h Header, f *Format, in io.Reader, n uint64) bool {
	c.outer.from(in, n)
	switch {
	case h.Type.HoldsRows():
		return c.streamRows(&c.outer, h, f)
	case h.Type == TypeTransactionPayload:
		head := int(min(c.outer.rest(), windowSize/2))
		if len(c.outer.b) < head && !c.outer.more(head) {
			return false
		}
		c.event = Event{Header: h, Body: c.outer.b[:head]}
		p, err := ParsePayload(&c.event)
		if err != nil {
			return false
		}
		c.outer.skip(uint64(head - len(p.Data)))
		return c.unpacker.open(p.Algorithm, &c.outer) == nil && c.innerEvents(f)
	}
	return h.Type != TypeTableMap && h.Type != TypePartialRowData
}
