package dbtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pollEvery is how often a condition is looked at while waiting for the server.
const pollEvery = 5 * time.Millisecond

// process is one run of a server. done is closed once it is gone; err says how it went.
type process struct {
	pid  int
	done chan struct{}
	err  error // read after done
}

// serverEnv is fixed: PGDATA, PGPORT and friends of the caller must not reach the server.
func serverEnv() []string {
	return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
}

// Start starts a stopped server again, on the same port and data, and waits until it answers.
func (p *Postgres) Start(ctx context.Context) error {
	if p.proc != nil {
		return errors.New("start server: it is running")
	}
	log, err := os.OpenFile(p.logPath(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	cmd := exec.Command(filepath.Join(p.BinDir, "postgres"), "-D", p.data(), "-p", strconv.Itoa(p.Port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+p.Dir, "-c", "unix_socket_permissions=0700")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = p.data(), serverEnv(), p.account.procAttr(syscall.SIGQUIT)
	cmd.Stdout, cmd.Stderr = log, log
	proc, err := run(cmd)
	if err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	p.proc = proc
	if err := p.waitReady(ctx); err != nil {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return fmt.Errorf("start server: %w\n%s", errors.Join(err, p.Stop(stopCtx, "immediate")), tailOf(p.Log(), 10))
	}
	return nil
}

// run starts cmd on a thread that stays until cmd is gone, since the parent-death signal follows the thread. The
// goroutine ends with the process, which Stop and Kill wait for.
func run(cmd *exec.Cmd) (*process, error) {
	proc := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(proc.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			proc.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			proc.err = cmd.Wait()
		}
	}()
	return proc, <-started
}

// waitReady waits for the postmaster's own word in its pid file, which also tells a standby from a dead one.
func (p *Postgres) waitReady(ctx context.Context) error {
	return poll(ctx, "the server to accept connections", func() (bool, error) {
		select {
		case <-p.proc.done:
			return false, fmt.Errorf("it ended while starting: %w", p.proc.err)
		default:
		}
		b, err := os.ReadFile(filepath.Join(p.data(), "postmaster.pid"))
		if err != nil {
			return false, nil // not written yet
		}
		lines := strings.Split(string(b), "\n")
		if len(lines) < 8 || strings.TrimSpace(lines[0]) != strconv.Itoa(p.proc.pid) {
			return false, nil
		}
		status := strings.TrimSpace(lines[7])
		return status == "ready" || status == "standby", nil
	})
}

// Stop shuts the server down and waits until it is gone. Mode is "smart", "fast" or "immediate", as pg_ctl has them.
// When ctx ends first the server goes on stopping, and a later Stop or Close waits again. Stopping a stopped server
// does nothing.
func (p *Postgres) Stop(ctx context.Context, mode string) error {
	if p.proc == nil {
		return nil
	}
	sig, ok := map[string]syscall.Signal{"smart": syscall.SIGTERM, "fast": syscall.SIGINT, "immediate": syscall.SIGQUIT}[mode]
	if !ok {
		return fmt.Errorf("stop server: unknown mode %q", mode)
	}
	if err := p.proc.signal(sig); err != nil {
		return fmt.Errorf("stop server: %w", err)
	}
	return p.waitGone(ctx)
}

// Kill ends the postmaster and its children with SIGKILL, as a crash of the machine would, and waits until they are
// gone. Start then runs crash recovery.
func (p *Postgres) Kill(ctx context.Context) error {
	if p.proc == nil {
		return nil
	}
	// Held still, it begins no more children.
	if err := p.proc.signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("kill server: %w", err)
	}
	children := childrenOf(p.proc.pid)
	if err := p.proc.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill server: %w", err)
	}
	for _, pid := range children {
		if child, err := os.FindProcess(pid); err == nil {
			_ = child.Kill() // it may have ended by itself
		}
	}
	if err := p.waitGone(ctx); err != nil {
		return err
	}
	// A child left alive would hold the shared memory and refuse the next start.
	return poll(ctx, "the server's children to end", func() (bool, error) {
		for _, pid := range children {
			if alive(pid) {
				return false, nil
			}
		}
		return true, nil
	})
}

// PID is the postmaster's process id, or 0 when stopped.
func (p *Postgres) PID() int {
	if p.proc == nil {
		return 0
	}
	return p.proc.pid
}

// signal sends to the process; one that has ended already is no error.
func (p *process) signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	proc, err := os.FindProcess(p.pid)
	if err != nil {
		return err
	}
	if err := proc.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// waitGone waits until the process has ended.
func (p *process) waitGone(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the server to stop: %w", context.Cause(ctx))
	}
}

func (p *Postgres) waitGone(ctx context.Context) error {
	if err := p.proc.waitGone(ctx); err != nil {
		return err
	}
	p.proc = nil
	return nil
}

// poll looks at a condition until it holds, fails, or ctx ends; what names it in the error.
func poll(ctx context.Context, what string, holds func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
