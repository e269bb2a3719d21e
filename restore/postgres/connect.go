package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/restore"
	"txreel/sources/postgres/pgtext"
)

// The names our sessions carry, so that what a killed restore left behind can be
// told from a restore that is at work.
const (
	controlApp = "txreel restore"
	workerApp  = "txreel restore worker"
)

// pinned makes the server read and write every value the same way as the source's
// sessions did, whatever the target's defaults are.
func pinned() map[string]string {
	settings := pgtext.Settings()
	maps.Copy(settings, map[string]string{
		"xmloption":                           "content",
		"array_nulls":                         "on",
		"transform_null_equals":               "off",
		"check_function_bodies":               "off",
		"default_transaction_read_only":       "off",
		"default_transaction_isolation":       "read committed",
		"client_min_messages":                 "error",
		"statement_timeout":                   "0",
		"lock_timeout":                        "0",
		"idle_in_transaction_session_timeout": "0",
		"idle_session_timeout":                "0",
	})
	return settings
}

// parseURL reads the target's address. The error repeats none of it: nobody can tell
// which part of a malformed URL is the password.
func parseURL(url string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the target is neither a URL such as postgres://role@host:5432/database nor a list such as " +
			"\"host=… port=… dbname=… user=…\": in a URL, percent-encode special characters of the password (@ is %40, / is %2F)")
	}
	maps.Copy(cfg.RuntimeParams, pinned())
	delete(cfg.RuntimeParams, "replication")
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 15 * time.Second
	}
	cfg.AfterConnect = settle
	return cfg, nil
}

// settle sets what depends on the server or on privileges.
func settle(ctx context.Context, conn *pgconn.PgConn) error {
	// The source's bytes come through unconverted: Check has compared the encodings.
	sql := "SET client_encoding = '" + strings.ReplaceAll(conn.ParameterStatus("server_encoding"), "'", "''") + "'"
	if major(conn) >= 17 {
		sql += "; SET transaction_timeout = 0"
	}
	if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
		return err
	}
	for _, sql := range []string{
		// No trigger, rule or event trigger fires for us, where we may say so.
		"SET session_replication_role = replica",
		// A server whose client was killed stops working for it.
		"SET client_connection_check_interval = '2s'",
	} {
		_, err := conn.Exec(ctx, sql).ReadAll()
		var refused *pgconn.PgError
		if err != nil && !errors.As(err, &refused) {
			return err
		}
	}
	return nil
}

// major is the server's major version, from what it said at connect.
func major(conn *pgconn.PgConn) int {
	v := conn.ParameterStatus("server_version")
	if i := strings.IndexFunc(v, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		v = v[:i]
	}
	n, _ := strconv.Atoi(v) // 0 for what is no number
	return n
}

// connect opens a session; set are settings on top of the pinned ones.
func (t *Target) connect(ctx context.Context, app string, set map[string]string) (*pgx.Conn, error) {
	cfg := t.cfg.Copy()
	cfg.RuntimeParams["application_name"] = app
	maps.Copy(cfg.RuntimeParams, set)
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, explain(ctx, err, cfg)
	}
	return conn, nil
}

// worker opens a session that loads or builds. Its commits need not reach the disk
// one by one: the session that ends the restore waits for all of them.
func (t *Target) worker(ctx context.Context) (*pgx.Conn, error) {
	return t.connect(ctx, workerApp, map[string]string{"synchronous_commit": "off"})
}

func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_ = conn.Close(ctx) // what mattered has been answered
}

// explain turns a failure to connect into a sentence without the URL.
func explain(ctx context.Context, err error, cfg *pgx.ConnConfig) error {
	where := fmt.Sprintf("target %s, database %q, role %q", net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))), cfg.Database, cfg.User)
	if ctx.Err() != nil {
		return fmt.Errorf("connect to %s: %w", where, ctx.Err())
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch {
		case pg.Code == "3D000":
			return fmt.Errorf("connect to %s: %w: create it with CREATE DATABASE … TEMPLATE template0", where, pg)
		case pg.Code == "28P01" || pg.Code == "28000":
			return fmt.Errorf("connect to %s: %w: check role, password and the server's pg_hba.conf", where, pg)
		case strings.HasPrefix(pg.Code, "57P") || pg.Code == "53300":
			return fmt.Errorf("connect to %s: %w: %w", where, restore.ErrUnreachable, pg)
		}
		return fmt.Errorf("connect to %s: %w", where, pg)
	}
	cause := err
	for next := cause; next != nil; next = errors.Unwrap(next) {
		cause = next // pgx's own wrapping names the configuration
	}
	return fmt.Errorf("connect to %s: %w: %w: check host and port, and that the server runs", where, restore.ErrUnreachable, cause)
}

// lost says of an error that it came because the target is away, if that is so: the same restore continues when it is back.
func (t *Target) lost(err *error) {
	if *err == nil || t.control == nil || errors.Is(*err, restore.ErrUnreachable) {
		return
	}
	var pg *pgconn.PgError
	away := errors.As(*err, &pg) && (strings.HasPrefix(pg.Code, "57P0") || strings.HasPrefix(pg.Code, "08"))
	if !away {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = t.control.Ping(ctx) // which closes a session that is dead, and not one that is busy
		away = t.control.IsClosed()
	}
	if away {
		*err = fmt.Errorf("%w: %w", restore.ErrUnreachable, *err)
	}
}

// quote quotes a name, qualified when it has several parts.
func quote(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// literal quotes a string; standard_conforming_strings is pinned.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
