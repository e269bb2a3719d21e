package restore

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/sink/dir"
)

// What was pruned is a point that is not in the archive, whatever names it; what was kept is chosen as ever.
func TestPlanPruned(t *testing.T) {
	ctx := context.Background()
	a, root := history(t, 20)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(a.CreateMark(ctx, archive.Mark{Name: "early", Epoch: 1, Seq: 4, XID: "0-4", Position: "40", CommitTime: 4e6}))
	add := func(epoch uint64, seq, position string) {
		b, err := archive.NewBase(epoch, "later")
		check(err)
		check(b.Seq.UnmarshalText([]byte(seq)))
		b.Position = "120"
		b.Tables = []archive.BaseTable{{Schema: "public", Name: "t", Version: 7}}
		check(a.CommitBase(ctx, b))
	}
	add(1, "000000000000000c", "120")
	store, err := dir.Open(root)
	check(err)
	p, err := a.PlanPrune(ctx, archive.PruneOptions{Keep: 15e6, Now: time.Now()})
	check(err)
	check(a.Prune(ctx, store, p, archive.PruneRun{By: "me@here"}))

	for _, g := range []Goal{{}, {Kind: AtTime, Time: 15e6}, {Kind: AtTime, Time: 12e6}, {Kind: AtSeq, Seq: 12}, {Kind: AtPosition, Text: "120"}, {Kind: AtXID, Text: "0-13"}, {Kind: AtXID, Text: "0-13", Before: true}} {
		if p, err := MakePlan(ctx, a, plain{}, g); err != nil || p.Base.Seq != 12 {
			t.Errorf("%s: %v", g, err)
		}
	}
	gone := []Goal{{Kind: AtTime, Time: 4e6}, {Kind: AtTime, Time: 11e6}, {Kind: AtSeq, Seq: 11}, {Kind: AtSeq, Seq: 1}, {Kind: AtXID, Text: "0-4"}, {Kind: AtMark, Text: "early"}}
	missing := func(goals []Goal) {
		t.Helper()
		for _, g := range goals {
			_, err := MakePlan(ctx, a, plain{}, g)
			if !errors.Is(err, ErrNotInArchive) || !strings.Contains(err.Error(), "was pruned on") || !strings.Contains(err.Error(), "by me@here") {
				t.Errorf("%s: %v", g, err)
			}
		}
	}
	missing(gone)

	// An epoch that is gone as a whole is told of, and not taken for one that has no base yet.
	epochs, err := a.Epochs(ctx)
	check(err)
	_, err = a.StartEpoch(ctx, epochs, archive.CauseGap, "test", nil)
	check(err)
	add(2, "0000000000000000", "200")
	w, err := a.NewWriter(ctx, 2, "")
	check(err)
	defer w.Close()
	check(w.Heartbeat("210", 30e6))
	s, err := w.Seal("210")
	check(err)
	check(w.Ship(ctx, s))
	later := time.Now().Add(time.Hour)
	p, err = a.PlanPrune(ctx, archive.PruneOptions{Keep: 35e6, Now: later})
	check(err)
	if !p.Epochs[0].Whole {
		t.Fatalf("%+v", p)
	}
	check(a.Prune(ctx, store, p, archive.PruneRun{By: "me@here"}))
	missing([]Goal{{Kind: AtTime, Time: 4e6}, {Kind: AtTime, Time: 15e6}, {Kind: AtSeq, Seq: 15, Epoch: 1}, {Epoch: 1}, {Kind: AtXID, Text: "0-13", Epoch: 1}})
	if p, err := MakePlan(ctx, a, plain{}, Goal{}); err != nil || p.Epoch != 2 {
		t.Error(err)
	}
}
