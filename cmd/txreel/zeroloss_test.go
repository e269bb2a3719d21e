package main

import (
	"slices"
	"testing"

	"txreel/archive"
	"txreel/change"
	"txreel/sink/dir"
)

// TestInterrupted looks at what a capture puts on record before anything else: after one that was killed while COMMIT
// waited, that this is over.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Init(ctx, store, archive.Identity{Engine: enginePostgres, System: "1", Database: "d"})
	if err != nil {
		t.Fatal(err)
	}
	note := func(have []archive.Protection, from change.Seq, protected bool) []archive.Protection {
		t.Helper()
		have, err := a.RecordProtection(ctx, have, archive.Protection{Epoch: 1, From: from, Protected: protected, Reason: "test"})
		if err != nil {
			t.Fatal(err)
		}
		return have
	}
	check := func(behind change.Seq, want ...bool) []archive.Protection {
		t.Helper()
		have, err := interrupted(ctx, a, 1, behind)
		if err != nil {
			t.Fatal(err)
		}
		again, err := a.Protections(ctx, 1)
		if err != nil || !slices.Equal(have, again) {
			t.Fatalf("it returned %+v, on record is %+v: %v", have, again, err)
		}
		spans := archive.Spans(have)
		var got []bool
		for seq := range change.Seq(len(want)) {
			got = append(got, archive.Protected(spans, seq+1))
		}
		if !slices.Equal(got, want) {
			t.Errorf("transactions from 1 on are protected: %v, want %v", got, want)
		}
		return have
	}
	check(0, false, false) // COMMIT never waited
	have := note(nil, 2, true)
	have = check(3, false, true, true, false, false)
	if n := len(have); n != 2 || len(check(4, false, true, true, false, false)) != n {
		t.Errorf("an end that is on record was put there again: %+v", have)
	}
	note(have, 6, true)
	check(4, false, true, true, false, false, false) // it was not sure as far as it had recorded
}
