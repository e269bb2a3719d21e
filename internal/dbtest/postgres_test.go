package dbtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestServerLife(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := PG(t, "wal_level=replica", "application_name=it's")
	if got := p.MustQuery(t, "postgres", "SHOW wal_level; SHOW application_name; SHOW fsync; SELECT NULL"); got[0][0] != "replica" ||
		got[1][0] != "it's" || got[2][0] != "off" || got[3][0] != Null {
		t.Fatalf("settings: %q", got)
	}
	if p.Major < 14 || !strings.HasPrefix(p.Version, strconv.Itoa(p.Major)+".") {
		t.Errorf("version %q, major %d", p.Version, p.Major)
	}

	// TCP wants the password.
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = pgx.Connect(ctx, p.URLAs("postgres", "wrong", "postgres"))
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != "28P01" {
		t.Fatalf("wrong password: %v", err)
	}

	// Data outlives every way to stop, and the port stays.
	p.MustExec(t, "postgres", "CREATE TABLE t (n int)")
	url := p.URL("postgres")
	for i, stop := range []func() error{
		func() error { return p.Stop(ctx, "fast") },
		func() error { return p.Stop(ctx, "immediate") },
		func() error { return p.Kill(ctx) },
	} {
		p.MustExec(t, "postgres", "INSERT INTO t VALUES (1)")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if p.PID() != 0 {
			t.Fatal("still has a pid")
		}
		if err := p.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if got := p.MustQuery(t, "postgres", "SELECT count(*) FROM t"); got[0][0] != strconv.Itoa(i+1) {
			t.Fatalf("after stop %d: %s rows", i, got[0][0])
		}
	}
	if p.URL("postgres") != url {
		t.Error("the URL changed")
	}
	if err := p.Configure(map[string]string{"wal_level": "logical"}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Stop(ctx, "fast"), p.Start(ctx)); err != nil {
		t.Fatal(err)
	}
	if got := p.MustQuery(t, "postgres", "SHOW wal_level"); got[0][0] != "logical" {
		t.Errorf("configured wal_level: %s", got[0][0])
	}

	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.Dir); !os.IsNotExist(err) {
		t.Errorf("folder left behind: %v", err)
	}
}

func TestBadSettingSaysWhy(t *testing.T) {
	t.Parallel()
	_, err := StartPostgres(t.Context(), PostgresOptions{Settings: map[string]string{"wal_level": "plenty"}})
	if err == nil || !strings.Contains(err.Error(), "wal_level") {
		t.Fatalf("got %v", err)
	}
	_, err = StartPostgres(t.Context(), PostgresOptions{BinDir: "/nowhere"})
	if err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Fatalf("got %v", err)
	}
}

// TestServerFollowsItsParent kills a process that runs a server and expects the server to go too.
func TestServerFollowsItsParent(t *testing.T) {
	t.Parallel()
	start := map[string]func(dir string) int{
		"postgres": func(dir string) int { return PGWith(t, PostgresOptions{Dir: dir}).PID() },
		"mariadb":  func(dir string) int { return MyWith(t, MySQLOptions{Flavor: "mariadb", Dir: dir}).PID() },
	}
	if dir := os.Getenv("DBTEST_CHILD_DIR"); dir != "" {
		pid := start[os.Getenv("DBTEST_CHILD_SERVER")](dir)
		if err := os.WriteFile(dir+"/followed", []byte(strconv.Itoa(pid)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		<-t.Context().Done() // until killed
	}
	for server := range start {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			followsItsParent(t, server)
		})
	}
}

func followsItsParent(t *testing.T, server string) {
	base, err := os.MkdirTemp("", "txpg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "d")
	cmd := exec.Command(os.Args[0], "-test.run=^TestServerFollowsItsParent$")
	cmd.Env = append(os.Environ(), "DBTEST_CHILD_DIR="+dir, "DBTEST_CHILD_SERVER="+server)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var pid int
	err = poll(ctx, "the child's server", func() (bool, error) {
		b, _ := os.ReadFile(dir + "/followed")
		if !strings.HasSuffix(string(b), "\n") {
			return false, nil
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return true, err
	})
	if err != nil {
		_ = cmd.Process.Kill()
		t.Fatal(err)
	}
	if !alive(pid) {
		t.Error("the server is not running")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if err := poll(ctx, "the orphaned server to stop", func() (bool, error) { return !alive(pid), nil }); err != nil {
		t.Fatal(err)
	}
}
