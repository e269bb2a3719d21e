package faults

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestClock moves the clock of a program that runs: it shows what the Clock does, and the machine's stays as it is.
func TestClock(t *testing.T) {
	t.Parallel()
	c, err := NewClock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(bash, filepath.Join(root, "bin", "bash")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "beside"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	folder, err := c.Under(root, "bin/bash")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(folder, "beside")); err != nil {
		t.Errorf("what is beside the program: %v", err)
	}
	cmd := exec.Command(filepath.Join(folder, "bin", "bash"), "-c", `while read; do echo "$EPOCHREALTIME $EPOCHSECONDS"; done`)
	ask, err1 := cmd.StdinPipe()
	answers, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(answers)
	_, last := c.Now()
	for i, shift := range []time.Duration{0, 3 * time.Hour, -3 * time.Hour, -3*time.Hour - 250*time.Millisecond, 750 * time.Millisecond} {
		if err := c.Set(shift); err != nil {
			t.Fatal(err)
		}
		from, moves := c.Now()
		if moves == last {
			t.Errorf("moved by %v, and nobody can tell", shift)
		}
		last = moves
		fmt.Fprintln(ask)
		if !lines.Scan() {
			t.Fatalf("the program has ended: %v", lines.Err())
		}
		to, still := c.Now()
		micros, seconds, _ := strings.Cut(lines.Text(), " ")
		n, err1 := strconv.ParseInt(strings.Replace(micros, ".", "", 1), 10, 64)
		s, err2 := strconv.ParseInt(seconds, 10, 64)
		if err1 != nil || err2 != nil || n < from.UnixMicro() || n > to.UnixMicro() || s < from.Unix() || s > to.Unix() || still != moves {
			t.Errorf("shift %d: the program saw %q between %v and %v", i, lines.Text(), from, to)
		}
		if away := time.Until(from) - shift; away > 0 || away < -time.Minute {
			t.Errorf("the clock shows %v, %v besides %v from the machine's", from, away, shift)
		}
	}
	ask.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if n := c.Counts(); n[Forward] != 2 || n[Back] != 2 {
		t.Errorf("counted %s", n)
	}
}
