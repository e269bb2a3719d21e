package mysql

import (
	"context"
	"errors"
	"fmt"

	"txreel/capture"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
)

// GTIDs are names. A server that was reset, put back to an earlier state, or replaced by one with the same ids gives
// the names on record to other transactions, and has soon as many as the record: then nothing but what they name tells
// its history from that of the record. So before a record goes on, the source must show its last transaction
// again (Invariants 4 and 6).

// prove compares the last transaction on record with what the source has under its GTID, on a stream of its own. What
// it cannot compare it notes in s.warning.
func (s *Source) prove(ctx context.Context, held *gtid.Set, last *Last) (err error) {
	if last == nil {
		return nil
	}
	if last.Unknown != "" {
		s.unproven(last.Unknown)
		return nil
	}
	if s.dump, err = Connect(ctx, s.opts.URL); err != nil {
		return err
	}
	defer func() {
		_ = s.dump.wire.conn.Close() // the server's half ends with the log, or when it next sends
		s.dump, s.framer = nil, framer{}
	}()
	if err := s.dump.sameAs(ctx, s.control); err != nil {
		return err
	}
	if err := s.dump.request(ctx, last.without(held), &s.opts, toEnd); err != nil {
		return err
	}
	socket := s.dump.wire.conn
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	look := look{want: last.print.gtid}
	var cut *truncatedError
	switch err := s.show(&look); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errEnded):
		return last.missing("nothing")
	case errors.Is(err, capture.ErrGap), errors.As(err, &cut): // purged, or no place to begin at: the record's end decides
		s.unproven(fmt.Sprintf("it does not have %s any more, the last transaction on record (%v)", look.want, err))
		return nil
	case err != nil:
		return err
	case look.instead.N != 0:
		return last.missing(look.instead.String())
	}
	sent, err := look.printer.end()
	if err != nil {
		return wrapSQL("read the last transaction on record from the source", err)
	}
	if !last.print.same(sent) {
		return fmt.Errorf("%w: the source has another transaction under the GTID of the last one on record, %s: the record's was %s; the source's was %s. It was reset or put back to an earlier state, or another server with the same ids took its place, and has gone on since: run capture with --new-epoch to record from here on",
			capture.ErrDiverged, look.want, last.print, sent)
	}
	return nil
}

// missing is the error of a log that lacks the transaction, although it says that it has come as far.
func (l *Last) missing(instead string) error {
	return fmt.Errorf("%w: the source's log has %s where the last transaction on record was, %s: it was reset or put back, or another server took its place, and has gone on since; run capture with --new-epoch to record from here on",
		capture.ErrDiverged, instead, l.print.gtid)
}

func (s *Source) unproven(why string) {
	s.warning = "the record goes on by its GTIDs alone, without proof that the source still has the history on record: " + why
}

// Warning says what capture could not make sure of when the source was opened; "" if there is nothing.
func (s *Source) Warning() string { return s.warning }

// without returns the record's set as it was before its last transaction.
func (l *Last) without(held *gtid.Set) *gtid.Set {
	g := l.print.gtid
	if g.Flavor == gtid.MySQL {
		one := gtid.New(gtid.MySQL)
		one.Add(g)
		return held.Minus(one)
	}
	var domains []gtid.GTID
	for _, d := range held.Domains() {
		if d.Domain != g.Domain {
			domains = append(domains, d)
		}
	}
	return gtid.FromList(append(domains, l.before.Domains()...))
}

// show reads the stream up to the end of the transaction that is looked for. The memory it takes is that of
// the largest packet.
func (s *Source) show(l *look) error {
	b := &batch{data: make([]byte, 0, batchBytes)}
	for {
		whole, failed := s.fill(b)
		for at := 0; at < whole; {
			length := packetLength(b.data[at:])
			done, err := l.packet(b.data[at+packetHeader:][:length], length == maxPayload)
			if done || err != nil {
				return err
			}
			at += packetHeader + length
		}
		if failed != nil {
			return s.explainStream(failed)
		}
		b.data = b.data[:copy(b.data, b.data[whole:])]
	}
}

// look finds one transaction in a stream, whatever else comes before it: the log of a replica may have another
// order.
type look struct {
	want    gtid.GTID
	instead gtid.GTID // MariaDB: what its domain goes on with, if it is not in it

	printer fingerprinter
	grouper binlog.Grouper
	found   bool // its group is open
	more    bool // the next packet continues an event
	part    bool // of the group
	ends    bool // with which the group ends
}

// packet reads a packet of the stream, and reports whether the search is over.
func (l *look) packet(payload []byte, full bool) (done bool, err error) {
	raw := payload
	if !l.more {
		raw = payload[1:]
		if done, err := l.event(raw, full); done || err != nil {
			return done, err
		}
	}
	l.more = full
	if !l.part {
		return false, nil
	}
	if err := l.printer.add(raw); err != nil {
		return false, err
	}
	return l.ends && !full, nil
}

// event looks at the first packet of an event, which is all of it unless full is set.
func (l *look) event(raw []byte, full bool) (done bool, err error) {
	h, err := binlog.ParseHeader(raw)
	if err != nil {
		return false, err
	}
	e := binlog.Event{Header: h, Raw: raw, Body: raw[binlog.HeaderSize:]}
	if uint64(len(raw)) == uint64(h.Size) {
		sum := binlog.ChecksumNone
		if l.printer.format != nil {
			sum = l.printer.format.Checksum
		}
		if e, err = parse(&h, raw, sum); err != nil {
			return false, err
		}
	}
	where, torn, err := l.grouper.Next(&e)
	if err != nil {
		return false, err
	}
	if torn {
		l.found, l.printer = false, fingerprinter{format: l.printer.format}
	}
	l.part, l.ends = false, false
	switch where {
	case binlog.Frame:
		if h.Type == binlog.TypeFormatDescription {
			return false, l.printer.describe(raw)
		}
	case binlog.Begins:
		g := l.grouper.Group.GTID
		l.found = g == l.want
		l.part = l.found
		if !l.found && g.Flavor == gtid.MariaDB && g.Domain == l.want.Domain && g.N >= l.want.N {
			l.instead = g
			return true, nil
		}
	case binlog.Inside, binlog.Ends:
		l.part, l.ends = l.found, l.found && where == binlog.Ends
	}
	return false, nil
}
