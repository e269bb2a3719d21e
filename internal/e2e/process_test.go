package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a txreel that was started and perhaps has ended.
type process struct {
	t       *testing.T
	args    []string
	dir     string
	secrets []string
	cmd     *exec.Cmd
	done    chan struct{} // closed once it is gone
	killed  bool
	checked sync.Once
}

// start starts a program. It gets SIGKILL at the end of the test at the latest, and with the end of the test process.
func start(t *testing.T, env, secrets []string, path string, args ...string) *process {
	t.Helper()
	dir, err := os.MkdirTemp(binDir, "run-")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, args: args, dir: dir, secrets: secrets, done: make(chan struct{})}
	stdout, err1 := os.Create(p.path("stdout"))
	stderr, err2 := os.Create(p.path("stderr"))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(path, args...)
	p.cmd.Dir, p.cmd.Env = dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "GORACE=halt_on_error=1"}, env...)
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() { // ends with the process; the parent-death signal follows this thread
		defer close(p.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		_, _ = stdout.Close(), stderr.Close() // the child has its own
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // ProcessState says how it went
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		told := p.alive() || !p.killed // one that the test killed has told all it had to
		p.kill()
		if t.Failed() && told {
			t.Logf("%s\n%s", p, tail(p.stderr(), 30))
		}
		_ = os.RemoveAll(dir)
	})
	return p
}

func (p *process) String() string          { return "txreel " + strings.Join(p.args, " ") }
func (p *process) path(name string) string { return filepath.Join(p.dir, name) }
func (p *process) stdout() string          { return p.read("stdout") }
func (p *process) stderr() string          { return p.read("stderr") }
func (p *process) has(text string) bool    { return strings.Contains(p.stderr(), text) }
func (p *process) read(name string) string {
	b, err := os.ReadFile(p.path(name))
	if err != nil {
		return ""
	}
	return string(b)
}

// alive reports whether the process has not ended.
func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends to the process; one that has ended is the test's failure.
func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("signal %s: %v\n%s", p, err, tail(p.stderr(), 20))
	}
}

// kill ends the process with SIGKILL, if it has not ended, and waits until it is gone.
func (p *process) kill() {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("kill %s: %v", p, err)
	}
	p.killed = true
	<-p.done
	p.check()
}

// wait waits for the end of the process and returns its exit code.
func (p *process) wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.t.Fatalf("%s has not ended after %v:\n%s", p, limit, tail(p.stderr(), 20))
	}
	p.check()
	return p.cmd.ProcessState.ExitCode()
}

// check looks at the output for what must never be there.
func (p *process) check() {
	p.checked.Do(func() {
		for _, name := range []string{"stdout", "stderr"} {
			text := p.read(name)
			for _, secret := range p.secrets {
				if strings.Contains(text, secret) {
					p.t.Errorf("%s prints a secret on its %s", p, name)
				}
			}
			for _, mishap := range []string{"DATA RACE", "panic:", "[running]:"} {
				if i := strings.Index(text, mishap); i >= 0 {
					p.t.Errorf("%s: %s on its %s:\n%.4000s", p, mishap, name, text[i:])
				}
			}
		}
	})
}

// peakRSS is the most memory the process has had resident so far, in bytes; zero when it has ended. What wait4 says
// would not do: it counts the moment before exec, in which a child is its parent.
func (p *process) peakRSS() int64 {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0 // a zombie has no memory
	}
	kb, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return kb << 10
}

// result is how a program that has ended went.
type result struct {
	code           int
	stdout, stderr string
	rss            int64 // most memory resident, as last seen
}

func (p *process) result(limit time.Duration) result {
	p.t.Helper()
	var r result
	eventually(p.t, limit, p.String()+" ends", func() bool {
		r.rss = max(r.rss, p.peakRSS())
		return !p.alive()
	})
	r.code, r.stdout, r.stderr = p.wait(limit), p.stdout(), p.stderr()
	return r
}

// decode reads the JSON on the standard output.
func (r result) decode(t *testing.T, into any) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader([]byte(r.stdout)))
	if err := dec.Decode(into); err != nil {
		t.Fatalf("decode %.500q: %v", r.stdout, err)
	}
}

// sentence fails the test unless standard error is one line in txreel's name, and holds every part given.
func (r result) sentence(t *testing.T, parts ...string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(r.stderr) {
		if !strings.HasPrefix(line, "{") { // not the log
			lines = append(lines, line)
		}
	}
	text := strings.Join(lines, "")
	if len(lines) != 1 || !strings.HasPrefix(text, "txreel: ") {
		t.Errorf("want one sentence on standard error, got %d lines:\n%s", len(lines), text)
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in the sentence: %s", part, text)
		}
	}
}

// eventually waits until holds returns true; what names the condition.
func eventually(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	if err := poll(t.Context(), limit, holds); err != nil {
		t.Fatalf("after %v still not: %s", limit, what)
	}
}

// poll is eventually for goroutines that must not end the test.
func poll(ctx context.Context, limit time.Duration, holds func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if holds() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// contains reports whether all parts are in text.
func contains(text string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// terminate is how services are stopped.
const terminate = syscall.SIGTERM
