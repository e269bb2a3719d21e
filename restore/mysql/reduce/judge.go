package reduce

import (
	"errors"
	"fmt"

	"txreel/change"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
)

// format is the format of the events that follow.
type format struct {
	*binlog.Format
	raw []byte
}

// set takes a definition; those of other kinds, which later versions may add, mean nothing here.
func (f *format) set(raw []byte) error {
	if string(raw) == string(f.raw) {
		return nil
	}
	e, err := binlog.Parse(raw, binlog.ChecksumCRC32)
	if err != nil || e.Type != binlog.TypeFormatDescription {
		return err
	}
	parsed, err := binlog.ParseFormat(&e)
	if err != nil {
		return err
	}
	f.Format, f.raw = parsed, append([]byte(nil), raw...)
	return nil
}

var errNoFormat = errors.New("no FORMAT_DESCRIPTION event stands before it")

// judge says what a transaction is, message by message.
type judge struct {
	seq    change.Seq
	events int
	begun  bool
	ended  bool  // by the XID event that says that it was committed
	odd    bool  // it holds more than rows
	alters bool  // it may alter tables
	first  half  // MariaDB: it is the first half of an ALTER, or
	second half  // the second half of one
	left   int64 // of an event that comes in pieces
}

// plain reports whether the transaction changes rows and nothing else, and was committed.
func (j *judge) plain() bool { return !j.odd && !j.alters && (j.ended || j.events == 0) }

// message takes the next event of the transaction, or a piece of one.
func (j *judge) message(f *binlog.Format, raw []byte) error {
	if j.left > 0 {
		if int64(len(raw)) > j.left {
			return fmt.Errorf("%w: the pieces of an event are longer than it is", binlog.ErrMalformed)
		}
		j.left -= int64(len(raw))
		return nil
	}
	h, err := binlog.ParseHeader(raw)
	if err != nil {
		return err
	}
	if int64(len(raw)) > int64(h.Size) {
		return fmt.Errorf("%w: a %s event of %d bytes claims %d", binlog.ErrMalformed, h.Type, len(raw), h.Size)
	}
	if j.left = int64(h.Size) - int64(len(raw)); j.left > 0 {
		j.alters = j.alters || !h.Type.HoldsRows()
		return nil
	}
	j.events++
	return j.event(f, h.Type, raw)
}

// event judges a whole event.
func (j *judge) event(f *binlog.Format, t binlog.Type, raw []byte) error {
	if j.ended {
		j.odd = true
	}
	switch t {
	case binlog.TypeTableMap, binlog.TypeRowsQuery, binlog.TypeAnnotateRows:
		j.alters = j.alters || !j.begun
	case binlog.TypeXID:
		j.ended = true
	case binlog.TypeXAPrepare:
		j.odd = true
	case binlog.TypeQuery:
		if f == nil {
			return errNoFormat
		}
		e, err := f.Parse(raw)
		if err != nil {
			return err
		}
		switch {
		case binlog.IsBegin(&e) && j.begun && j.events == 2: // behind the GTID
		case binlog.IsControl(&e):
			j.odd = true
		default:
			j.alters = true
		}
	default:
		switch {
		case t.Begins():
			j.alters = j.alters || j.begun || j.events > 1
			j.begun = true
			return j.group(f, raw)
		case rowsInPlain(t):
		case t.HoldsRows():
			j.odd = true
		default:
			j.alters = true
		}
	}
	return nil
}

// half names an ALTER that is written to the log in two halves, by the GTID of the first; zero for none. Other transactions may stand in between.
type half struct {
	domain uint32
	n      uint64
}

// group reads the event that opens a transaction.
func (j *judge) group(f *binlog.Format, raw []byte) error {
	if f == nil {
		return errNoFormat
	}
	e, err := f.Parse(raw)
	if err != nil {
		return err
	}
	g, err := binlog.ParseGroup(&e)
	if err != nil {
		return err
	}
	switch {
	case g.FlagsMore&binlog.FLXStartAlter != 0:
		j.first, j.alters = half{g.GTID.Domain, g.GTID.N}, true
	case g.FlagsMore&(binlog.FLXCommitAlter|binlog.FLXRollbackAlter) != 0:
		j.second, j.alters = half{g.GTID.Domain, g.AlterID}, true
	}
	return nil
}

// rowsInPlain reports whether events of the type hold the rows themselves, neither compressed nor as differences.
func rowsInPlain(t binlog.Type) bool {
	switch t {
	case binlog.TypeWriteRows, binlog.TypeUpdateRows, binlog.TypeDeleteRows, binlog.TypeWriteRowsV1, binlog.TypeUpdateRowsV1, binlog.TypeDeleteRowsV1:
		return true
	}
	return false
}

// domainOf returns the part of MariaDB's GTID within which transactions are executed in order; 0 for MySQL.
func domainOf(xid string) uint32 {
	g, err := gtid.ParseGTID(xid)
	if err != nil {
		return 0
	}
	return g.Domain
}
