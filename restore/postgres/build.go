package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/internal/failpoint"
	"txreel/restore"
)

// doneEntries returns the post-data entries that are in place.
func (t *Target) doneEntries(ctx context.Context) (map[int]bool, error) {
	names, err := t.doneNames(ctx, "SELECT id::text FROM txreel_restore.entries")
	if err != nil {
		return nil, err
	}
	done := make(map[int]bool, len(names))
	for n := range names {
		done[number(n)] = true
	}
	return done, nil
}

// build makes post-data entries in parallel, as far as they do not wait for one
// another: it goes in waves, each made of the entries whose needs are met. wanted says
// which; what those need is made with them. done is kept up to date.
func (t *Target) build(ctx context.Context, phase restore.Phase, done map[int]bool, wanted func(*entry) bool) error {
	byID := make(map[int]*entry, len(t.schema.post))
	for _, e := range t.schema.post {
		byID[e.id] = e
	}
	need := make(map[int]bool)
	var mark func(e *entry)
	mark = func(e *entry) {
		if need[e.id] {
			return
		}
		need[e.id] = true
		for _, d := range e.deps {
			if p := byID[d]; p != nil {
				mark(p)
			}
		}
	}
	for _, e := range t.schema.post {
		if wanted(e) {
			mark(e)
		}
	}
	total := int64(len(need))
	var made atomic.Int64
	for id := range need {
		if done[id] {
			made.Add(1)
			delete(need, id)
		}
	}
	for len(need) > 0 {
		var wave []*entry
		for _, e := range t.schema.post { // in the dump's own order
			ready := need[e.id]
			for _, d := range e.deps {
				ready = ready && (byID[d] == nil || done[d] || d == e.id)
			}
			if ready {
				wave = append(wave, e)
			}
		}
		if len(wave) == 0 {
			return fmt.Errorf("the schema's objects need one another in a circle: %d are left", len(need))
		}
		err := t.parallel(ctx, len(wave), func(ctx context.Context, conn *pgx.Conn, i int) error {
			if err := t.buildOne(ctx, conn, wave[i]); err != nil {
				return err
			}
			t.job.Progress(phase, made.Add(1), total, "objects")
			return nil
		})
		if err != nil {
			return err
		}
		for _, e := range wave {
			done[e.id] = true
			delete(need, e.id)
		}
	}
	return nil
}

// buildOne makes an entry and notes it in the same transaction. Two that lock the same
// tables in another order may meet: the server ends one, which tries again.
func (t *Target) buildOne(ctx context.Context, conn *pgx.Conn, e *entry) error {
	const deadlock, tries = "40P01", 10
	for i := 1; ; i++ {
		err := inTx(ctx, conn, func() error {
			if _, err := conn.Exec(ctx, "INSERT INTO txreel_restore.entries VALUES ($1)", e.id); err != nil {
				return err
			}
			err := run(ctx, conn, t.schema.preamble+e.sql)
			failpoint.Hit(failpoint.RestoreObjectMade)
			return err
		})
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == deadlock && i < tries {
			continue
		}
		if err != nil {
			return fmt.Errorf("create %s %s: %w", strings.ToLower(e.kind), e.name, err)
		}
		failpoint.Hit(failpoint.RestoreObjectCommitted)
		return nil
	}
}

// Finish implements restore.Target.
func (t *Target) Finish(ctx context.Context) (err error) {
	defer t.lost(&err)
	if t.replay != nil {
		t.replay.close()
		t.replay = nil
	}
	if err := inTx(ctx, t.control, func() error { return t.dropHelpers(ctx, t.control) }); err != nil {
		return err
	}
	if err := inTx(ctx, t.control, func() error { return errors.Join(closeIdentities(ctx, t.control), closeTriggers(ctx, t.control)) }); err != nil {
		return err
	}
	if len(t.job.Plan.Definitions) > 0 {
		if err := t.relist(ctx); err != nil {
			return err
		}
	}
	done, err := t.doneEntries(ctx)
	if err != nil {
		return err
	}
	// Indexes and the constraints that stand on them first and side by side; then the
	// rest, in the dump's order.
	err = t.build(ctx, restore.PhaseFinish, done, func(e *entry) bool {
		return e.kind == "INDEX" || e.class == catalogConstraint && e.kind == "CONSTRAINT"
	})
	if err != nil {
		return err
	}
	for i, e := range t.schema.post {
		if done[e.id] {
			continue
		}
		if err := t.withWorker(ctx, func(conn *pgx.Conn) error { return t.buildOne(ctx, conn, e) }); err != nil {
			return err
		}
		t.job.Progress(restore.PhaseFinish, int64(i+1), int64(len(t.schema.post)), "objects")
	}
	if err := t.refresh(ctx); err != nil {
		return err
	}
	failpoint.Hit(failpoint.RestoreSequences)
	if err := t.setSequences(ctx); err != nil {
		return err
	}
	return t.parallel(ctx, len(t.tables), func(ctx context.Context, conn *pgx.Conn, i int) error {
		if err := run(ctx, conn, "ANALYZE "+t.tables[i].quoted()); err != nil {
			return fmt.Errorf("analyze %s: %w", t.tables[i].name(), err)
		}
		t.job.Progress(restore.PhaseFinish, int64(i+1), int64(len(t.tables)), "tables analyzed")
		return nil
	})
}

func (t *Target) withWorker(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := t.worker(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	return do(conn)
}

// refresh fills the materialized views that were filled in the source. One that reads
// another is refused until that one is filled, so it takes as many rounds as they are
// deep. One that cannot be filled is a warning: it holds nothing of its own.
func (t *Target) refresh(ctx context.Context) error {
	left := t.engine.MatViews
	for len(left) > 0 {
		var again = left[:0:0]
		var last error
		for _, v := range left {
			name := quote(v.Schema, v.Name)
			var filled bool
			err := t.control.QueryRow(ctx, "SELECT relispopulated FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)", name).Scan(&filled)
			if errors.Is(err, pgx.ErrNoRows) {
				t.warn("materialized view %s is not there to be filled", name)
				continue
			}
			if err != nil {
				return fmt.Errorf("look at materialized view %s: %w", name, err)
			}
			if filled {
				continue
			}
			err = run(ctx, t.control, "REFRESH MATERIALIZED VIEW "+name)
			var refused *pgconn.PgError
			switch {
			case err == nil:
			case errors.As(err, &refused):
				again, last = append(again, v), fmt.Errorf("%s: %w", name, err)
			default:
				return fmt.Errorf("refresh materialized view %s: %w", name, err)
			}
		}
		if len(again) == len(left) {
			for _, v := range again {
				t.warn("materialized view %s could not be filled: %v; run REFRESH MATERIALIZED VIEW %s", v.Schema+"."+v.Name, last, quote(v.Schema, v.Name))
			}
			return nil
		}
		left = again
	}
	return nil
}
