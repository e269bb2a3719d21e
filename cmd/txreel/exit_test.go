package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/audit"
	"txreel/capture"
	"txreel/restore"
	"txreel/segment"
	"txreel/sources/mysql"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	quiet := &app{stopped: func() os.Signal { return nil }}
	wrap := func(err error) error { return fmt.Errorf("while doing: %w", err) }
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("something"), 1},
		{wrap(&usageError{"no"}), 2},
		{wrap(capture.ErrGap), 3}, {wrap(audit.ErrGap), 3},
		{errors.Join(capture.ErrGap, archive.ErrUnreachable), 3}, // a gap that could not be put on record
		{wrap(archive.ErrCorrupt), 4}, {wrap(archive.ErrVersion), 4}, {wrap(segment.ErrCorrupt), 4}, {wrap(segment.ErrVersion), 4},
		{wrap(&archive.HoleError{}), 4},
		{wrap(capture.ErrOtherCapture), 5}, {wrap(archive.ErrOtherWriter), 5},
		{wrap(restore.ErrNotInArchive), 6},
		{wrap(capture.ErrUnreachable), 7}, {wrap(archive.ErrUnreachable), 7},
		{fmt.Errorf("x: %w: %w", capture.ErrUnreachable, context.DeadlineExceeded), 7},
		{errProblems, 8},
		{wrap(context.Canceled), 130},
	} {
		if got := quiet.exitCode(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
	interrupted := &app{stopped: func() os.Signal { return os.Interrupt }}
	if got := interrupted.exitCode(wrap(capture.ErrUnreachable)); got != 130 {
		t.Errorf("interrupted: %d", got)
	}
	if got := interrupted.exitCode(wrap(capture.ErrGap)); got != 3 {
		t.Errorf("interrupted, with a gap: %d", got)
	}
}

// TestStopped lets captures end in every way a stop can find them in.
func TestStopped(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err       error
		signal    os.Signal
		want, log int
	}{
		{context.Canceled, syscall.SIGTERM, 0, 0},
		{nil, syscall.SIGTERM, 0, 0},
		{context.Canceled, os.Interrupt, 130, 0},
		{fmt.Errorf("connect: %w", &signalError{syscall.SIGTERM}), syscall.SIGTERM, 0, 0},
		{errors.Join(archive.ErrUnreachable, context.Canceled), syscall.SIGTERM, 0, 1},
		{errors.Join(archive.ErrOtherWriter, context.Canceled), syscall.SIGTERM, 0, 1},
		{capture.ErrUnreachable, syscall.SIGTERM, 0, 1},
		{errors.Join(capture.ErrGap, context.Canceled), syscall.SIGTERM, 3, 0},
		{errors.Join(archive.ErrCorrupt, context.Canceled), os.Interrupt, 4, 0},
	} {
		var log strings.Builder
		a := &app{stopped: func() os.Signal { return c.signal }}
		err := (&captureCmd{}).stopped(a, zerolog.New(&log), c.err)
		if got := a.exitCode(err); got != c.want || strings.Count(log.String(), `"level":"warn"`) != c.log {
			t.Errorf("%v by %v: exit %d (%v), log %s", c.err, c.signal, got, err, log.String())
		}
	}
}

func TestWhatIsTriedAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err           error
		before, after bool // something has worked
	}{
		{capture.ErrUnreachable, false, true},
		{archive.ErrUnreachable, false, true},
		{errors.New("something"), false, true},
		{capture.ErrGap, false, false},
		{capture.ErrOtherCapture, false, false},
		{archive.ErrCorrupt, false, false},
		{archive.ErrVersion, false, false},
		{archive.ErrOtherDatabase, false, false},
		{archive.ErrOverwrites, false, false},
		{archive.ErrOtherWriter, true, true},
		{mysql.ErrAwaited, true, true},
	} {
		for _, worked := range []bool{false, true} {
			r := &recording{captureCmd: &captureCmd{}, worked: worked}
			want := c.before
			if worked {
				want = c.after
			}
			if got := r.again(fmt.Errorf("x: %w", c.err)); got != want {
				t.Errorf("%v, worked %v: tried again %v", c.err, worked, got)
			}
		}
	}
	// Beaten twice in a row it is not ourselves.
	r := &recording{captureCmd: &captureCmd{}, worked: true}
	if !r.again(archive.ErrOtherWriter) || r.again(archive.ErrOtherWriter) {
		t.Error("a second writer is fought")
	}
	r.beaten = time.Now().Add(-time.Hour)
	if !r.again(archive.ErrOtherWriter) {
		t.Error("an old encounter counts")
	}
	// A gap is answered once when that was asked for.
	r = &recording{captureCmd: &captureCmd{NewEpoch: true}}
	if !r.again(capture.ErrGap) || r.again(capture.ErrGap) {
		t.Error("a gap is not answered just once")
	}
}

