package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// execute runs a program with more environment than this process has, and returns what it
// printed.
func execute(ctx context.Context, env []string, program string, args ...string) ([]byte, error) {
	out, _, err := executed(ctx, env, program, args...)
	return out, err
}

// executed is execute that also returns how long a processor worked for the program.
func executed(ctx context.Context, env []string, program string, args ...string) ([]byte, time.Duration, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w\n%s", filepath.Base(program), err, stderr.String())
	}
	return out, used(cmd), nil
}

// capturing is a capture that runs.
type capturing struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed behind the last line of its log
	last  []string      // of the log; read after ended
}

// startCapture starts a capture. It calls line, if not nil, with every line of its log, on
// one goroutine, which stop joins.
func (b *bench) startCapture(ctx context.Context, env []string, line func([]byte), args ...string) (*capturing, error) {
	c := &capturing{ended: make(chan struct{})}
	c.cmd = exec.CommandContext(ctx, b.program, append([]string{"capture", "--log-format", "json"}, args...)...)
	c.cmd.Env = append(os.Environ(), env...)
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.ended)
		for scan := bufio.NewScanner(stderr); scan.Scan(); {
			if line != nil {
				line(scan.Bytes())
			}
			if c.last = append(c.last, scan.Text()); len(c.last) > 10 {
				c.last = c.last[1:]
			}
		}
	}()
	return c, nil
}

// stop ends the capture in order.
func (c *capturing) stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // when it has ended, Wait says how
	<-c.ended
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("capture: %w\n%s", err, strings.Join(c.last, "\n"))
	}
	return nil
}

// hasBase waits until an archive has a base.
func hasBase(ctx context.Context, archive string) error {
	return poll(ctx, func() (bool, error) {
		found, err := filepath.Glob(filepath.Join(archive, "epochs/*/bases/*/manifest.json"))
		return len(found) > 0, err
	})
}

// restored is what the report of a restore says.
type restored struct {
	Transactions uint64                 `json:"replayed_transactions"`
	Rows         uint64                 `json:"replayed_rows"`
	Tables       []struct{ Rows int64 } `json:"tables"`
	Phases       []struct {
		Phase   string  `json:"phase"`
		Seconds float64 `json:"seconds"`
	} `json:"phases"`
	Seconds float64 `json:"seconds"`

	used time.Duration // by the program, on a processor
}

// restore restores an archive.
func (b *bench) restore(ctx context.Context, env []string, archive, target string, args ...string) (*restored, error) {
	env = append(env, "TXREEL_TARGET="+target) // it may hold a password
	out, used, err := executed(ctx, env, b.program, append([]string{"restore", "--archive", archive, "--json"}, args...)...)
	if err != nil {
		return nil, err
	}
	r := &restored{used: used}
	return r, json.Unmarshal(out, r)
}

// phase is how long a phase took.
func (r *restored) phase(name string) time.Duration {
	var total float64
	for _, p := range r.Phases {
		if p.Phase == name {
			total += p.Seconds
		}
	}
	return time.Duration(total * float64(time.Second))
}

// tableRows are those of all tables.
func (r *restored) tableRows() (total int64) {
	for _, t := range r.Tables {
		total += t.Rows
	}
	return total
}

func poll(ctx context.Context, done func() (bool, error)) error {
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
