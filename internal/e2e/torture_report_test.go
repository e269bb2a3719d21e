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
	verdict
}

// table is what operators are shown.
func table(outcomes []outcome) string {
	var b strings.Builder
	b.WriteString("| engine | time | transactions acknowledged | per second | faults | captures started | transactions checked | outcome unknown to the client | lost | duplicated | reordered | torn or rolled back | silent gaps | restores compared |\n")
	b.WriteString("| --- |" + strings.Repeat(" --- |", 13) + "\n")
	for _, o := range outcomes {
		fmt.Fprintf(&b, "| %s | %s | %d | %.0f | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d |\n", o.engine, o.took.Round(time.Second), o.acked, o.rate,
			o.faults.Total(), o.captures, o.checked, o.unknown, o.lost, o.duplicated, o.reordered, o.torn+o.phantom, o.gaps, o.restores)
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