func TestTimelines(t *testing.T) {
	t.Parallel()
	epoch := archive.Epoch{Number: 2, Source: map[string]string{"timeline": "1"}}
	forked := func(was, is int32) string { return fmt.Sprintf(" from %d to %d", was, is) }
	if err := sameTimeline(epoch, "1", forked); err != nil {
		t.Error(err)
	}
	if err := sameTimeline(archive.Epoch{}, "3", forked); err != nil {
		t.Error(err)
	}
	err := sameTimeline(epoch, "2", forked)
	if !errors.Is(err, capture.ErrGap) || !errors.Is(err, capture.ErrDiverged) || !strings.Contains(err.Error(), "--new-epoch") || !strings.Contains(err.Error(), "restored from 1 to 2: run") {
		t.Error(err)
	}
}

func TestGoals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cmd  restoreCmd
		kind restore.Kind
		text string
	}{
		{restoreCmd{}, restore.Latest, ""},
		{restoreCmd{To: "latest"}, restore.Latest, ""},
		{restoreCmd{ToTxn: "771"}, restore.AtXID, "771"},
		{restoreCmd{ToPosition: "0/1A"}, restore.AtPosition, "0/1A"},
		{restoreCmd{ToMark: "m"}, restore.AtMark, "m"},
		{restoreCmd{ToTime: "2026-01-31T17:04:05Z"}, restore.AtTime, ""},
		{restoreCmd{ToSeq: "4d2"}, restore.AtSeq, ""},
	} {
		c.cmd.Before, c.cmd.Epoch = true, 3
		g, err := c.cmd.goal()
		if err != nil || g.Kind != c.kind || g.Text != c.text || !g.Before || g.Epoch != 3 || g.Kind == restore.AtSeq && g.Seq != 0x4d2 {
			t.Errorf("%+v: %+v, %v", c.cmd, g, err)
		}
	}
	var usage *usageError
	for _, c := range []restoreCmd{{To: "771"}, {To: "0/1A"}, {ToSeq: "xyz"}, {ToTime: "yesterday"}} {
		if _, err := c.goal(); !errors.As(err, &usage) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestByteSizes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]byteSize{"8MiB": 8 << 20, "1kB": 1000, "512": 512, "1 GiB": 1 << 30} {
		var s byteSize
		if err := s.UnmarshalText([]byte(in)); err != nil || s != want {
			t.Errorf("%q: %d, %v", in, s, err)
		}
	}
	for _, in := range []string{"", "much", "-1", "2TiB", "8MiB and more"} {
		var s byteSize
		if err := s.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q: %d", in, s)
		}
	}
}

// TestCommandLine runs the program's main on mistakes that reach no server.
func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args string
		want int
		say  string
	}{
		{"--help", 0, ""}, {"--version", 0, ""}, {"capture --help", 0, ""},
		{"", 2, ""}, {"frobnicate", 2, ""},
		{"capture", 2, "--archive"},
		{"restore --archive /nowhere --to-seq xyz --target x", 2, "not a Seq"},
		{"restore --archive /nowhere --to 5 --target x", 2, "--to takes latest"},
		{"restore --archive /nowhere --to-seq 5 --to-time now", 2, ""},
		{"restore --archive /nowhere", 2, "--target"},
		{"log --archive ftp://x/y", 2, "s3://"},
		{"mark --archive /nowhere --source x no/slash", 2, ""},
		{"capture --archive /nowhere --source postgres://u@h/d --flush-size much", 2, "not a size"},
	} {
		var stdout, stderr strings.Builder
		var out io.Writer = &stdout
		if got := run(strings.Fields(c.args), out, &stderr); got != c.want || !strings.Contains(stderr.String(), c.say) {
			t.Errorf("%q: exit %d\n%s", c.args, got, stderr.String())
		}
	}
}
