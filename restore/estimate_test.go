package restore

import (
	"math"
	"testing"
)

// The estimate of a plan adds up what is loaded, what is folded in front of the first change of definitions, and what is replayed behind.
func TestEstimate(t *testing.T) {
	t.Parallel()
	pace := Pace{Rows: 100, Folded: 10, Replayed: 1}
	replaying := Pace{Rows: 100, Replayed: 1}
	for _, tt := range []struct {
		name string
		plan Plan
		pace Pace
		want Estimate
	}{
		{"nothing", Plan{}, pace, Estimate{Seconds: fixed}},
		{"a base", Plan{BaseRows: 200, BaseBytes: 7}, pace, Estimate{Bytes: 7, Rows: 200, Seconds: fixed + 2}},
		{"folded", Plan{BaseRows: 200, BaseBytes: 7, SegmentBytes: 5, Rows: 300, Between: []uint64{300}, inserted: 100}, pace, Estimate{Bytes: 12, Rows: 300, Changes: 300, Seconds: fixed + 3 + 30}},
		{"definitions behind", Plan{BaseRows: 200, Rows: 300, Between: []uint64{290, 10}, inserted: 100}, pace, Estimate{Rows: 300, Changes: 300, Seconds: fixed + 3 + 29 + 10}},
		{"merged behind", Plan{BaseRows: 200, Rows: 5300, Between: []uint64{290, 5000, 10}, inserted: 100}, pace, Estimate{Rows: 300, Changes: 5300, Seconds: fixed + 3 + 529 + 10}},
		{"replayed", Plan{BaseRows: 200, Rows: 300, Between: []uint64{300}, inserted: 100}, replaying, Estimate{Rows: 200, Changes: 300, Seconds: fixed + 2 + 300}},
		{"some tables", Plan{BaseBytes: 7, SegmentBytes: 50, Partial: &Partial{BaseBytes: 7, SegmentBytes: 5}}, pace, Estimate{Bytes: 12, Seconds: fixed}},
	} {
		got := tt.plan.estimate(tt.pace)
		if math.Abs(got.Seconds-tt.want.Seconds) < 1e-9 {
			got.Seconds = tt.want.Seconds
		}
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	if got, want := (Estimate{Bytes: 1, Rows: 2, Changes: 3, Seconds: 83.4}).String(), "1 bytes to read, 2 rows to load, 3 changes: about 1m23s on two cores"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
