// Package postgres restores into a PostgreSQL database: it loads a base, replays
// raw pgoutput messages transaction by transaction, and builds indexes and
// constraints. What it has done is on record in the target, in schema txreel_restore, in
// the same transactions as the data, until the restore is over.
package postgres

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"txreel/change"
	"txreel/restore"
	"txreel/sources/postgres/pgbase"
)

// Options are how a Target restores. The zero value restores everything.
type Options struct {
	// PgRestore is the pg_restore to read the schema with; "" means the newest of
	// /usr/lib/postgresql/*/bin, else the one on PATH.
	PgRestore string
	// NoOwner leaves out owners and grants: everything belongs to the connecting role.
	NoOwner bool
	// Globals makes roles, memberships and settings, and the properties of the database, as they are on record.
	Globals bool
	// Exact replays every transaction by itself. Without it what many transactions have made of a row is written once.
	Exact bool
	// Memory is how many bytes folding may take, about; zero means 1 GiB.
	Memory int64
	// MergeFrom is how many changes of rows between two changes of definitions are reduced to what they come to, instead of being replayed
	// one by one; zero means restore.MergeFrom.
	MergeFrom uint64
	// TempDir is where the schema waits to be read; "" is the system's temporary folder.
	TempDir string
}

// Target is a PostgreSQL database being restored into. It is restore.Target, and
// not for concurrent use.
type Target struct {
	cfg     *pgx.ConnConfig
	opts    Options
	control *pgx.Conn // for everything that is not bulk; holds the lock

	job      *restore.Job
	engine   pgbase.Engine
	tables   []table         // of the base, without our own
	chosen   map[uint32]bool // OIDs of tables of the base that a partial restore restores
	others   map[uint32]bool // OIDs of tables of the base that are not restored
	aside    []string        // tables, quoted, that are there without rows since others are made of them
	gone     map[string]bool // parts of restored tables that are left out, by partName
	schema   *script
	roles    []string // missing in the target, to be created
	resumed  bool
	applied  change.Seq // committed in the target
	folded   change.Seq // up to where the load holds the record too; zero when that was replayed
	warnings []string

	sequences *restore.Sequences // set by Finish
	globals   *globals           // nil unless they are asked for

	replay *replay // nil before Prepare

	grammar sync.WaitGroup // makes the grammar ready beside the load; joined when it is needed, or by Close
}

var _ restore.Target = (*Target)(nil)

// Open connects to the target. It writes nothing. The caller closes the Target.
func Open(ctx context.Context, url string, opts Options) (*Target, error) {
	cfg, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	t := &Target{cfg: cfg, opts: opts}
	t.control, err = t.connect(ctx, controlApp, nil)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Close ends the sessions. What a restore has committed stays.
func (t *Target) Close() {
	t.grammar.Wait()
	if t.replay != nil {
		t.replay.close()
	}
	hangUp(t.control)
}

// Applied implements restore.Target.
func (t *Target) Applied() change.Seq { return t.applied }

func (t *Target) warn(format string, args ...any) {
	t.warnings = append(t.warnings, fmt.Sprintf(format, args...))
}

// parallel calls do for each number below n, on as many sessions as the job allows.
func (t *Target) parallel(ctx context.Context, n int, do func(ctx context.Context, conn *pgx.Conn, i int) error) error {
	if n == 0 {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	next := 0
	take := func() int {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1
	}
	for range min(n, t.job.Workers) {
		g.Go(func() error {
			conn, err := t.worker(ctx)
			if err != nil {
				return err
			}
			defer hangUp(conn)
			for i := take(); i < n; i = take() {
				if err := do(ctx, conn, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// inTx runs do in a transaction of its own.
func inTx(ctx context.Context, conn *pgx.Conn, do func() error) error {
	return pgx.BeginFunc(ctx, conn, func(pgx.Tx) error { return do() })
}

// run sends statements one after another on a session, with the server's own
// parser deciding where they end.
func run(ctx context.Context, conn *pgx.Conn, sql string) error {
	_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}
