package segment

import (
	"fmt"

	"txreel/change"
)

// checker follows the records of a segment and compares them with its index: an
// index that lies would let a reader miss a transaction (Invariant 4).
type checker struct {
	next   change.Seq
	open   bool
	cur    Entry
	frames []Frame
	txns   []Entry
	latest change.Time
	defs   bool // the current frame held a definition record
	bad    error
}

func (c *checker) frame(f Frame) {
	c.closeFrame()
	c.frames = append(c.frames, f)
}

// closeFrame compares the flag of the frame that ends with what was in it.
func (c *checker) closeFrame() {
	if n := len(c.frames); n > 0 && c.frames[n-1].Definitions != c.defs && c.bad == nil {
		c.bad = fmt.Errorf("frame %d: definitions flag %t, definitions found %t", n-1, c.frames[n-1].Definitions, c.defs)
	}
	c.defs = false
}

func (c *checker) record(r *Record, offset int) error {
	switch r.Kind {
	case Definition:
		c.defs = true
	case Begin:
		switch {
		case c.open:
			return fmt.Errorf("transaction %s begins inside %s", r.Seq, c.next)
		case r.Seq != c.next:
			return fmt.Errorf("transaction %s begins where %s must", r.Seq, c.next)
		}
		c.open = true
		c.cur = Entry{Txn: change.Txn{Seq: r.Seq, Kind: r.TxnKind}, Frame: len(c.frames) - 1, Offset: offset}
	case Message:
		switch {
		case !c.open:
			return fmt.Errorf("message outside a transaction")
		case c.cur.Kind == change.TxnHeartbeat:
			return fmt.Errorf("message in a heartbeat")
		}
		c.cur.Messages++
		c.cur.Bytes += uint64(len(r.Raw))
	case Commit:
		switch {
		case !c.open:
			return fmt.Errorf("commit outside a transaction")
		case c.cur.Kind == change.TxnHeartbeat && r.XID != "":
			return fmt.Errorf("heartbeat with an id")
		}
		c.open = false
		c.cur.XID, c.cur.Position, c.cur.CommitTime, c.cur.Received, c.cur.Note = r.XID, r.Position, r.CommitTime, r.Received, r.Note
		r.Seq, r.TxnKind = c.cur.Seq, c.cur.Kind
		c.txns = append(c.txns, c.cur)
		c.latest = max(c.latest, r.CommitTime)
		c.next++
	}
	return nil
}

func (c *checker) index(x *Index) error {
	c.closeFrame()
	switch {
	case c.bad != nil:
		return c.bad
	case c.open:
		return fmt.Errorf("index: it stands inside transaction %s", c.next)
	case x.Latest != c.latest:
		return fmt.Errorf("index: latest commit time %s, the segment's is %s", x.Latest, c.latest)
	case len(x.Frames) != len(c.frames) || len(x.Txns) != len(c.txns):
		return fmt.Errorf("index: %d frames and %d transactions, the segment holds %d and %d", len(x.Frames), len(x.Txns), len(c.frames), len(c.txns))
	}
	for i := range c.frames {
		if x.Frames[i] != c.frames[i] {
			return fmt.Errorf("index: frame %d differs from the segment's", i)
		}
	}
	for i := range c.txns {
		a, b := &x.Txns[i], &c.txns[i]
		if a.Seq != b.Seq || a.Kind != b.Kind || a.XID != b.XID || a.Position != b.Position || a.CommitTime != b.CommitTime ||
			a.Received != b.Received || a.Note != b.Note || a.Messages != b.Messages || a.Bytes != b.Bytes || a.Frame != b.Frame || a.Offset != b.Offset {
			return fmt.Errorf("index: entry of transaction %s differs from its records", b.Seq)
		}
	}
	return nil
}
