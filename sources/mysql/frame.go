package mysql

import (
	"bytes"
	"fmt"

	"txreel/capture"
	"txreel/change"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
)

// frame reads an event that belongs to the log and not to a transaction. Made means that
// the sender made it.
func (p *parser) frame(e *binlog.Event, made bool) error {
	switch e.Type {
	case binlog.TypeRotate:
		rotate, err := binlog.ParseRotate(e)
		if err != nil {
			return err
		}
		p.at.enter(rotate.Name, rotate.Position)
	case binlog.TypeHeartbeat, binlog.TypeHeartbeatV2:
		beat, err := binlog.ParseHeartbeat(e)
		if err != nil {
			return err
		}
		if bytes.Equal(beat.Name, []byte(p.at.file)) {
			p.at.reach(beat.Position)
		}
	case binlog.TypeFormatDescription:
		return p.describe(e)
	case binlog.TypePreviousGTIDs, binlog.TypeGTIDList:
		if !made {
			return p.previous(e)
		}
	}
	return nil
}

// describe takes note of the format of a file.
func (p *parser) describe(e *binlog.Event) error {
	format, err := binlog.ParseFormat(e)
	if err != nil {
		return err
	}
	if format.Flavor != p.held.Flavor() {
		return fmt.Errorf("the source's log is %s's, although the server is %s", format.Flavor, p.held.Flavor())
	}
	p.format = format
	p.count.event(e, format, false)
	if len(p.defs) == 0 || !bytes.Equal(p.defs[0].Messages[0], e.Raw) {
		p.defs = []*change.Definition{{Messages: [][]byte{bytes.Clone(e.Raw)}}}
	}
	return nil
}

// previous compares what a file says came before it with the record. Whatever is missing
// was never sent, or was lost on the way.
func (p *parser) previous(e *binlog.Event) error {
	before, err := binlog.ParsePrevious(e)
	if err != nil {
		return err
	}
	if p.held.Contains(before) || p.torn != "" && contains(p.held, before, p.torn) {
		return nil
	}
	return fmt.Errorf("%w: the source's log before %s holds transactions that were not sent: %s: run capture with --new-epoch to go on behind the gap", capture.ErrGap, p.at.file, p.held.Missing(before))
}

// contains is Contains for a record that lacks one transaction for a known reason.
func contains(held, other *gtid.Set, but string) bool {
	g, err := gtid.ParseGTID(but)
	if err != nil {
		return false
	}
	with := held.Clone()
	with.Add(g)
	return with.Contains(other)
}
