package postgres

import (
	"fmt"
	"math"
	"strconv"

	"txreel/change"
	"txreel/restore"
	"txreel/sources/postgres/ddl"
	"txreel/sources/postgres/lsn"
)

// Dialect is restore.Dialect for PostgreSQL. A position is the LSN behind a commit
// record: what `txreel log` shows, and what the source says its log stands at once the
// transaction is over. Restoring to an LSN takes every commit record that ends at or
// before it; the LSN at which a commit record starts therefore excludes that transaction.
type Dialect struct {
	Exact bool // restores replay every transaction by itself
}

var _ restore.Dialect = Dialect{}

// Position implements restore.Dialect.
func (Dialect) Position(text string, before bool) (restore.Finder, error) {
	l, err := lsn.Parse(text)
	if err != nil {
		return nil, err
	}
	return restore.Ordered(l.Position(), before, compare), nil
}

func compare(a, b change.Position) (int, error) {
	x, err := lsn.FromPosition(a)
	if err != nil {
		return 0, err
	}
	y, err := lsn.FromPosition(b)
	switch {
	case err != nil:
		return 0, err
	case x < y:
		return -1, nil
	case x > y:
		return 1, nil
	}
	return 0, nil
}

// XID implements restore.Dialect: the 64-bit id as pg_current_xact_id shows it, or
// its lower 32 bits, as xmin and the server's log show it.
func (Dialect) XID(text string) (func(string) restore.XIDMatch, error) {
	want, err := strconv.ParseUint(text, 10, 64)
	if err != nil || want == 0 {
		return nil, fmt.Errorf("%q is not a transaction id: give the decimal number that `txreel log` or pg_current_xact_id() shows", text)
	}
	return func(xid string) restore.XIDMatch {
		got, err := strconv.ParseUint(xid, 10, 64)
		switch {
		case err != nil:
			return restore.NoMatch
		case got == want:
			return restore.ExactMatch
		case want <= math.MaxUint32 && got&math.MaxUint32 == want:
			return restore.ShortMatch
		}
		return restore.NoMatch
	}, nil
}

// Ours implements restore.Dialect.
func (Dialect) Ours(t *change.Table) bool { return t.Schema == ourSchema }

// Defines implements restore.Dialect.
func (Dialect) Defines(t *change.Table) bool { return ddl.Is(t.Schema, t.Name) }

// ourSchema is where txreel keeps what it needs in a source.
const ourSchema = ddl.Schema

// Pace implements restore.Dialect.
func (d Dialect) Pace() restore.Pace {
	p := restore.Pace{Rows: 400_000, Folded: 2_500_000, Replayed: 120_000}
	if d.Exact {
		p.Folded = 0
	}
	return p
}
