package segment

import (
	"encoding/binary"
	"fmt"

	"txreel/change"
)

// Carry is an open transaction on its way from one segment to the next.
type Carry struct {
	txn      change.Txn
	records  []byte
	openDefs bool
	known    []*change.Definition // what the segment it comes from held before it
	added    []*change.Definition // what it brought itself
	counts   []tableCount
}

// Detach takes the open transaction out of the segment, which afterwards is as if
// the transaction had never begun. It returns nil when there is none, or when frames of it
// have been written already (Held is zero then).
func (w *Writer) Detach() (*Carry, error) {
	if w.Held() == 0 || w.err != nil {
		return nil, w.err
	}
	c := &Carry{
		txn:      w.txn,
		records:  append([]byte(nil), w.buf[w.start.buf:]...),
		openDefs: w.openDefs,
		known:    append([]*change.Definition(nil), w.order[:len(w.order)-len(w.added)]...),
		added:    append([]*change.Definition(nil), w.added...),
		counts:   append([]tableCount(nil), w.counts...),
	}
	return c, w.Rollback()
}

// Attach puts a detached transaction into this segment, which must be empty and
// begin with the transaction's Seq. The definitions that the segment before held come
// first: what was carried may refer to them.
func (w *Writer) Attach(c *Carry) error {
	switch {
	case w.err != nil:
		return w.err
	case w.open || w.index.txns > 0 || len(w.buf) > 0 || w.next != c.txn.Seq:
		return fmt.Errorf("transaction %s cannot be carried into the middle of a segment, before %s", c.txn.Seq, w.next)
	}
	for _, d := range c.known {
		w.known[d] = struct{}{}
		w.order = append(w.order, d)
		for _, raw := range d.Messages {
			w.heldDefs = true
			w.buf = append(w.buf, recordDefinition)
			w.buf = binary.AppendUvarint(w.buf, uint64(len(raw)))
			w.buf = append(w.buf, raw...)
		}
	}
	w.open, w.txn, w.openDefs = true, c.txn, c.openDefs
	w.start, w.undo.set = place{frames: len(w.frames), buf: len(w.buf)}, false
	w.buf = append(w.buf, c.records...)
	w.added = append(w.added[:0], c.added...)
	for _, d := range c.added {
		w.known[d] = struct{}{}
	}
	w.order = append(w.order, c.added...)
	w.counts = w.counts[:0]
	for i, n := range c.counts {
		n.state = &tableState{table: n.state.table, id: -1, seq: w.next, pos: i}
		w.tables[n.state.table] = n.state
		w.counts = append(w.counts, n)
	}
	return nil
}
