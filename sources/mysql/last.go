package mysql

import (
	"context"
	"errors"
	"fmt"
	"io"

	"txreel/archive"
	"txreel/change"
	"txreel/segment"
	"txreel/sources/mysql/gtid"
)

// Last is the last transaction on record that a source committed: what a server must show again before the record
// goes on with what it has.
type Last struct {
	// Unknown says why the transaction is not known, "" if it is.
	Unknown string

	print  *fingerprint
	before *gtid.Set // MariaDB: where its domain stood before it
}

// ReadLast reads the last transaction of an epoch that ends at tail. It returns nil if nothing is on record that
// anything could be compared with: the epoch is yet to begin, or began with a server that had committed nothing.
func ReadLast(ctx context.Context, a *archive.Archive, tail archive.Tail, spillDir string) (*Last, error) {
	if tail.Seq == 0 || tail.Position == noTransactions {
		return nil, nil
	}
	seq, err := lastCommitted(ctx, a, tail)
	if err != nil {
		return nil, err
	}
	if seq == 0 {
		return &Last{Unknown: "no transaction is on record yet that it could show again"}, nil
	}
	print, err := readPrint(ctx, a, tail.Epoch, seq, spillDir)
	if errors.Is(err, archive.ErrCorrupt) { // which is no reason to record nothing from now on
		return &Last{Unknown: fmt.Sprintf("the last transaction on record cannot be read (%v): run `txreel verify --full`", err)}, nil
	}
	if err != nil {
		return nil, err
	}
	l := &Last{print: print}
	if print.gtid.Flavor == gtid.MariaDB {
		l.before, err = standing(ctx, a, tail.Epoch, seq, print.gtid.Domain)
	}
	return l, err
}

// lastCommitted returns the last transaction of the epoch that is no heartbeat, 0 if there is none. The heartbeats
// behind it, months of them perhaps, all have the position that the epoch ends at.
func lastCommitted(ctx context.Context, a *archive.Archive, tail archive.Tail) (change.Seq, error) {
	beat, ok, err := a.FirstBehind(ctx, tail.Epoch, func(t *change.Txn) (bool, error) {
		return t.Kind != change.TxnSource && t.Position == tail.Position, nil
	})
	switch {
	case err != nil:
		return 0, err
	case ok:
		return beat.Seq - 1, nil
	}
	return tail.Seq, nil
}

// readPrint takes the fingerprint of a transaction on record.
func readPrint(ctx context.Context, a *archive.Archive, epoch uint64, seq change.Seq, spillDir string) (*fingerprint, error) {
	s := a.Stream(ctx, epoch, seq, seq, spillDir)
	defer s.Close()
	var p fingerprinter
	for {
		rec, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		switch rec.Kind {
		case segment.Definition:
			err = p.describe(rec.Raw)
		case segment.Message:
			err = p.add(rec.Raw)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: transaction %s of epoch %d: %w", archive.ErrCorrupt, seq, epoch, err)
		}
	}
	print, err := p.end()
	if err != nil {
		return nil, fmt.Errorf("%w: transaction %s of epoch %d: %w", archive.ErrCorrupt, seq, epoch, err)
	}
	return print, nil
}

// standing returns where a domain of MariaDB stood in the record before a transaction, a set of at most one GTID.
func standing(ctx context.Context, a *archive.Archive, epoch uint64, seq change.Seq, domain uint32) (*gtid.Set, error) {
	only := gtid.New(gtid.MariaDB)
	in := func(position change.Position) (*gtid.Set, error) {
		set, err := gtid.Parse(gtid.MariaDB, string(position))
		if err != nil {
			return nil, fmt.Errorf("%w: epoch %d: %q is no GTID position: %w", archive.ErrCorrupt, epoch, position, err)
		}
		if g, ok := set.Last(domain); ok {
			only.Add(g)
		}
		return only, nil
	}
	inside := true
	for x, err := range a.Backward(ctx, epoch, seq) {
		if err != nil {
			return nil, err
		}
		if !inside {
			return in(x.End)
		}
		inside = false
		for i := int(seq-x.First()) - 1; i >= 0; i-- {
			t := &x.Txns[i]
			if t.Kind != change.TxnSource {
				return in(t.Position)
			}
			g, err := gtid.ParseGTID(t.XID)
			if err != nil {
				return nil, fmt.Errorf("%w: transaction %s of epoch %d: %w", archive.ErrCorrupt, t.Seq, epoch, err)
			}
			if g.Domain == domain {
				only.Add(g)
				return only, nil
			}
		}
	}
	return only, nil
}
