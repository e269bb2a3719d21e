package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/sources"
)

const (
	lockAttempts = 15                     // of lock_timeout each
	lockPause    = 500 * time.Millisecond // lets the sessions that queued behind us through
	planRounds   = 3                      // tables may appear while we work
)

// Apply plans and runs the statements one by one, and calls report, unless nil, after each attempt: with an error
// when a table could not be locked in time and will be tried again. The publication is made only after every table
// has its identity. When Apply fails, what was done stays and is recorded, and applying again goes on from there.
func (s Setup) Apply(ctx context.Context, conn *pgx.Conn, report func(sources.Statement, error)) error {
	for range planRounds {
		plan, err := s.Plan(ctx, conn)
		if err != nil || len(plan) == 0 {
			return err
		}
		if err := execute(ctx, conn, plan, report); err != nil {
			return err
		}
	}
	plan, err := s.Plan(ctx, conn)
	if err == nil && len(plan) > 0 {
		err = fmt.Errorf("%d statements are still missing, the next being %s: something else changes these tables meanwhile; run setup again", len(plan), plan[0].SQL)
	}
	return err
}

// execute runs statements in order and stops at the first that fails.
func execute(ctx context.Context, conn *pgx.Conn, plan []sources.Statement, report func(sources.Statement, error)) error {
	// Best effort: a connection that cannot be reset is of no further use to its owner either.
	defer func() { _, _ = conn.Exec(context.WithoutCancel(ctx), "RESET lock_timeout") }()
	for _, st := range plan {
		if err := executeOne(ctx, conn, st, report); err != nil {
			return fmt.Errorf("run %s: %w", st.SQL, err)
		}
	}
	return nil
}

func executeOne(ctx context.Context, conn *pgx.Conn, st sources.Statement, report func(sources.Statement, error)) error {
	for attempt := 1; ; attempt++ {
		var err error
		if st.SQL != "" {
			_, err = conn.Exec(ctx, st.SQL)
		}
		if report != nil {
			report(st, err)
		}
		if err == nil {
			return nil
		}
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || (pgErr.Code != "55P03" && pgErr.Code != "40P01") { // lock_not_available, deadlock_detected
			return err
		}
		if attempt == lockAttempts {
			return fmt.Errorf("the table stayed locked through %d attempts: end the long transaction that holds it, then run setup again: %w", attempt, err)
		}
		pause := time.NewTimer(lockPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return context.Cause(ctx)
		case <-pause.C:
		}
	}
}
