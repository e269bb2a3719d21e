package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"txreel/sources/mysql/mybase"
)

// A reader holds the definition of the table it reads, until the piece is read. A statement that wants to change
// the table waits for that, and everybody else who wants the table waits behind it. A table that is cut into pieces
// keeps them for a moment; one without a key to cut it by would keep them as long as it takes to read, and MariaDB
// keeps every table that was read for the rest of the base, unless the session may switch its logging off.
const (
	// waitersEvery is how often waiting sessions are looked for, and waitersPatience after how many looks that found
	// some the base gives way.
	waitersEvery    = time.Second
	waitersPatience = 3
	// giveWayRest is how long a base that gave way leaves the server alone before it starts over.
	giveWayRest = 3 * time.Second
)

// errGaveWay is matched by errors that say the base ended for the sake of others.
var errGaveWay = errors.New("the base gave way to a statement that waited for a table it was reading")

// givingWay runs a step of the base, and ends it when others wait for what it holds.
func (b *baseRun) givingWay(ctx context.Context, step func(context.Context) error) error {
	watcher, err := b.connect(ctx)
	if err != nil {
		return err
	}
	defer watcher.Close()
	running, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	watched := make(chan struct{})
	watching, stop := context.WithCancel(running)
	go func() { // joined below
		defer close(watched)
		if err := b.watchWaiters(watching, watcher); err != nil {
			abort(err)
		}
	}()
	err = step(running)
	stop()
	<-watched
	if cause := context.Cause(running); errors.Is(cause, errGaveWay) {
		return cause // whatever it broke
	}
	return err
}

// watchWaiters looks from time to time for sessions that wait for one of the readers. Where the server does not let
// us see them there is nothing to watch; the doctor says so.
func (b *baseRun) watchWaiters(ctx context.Context, c *Conn) error {
	seen := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(waitersEvery):
		}
		tables, err := b.waitedFor(ctx, c)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !isServer(err):
			return wrapSQL("look for sessions that wait for the base", err)
		case err != nil || len(tables) == 0:
			seen = 0
			continue
		}
		if seen++; seen < waitersPatience {
			continue
		}
		for _, r := range b.readers { // so that the server need not find out that nobody listens
			_ = c.Exec(ctx, "KILL "+r.id()) // it may have ended by itself
		}
		advice := "take it when no such statement comes, or give a large table a primary key that begins with a whole number, by which it is read in parts"
		if c.mariaDB() && !b.access.may("BINLOG ADMIN") && !b.access.may("SUPER") {
			advice = "take it when no such statement comes, or GRANT BINLOG ADMIN ON *.* TO " + b.access.user + ", with which a table is held only while it is read"
		}
		return fmt.Errorf("%w: %s; %s", errGaveWay, listed(tables), advice)
	}
}

// waitedFor returns the tables that readers hold and others wait for.
func (b *baseRun) waitedFor(ctx context.Context, c *Conn) ([]string, error) {
	ours := make([]string, 0, len(b.readers))
	for _, r := range b.readers {
		ours = append(ours, r.id())
	}
	if c.mariaDB() {
		return waitedForByName(ctx, c, ours, b.tables)
	}
	readers := "(" + strings.Join(ours, ", ") + ")"
	r, err := c.Query(ctx, `
		SELECT DISTINCT w.OBJECT_SCHEMA, w.OBJECT_NAME
		FROM performance_schema.metadata_locks w
		JOIN performance_schema.threads wt ON wt.THREAD_ID = w.OWNER_THREAD_ID AND COALESCE(wt.PROCESSLIST_ID, 0) NOT IN `+readers+`
		JOIN performance_schema.metadata_locks h ON h.OBJECT_TYPE = w.OBJECT_TYPE AND h.OBJECT_SCHEMA = w.OBJECT_SCHEMA AND h.OBJECT_NAME = w.OBJECT_NAME
		JOIN performance_schema.threads ht ON ht.THREAD_ID = h.OWNER_THREAD_ID AND ht.PROCESSLIST_ID IN `+readers+`
		WHERE w.OBJECT_TYPE = 'TABLE' AND w.LOCK_STATUS = 'PENDING' AND h.LOCK_STATUS = 'GRANTED'`)
	if err != nil {
		return nil, err
	}
	var tables []string
	for _, row := range r.Rows {
		tables = append(tables, mybase.Quote(row[0].String(), row[1].String()))
	}
	if len(tables) > 0 {
		return tables, nil
	}
	// FLUSH TABLES, with or without a lock, waits for statements and not for definitions.
	r, err = c.Query(ctx, "SELECT 1 FROM performance_schema.threads WHERE PROCESSLIST_STATE = 'Waiting for table flush' LIMIT 1")
	if err == nil && len(r.Rows) > 0 {
		tables = append(tables, "FLUSH TABLES")
	}
	return tables, err
}

// waitedForByName does the same where the server shows who waits, and not for what: a session counts that waits and
// names a table of the base.
func waitedForByName(ctx context.Context, c *Conn, ours []string, all []*baseTable) ([]string, error) {
	r, err := c.Query(ctx, "SELECT STATE, INFO FROM information_schema.PROCESSLIST WHERE ID NOT IN ("+strings.Join(ours, ", ")+
		") AND STATE IN ('Waiting for table metadata lock', 'Waiting for table flush')")
	if err != nil {
		return nil, err
	}
	var tables []string
	for _, row := range r.Rows {
		if row[0].String() == "Waiting for table flush" {
			tables = append(tables, "FLUSH TABLES")
			continue
		}
		text := strings.ToLower(row[1].String())
		for _, t := range all {
			if (row[1].Null() || strings.Contains(text, strings.ToLower(t.name))) && !slices.Contains(tables, t.quoted()) {
				tables = append(tables, t.quoted())
			}
		}
	}
	return tables, nil
}
