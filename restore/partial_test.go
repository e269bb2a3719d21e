package restore

import (
	"math/rand/v2"
	"testing"

	"txreel/archive"
	"txreel/change"
	"txreel/segment"
)

// TestPartialStretches holds what is to be read of a record against the segments one by one.
func TestPartialStretches(t *testing.T) {
	for range 200 {
		p := &Partial{}
		wanted := map[change.Seq]bool{} // transactions
		last := change.Seq(0)
		for range 1 + rand.IntN(8) {
			n := change.Seq(1 + rand.IntN(4))
			first := last + 1
			last += n
			want := rand.IntN(2) == 0
			if !want {
				x := archive.SegmentIndex{Tail: &segment.Tail{Index: &segment.Index{}}}
				x.Txns = []segment.Entry{{Txn: change.Txn{Seq: first}}, {Txn: change.Txn{Seq: last}}}
				p.pass(x)
			}
			for s := first; s <= last; s++ {
				wanted[s] = want
			}
			if p.Passed(first) == want {
				t.Fatalf("the segment from %s is passed over: %t", first, !want)
			}
		}
		after := change.Seq(rand.IntN(int(last) + 1))
		got := map[change.Seq]bool{}
		for at := after; ; {
			from, to, ok := p.Next(at, last)
			if !ok {
				break
			}
			if from <= at || to < from || to > last {
				t.Fatalf("behind %s of %s comes %s to %s", at, last, from, to)
			}
			for s := from; s <= to; s++ {
				got[s] = true
			}
			at = to
		}
		for s := after + 1; s <= last; s++ {
			if got[s] != wanted[s] {
				t.Fatalf("behind %s of %s: transaction %s is read: %t, want %t (%v)", after, last, s, got[s], wanted[s], p.passed)
			}
		}
	}
}
