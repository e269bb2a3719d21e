package dbtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Load is a sysbench that runs in the background.
type Load struct {
	proc    *process
	out     bytes.Buffer // read after proc.done
	stopped bool
}

// Sysbench runs one of sysbench's own scripts, such as "oltp_read_write", against a database of the server and
// returns what it printed. The arguments are sysbench's, the last one its command: "prepare", "run" or "cleanup".
func Sysbench(ctx context.Context, m *MySQL, db, script string, args ...string) (string, error) {
	load, err := StartSysbench(m, db, script, args...)
	if err != nil {
		return "", err
	}
	select {
	case <-load.proc.done:
	case <-ctx.Done():
		_, err := load.Stop()
		return "", errors.Join(fmt.Errorf("run sysbench: %w", context.Cause(ctx)), err)
	}
	return load.Wait()
}

// StartSysbench is Sysbench in the background. The caller owes it a Stop or a Wait.
func StartSysbench(m *MySQL, db, script string, args ...string) (*Load, error) {
	program, ok := findAbove(filepath.Join(".tools", "mariadb", "bin", "sysbench"))
	if !ok {
		return nil, errors.New("no sysbench in .tools/mariadb/bin of this folder or one above it: run scripts/setup test")
	}
	root := filepath.Dir(filepath.Dir(program))
	plugins, err := filepath.Glob(filepath.Join(root, "usr", "lib", "*", "libmariadb3", "plugin"))
	if err != nil || len(plugins) != 1 {
		return nil, fmt.Errorf("no plugins of sysbench's client library in %s/usr/lib: run scripts/setup test", root)
	}
	first := []string{"./" + script + ".lua", "--db-driver=mysql", "--mysql-socket=" + m.socket(), "--mysql-user=root",
		"--mysql-password=" + m.password, "--mysql-db=" + db}
	load := &Load{}
	cmd := exec.Command(program, append(first, args...)...)
	cmd.Dir = filepath.Join(root, "usr", "share", "sysbench") // the scripts look for each other here
	// One of the plugins is caching_sha2_password, without which nobody logs in to MySQL 9.
	cmd.Env, cmd.SysProcAttr = append(mysqlEnv(), "MARIADB_PLUGIN_DIR="+plugins[0]), account{}.procAttr(syscall.SIGKILL)
	cmd.Stdout, cmd.Stderr = &load.out, &load.out
	if load.proc, err = run(cmd); err != nil {
		return nil, fmt.Errorf("run sysbench: %w", err)
	}
	return load, nil
}

// Stop ends sysbench in the middle of what it does, and returns what it has printed. That it had ended before, by an
// error of its own, is an error.
func (l *Load) Stop() (string, error) {
	select {
	case <-l.proc.done:
	default:
		l.stopped = true
		if err := l.proc.signal(syscall.SIGKILL); err != nil {
			return "", fmt.Errorf("stop sysbench: %w", err)
		}
	}
	return l.Wait()
}

// Wait waits until sysbench has ended by itself, and returns what it printed.
func (l *Load) Wait() (string, error) {
	<-l.proc.done
	if l.proc.err != nil && !l.stopped {
		return "", fmt.Errorf("run sysbench: %w: %s", l.proc.err, tailOf(l.out.String(), 10))
	}
	return l.out.String(), nil
}
