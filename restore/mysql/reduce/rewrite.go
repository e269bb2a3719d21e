package reduce

import (
	"txreel/segment"
	"txreel/sources/mysql/binlog"
)

// statement is the events of a transaction between two ends of statements.
type statement struct {
	from int // its first event
	kept int // its last row event that is left; -1 for none
}

// reduce takes what is overwritten out of a transaction, in place. A row event without rows goes, and a statement without row events with its
// table maps. The last row event of a statement tells the replica that it is the last.
func (w *window) reduce(u *unit) {
	s := statement{u.first, -1}
	for i := u.first; i < u.last; i++ {
		e := &w.events[i]
		if e.kind != segment.Message {
			continue
		}
		t := binlog.Type(w.arena[e.from+4])
		if !t.HoldsRows() {
			if t != binlog.TypeTableMap && t != binlog.TypeRowsQuery && t != binlog.TypeAnnotateRows {
				s = statement{i + 1, -1}
			}
			continue
		}
		ends := binlog.EndsStatement(w.arena[e.from:e.to], u.format)
		if w.shorten(e, u.format); e.from < e.to {
			s.kept = i
		}
		if !ends {
			continue
		}
		w.endStatement(&s, i, u.format)
		s = statement{i + 1, -1}
	}
}

// endStatement makes the last of the row events that are left the end of its statement, which ended with the event last.
func (w *window) endStatement(s *statement, last int, f *binlog.Format) {
	if s.kept < 0 {
		for i := s.from; i <= last; i++ {
			if e := &w.events[i]; e.kind == segment.Message {
				e.to = e.from
			}
		}
		return
	}
	if s.kept < last {
		e := &w.events[s.kept]
		raw := w.arena[e.from:e.to]
		binlog.EndStatement(raw, f)
		binlog.Seal(raw, f.Checksum)
	}
}

// shorten takes the updates that are overwritten out of an event.
func (w *window) shorten(e *event, f *binlog.Format) {
	end, gone := e.rows, false
	for _, r := range w.rows[e.first:e.last] {
		if r.gone {
			gone = true
			continue
		}
		end += uint32(copy(w.arena[end:], w.arena[r.from:r.to]))
	}
	switch {
	case !gone:
	case end == e.rows:
		e.to = e.from
	default:
		e.to = end + uint32(f.Checksum.Size())
		binlog.Seal(w.arena[e.from:e.to], f.Checksum)
	}
}
