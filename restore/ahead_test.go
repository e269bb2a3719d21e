package restore

import (
	"errors"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/sink/dir"
)

// TestPlanAhead plans with a base that holds the transactions up to 10, and 12, 13 and 15 ahead of 11 and 14: it is no base for what ends in front of
// 15, and what it holds is not replayed.
func TestPlanAhead(t *testing.T) {
	ctx := t.Context()
	a, root := history(t, 20)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := archive.NewBase(1, "ahead")
	check(err)
	b.Seq, b.Ahead, b.Position = 10, []change.Seq{12, 13, 15}, "155"
	b.Tables = []archive.BaseTable{{Schema: "public", Name: "t", Version: 7, Rows: 1}}
	check(a.CommitBase(ctx, b))

	for _, c := range []struct {
		goal     Goal
		cut      change.Seq
		base     change.Seq
		replayed uint64
	}{
		{Goal{Kind: AtSeq, Seq: 9}, 9, 0, 9},
		{Goal{Kind: AtSeq, Seq: 10}, 10, 0, 10},
		{Goal{Kind: AtSeq, Seq: 12}, 12, 0, 12},
		{Goal{Kind: AtSeq, Seq: 15, Before: true}, 14, 0, 14},
		{Goal{Kind: AtSeq, Seq: 15}, 15, 10, 2},
		{Goal{Kind: AtXID, Text: "0-15"}, 15, 10, 2},
		{Goal{Kind: AtPosition, Text: "154"}, 15, 10, 2},
		{Goal{Kind: AtPosition, Text: "149"}, 14, 0, 14},
		{Goal{Kind: AtPosition, Text: "170"}, 17, 10, 4},
		{Goal{Kind: AtTime, Time: 14.5e6}, 14, 0, 14},
		{Goal{Kind: AtTime, Time: 16e6}, 16, 10, 3},
		{Goal{}, 20, 10, 7},
		{Goal{Kind: AtSeq, Seq: 18, Base: b.ID}, 18, 10, 5},
	} {
		p, err := MakePlan(ctx, a, plain{}, c.goal)
		if err != nil {
			t.Errorf("%s: %v", c.goal, err)
			continue
		}
		if p.Seq != c.cut || p.Base.Seq != c.base || p.Transactions != c.replayed || p.Rows != 2*c.replayed || p.Proof != nil {
			t.Errorf("%s: from %s to %s with %d transactions, %d rows, proof %v; want from %s to %s with %d", c.goal, p.Base.Seq, p.Seq, p.Transactions, p.Rows, p.Proof, c.base, c.cut, c.replayed)
		}
	}
	if _, err := MakePlan(ctx, a, plain{}, Goal{Kind: AtSeq, Seq: 14, Base: b.ID}); !errors.Is(err, ErrNoBase) || !strings.Contains(err.Error(), "after transaction 000000000000000f") {
		t.Errorf("in front of what it holds: %v", err)
	}

	// Without the first base nothing in front of 15 is left.
	store, err := dir.Open(root)
	check(err)
	prune, err := a.PlanPrune(ctx, archive.PruneOptions{Keep: 16e6, Now: time.Now()})
	check(err)
	if e := prune.Epochs[0].Earliest; e == nil || e.Seq != 15 || e.Base != b.ID {
		t.Errorf("the earliest point that stays is %+v", e)
	}
	check(a.Prune(ctx, store, prune, archive.PruneRun{By: "me@here"}))
	for s := change.Seq(9); s < 20; s++ {
		p, err := MakePlan(ctx, a, plain{}, Goal{Kind: AtSeq, Seq: s})
		switch {
		case s < 15 && (!errors.Is(err, ErrNotInArchive) || !strings.Contains(err.Error(), "--to-seq 000000000000000f")):
			t.Errorf("%s, which is gone: %v", s, err)
		case s >= 15 && (err != nil || p.Base.ID != b.ID):
			t.Errorf("%s: %v", s, err)
		}
	}
}
