package mysql

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"

	"txreel/change"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
)

// fingerprint is what a transaction is recognised by, beside its GTID, wherever it is read.
type fingerprint struct {
	gtid   gtid.GTID
	origin uint32 // the server id that it was first run under
	// original is when the origin committed it, in microseconds, which MySQL's replicas pass on.
	original change.Time
	// began is the second of the first event behind the one that opens the group, which replicas pass on; 0 where
	// they may not. The opening event's own is that of COMMIT, which MariaDB's replicas do not know.
	began uint32
	view  bool   // a group of servers changed: each of them logs that by itself, under one GTID
	size  uint64 // of all events
	sum   [sha256.Size]byte
}

// same reports whether two groups are one transaction. A server that sends a group again sends the same bytes. A replica,
// and a node of a cluster, has written it anew, with places, threads and times of its own, perhaps under the same
// server id: there what servers pass on has to do.
func (f *fingerprint) same(o *fingerprint) bool {
	switch {
	case f.gtid != o.gtid:
		return false
	case f.size == o.size && f.sum == o.sum:
		return true
	case f.gtid.Flavor == gtid.MySQL:
		return f.original == o.original || f.view && o.view
	}
	return f.began == o.began || f.began == 0 || o.began == 0
}

// String describes the transaction to a person.
func (f *fingerprint) String() string {
	when := "committed at " + f.original.String()
	if f.original == 0 {
		when = "begun at " + (change.Time(f.began) * 1_000_000).String()
	}
	return fmt.Sprintf("%s under server id %d, %d bytes", when, f.origin, f.size)
}

// fingerprinter takes a fingerprint from the events of a group, each in one piece or in several, in memory that
// does not grow with them.
type fingerprinter struct {
	fingerprint
	format *binlog.Format
	hash   hash.Hash // nil before the group opens
	behind bool      // the event that opens it
	left   uint64    // bytes of the current event to come
}

// describe reads the FORMAT_DESCRIPTION event of the log that the group stands in.
func (p *fingerprinter) describe(raw []byte) error {
	e, err := binlog.Parse(raw, binlog.ChecksumNone) // it says itself how it ends
	if err != nil {
		return err
	}
	p.format, err = binlog.ParseFormat(&e)
	return err
}

// add reads the next piece. What stands before the event that opens the group is left out.
func (p *fingerprinter) add(raw []byte) error {
	if p.left == 0 && len(raw) > 0 {
		h, err := binlog.ParseHeader(raw)
		if err != nil {
			return err
		}
		p.left = uint64(h.Size)
		switch {
		case p.hash == nil && h.Type.Begins():
			if err := p.open(raw); err != nil {
				return err
			}
		case p.hash != nil && !p.behind:
			if p.behind = true; h.Type != binlog.TypeXID {
				p.began = h.Timestamp
			}
		case h.Type == binlog.TypeViewChange:
			p.view = true
		}
	}
	if uint64(len(raw)) > p.left {
		return errors.New("an event has more bytes than it says")
	}
	p.left -= uint64(len(raw))
	if p.hash != nil {
		p.size += uint64(len(raw))
		p.hash.Write(raw) // never fails
	}
	return nil
}

// open reads the event that opens the group.
func (p *fingerprinter) open(raw []byte) error {
	if p.format == nil {
		return errors.New("the format of the log is not known")
	}
	e, err := binlog.Parse(raw, p.format.Checksum)
	if err != nil {
		return err
	}
	g, err := binlog.ParseGroup(&e)
	if err != nil {
		return err
	}
	p.gtid, p.origin, p.original = g.GTID, e.ServerID, g.OriginalCommit
	p.hash = sha256.New()
	return nil
}

// end returns the fingerprint of the group, all of which was added.
func (p *fingerprinter) end() (*fingerprint, error) {
	if p.hash == nil || p.left != 0 {
		return nil, errors.New("a part of the transaction is missing")
	}
	p.hash.Sum(p.sum[:0])
	return &p.fingerprint, nil
}
