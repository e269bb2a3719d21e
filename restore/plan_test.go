package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"txreel/archive"
	"txreel/change"
	"txreel/sink/dir"
)

// plain is a Dialect whose positions are decimal numbers.
type plain struct{}

func (plain) Position(text string, before bool) (Finder, error) {
	return Ordered(change.Position(text), before, func(a, b change.Position) (int, error) {
		x, err := strconv.Atoi(string(a))
		if err != nil {
			return 0, err
		}
		y, err := strconv.Atoi(string(b))
		return x - y, err
	}), nil
}

func (plain) XID(text string) (func(string) XIDMatch, error) {
	return func(xid string) XIDMatch {
		switch {
		case xid == text:
			return ExactMatch
		case strings.HasSuffix(xid, "-"+text):
			return ShortMatch
		}
		return NoMatch
	}, nil
}

func (plain) Pace() Pace                 { return Pace{Rows: 100, Folded: 10, Replayed: 1} }
func (plain) Ours(t *change.Table) bool  { return t.Schema == "txreel" }
func (plain) Defines(*change.Table) bool { return false }

// history writes n transactions, each a segment of its own, with a base before the first. Transaction i stands at
// position 10 i, committed at second i, and has the id "e-i" with e the hundreds of i.
func history(t *testing.T, n int) (*archive.Archive, string) {
	t.Helper()
	ctx := context.Background()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root := t.TempDir()
	store, err := dir.Open(root)
	check(err)
	a, err := archive.Init(ctx, store, archive.Identity{Engine: "test", System: "s", Database: "d"})
	check(err)
	_, err = a.StartEpoch(ctx, nil, archive.CauseFirst, "", nil)
	check(err)
	b, err := archive.NewBase(1, "first")
	check(err)
	b.Position = "5"
	b.Tables = []archive.BaseTable{{Schema: "public", Name: "t", Version: 7, Rows: 1}}
	check(a.CommitBase(ctx, b))
	w, err := a.NewWriter(ctx, 1, "")
	check(err)
	defer w.Close()
	tables := []*change.Table{{Schema: "public", Name: "t", Version: 7}, {Schema: "txreel", Name: "own", Version: 1}}
	for i := 1; i <= n; i++ {
		check(w.Append(&change.Message{Kind: change.KindBegin}))
		check(w.Append(&change.Message{Kind: change.KindData, Raw: []byte("x"), Touched: []change.Touch{{Table: tables[0], Op: change.OpInsert, Rows: 2}, {Table: tables[1], Op: change.OpInsert, Rows: 1}}}))
		end := change.Position(strconv.Itoa(10 * i))
		check(w.Append(&change.Message{Kind: change.KindCommit, XID: fmt.Sprintf("%d-%d", i/100, i%100), Position: end, CommitTime: change.Time(i) * 1e6}))
		s, err := w.Seal(end)
		check(err)
		check(w.Ship(ctx, s))
		check(w.RollUp(ctx, s))
		w.Release(s)
	}
	return a, root
}

func TestPlanCounts(t *testing.T) {
	ctx := context.Background()
	a, root := history(t, 250)
	for _, c := range []struct {
		goal Goal
		cut  change.Seq
	}{
		{Goal{}, 250},
		{Goal{Kind: AtPosition, Text: "9"}, 0},
		{Goal{Kind: AtPosition, Text: "10"}, 1},
		{Goal{Kind: AtPosition, Text: "10", Before: true}, 0},
		{Goal{Kind: AtPosition, Text: "1234"}, 123},
		{Goal{Kind: AtPosition, Text: "1230", Before: true}, 122},
		{Goal{Kind: AtTime, Time: 200.5e6}, 200},
		{Goal{Kind: AtTime, Time: 200e6, Before: true}, 199},
		{Goal{Kind: AtXID, Text: "2-33"}, 233},
		{Goal{Kind: AtXID, Text: "77"}, 0}, // below
	} {
		p, err := MakePlan(ctx, a, plain{}, c.goal)
		if c.goal.Text == "77" {
			var e *PointError
			if !errors.As(err, &e) || len(e.Nearest) != 2 || !strings.Contains(e.Nearest[0], "0-77") || !strings.Contains(e.Nearest[1], "1-77") {
				t.Errorf("an id that fits two transactions: %v", err)
			}
			continue
		}
		if err != nil || p.Seq != c.cut {
			t.Errorf("%s: %v %v", c.goal, p, err)
			continue
		}
		if p.Transactions != uint64(c.cut) || p.Rows != 2*uint64(c.cut) || p.Segments != int(c.cut) || p.BaseRows != 1 {
			t.Errorf("%s: %d transactions, %d rows, %d segments", c.goal, p.Transactions, p.Rows, p.Segments)
		}
	}

	// An id is short for one transaction only where there is one.
	if p, err := MakePlan(ctx, a, plain{}, Goal{Kind: AtXID, Text: "0"}); err == nil {
		t.Errorf("id 0 fits three transactions, chosen was %s", p.Seq)
	}

	// A segment that only a rollup remembers is missed all the same, and one that was cut short.
	key := filepath.Join(root, archive.SegmentKey(1, 20))
	if _, err := os.Stat(filepath.Join(root, "epochs/00000001/rollups/1")); err != nil {
		t.Fatalf("the history is too short for a rollup: %v", err)
	}
	content, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	_, err = MakePlan(ctx, a, plain{}, Goal{})
	if !errors.Is(err, archive.ErrCorrupt) || !strings.Contains(err.Error(), archive.SegmentKey(1, 20)+" is missing") {
		t.Errorf("a missing segment: %v", err)
	}
	if err := os.WriteFile(key, content[:len(content)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = MakePlan(ctx, a, plain{}, Goal{Kind: AtSeq, Seq: 20})
	if !errors.Is(err, archive.ErrCorrupt) {
		t.Errorf("a segment cut short: %v", err)
	}
	p, err := MakePlan(ctx, a, plain{}, Goal{Kind: AtSeq, Seq: 19})
	if err != nil || p.Next == nil || p.Next.Seq != 20 || !strings.Contains(p.String(), "cannot be read") {
		t.Errorf("a damaged segment behind the cut: %v %v", p, err)
	}
}
