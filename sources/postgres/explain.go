package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/capture"
)

// wrapSQL names what was being done in an error of an established session, and
// tells a server that goes away from one that refuses.
func wrapSQL(doing string, err error) error {
	if err == nil {
		return nil
	}
	if goesAway(err) {
		return fmt.Errorf("%s: %w: %w", doing, capture.ErrUnreachable, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// goesAway reports whether err means that the connection is gone or will be, and
// not that a statement was refused.
func goesAway(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch pgErr.Code {
		case "57P01", "57P02", "57P03", "57P05": // shutdown, crash, cannot connect now, idle timeout
			return true
		}
		return false
	}
	var scan pgx.ScanArgError
	if errors.Is(err, pgx.ErrNoRows) || errors.As(err, &scan) {
		return false // an answer, if not the expected one
	}
	return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// walFile finds the name of a log file in a message of any language.
var walFile = regexp.MustCompile(`\b[0-9A-F]{24}\b`)

// explainStream turns an error of the replication connection into one that says
// what it means for the record.
func explainStream(err error) error {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return wrapSQL("stream from the source", err)
	}
	switch pgErr.Code {
	case "42704": // undefined_object
		return fmt.Errorf("%w: the source cannot decode what came before its publication existed (%s): run `txreel setup --remove` and `txreel setup --apply`, then capture with --new-epoch", capture.ErrGap, pgErr.Message)
	case "55000": // object_not_in_prerequisite_state
		return fmt.Errorf("%w: the source cannot read the slot any more (%s): run capture with --new-epoch to go on behind the gap", capture.ErrGap, pgErr.Message)
	case "58P01": // undefined_file: the log, or something that may come back, such as a library
		if !walFile.MatchString(pgErr.Message) {
			break
		}
		return fmt.Errorf("%w: the source has removed log that was not recorded (%s): run capture with --new-epoch to go on behind the gap", capture.ErrGap, pgErr.Message)
	}
	if tooLong(pgErr) {
		return fmt.Errorf("%w: the source cannot send a value, or a row, that is more than 1 GB as text (%s), and nothing behind it: a bytea of 512 MB is. Make it smaller, or the next base is refused too; then drop the slot (SELECT pg_drop_replication_slot(…)), and run capture with --new-epoch to go on behind the gap", capture.ErrGap, pgErr.Message)
	}
	return wrapSQL("stream from the source", err)
}

// tooLong reports whether the server failed to make a text of more than 1 GB, which is the most it allocates at once. The
// first message is an internal error's, which no server translates.
func tooLong(err *pgconn.PgError) bool {
	return err.Code == "XX000" && strings.HasPrefix(err.Message, "invalid memory alloc request size") || err.Code == "54000"
}

// explainCopy says of which table no text could be had.
func explainCopy(table string, err error) error {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && tooLong(pgErr) {
		return fmt.Errorf("table %s has a value, or a row, that is more than 1 GB as text (%s), which the source cannot send: a bytea of 512 MB is. Make it smaller, or keep it as a large object", table, pgErr.Message)
	}
	return wrapSQL("copy table "+table, err)
}

// explainSlot says what stands in the way of a new slot; blocker is what readBlocker found.
func explainSlot(name string, err error, blocker string) error {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch pgErr.Code {
		case "55P03": // lock_not_available
			if blocker != "" {
				return fmt.Errorf("create slot %q: a write transaction is still running: %s, and try again; a longer --lock-timeout waits for it", name, blocker)
			}
			return fmt.Errorf("create slot %q: a write transaction is still running, or prepared and forgotten: look at pg_stat_activity (backend_xid is not null) and pg_prepared_xacts, end it, and try again", name)
		case "53400": // configuration_limit_exceeded
			return fmt.Errorf("create slot %q: no slot is free: ALTER SYSTEM SET max_replication_slots to a larger value and restart the server", name)
		case "42501":
			return fmt.Errorf("create slot %q: the role may not replicate: ALTER ROLE … REPLICATION (`txreel setup` prints it)", name)
		case "55000":
			return fmt.Errorf("create slot %q: %s: ALTER SYSTEM SET wal_level = logical and restart the server", name, pgErr.Message)
		case "42710":
			return fmt.Errorf("create slot %q: it exists already", name)
		}
	}
	return wrapSQL(fmt.Sprintf("create slot %q", name), err)
}

// closeConn ends a connection politely, within a second.
func closeConn(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}
