package segment

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"txreel/change"
)

// TestCarry ends segments in the middle of transactions and carries those into the
// next one: the segments together hold what was written, and each one every
// definition its own messages refer to, before they do.
func TestCarry(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		target := rapid.SampledFrom([]int{16, 100, 1000}).Draw(t, "target")
		out := &memory{}
		w, err := NewWriter(out, testHeader)
		if err != nil {
			t.Fatal(err)
		}
		w.target = target
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		h := testHeader
		var segments [][]byte
		next := func() {
			if w.Txns() == 0 || w.Open() && w.Held() == 0 || !rapid.Bool().Draw(t, "end") {
				return
			}
			carry, err := w.Detach()
			must(err)
			sum, err := w.Close("here")
			must(err)
			segments = append(segments, out.b)
			out = &memory{}
			h.First, h.Prev, h.Latest = sum.Last+1, sum.Hash, sum.Latest
			must(w.Reset(out, h))
			if carry != nil {
				must(w.Attach(carry))
			}
		}
		var committed []plannedTxn
		for _, x := range drawTxns(t, target) {
			must(w.Begin(x.kind))
			next()
			for i := range x.messages {
				must(w.Write(&x.messages[i]))
				next()
			}
			if x.rollback {
				must(w.Rollback())
			} else {
				must(w.Commit(&x.commit))
				committed = append(committed, x)
			}
		}
		if w.Txns() > 0 {
			_, err := w.Close("the end")
			must(err)
			segments = append(segments, out.b)
		}

		wantRecords, wantIndex := expect(testHeader, committed)
		var got []Record
		var gotTxns []change.Txn
		at := 0 // in committed
		for _, b := range segments {
			seen := map[string]bool{}
			message := 0
			c, err := readAll(bytes.NewReader(b))
			must(err)
			for _, r := range c.records {
				switch r.Kind {
				case Definition:
					seen[string(r.Raw)] = true
					continue
				case Begin:
					message = 0
				case Message:
					for len(committed[at].messages[message].Raw) == 0 {
						message++
					}
					for _, d := range committed[at].messages[message].Defs {
						for _, raw := range d.Messages {
							if !seen[string(raw)] {
								t.Fatalf("transaction %d, message %d: a definition is not in the segment before it", at, message)
							}
						}
					}
					message++
				case Commit:
					at++
				}
				got = append(got, r)
			}
			for _, e := range c.index.Txns {
				gotTxns = append(gotTxns, e.Txn)
			}
		}
		var want []Record
		for _, r := range wantRecords {
			if r.Kind != Definition {
				want = append(want, r)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("records read back:\n%v\nwritten:\n%v", got, want)
		}
		for i, e := range wantIndex.Txns {
			if !reflect.DeepEqual(values(gotTxns[i]), values(e.Txn)) {
				t.Fatalf("index entry\n%+v\nwant\n%+v", values(gotTxns[i]), values(e.Txn))
			}
		}
	})
}

// values makes two entries comparable whose tables are different pointers.
func values(x change.Txn) any {
	type count struct {
		table              change.Table
		ins, upd, del, tru uint64
	}
	var counts []count
	for _, c := range x.Tables {
		counts = append(counts, count{*c.Table, c.Inserts, c.Updates, c.Deletes, c.Truncates})
	}
	x.Tables = nil
	return []any{x, counts}
}
