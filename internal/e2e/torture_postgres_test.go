package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/internal/faults"
)

// pgEngine is a PostgreSQL that sends larger transactions while they run, under a clock of its own.
type pgEngine struct {
	*site
	time    *faults.Clock
	targets *dbtest.Postgres
}

func newPGEngine(t *testing.T, gateway *dbtest.Gateway) *pgEngine {
	t.Helper()
	targets := dbtest.PG(t)
	clock, bin := newClock(t, targets.BinDir, "postgres")
	source := dbtest.PGWith(t, dbtest.PostgresOptions{BinDir: bin, Settings: map[string]string{"logical_decoding_work_mem": "64kB"}})
	return &pgEngine{newSite(t, source, "torture", gateway).setup(), clock, targets}
}

func (e *pgEngine) name() string {
	version, _, _ := strings.Cut(e.pg.Version, " ")
	return "PostgreSQL " + version
}
func (e *pgEngine) where() (*place, string) {
	return &e.place, net.JoinHostPort("127.0.0.1", strconv.Itoa(e.pg.Port))
}
func (e *pgEngine) kill(ctx context.Context) error  { return e.pg.Kill(ctx) }
func (e *pgEngine) start(ctx context.Context) error { return e.pg.Start(ctx) }
func (e *pgEngine) restart(ctx context.Context) error {
	return errors.Join(e.pg.Stop(ctx, "fast"), e.pg.Start(ctx))
}
func (e *pgEngine) clock() *faults.Clock                         { return e.time }
func (e *pgEngine) grain() time.Duration                         { return time.Microsecond }
func (e *pgEngine) patient(context.Context, time.Duration) error { return nil } // the capture decides

// pause stops the walsender, or all there is: the postmaster first, which begins no more children then.
func (e *pgEngine) pause(ctx context.Context, part bool) (faults.Kind, func() error, error) {
	rows, err := e.pg.Query(ctx, e.db, "SELECT pid FROM pg_stat_replication")
	if err != nil {
		return "", nil, err
	}
	var pids []int
	what := sourcePaused
	stop := func(pid int) {
		if syscall.Kill(pid, syscall.SIGSTOP) == nil { // else it has just ended
			pids = append(pids, pid)
		}
	}
	if part && len(rows) > 0 {
		what = senderPaused
		for _, pid := range numbers(e.t, rows, 1) {
			stop(pid[0])
		}
	} else {
		postmaster := e.pg.PID()
		stop(postmaster)
		for _, child := range childrenOf(postmaster) {
			stop(child)
		}
	}
	return what, func() error {
		for _, pid := range slices.Backward(pids) {
			_ = syscall.Kill(pid, syscall.SIGCONT) // it may have been killed meanwhile
		}
		return nil
	}, nil
}

// childrenOf lists the direct children of a process.
func childrenOf(parent int) []int {
	var found []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // fails only on a bad pattern
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // gone meanwhile
		}
		// pid (name) state ppid …; the name may hold anything.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				found = append(found, child)
			}
		}
	}
	return found
}

func (e *pgEngine) exec(ctx context.Context, sql string) error { return e.pg.Exec(ctx, e.db, sql) }
func (e *pgEngine) query(sql string) [][]string                { return e.pg.MustQuery(e.t, e.db, sql) }

func (e *pgEngine) cut(ctx context.Context) (int, error) {
	rows, err := e.pg.Query(ctx, e.db, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()
		AND backend_type = 'client backend' AND application_name = 'bank'`)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(rows[0][0])
}

// definitions change a table of their own: behind such a change only points that a later base reaches can be restored.
// Nobody waits for them to be recorded: this goroutine is the one that starts captures.
func (e *pgEngine) definitions() []string {
	return []string{
		`SET lock_timeout = '2s'; SET synchronous_commit = local; DROP TABLE IF EXISTS side; CREATE TABLE side (id int PRIMARY KEY, v text); INSERT INTO side VALUES (1, 'one')`,
		`SET lock_timeout = '2s'; SET synchronous_commit = local; BEGIN; ALTER TABLE side ADD w int DEFAULT 7; INSERT INTO side VALUES (2, 'two', 2); COMMIT`,
		`SET lock_timeout = '2s'; SET synchronous_commit = local; ALTER TABLE side DROP v; INSERT INTO side VALUES (3, 3)`,
	}
}

func (e *pgEngine) holds(a *archive.Archive) func() bool {
	at := e.here()
	return func() bool {
		tail, err := a.Tail(e.t.Context(), 1)
		return err == nil && tail.Seq > 0 && position(e.t, tail.Position) >= at
	}
}

// ready takes a base behind the last change of a definition.
func (e *pgEngine) ready() { e.must("base") }

func (e *pgEngine) reaches(point ...string) bool {
	e.t.Helper()
	r := e.run(append([]string{"restore", "--dry-run"}, point...)...)
	if r.code != 0 && r.code != 6 { // 6: a definition changes on the way
		e.t.Fatalf("restore --dry-run %q ends with %d:\n%s", point, r.code, r.stderr)
	}
	return r.code == 0
}

func (e *pgEngine) target(n int) victim {
	e.t.Helper()
	db := fmt.Sprintf("restored_%d", n)
	url, err := e.targets.CreateDB(e.t.Context(), db)
	if err != nil {
		e.t.Fatal(err)
	}
	return victim{url, func(sql string) [][]string { return e.targets.MustQuery(e.t, db, sql) }, e.targets.Kill, e.targets.Start}
}

func (e *pgEngine) connect(ctx context.Context, _ int) (teller, error) {
	conn, err := e.pg.Conn(ctx, e.db)
	if err != nil {
		return nil, err
	}
	s := &pgTeller{conn}
	if err := s.exec(ctx, "SET application_name = 'bank'"); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

type pgTeller struct{ conn *pgx.Conn }

func (s *pgTeller) exec(ctx context.Context, sql string) error {
	err := s.conn.PgConn().Exec(ctx, sql).Close()
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && refusal.Severity == "ERROR" && !s.conn.IsClosed() &&
		s.conn.PgConn().Exec(ctx, "ROLLBACK").Close() == nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return err
}

func (s *pgTeller) close() { _ = s.conn.Close(context.Background()) } // it may be lost
