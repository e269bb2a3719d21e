package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"txreel/change"
	"txreel/sources/postgres/lsn"
)

// Commits decides whether COMMIT on a server waits for a capture, which acts as a synchronous standby
// (server documentation, 27.2.8 Synchronous Replication). It owns the server's synchronous_standby_names, and
// a session of its own. One goroutine at a time.
type Commits struct {
	url  string
	slot string // what the capture's walsender is called, too
	conn *pgx.Conn
	seen map[waiter]time.Time // when a COMMIT was first seen waiting

	guard *guard // nil without Guard
}

// waiter is a session that waits, and since when it runs the statement that does.
type waiter struct {
	pid   int32
	start string
}

// OpenCommits checks that the role of the URL may have COMMIT wait for the capture of a slot, and not.
func OpenCommits(ctx context.Context, url, slot string) (*Commits, error) {
	conn, err := Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	c := &Commits{url: url, slot: slot, conn: conn}
	if err := c.allowed(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the session. What the server was told stays.
func (c *Commits) Close() {
	if c.guard != nil {
		c.guard.close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx) // the server notices in any case
}

func (c *Commits) allowed(ctx context.Context) error {
	var role string
	if err := c.conn.QueryRow(ctx, `SELECT current_user`).Scan(&role); err != nil {
		return wrapSQL("look at the role", err)
	}
	f, err := readSync(ctx, c.conn, role, c.slot)
	if err != nil {
		return err
	}
	if why := f.refused(c.slot); why != "" {
		return errors.New(why)
	}
	lacks := f.lacks(role)
	switch {
	case len(lacks) == 0:
		return nil
	case lacks[0].fix == "":
		return errors.New(lacks[0].what)
	}
	return fmt.Errorf("%s: %s", lacks[0].what, lacks[0].fix)
}

func (c *Commits) names() string { return quoteIdent(c.slot) }

// Waiting returns for how long a COMMIT has been waiting, the one that has for longest, as far as
// calls of Waiting have seen it.
func (c *Commits) Waiting(ctx context.Context) (time.Duration, error) {
	if err := c.guarded(); err != nil {
		return 0, err
	}
	now := time.Now()
	rows, err := c.conn.Query(ctx, `SELECT pid, query_start::text FROM pg_catalog.pg_stat_activity WHERE wait_event = 'SyncRep'`)
	if err != nil {
		return 0, wrapSQL("look for commits that wait", err)
	}
	var longest time.Duration
	seen := make(map[waiter]time.Time)
	var w waiter
	_, err = pgx.ForEachRow(rows, []any{&w.pid, &w.start}, func() error {
		since, ok := c.seen[w]
		if !ok {
			since = now
		}
		seen[w] = since
		longest = max(longest, now.Sub(since))
		return nil
	})
	if err != nil {
		return 0, wrapSQL("look for commits that wait", err)
	}
	c.seen = seen
	return longest, nil
}

// Expose lets COMMIT return without waiting, and those that wait now.
func (c *Commits) Expose(ctx context.Context) error { return c.set(ctx, "") }

// Waits reports whether the server is still told to have COMMIT wait.
func (c *Commits) Waits(ctx context.Context) (bool, error) {
	var names string
	err := c.conn.QueryRow(ctx, `SELECT pg_catalog.current_setting('synchronous_standby_names')`).Scan(&names)
	return names == c.names(), wrapSQL("look at the server's synchronous replication", err)
}

func (c *Commits) set(ctx context.Context, names string) error {
	if _, err := c.conn.Exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = "+quoteLiteral(names)); err != nil {
		return wrapSQL("set synchronous_standby_names", err)
	}
	var ok bool
	err := c.conn.QueryRow(ctx, `SELECT pg_catalog.pg_reload_conf()`).Scan(&ok)
	if err == nil && !ok {
		err = errors.New("the server could not tell its processes")
	}
	return wrapSQL("make synchronous_standby_names count", err)
}

// probeLimit is how long the server may take to make a commit wait, after it was told to. A checkpointer
// that is busy takes notice between two files.
const probeLimit = 10 * time.Second

// Protect makes COMMIT on the server wait until its transaction was acknowledged, and returns a position: what
// commits behind it waits. It is one goroutine's with Expose and Exposed.
//
// That the server was told is no proof: its processes take notice one after the other. So a commit
// of our own must be seen waiting, for an acknowledgement that is held back meanwhile.
func (s *Source) Protect(ctx context.Context) (at change.Position, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, probeLimit, fmt.Errorf("no commit was seen waiting within %s", probeLimit))
	defer cancel()
	probe, err := Connect(ctx, s.opts.URL)
	if err != nil {
		return "", err
	}
	defer probe.Close(context.WithoutCancel(ctx))
	if _, err := probe.Exec(ctx, "SET synchronous_commit = on"); err != nil {
		return "", wrapSQL("prepare a commit that waits", err)
	}
	if err := s.commits.set(ctx, s.commits.names()); err != nil {
		return "", err
	}
	for {
		at, err := s.probe(ctx, probe)
		if err != nil || at != "" {
			return at, err
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// probe commits something, and returns where the log is once that has been seen waiting; "" if it did not wait.
func (s *Source) probe(ctx context.Context, conn *pgx.Conn) (change.Position, error) {
	from, err := readFence(ctx, s.commits.conn)
	if err != nil {
		return "", err
	}
	s.hold.Store(uint64(from.at))
	var committed sync.WaitGroup
	done := make(chan error, 1)
	committed.Go(func() { // joined below: released, it returns
		_, err := conn.Exec(ctx, `SELECT pg_catalog.pg_logical_emit_message(true, 'txreel.sync', '')`)
		done <- err
	})
	defer committed.Wait()
	defer func() {
		s.hold.Store(0)
		select {
		case s.nudge <- struct{}{}:
		default:
		}
	}()
	for {
		select {
		case err := <-done:
			return "", wrapSQL("commit something that waits", err)
		case <-time.After(time.Millisecond):
		}
		var waits bool
		err := s.commits.conn.QueryRow(ctx, `SELECT wait_event IS NOT DISTINCT FROM 'SyncRep' FROM pg_catalog.pg_stat_activity WHERE pid = $1`,
			int32(conn.PgConn().PID())).Scan(&waits)
		if err != nil {
			return "", wrapSQL("look at a commit that waits", err)
		}
		if waits { // and so does, since before now, every other one
			end, err := readFence(ctx, s.commits.conn)
			if err != nil {
				return "", err
			}
			return end.at.Position(), nil
		}
	}
}

// Expose lets COMMIT return without waiting, and those that wait now.
func (s *Source) Expose(ctx context.Context) error { return s.commits.Expose(ctx) }

// Exposed says why COMMIT may have returned without waiting since Protect, or "".
func (s *Source) Exposed(ctx context.Context) (string, error) {
	waits, err := s.commits.Waits(ctx)
	if err != nil || waits {
		return "", err
	}
	return "synchronous_standby_names was emptied, by the breaker or by hand", nil
}

// Holds reports whether a record that ends at end holds all that was committed up to position.
func (s *Source) Holds(end, position change.Position) (bool, error) {
	e, err := lsn.FromPosition(end)
	if err != nil {
		return false, err
	}
	p, err := lsn.FromPosition(position)
	return e >= p, err
}
