package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"txreel/capture"
)

// guard is a session in which the server itself looks after a capture's Commits. A capture that is killed, stopped or cut
// off cannot let the COMMITs go that wait for it, and nothing that PostgreSQL offers ends such a wait by itself: no
// timeout applies to it. So the statement that looks is sent together with those that let them go, which run as soon
// as it returns, from what the server has received already, whoever is there by then to hear of it.
//
// Nothing may be sent in between: a server that learns that its client is gone ends the session. Hence one Sync, behind
// the last statement, and no warnings. The first statement commits all the time, so that it holds back no cleaning up.
type guard struct {
	conn   *pgconn.HijackedConn // pgconn would cancel the statement with the connection
	joined sync.WaitGroup
	ended  chan struct{}
	err    error // read after ended
}

// guardName is what sessions call themselves that guard.
const guardName = "txreel guard"

// watchedName is what the sessions of Commits are called that a guard looks after.
func watchedName(slot string) string {
	name := "txreel sync " + slot
	return name[:min(len(name), 63)] // as the server would cut it
}

// guardSQL looks at a session every so often, by what is known of its last statement. It returns when the session has
// not done anything for too long and no other one of the same name has, and earlier when a COMMIT might wait for too long. It fails
// when another session has taken over. Time that has passed is added up in small pieces: the server's clock may jump.
const guardSQL = `DO $guard$
DECLARE
	step CONSTANT float8 := %[1]f;
	done text; was text := ''; silent float8 := 0; at timestamptz := pg_catalog.clock_timestamp(); before timestamptz; others bool;
BEGIN
	LOOP
		PERFORM pg_catalog.pg_sleep(step);
		before := at;
		at := pg_catalog.clock_timestamp();
		SELECT a.state_change::text INTO done FROM pg_catalog.pg_stat_activity a WHERE a.pid = %[2]d AND a.backend_start::text = %[3]s;
		IF done <> was THEN
			was := done;
			silent := 0;
		ELSE
			SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.application_name = %[4]s
				AND NOT (a.pid = %[2]d AND a.backend_start::text = %[3]s) AND a.state_change > at - %[6]f * interval '1 second') INTO others;
			IF others AND done IS NULL THEN
				RAISE EXCEPTION 'relieved';
			END IF;
			silent := CASE WHEN others THEN 0 ELSE silent + least(greatest(extract(epoch FROM at - before), 0), 4 * step) END;
			EXIT WHEN silent >= %[5]f OR silent >= %[6]f AND EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
				WHERE a.wait_event = 'SyncRep' AND a.query_start < at - %[5]f * interval '1 second');
		END IF;
		COMMIT;
	END LOOP;
END $guard$`

// guardLimit is how long a guard may take to begin.
const guardLimit = 10 * time.Second

// Guard lets the server itself let COMMITs go when this session falls silent, before they have waited for longer than
// timeout: Waiting must be called all the time from now on, and fails once there is no guard any more. Close leaves the guard where it
// is, until Dismiss or until it sees another session under guard.
func (c *Commits) Guard(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, guardLimit, fmt.Errorf("the server did not begin to guard COMMIT within %s", guardLimit))
	defer cancel()
	var start string
	if _, err := c.conn.Exec(ctx, "SET application_name = "+quoteLiteral(watchedName(c.slot))); err != nil {
		return wrapSQL("name the session", err)
	}
	err := c.conn.QueryRow(ctx, `SELECT backend_start::text FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()`).Scan(&start)
	if err != nil {
		return wrapSQL("look at the session", err)
	}
	cfg, err := connConfig(c.url, guardName, false)
	if err != nil {
		return err
	}
	cfg.RuntimeParams["client_min_messages"] = "error"
	cfg.RuntimeParams["client_connection_check_interval"] = "0"
	conn, err := dial(ctx, cfg)
	if err != nil {
		return err
	}
	g := &guard{ended: make(chan struct{})}
	if g.conn, err = conn.Hijack(); err != nil {
		return err
	}
	step := LookEvery(timeout)
	limit := timeout - 3*step // what letting go takes is part of the wait
	for _, sql := range []string{
		fmt.Sprintf(guardSQL, step.Seconds(), c.conn.PgConn().PID(), quoteLiteral(start), quoteLiteral(watchedName(c.slot)), limit.Seconds(), (limit / 4).Seconds()),
		"COMMIT", // what comes next must be the first statement of its transaction
		"ALTER SYSTEM SET synchronous_standby_names = ''",
		"SELECT pg_catalog.pg_reload_conf()",
	} {
		g.conn.Frontend.SendParse(&pgproto3.Parse{Query: sql})
		g.conn.Frontend.SendBind(&pgproto3.Bind{})
		g.conn.Frontend.SendExecute(&pgproto3.Execute{})
	}
	g.conn.Frontend.SendSync(&pgproto3.Sync{})
	if err := g.conn.Frontend.Flush(); err != nil {
		_ = g.conn.Conn.Close()
		return wrapSQL("guard COMMIT", err)
	}
	g.joined.Go(g.read) // joined by close
	if err := c.begun(ctx, g); err != nil {
		g.close()
		return fmt.Errorf("guard COMMIT: %w", err)
	}
	c.guard = g
	return nil
}

// begun waits until the server is looking.
func (c *Commits) begun(ctx context.Context, g *guard) error {
	for {
		var looks bool
		err := c.conn.QueryRow(ctx, `SELECT wait_event IS NOT DISTINCT FROM 'PgSleep' FROM pg_catalog.pg_stat_activity WHERE pid = $1`,
			int32(g.conn.PID)).Scan(&looks)
		if err != nil {
			return err
		}
		if looks {
			return nil
		}
		select {
		case <-g.ended:
			return g.err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// LookEvery is how often those look that see to it that no COMMIT waits for longer than timeout.
func LookEvery(timeout time.Duration) time.Duration {
	return min(max(timeout/20, 10*time.Millisecond), 250*time.Millisecond)
}

// Dismiss ends the guard: nobody has COMMITs wait any more.
func (c *Commits) Dismiss(ctx context.Context) error {
	if c.guard == nil {
		return nil
	}
	conn, err := Connect(ctx, c.url) // the other one may have been asked something when its caller was told to stop
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, `SELECT pg_catalog.pg_cancel_backend($1)`, int32(c.guard.conn.PID)); err != nil {
		return wrapSQL("dismiss the guard", err)
	}
	select {
	case <-c.guard.ended:
	case <-ctx.Done(): // should it go on, it has nothing to let go
	}
	return nil
}

// guarded returns why there is no guard any more.
func (c *Commits) guarded() error {
	if c.guard == nil {
		return nil
	}
	select {
	case <-c.guard.ended:
		return fmt.Errorf("the server does not guard COMMIT any more: %w", c.guard.err)
	default:
		return nil
	}
}

// read waits for the end of the statements.
func (g *guard) read() {
	defer close(g.ended)
	for {
		msg, err := g.conn.Frontend.Receive()
		if err != nil {
			g.err = fmt.Errorf("%w: %w", capture.ErrUnreachable, err)
			return
		}
		switch m := msg.(type) {
		case *pgproto3.ErrorResponse:
			g.err = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			if g.err == nil {
				g.err = errors.New("it let COMMITs go, because this capture seemed to be gone")
			}
			return
		}
	}
}

// close leaves the server's half alone: what it has received it does.
func (g *guard) close() {
	_ = g.conn.Conn.Close() // frees the reader
	g.joined.Wait()
}
