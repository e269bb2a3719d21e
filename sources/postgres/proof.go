package postgres

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"txreel/archive"
	"txreel/capture"
	"txreel/change"
	"txreel/sources/postgres/lsn"
	"txreel/sources/postgres/pgoutput"
)

// Last is the last transaction on record that the source committed behind some position.
type Last struct {
	XID    uint32 // its lower half, as the stream has it
	End    lsn.LSN
	Time   change.Time
	Before lsn.LSN // where what is on record before it ends
}

// LastBehind reads the last transaction of an epoch that the source committed behind from; nil when there is none.
func LastBehind(ctx context.Context, a *archive.Archive, tail archive.Tail, from change.Position) (*Last, error) {
	at, err := lsn.FromPosition(from)
	if err != nil {
		return nil, err
	}
	var last *Last
	for x, err := range a.Backward(ctx, tail.Epoch, tail.Seq) {
		if err != nil {
			return nil, err
		}
		for i := range slices.Backward(x.Txns) {
			t := &x.Txns[i]
			end, err := lsn.FromPosition(t.Position)
			switch {
			case err != nil:
				return nil, err
			case last != nil:
				last.Before = end
				return last, nil
			case end <= at:
				return nil, nil
			case t.Kind != change.TxnSource || t.XID == "": // fences and other messages outside transactions have no id
				continue
			}
			xid, err := strconv.ParseUint(t.XID, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("transaction %s on record: %w", t.Seq, err)
			}
			last = &Last{XID: uint32(xid), End: end, Time: t.CommitTime}
		}
	}
	return last, nil
}

// proof compares what the source sends again with the record. Positions and timeline of a server that was put back to
// an earlier copy of its disk, and has written more since, look like those of the record; but its slot was put back with it and
// stands where the record has gone on. What committed behind that must be sent again, the same: the last transaction on record,
// and none behind it that the record does not hold (Invariant 6).
type proof struct {
	asked bool    // the stream began before the end of the record
	last  *Last   // nil: the record holds no transaction behind the slot's position, or it was shown
	xid   uint32  // of the transaction that is passed over
	end   lsn.LSN // of the record
	done  bool    // the stream has come past the record's end, and the history is the record's
}

// shown takes the end of a transaction that ends before the record does.
func (p *proof) shown(c *pgoutput.Commit) error {
	end := lsn.LSN(c.EndLSN)
	switch {
	case !p.asked:
	case p.last == nil:
		return fmt.Errorf("%w: transaction %d ends at %s there and is not on record, which ends at %s%s", capture.ErrDiverged, p.xid, end, p.end, putBack)
	case end < p.last.End:
	case end > p.last.End || p.xid != p.last.XID || c.CommitTime != p.last.Time:
		return p.passed()
	default:
		p.last = nil
	}
	return nil
}

// passed is called when the stream has come past the record's end.
func (p *proof) passed() error {
	switch {
	case !p.asked:
		return nil
	case p.last == nil:
		p.asked, p.done = false, true
		return nil
	}
	return fmt.Errorf("%w: transaction %d, committed %s and ending at %s, is on record and not there%s", capture.ErrDiverged, p.last.XID, p.last.Time, p.last.End, putBack)
}

const putBack = ": the source was put back to an earlier state and has gone on from it: run capture with --new-epoch to go on behind the gap"
