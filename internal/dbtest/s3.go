package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// errNoGateway says how to get the binary nobody found.
var errNoGateway = errors.New("no versitygw in .tools/bin of the repository or on PATH: run scripts/setup")

// Gateway is a versitygw that serves a directory as S3 on loopback.
type Gateway struct {
	URL       string // "http://127.0.0.1:PORT"
	AccessKey string
	SecretKey string
	Region    string
	Bucket    string // exists, empty at first

	dir     string
	ownsDir bool
	binary  string
	extra   []string
	proc    *process // nil when stopped
}

// S3 starts a gateway for one test and removes it when the test ends. Extra arguments go before versitygw's "posix"
// command, such as "--cert", path.
func S3(t TB, extra ...string) *Gateway {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	g, err := StartGateway(ctx, "", extra...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(g.logPath()) // a missing log has nothing to add
			t.Logf("end of the gateway's log:\n%s", tailOf(string(log), 20))
		}
		if err := g.Close(); err != nil {
			t.Logf("clean up: %v", err)
		}
	})
	return g
}

// StartGateway starts a gateway that keeps its objects below dir, which must exist, or below a temporary directory
// when dir is "". The caller closes it.
func StartGateway(ctx context.Context, dir string, extra ...string) (*Gateway, error) {
	binary, err := findGateway()
	if err != nil {
		return nil, err
	}
	g := &Gateway{AccessKey: rand.Text(), SecretKey: rand.Text(), Region: "us-east-1", Bucket: "archive",
		dir: dir, binary: binary, extra: extra}
	if dir == "" {
		if g.dir, err = os.MkdirTemp("", "txreel-s3-"); err != nil {
			return nil, fmt.Errorf("start gateway: %w", err)
		}
		g.ownsDir = true
	}
	err = os.MkdirAll(filepath.Join(g.data(), g.Bucket), 0o700) // a bucket is a directory
	for tries := 0; err == nil && tries < 5; tries++ {          // another process may take the port first
		if err = g.pickPort(); err != nil {
			break
		}
		if err = g.Start(ctx); err == nil {
			return g, nil
		}
		if !errors.Is(err, errEnded) {
			break
		}
		err = nil
	}
	if err == nil {
		err = errEnded
	}
	log, _ := os.ReadFile(g.logPath()) // a missing log has nothing to add
	return nil, fmt.Errorf("start gateway: %w\n%s", errors.Join(err, g.Close()), tailOf(string(log), 10))
}

var errEnded = errors.New("it ended while starting")

// findGateway looks for versitygw in .tools/bin of this and every folder above, then on PATH.
func findGateway() (string, error) {
	if path, ok := findAbove(filepath.Join(".tools", "bin", "versitygw")); ok {
		return path, nil
	}
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path, nil
	}
	return "", errNoGateway
}

func (g *Gateway) data() string    { return filepath.Join(g.dir, "data") }
func (g *Gateway) logPath() string { return filepath.Join(g.dir, "log") }

// pickPort sets URL to a port that is free at this moment.
func (g *Gateway) pickPort() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("free port: %w", err)
	}
	scheme := "http"
	for _, arg := range g.extra {
		if arg == "--cert" {
			scheme = "https"
		}
	}
	g.URL = scheme + "://" + l.Addr().String()
	return l.Close()
}

// Start starts a stopped gateway again, on the same port, keys and objects, and waits until it answers.
func (g *Gateway) Start(ctx context.Context) error {
	if g.proc != nil {
		return errors.New("start gateway: it is running")
	}
	log, err := os.OpenFile(g.logPath(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("start gateway: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	u, err := url.Parse(g.URL)
	if err != nil {
		return fmt.Errorf("start gateway: %w", err)
	}
	args := append([]string{"--port", u.Host, "--region", g.Region, "--keep-alive", "--quiet"}, g.extra...)
	cmd := exec.Command(g.binary, append(args, "posix", g.data())...)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + g.dir,
		"ROOT_ACCESS_KEY=" + g.AccessKey, "ROOT_SECRET_KEY=" + g.SecretKey}
	cmd.Dir, cmd.SysProcAttr = g.dir, account{}.procAttr(syscall.SIGQUIT)
	cmd.Stdout, cmd.Stderr = log, log
	if g.proc, err = run(cmd); err != nil {
		g.proc = nil
		return fmt.Errorf("start gateway: %w", err)
	}
	if err := g.waitReady(ctx, u.Host); err != nil {
		return errors.Join(err, g.Stop())
	}
	return nil
}

// waitReady waits until the gateway accepts connections.
func (g *Gateway) waitReady(ctx context.Context, addr string) error {
	return poll(ctx, "the gateway to answer", func() (bool, error) {
		select {
		case <-g.proc.done:
			return false, fmt.Errorf("%w (%s)", errEnded, fmt.Sprint(g.proc.err))
		default:
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return false, nil // not listening yet
		}
		return true, conn.Close()
	})
}

// Stop kills the gateway, as a crash would, and waits until it is gone. What it has acknowledged stays. Stopping a
// stopped gateway does nothing.
func (g *Gateway) Stop() error {
	if g.proc == nil {
		return nil
	}
	if err := g.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("stop gateway: %w", err)
	}
	<-g.proc.done
	g.proc = nil
	return nil
}

// Pause suspends the gateway: it accepts connections and never answers, until Resume.
func (g *Gateway) Pause() error {
	if err := g.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	// Each of its threads stops when it gets to run.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return poll(ctx, "the gateway to stand still", func() (bool, error) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", g.proc.pid))
		for _, name := range threads {
			stat, err := os.ReadFile(name)
			if err != nil {
				continue // it has ended
			}
			if _, state, _ := strings.Cut(string(stat), ") "); !strings.HasPrefix(state, "T") {
				return false, nil
			}
		}
		return len(threads) > 0, err
	})
}

// Resume lets a paused gateway go on.
func (g *Gateway) Resume() error { return g.signal(syscall.SIGCONT) }

// Close stops the gateway and removes the directory it made for itself.
func (g *Gateway) Close() error {
	err := g.Stop()
	if g.ownsDir {
		err = errors.Join(err, os.RemoveAll(g.dir))
	}
	return err
}

// ArchiveURL is the --archive value of an archive below prefix. The keys are not in it: see Env.
func (g *Gateway) ArchiveURL(prefix string) string {
	q := url.Values{"endpoint": {g.URL}, "region": {g.Region}}
	u := url.URL{Scheme: "s3", Host: g.Bucket, Path: "/" + prefix, RawQuery: q.Encode()}
	return u.String()
}

// Env is the environment that gives a child process the gateway's keys.
func (g *Gateway) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + g.AccessKey, "AWS_SECRET_ACCESS_KEY=" + g.SecretKey}
}

// signal sends to the gateway; one that is gone is an error, since whoever suspends it wants it alive.
func (g *Gateway) signal(sig syscall.Signal) error {
	if g.proc == nil {
		return errors.New("signal gateway: it is stopped")
	}
	proc, err := os.FindProcess(g.proc.pid)
	if err != nil {
		return fmt.Errorf("signal gateway: %w", err)
	}
	err = proc.Signal(sig)
	if sig == syscall.SIGKILL && errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signal gateway: %w", err)
	}
	return nil
}
