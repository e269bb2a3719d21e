package mysql

import (
	"testing"

	"txreel/sources/mysql/binlog"
)

func TestPlacesHave64Bits(t *testing.T) {
	p := place{"b.000001", 4}
	for _, step := range []struct {
		logPos, size uint32
		want         uint64
	}{
		{126, 122, 126},
		{0, 100, 226},                // says nothing: its size counts
		{1 << 31, 50, 1 << 31},       // what is between was skipped
		{1<<32 - 10, 50, 1<<32 - 10}, // the end of 32 bits
		{40, 50, 1<<32 + 40},         // past it
		{0, 1 << 30, 1<<32 + 1<<30 + 40},
		{1 << 31, 0, 1<<32 + 1<<31},
		{1, 0, 1<<33 + 1},
		{1, 0, 1<<33 + 1}, // the same place again
	} {
		if p.pass(&binlog.Header{Type: binlog.TypeQuery, LogPos: step.logPos, Size: step.size}); p.pos != step.want {
			t.Fatalf("at %d after an event that ends at %d, want %d", p.pos, step.logPos, step.want)
		}
	}
	// Sent ahead of the place that was asked for.
	if p.pass(&binlog.Header{Type: binlog.TypeFormatDescription, Size: 252, Timestamp: 1}); p.pos != 1<<33+1 {
		t.Fatalf("a format description moved it to %d", p.pos)
	}
	if p.reach(1<<33 + 7); p.pos != 1<<33+7 {
		t.Fatal(p)
	}
	if p.reach(5 << 32); p.pos != 5<<32 || p.String() != "b.000001:21474836480" {
		t.Fatal(p)
	}
	for _, c := range []struct {
		p, other place
		want     bool
	}{
		{place{"b.000002", 4}, place{"b.000001", 100}, true},
		{place{"b.000001", 4}, place{"b.000002", 4}, false},
		{place{"b.1000000", 4}, place{"b.999999", 4}, true}, // numbers, not texts
		{place{"b.000002", 99}, place{"b.000002", 100}, false},
		{place{"b.000002", 100}, place{"b.000002", 100}, true},
		{place{"c.000009", 100}, place{"b.000002", 100}, false},
		{place{"c", 100}, place{"b.000002", 100}, false},
	} {
		if got := c.p.passed(c.other); got != c.want {
			t.Errorf("%v passed %v: %v", c.p, c.other, got)
		}
	}
}
