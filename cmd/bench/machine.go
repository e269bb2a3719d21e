package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// loads are those of the machine when measurements began, as /proc/loadavg has them for
// the last minute.
type loads []float64

// String prints one load, or from which to which they went.
func (l loads) String() string {
	if len(l) == 0 {
		return ""
	}
	from, to := slices.Min(l), slices.Max(l)
	if from == to {
		return fmt.Sprintf("%.1f", from)
	}
	return fmt.Sprintf("%.1f–%.1f", from, to)
}

// loadNow is the machine's load, or 0 where the system does not say.
func loadNow() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return load
}

// quiet waits for a moment in which the machine is not busy with something else, but not
// for long, and notes the load there is then.
func (b *bench) quiet(ctx context.Context, l *loads) error {
	began := time.Now()
	load := loadNow()
	for load > b.calm && time.Since(began) < b.patience {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Second):
		}
		load = loadNow()
	}
	if waited := time.Since(began); waited > time.Second {
		fmt.Printf("waited %s for a quieter machine: load %.1f\n", waited.Round(time.Second), load)
	}
	*l = append(*l, load)
	return nil
}
