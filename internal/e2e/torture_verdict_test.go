package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"strconv"
	"testing"

	"txreel/change"
)

// verdict counts what was found between what the clients of a bank know and what a record holds.
type verdict struct {
	checked    int // transactions of the bank on record
	unknown    int // of which no client heard how they ended
	lost       int // acknowledged and not on record
	duplicated int // on record more than once
	reordered  int // not in the order that clients saw, or that values tell
	phantom    int // on record and rolled back, or never written
	torn       int // on record with something missing, or too much
}

// bad counts what must not be.
func (v *verdict) bad() int { return v.lost + v.duplicated + v.reordered + v.phantom + v.torn }

// record is what the audit export of an archive says of the bank, in commit order.
type record struct {
	txns []banked
}

// banked is a transaction of the bank on record.
type banked struct {
	seq change.Seq
	deed
}

// at returns the books behind a transaction.
func (r *record) at(seq change.Seq) *books {
	b := newBooks()
	for i := range r.txns {
		if r.txns[i].seq <= seq {
			b.apply(&r.txns[i].deed)
		}
	}
	return b
}

// line is a line of the export, as far as it matters here.
type line struct {
	Record, Seq, Op, Table string
	After                  map[string]*string
	Complete               bool
}

// number returns a column of the row behind a change. One that the log does not hold is 0.
func (l *line) number(t *testing.T, column string) int {
	t.Helper()
	text := l.After[column]
	if text == nil {
		return 0
	}
	n, err := strconv.Atoi(*text)
	if err != nil {
		t.Fatalf("transaction %s: column %s: %v", l.Seq, column, err)
	}
	return n
}

// judge compares the export of an archive, a file, with what the clients know.
type judge struct {
	t    *testing.T
	bank *bank
	verdict
	record record
	books  *books // of what is on record so far
	seen   map[entry]bool
	latest int64 // begin of the transactions on record so far
	show   func(format string, args ...any)
	told   map[*int]int // errors that were shown, of each kind

	seq   string // the open transaction
	open  []line // its changes of the bank's tables
	after struct{ seq change.Seq }
}

// fault counts something that must not be, and shows the first of them.
func (j *judge) fault(counter *int, format string, args ...any) {
	*counter++
	if j.told[counter]++; j.told[counter] <= 10 {
		j.show(format, args...)
	}
}

// read judges all that the file holds.
func (j *judge) read(path string) {
	j.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		j.t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	complete := false
	for in.Scan() {
		var l line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			j.t.Fatalf("line %.200q: %v", in.Text(), err)
		}
		switch l.Record {
		case "header":
		case "trailer":
			complete = l.Complete
		case "change":
			if l.Seq != j.seq {
				j.commit()
				j.seq = l.Seq
			}
			switch l.Table {
			case "accounts", "heads", "items", "entries", "notes":
				j.open = append(j.open, l)
			}
		default:
			j.t.Fatalf("line %.200q: unexpected", in.Text())
		}
	}
	j.commit()
	if err := in.Err(); err != nil || !complete {
		j.t.Fatalf("the export is not complete: %v", err)
	}
}

// commit judges the transaction that has been read.
func (j *judge) commit() {
	if len(j.open) == 0 {
		return
	}
	defer func() { j.open = j.open[:0] }()
	seq, err := change.ParseSeq(j.seq)
	if err != nil || seq <= j.after.seq {
		j.t.Fatalf("transaction %s stands behind %s: %v", j.seq, j.after.seq, err)
	}
	j.after.seq = seq
	first := &j.open[0]
	if first.Op != "insert" || first.Table != "entries" {
		j.fault(&j.torn, "transaction %s begins with %s of %s", j.seq, first.Op, first.Table)
		return
	}
	d := deed{entry: entry{first.number(j.t, "client"), first.number(j.t, "n")}, src: first.number(j.t, "src"), dst: first.number(j.t, "dst"),
		amount: first.number(j.t, "amount"), list: first.number(j.t, "list"), notes: first.number(j.t, "notes")}
	m := j.bank.txns[d.entry]
	j.checked++
	switch {
	case m == nil || m.rolledBack || d != m.deed:
		j.fault(&j.phantom, "transaction %s holds %+v, which no client committed: %+v", j.seq, d, m)
		return
	case j.seen[d.entry]:
		j.fault(&j.duplicated, "transaction %s holds %v once more", j.seq, d.entry)
		return
	case m.acked > 0 && m.acked < j.latest:
		j.fault(&j.reordered, "transaction %s (%v) stands behind one that began only after it was acknowledged", j.seq, d.entry)
	}
	j.seen[d.entry] = true
	j.latest = max(j.latest, m.began)
	j.books.apply(&d)
	j.record.txns = append(j.record.txns, banked{seq, d})
	j.whole(&d)
}

// whole judges the rows of a transaction: none is missing, none too many, and each value follows from what was on
// record before. Rows are locked until the commit, so any other order shows.
func (j *judge) whole(d *deed) {
	notes, moved, head, appended, others := 0, 0, 0, 0, 0
	for i := range j.open[1:] {
		l := &j.open[1+i]
		switch l.Op + " " + l.Table {
		case "insert notes":
			if notes++; l.number(j.t, "part") != notes {
				others++
			}
		case "update accounts":
			id := l.number(j.t, "id")
			if moved++; id != d.src && id != d.dst {
				others++
			} else if int64(l.number(j.t, "balance")) != j.books.balances[id] {
				j.fault(&j.reordered, "transaction %s leaves %d in account %d, the record before it makes %d", j.seq, l.number(j.t, "balance"), id, j.books.balances[id])
				j.books.balances[id] = int64(l.number(j.t, "balance"))
			}
		case "update heads":
			if head++; l.number(j.t, "id") != d.list {
				others++
			}
		case "insert items":
			appended++
			if at := (item{l.number(j.t, "list"), l.number(j.t, "pos"), l.number(j.t, "client"), l.number(j.t, "n")}); d.list < 0 || at != (item{d.list, j.books.lens[d.list], d.client, d.n}) {
				j.fault(&j.reordered, "transaction %s appends %v, the record before it is another", j.seq, at)
				if d.list >= 0 {
					j.books.lens[d.list] = at.pos
				}
			}
		default:
			others++
		}
	}
	wantMoved, wantAppended := 0, 0
	if d.src >= 0 && d.amount != 0 {
		wantMoved = 2
	}
	if d.list >= 0 {
		wantAppended = 1
	}
	unmoved := d.src >= 0 && d.amount == 0 && (moved == 0 || moved == 2) // an engine may leave out what changes nothing
	if notes != d.notes || moved != wantMoved && !unmoved || head != wantAppended || appended != wantAppended || others > 0 {
		j.fault(&j.torn, "transaction %s (%+v) holds %d notes, %d movements, %d and %d for its list, %d others", j.seq, *d, notes, moved, head, appended, others)
	}
}

// judgeRecord reads an export and compares it with what the clients know. What must not be is told to show.
func judgeRecord(t *testing.T, b *bank, export string, show func(format string, args ...any)) (*record, verdict) {
	t.Helper()
	j := &judge{t: t, bank: b, books: newBooks(), seen: make(map[entry]bool), told: make(map[*int]int), show: show}
	j.read(export)
	for e, m := range b.txns {
		switch {
		case m.acked == 0:
			j.unknown++
		case !m.rolledBack && !j.seen[e]:
			j.fault(&j.lost, "%v was acknowledged and is not on record", e)
		}
	}
	return &j.record, j.verdict
}
