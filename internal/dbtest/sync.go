package dbtest

import (
	"context"
	"strconv"
	"time"
)

// AwaitSync returns once a commit waits for standbys after synchronous_standby_names was set to one that is not there: that sessions know the setting does not make
// them wait, but that the server's checkpointer has taken it up.
func (p *Postgres) AwaitSync(ctx context.Context, db string) error {
	for {
		waits, err := p.commitWaits(ctx, db)
		if waits || err != nil {
			return err
		}
	}
}

// commitWaits commits a transaction that writes to the log and changes nothing, and reports whether that waits.
func (p *Postgres) commitWaits(ctx context.Context, db string) (waits bool, err error) {
	conn, err := p.Conn(ctx, db)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	pid := strconv.Itoa(int(conn.PgConn().PID()))
	done := make(chan error, 1)
	go func() { // joined below
		_, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(true, 'dbtest', '')")
		done <- err
	}()
	for {
		select {
		case err := <-done:
			return waits, err
		case <-time.After(20 * time.Millisecond):
		}
		rows, err := p.Query(ctx, db, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid = "+pid)
		if err != nil {
			return false, err
		}
		waits = waits || len(rows) > 0
	}
}
