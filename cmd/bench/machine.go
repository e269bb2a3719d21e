package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
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

// quiet waits for a moment in which the machine is not busy with something else, as long as
// there is patience left, and notes the load there is then.
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
		b.patience -= waited
		fmt.Printf("waited %s for a quieter machine: load %.1f\n", waited.Round(time.Second), load)
	}
	*l = append(*l, load)
	return nil
}

// effort is how long something took, and how long processors worked for it, which depends
// less on what else the machine does: in the program itself, and in the server.
type effort struct{ took, program, server time.Duration }

// String prints all of it.
func (e effort) String() string {
	return fmt.Sprintf("%s (processor %s, server's %s)", seconds(e.took), seconds(e.program), seconds(e.server))
}

// took are the times alone.
func took(all []effort) (times []time.Duration) {
	for _, e := range all {
		times = append(times, e.took)
	}
	return times
}

// used is how long a processor worked for a program that has ended.
func used(cmd *exec.Cmd) time.Duration {
	if cmd.ProcessState == nil {
		return 0
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// usedBy is how long a processor has worked for a process that runs, or 0 where the system
// does not say.
func usedBy(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// Behind the name, which may hold anything, utime and stime are the 12th and the 13th.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100) // the unit is the same on every Linux that runs Go
}
