package postgres

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"txreel/internal/dbtest"
)

// TestGuard has COMMITs wait for captures that never come, and lets who should let them go fall silent in one way after
// another.
func TestGuard(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "guarded")
	const limit = 3 * time.Second // much more than what looks takes on a busy machine
	armed := func(t *testing.T, limit time.Duration) *Commits {
		t.Helper()
		c, err := OpenCommits(t.Context(), s.url(), "nobody")
		if err == nil {
			t.Cleanup(c.Close)
			err = c.Guard(t.Context(), limit)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	look := func(t *testing.T, c *Commits) (stop func()) {
		done, ended := make(chan struct{}), make(chan struct{})
		go func() { // joined by stop
			defer close(ended)
			for {
				if _, err := c.Waiting(t.Context()); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-done:
					return
				case <-time.After(LookEvery(limit)):
				}
			}
		}()
		return func() { close(done); <-ended }
	}
	waits := func(c *Commits) bool {
		names := s.one(`SELECT current_setting('synchronous_standby_names')`)
		return names == c.names()
	}
	guards := func() string {
		return s.one(`SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND application_name = '` + guardName + `'`)
	}
	// commit reports whether a COMMIT that waits is let go, with nobody looking.
	commit := func(t *testing.T, c *Commits) {
		t.Helper()
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := pg.Exec(ctx, s.db, `INSERT INTO t (v) VALUES (1)`); err != nil {
			t.Fatal(err)
		}
		t.Logf("COMMIT took %v, it may %v", time.Since(begun), limit)
		if waits(c) {
			t.Error("the setting was not emptied")
		}
		eventually(t, "the guard to be gone", func() bool { return guards() == "0" })
	}
	set := func(t *testing.T, c *Commits) {
		t.Helper()
		pg.MustExec(t, s.db, `ALTER SYSTEM SET synchronous_standby_names = `+quoteLiteral(c.names()))
		pg.MustExec(t, s.db, `SELECT pg_reload_conf()`)
		eventually(t, "the setting", func() bool { return waits(c) })
	}
	// drop ends a session's two connections as the end of its process does; hard with a reset.
	drop := func(c *Commits, hard bool) {
		for _, conn := range []net.Conn{c.conn.PgConn().Conn(), c.guard.conn.Conn} {
			if tcp, ok := conn.(*net.TCPConn); ok && hard {
				_ = tcp.SetLinger(0)
			}
			conn.Close()
		}
	}

	t.Run("silent", func(t *testing.T) {
		c := armed(t, limit)
		stop := look(t, c)
		set(t, c)
		time.Sleep(limit)
		begun := func() string {
			return s.one(`SELECT xact_start FROM pg_stat_activity WHERE state = 'active' AND application_name = '` + guardName + `'`)
		}
		was := begun()
		eventually(t, "a guard that holds back no cleaning up of deleted rows", func() bool { return begun() != was })
		if !waits(c) {
			t.Fatal("COMMITs were let go although somebody looks")
		}
		stop()
		commit(t, c)
		eventually(t, "the session to hear of it", func() bool {
			_, err := c.Waiting(t.Context())
			return err != nil && strings.Contains(err.Error(), "seemed to be gone")
		})
	})
	for _, hard := range []bool{false, true} {
		t.Run("ended", func(t *testing.T) {
			c := armed(t, limit)
			stop := look(t, c)
			set(t, c)
			stop()
			drop(c, hard)
			commit(t, c)
		})
	}
	t.Run("relieved", func(t *testing.T) {
		first, second := armed(t, limit), armed(t, limit)
		stop := look(t, second)
		set(t, first)
		drop(first, true)
		eventually(t, "the first guard to go", func() bool { return guards() == "1" })
		time.Sleep(limit / 2)
		if !waits(second) {
			t.Error("COMMITs were let go although another session looks")
		}
		stop()
		commit(t, second)
	})
	t.Run("dismissed", func(t *testing.T) {
		c := armed(t, time.Minute) // nobody looks
		set(t, c)
		if err := c.Dismiss(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the guard to be gone", func() bool { return guards() == "0" })
		if !waits(c) {
			t.Error("a guard that was dismissed let COMMITs go")
		}
		if err := c.Expose(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
