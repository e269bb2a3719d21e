package mysql

import (
	"fmt"
	"strconv"
	"strings"

	"txreel/change"
)

// place is a position in a binlog file of the source: where a transaction ends.
type place struct {
	file string
	pos  uint64
}

func (p place) String() string { return p.file + ":" + strconv.FormatUint(p.pos, 10) }

// parsePlace reads a place as in "binlog.000123:4567". No GTID is one: the name of a
// binlog file ends with a dot and digits.
func parsePlace(text string) (place, bool) {
	text = strings.TrimSpace(text)
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return place{}, false
	}
	file := strings.TrimPrefix(text[:i], "./")
	pos, err := strconv.ParseUint(text[i+1:], 10, 64)
	dot := strings.LastIndexByte(file, '.')
	if err != nil || dot <= 0 || len(file)-dot < 7 || strings.Trim(file[dot+1:], "0123456789") != "" {
		return place{}, false
	}
	return place{file, pos}, true
}

// placeFinder finds the transactions of a binlog file that end at or before a
// position. It looks at the whole record: after a failover, or when the source's
// numbering began anew, a file's name may come twice.
type placeFinder struct {
	want   place
	before bool
	asked  bool // From was asked before

	runs  []run // of the file
	first place // of the record
	at    place // the last one seen
	cut   change.Seq
	found bool
}

// run is an unbroken run of transactions of one file.
type run struct {
	first, last change.Seq
	end         uint64
}

// Covered implements restore.Finder. Sets of GTIDs do not tell; Cut does.
func (f *placeFinder) Covered(change.Position) (bool, error) { return true, nil }

// From implements restore.Finder. Where a base stands in the binlog is not known, so the
// search begins behind the first one it is asked about, which is the oldest.
func (f *placeFinder) From(change.Position) (bool, error) {
	first := !f.asked
	f.asked = true
	return first, nil
}

// Look implements restore.Finder.
func (f *placeFinder) Look(t *change.Txn) (bool, error) {
	if t.Kind != change.TxnSource {
		return true, nil
	}
	p, ok := parsePlace(string(t.Position))
	if !ok {
		return false, fmt.Errorf("transaction %s has the position %q, which is no place in a binlog", t.Seq, clip(string(t.Position)))
	}
	if f.first.file == "" {
		f.first = p
	}
	before := f.at
	f.at = p
	if p.file != f.want.file {
		return true, nil
	}
	n := len(f.runs)
	if n == 0 || before.file != p.file || p.pos <= before.pos {
		f.runs = append(f.runs, run{first: t.Seq})
		n++
	}
	f.runs[n-1].last, f.runs[n-1].end = t.Seq, p.pos
	if p.pos < f.want.pos || p.pos == f.want.pos && !f.before {
		f.cut, f.found = t.Seq, true
	}
	return true, nil
}

// Cut implements restore.Finder.
func (f *placeFinder) Cut() (change.Seq, bool, error) {
	switch {
	case len(f.runs) == 0 && f.first.file == "":
		return 0, false, fmt.Errorf("no transaction is recorded behind the oldest base snapshot")
	case len(f.runs) == 0:
		return 0, false, fmt.Errorf("no transaction of %s is recorded; the record goes from %s to %s", f.want.file, f.first, f.at)
	case len(f.runs) > 1:
		var where []string
		for _, r := range f.runs {
			where = append(where, fmt.Sprintf("--to-seq %s to %s", r.first, r.last))
		}
		return 0, false, fmt.Errorf("the source has written more than one file %s: the record holds its transactions at %s; name a GTID or a Seq",
			f.want.file, strings.Join(where, " and at "))
	}
	r := f.runs[0]
	if f.at.file == f.want.file && f.want.pos > r.end {
		return 0, false, fmt.Errorf("the record is known to be complete up to %s only", f.at)
	}
	if !f.found {
		return r.first - 1, true, nil
	}
	return f.cut, true, nil
}
