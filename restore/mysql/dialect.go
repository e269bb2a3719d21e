package mysql

import (
	"fmt"
	"strconv"
	"strings"

	"txreel/change"
	"txreel/restore"
	"txreel/sources/mysql/gtid"
)

// Dialect is restore.Dialect for MySQL and MariaDB. A transaction's id is its GTID. A
// position is a set of GTIDs, as the server prints what it has executed, or a place in
// the source's binlog such as binlog.000123:4567.
type Dialect struct {
	Flavor gtid.Flavor // whose GTIDs the archive holds
}

var _ restore.Dialect = Dialect{}

// Position implements restore.Dialect. A set of GTIDs stands for the transactions from the record's
// beginning to the first one that is not in the set. A place in the binlog stands for the transactions
// that end at or before it. With before the last of them is left out, or the one
// that ends exactly there.
func (d Dialect) Position(text string, before bool) (restore.Finder, error) {
	if p, ok := parsePlace(text); ok {
		return &placeFinder{want: p, before: before}, nil
	}
	want, err := gtid.Parse(d.Flavor, text)
	if err != nil || want.IsEmpty() {
		return nil, fmt.Errorf("%q is neither a set of GTIDs as %s prints it, such as %s, nor a place in its binlog such as binlog.000123:4567",
			clip(text), d.Flavor, d.example())
	}
	return &setFinder{want: want, before: before}, nil
}

func (d Dialect) example() string {
	if d.Flavor == gtid.MariaDB {
		return "0-1-42"
	}
	return "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-77"
}

// XID implements restore.Dialect: a GTID, or for short the number it ends with.
func (d Dialect) XID(text string) (func(string) restore.XIDMatch, error) {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseUint(text, 10, 64); err == nil && n > 0 {
		end := strconv.FormatUint(n, 10)
		return func(xid string) restore.XIDMatch {
			if head, ok := strings.CutSuffix(xid, end); ok && (strings.HasSuffix(head, ":") || strings.HasSuffix(head, "-")) {
				return restore.ShortMatch
			}
			return restore.NoMatch
		}, nil
	}
	g, err := gtid.ParseGTID(text)
	if err != nil {
		return nil, err
	}
	if g.Flavor != d.Flavor {
		return nil, fmt.Errorf("%s is a GTID of %s, the archive records %s: its transactions have ids such as %s", g, g.Flavor, d.Flavor,
			strings.ReplaceAll(d.example(), ":1-", ":"))
	}
	want := g.String()
	return func(xid string) restore.XIDMatch {
		if xid == want {
			return restore.ExactMatch
		}
		return restore.NoMatch
	}, nil
}

// Ours implements restore.Dialect.
func (Dialect) Ours(t *change.Table) bool { return t.Schema == ourSchema }

// Defines implements restore.Dialect. The binlog has the statements themselves.
func (Dialect) Defines(*change.Table) bool { return false }

// ourSchema is where txreel keeps what it needs in a source.
const ourSchema = "txreel"

// clip shortens what a message quotes.
func clip(text string) string {
	const most = 200
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// setFinder finds the longest prefix of the record whose GTIDs are in a set.
type setFinder struct {
	want   *gtid.Set
	before bool

	base  *gtid.Set // the newest base that the set holds
	left  uint64    // MySQL: transactions of the set that were not seen yet
	open  int       // MariaDB: domains of the set that were not seen to their end yet
	done  map[uint32]bool
	began bool

	cut, last change.Seq // of the prefix, and of the last transaction of it that has a GTID
	found     bool
	missing   *change.Txn // the first one that is not in the set
	err       error
}

// Covered implements restore.Finder.
func (f *setFinder) Covered(end change.Position) (bool, error) {
	held, err := f.parse(end)
	return err == nil && held.Contains(f.want), err
}

func (f *setFinder) parse(p change.Position) (*gtid.Set, error) {
	s, err := gtid.Parse(f.want.Flavor(), string(p))
	if err != nil {
		return nil, fmt.Errorf("read a position of the record: %w", err)
	}
	return s, nil
}

// From implements restore.Finder.
func (f *setFinder) From(base change.Position) (bool, error) {
	b, err := f.parse(base)
	if err != nil || !f.want.Contains(b) {
		return false, err
	}
	if f.base == nil || b.Contains(f.base) {
		f.base = b
	}
	return true, nil
}

func (f *setFinder) begin() {
	f.began = true
	if f.base == nil {
		f.base = gtid.New(f.want.Flavor())
	}
	rest := f.want.Minus(f.base)
	f.left, f.open, f.done = rest.Count(), len(rest.Domains()), make(map[uint32]bool)
}

// Look implements restore.Finder.
func (f *setFinder) Look(t *change.Txn) (bool, error) {
	if !f.began {
		f.begin()
	}
	if t.Kind != change.TxnSource {
		if f.missing == nil {
			f.cut, f.found = t.Seq, true
		}
		return true, nil
	}
	g, err := gtid.ParseGTID(t.XID)
	if err != nil {
		return false, fmt.Errorf("transaction %s: %w", t.Seq, err)
	}
	in := f.want.Has(g)
	f.count(g, in)
	switch {
	case f.err != nil:
		return false, nil
	case in && f.missing != nil:
		f.err = fmt.Errorf("the set names transaction %s (%s), but not %s (%s), which committed before it; "+
			"the record can be restored to a prefix of commit order only", t.XID, t.Seq, f.missing.XID, f.missing.Seq)
		return false, nil
	case in:
		f.cut, f.last, f.found = t.Seq, t.Seq, true
		return true, nil
	case f.missing == nil:
		missing := *t
		f.missing = &missing
	}
	return f.left > 0 || f.open > 0, nil
}

// count notes that a transaction was seen.
func (f *setFinder) count(g gtid.GTID, in bool) {
	if f.want.Flavor() == gtid.MySQL {
		if in && f.left > 0 && !f.base.Has(g) {
			f.left--
		}
		return
	}
	w, ok := f.want.Last(g.Domain)
	if !ok || g.N < w.N || f.done[g.Domain] || f.base.Has(w) {
		return
	}
	f.done[g.Domain] = true
	f.open--
	if g.N == w.N && g.Server != w.Server {
		f.err = fmt.Errorf("the record holds %s where the position names %s", g, w)
	}
}

// Cut implements restore.Finder.
func (f *setFinder) Cut() (change.Seq, bool, error) {
	if f.before && f.last > 0 {
		return f.last - 1, true, f.err
	}
	return f.cut, f.found, f.err
}

// Pace implements restore.Dialect.
func (Dialect) Pace() restore.Pace {
	return restore.Pace{Rows: 200_000, Replayed: 30_000}
}
