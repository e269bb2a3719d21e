package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/archive"
	"txreel/internal/dbtest"
)

// pgEngine is a PostgreSQL that sends larger transactions while they run.
type pgEngine struct{ *site }

func newPGEngine(t *testing.T, gateway *dbtest.Gateway) *pgEngine {
	t.Helper()
	return &pgEngine{newSite(t, dbtest.PG(t, "logical_decoding_work_mem=64kB"), "torture", gateway).setup()}
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
func (e *pgEngine) definitions() []string {
	return []string{
		`SET lock_timeout = '2s'; DROP TABLE IF EXISTS side; CREATE TABLE side (id int PRIMARY KEY, v text); INSERT INTO side VALUES (1, 'one')`,
		`SET lock_timeout = '2s'; BEGIN; ALTER TABLE side ADD w int DEFAULT 7; INSERT INTO side VALUES (2, 'two', 2); COMMIT`,
		`SET lock_timeout = '2s'; ALTER TABLE side DROP v; INSERT INTO side VALUES (3, 3)`,
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

func (e *pgEngine) target(n int) (string, func(string) [][]string) {
	e.t.Helper()
	db := fmt.Sprintf("restored_%d", n)
	url, err := e.pg.CreateDB(e.t.Context(), db)
	if err != nil {
		e.t.Fatal(err)
	}
	return url, func(sql string) [][]string { return e.pg.MustQuery(e.t, db, sql) }
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
