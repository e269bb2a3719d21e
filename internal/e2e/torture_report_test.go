package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"txreel/internal/faults"
)

// outcome is what a torture of an engine found.
type outcome struct {
	engine   string
	seed     uint64
	took     time.Duration
	rate     float64 // transactions acknowledged per second
	acked    int64
	faults   faults.Counts
	gaps     int // breaks in the record that nothing accounts for
	restores int // whose content was compared
	captures int // processes that were started
	guarded  int // transactions on record as protected: their COMMIT waited
	early    int // of these, acknowledged before the store had them
	alone    int // looked for in the archive alone, after a capture in zero-loss mode was killed
	timed    int // commit times that were compared with the source's clock
	wrong    int // of these, not what the clock showed
	back     int // steps of a second and more back in time, in commit order
	lookups  int // points that --to-time found, compared
	verdict
}

// table is what operators are shown.
func table(outcomes []outcome) string {
	var b strings.Builder
	columns := []string{"engine", "time", "transactions acknowledged", "per second", "faults", "captures started", "transactions checked", "outcome unknown to the client",
		"lost", "duplicated", "reordered", "torn or rolled back", "silent gaps", "restores compared", "COMMIT waited, says the record", "and did not",
		"looked for in the archive alone", "commit times compared", "wrong", "steps back in time", "points in time compared"}
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)))
	for _, o := range outcomes {
		fmt.Fprintf(&b, "| %s | %s | %d | %.0f |", o.engine, o.took.Round(time.Second), o.acked, o.rate)
		for _, n := range []int{o.faults.Total(), o.captures, o.checked, o.unknown, o.lost, o.duplicated, o.reordered, o.torn + o.phantom, o.gaps, o.restores,
			o.guarded, o.early, o.alone, o.timed, o.wrong, o.back, o.lookups} {
			fmt.Fprintf(&b, " %d |", n)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// kinds is how often each fault was injected.
func kinds(outcomes []outcome) string {
	all := make(map[faults.Kind]bool)
	var b, rule strings.Builder
	b.WriteString("| fault |")
	rule.WriteString("| --- |")
	for _, o := range outcomes {
		fmt.Fprintf(&b, " %s |", o.engine)
		rule.WriteString(" --- |")
		for k := range o.faults {
			all[k] = true
		}
	}
	b.WriteString("\n" + rule.String() + "\n")
	for _, k := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "| %s |", k)
		for _, o := range outcomes {
			fmt.Fprintf(&b, " %d |", o.faults[k])
		}
		b.WriteString("\n")
	}
	return b.String()
}
