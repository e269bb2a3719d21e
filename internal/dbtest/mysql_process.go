package dbtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
)

// mysqlEnv is fixed. It names no time zone: the server takes the machine's, as in production.
func mysqlEnv() []string { return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C"} }

// serverArgs is the command line of every run of a server: where things are, then what is set.
func (m *MySQL) serverArgs() []string {
	args := append(baseArgs(m.Flavor, m.Root), "--datadir="+m.data(), "--tmpdir="+m.tmp(), "--socket="+m.socket(),
		"--pid-file="+m.Dir+"/pid", "--bind-address=127.0.0.1", "--port="+strconv.Itoa(m.Port), "--secure-file-priv=")
	for _, name := range slices.Sorted(maps.Keys(m.settings)) {
		switch value := m.settings[name]; {
		case name == "log_bin" && value == "OFF":
			args = append(args, "--skip-log-bin")
		default:
			args = append(args, "--"+name+"="+value)
		}
	}
	return append(args, m.args...)
}

// Start starts a stopped server again, on the same port and data, and waits until it answers.
func (m *MySQL) Start(ctx context.Context) error {
	if m.proc != nil {
		return errors.New("start server: it is running")
	}
	log, err := os.OpenFile(m.logPath(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	cmd := exec.Command(serverProgram(m.Flavor, m.Root), m.serverArgs()...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = m.data(), mysqlEnv(), account{}.procAttr(syscall.SIGKILL)
	cmd.Stdout, cmd.Stderr = log, log
	proc, err := run(cmd)
	if err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	m.proc = proc
	if err := m.waitReady(ctx); err != nil {
		return fmt.Errorf("start server: %w\n%s", errors.Join(err, m.Kill(context.WithoutCancel(ctx))), tailOf(m.Log(), 10))
	}
	return nil
}

// waitReady waits until the server accepts a login through its socket.
func (m *MySQL) waitReady(ctx context.Context) error {
	db, err := m.DB("")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // it only asked
	return poll(ctx, "the server to accept connections", func() (bool, error) {
		select {
		case <-m.proc.done:
			return false, fmt.Errorf("it ended while starting: %w", m.proc.err)
		default:
		}
		if _, err := os.Stat(m.socket()); err != nil {
			return false, nil // not listening yet
		}
		err := db.PingContext(ctx)
		if refused(err) {
			return false, err
		}
		return err == nil, nil
	})
}

// Stop shuts the server down in order and waits until it is gone. When ctx ends first the server goes on stopping,
// and a later Stop or Close waits again. Stopping a stopped server does nothing.
func (m *MySQL) Stop(ctx context.Context) error {
	if m.proc == nil {
		return nil
	}
	if err := m.proc.signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop server: %w", err)
	}
	return m.waitGone(ctx)
}

// Kill ends the server with SIGKILL, as a crash would, and waits until it is gone. Start then recovers.
func (m *MySQL) Kill(ctx context.Context) error {
	if m.proc == nil {
		return nil
	}
	if err := m.proc.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill server: %w", err)
	}
	return m.waitGone(ctx)
}

// Restart stops the server in order and starts it again.
func (m *MySQL) Restart(ctx context.Context) error {
	return errors.Join(m.Stop(ctx), m.Start(ctx))
}

// Pause suspends the server: it accepts connections and never answers, until Resume.
func (m *MySQL) Pause() error { return m.Signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (m *MySQL) Resume() error { return m.Signal(syscall.SIGCONT) }

// Signal sends a signal to the running server.
func (m *MySQL) Signal(sig syscall.Signal) error {
	if m.proc == nil {
		return errors.New("signal server: it is stopped")
	}
	if err := m.proc.signal(sig); err != nil {
		return fmt.Errorf("signal server: %w", err)
	}
	return nil
}

// PID is the server's process id, or 0 when stopped.
func (m *MySQL) PID() int {
	if m.proc == nil {
		return 0
	}
	return m.proc.pid
}

func (m *MySQL) waitGone(ctx context.Context) error {
	if err := m.proc.waitGone(ctx); err != nil {
		return err
	}
	m.proc = nil
	return nil
}
