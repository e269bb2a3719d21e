package faults

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// The faults of a Clock.
const (
	Forward Kind = "clock forward"
	Back    Kind = "clock back"
)

//go:embed testdata/clock.c
var clockSource []byte

// Clock is the time of day of programs that are started under it: the machine's, which stays as it is, moved by as much
// as Set says. They are dynamically linked and ask the C library; a program in Go does not. Set is for one goroutine at
// a time, Now for any.
type Clock struct {
	counter
	dir  string
	file *os.File

	moves atomic.Uint64 // odd while it moves
	shift atomic.Int64  // nanoseconds
}

// NewClock returns a Clock that shows the machine's time. It needs a C compiler. The caller closes it when the programs
// under it have ended.
func NewClock(ctx context.Context) (*Clock, error) {
	dir, err := os.MkdirTemp("", "txreel-clock-")
	if err != nil {
		return nil, fmt.Errorf("make clock: %w", err)
	}
	c := &Clock{dir: dir}
	if err := c.build(ctx); err != nil {
		return nil, fmt.Errorf("make clock: %w", errors.Join(err, os.RemoveAll(dir)))
	}
	return c, nil
}

func (c *Clock) build(ctx context.Context) error {
	const compiler = "gcc"
	library := filepath.Join(c.dir, "clock.so")
	cmd := exec.CommandContext(ctx, compiler, "-shared", "-fPIC", "-O2", "-Wall", "-o", library, "-x", "c", "-")
	cmd.Stdin = bytes.NewReader(clockSource)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s, which scripts/setup test installs: %w\n%s", compiler, err, out)
	}
	var err error
	if c.file, err = os.Create(filepath.Join(c.dir, "clock")); err != nil {
		return err
	}
	// Servers run as users of their own.
	return errors.Join(c.Set(0), os.Chmod(c.dir, 0o755), os.Chmod(library, 0o755), c.file.Chmod(0o644))
}

// Close removes what belongs to the Clock.
func (c *Clock) Close() error { return errors.Join(c.file.Close(), os.RemoveAll(c.dir)) }

// Set lets the clock show so much more than the machine's from now on.
func (c *Clock) Set(shift time.Duration) error {
	c.moves.Add(1)
	defer c.moves.Add(1)
	switch before := time.Duration(c.shift.Swap(int64(shift))); {
	case shift > before:
		c.add(Forward)
	case shift < before:
		c.add(Back)
	}
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], uint64(shift))
	if _, err := c.file.WriteAt(b[:], 0); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}

// Shift is how much more than the machine's the clock shows.
func (c *Clock) Shift() time.Duration { return time.Duration(c.shift.Load()) }

// Now returns what the clock shows, and how often it has been moved: between two calls that say the same it was not.
func (c *Clock) Now() (now time.Time, moves uint64) {
	for {
		moves = c.moves.Load()
		now = time.Now().Add(time.Duration(c.shift.Load()))
		if moves%2 == 0 && c.moves.Load() == moves {
			return now, moves / 2
		}
		time.Sleep(time.Microsecond) // it is being moved
	}
}

// Under returns a folder that holds what dir holds; of this a program, named by its path in dir, is started under the
// clock.
func (c *Clock) Under(dir, program string) (string, error) {
	folder, err := os.MkdirTemp(c.dir, "programs-")
	if err == nil {
		err = c.mirror(dir, folder, program, "..")
	}
	if err != nil {
		return "", fmt.Errorf("put %s under the clock: %w", program, err)
	}
	return folder, nil
}

// mirror fills folder; up leads to the Clock's own from there.
func (c *Clock) mirror(dir, folder, program, up string) error {
	if err := os.Chmod(folder, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	head, rest, nested := strings.Cut(program, "/")
	for _, e := range entries {
		if e.Name() == head {
			continue
		}
		if err := os.Symlink(filepath.Join(dir, e.Name()), filepath.Join(folder, e.Name())); err != nil {
			return err
		}
	}
	inner, outer := filepath.Join(folder, head), filepath.Join(dir, head)
	if nested {
		if err := os.Mkdir(inner, 0o755); err != nil {
			return err
		}
		return c.mirror(outer, inner, rest, "../"+up)
	}
	// The same text for every Clock, and as old as the program: who remembers programs by size and age knows it again.
	st, err := os.Stat(outer)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("#!/bin/sh\nexec env LD_PRELOAD=\"${0%%/*}/%[1]s/clock.so\" TXREEL_CLOCK=\"${0%%/*}/%[1]s/clock\" '%[2]s' \"$@\"\n", up, outer)
	if err := os.WriteFile(inner, []byte(text), 0o755); err != nil {
		return err
	}
	return errors.Join(os.Chmod(inner, 0o755), os.Chtimes(inner, st.ModTime(), st.ModTime()))
}
