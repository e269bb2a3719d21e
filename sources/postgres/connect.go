package postgres

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/sources/postgres/pgtext"
)

// connectTimeout bounds one attempt to connect when the user's URL sets no connect_timeout.
const connectTimeout = 15 * time.Second

// pinnedSettings make the server write every value the same way, whatever ALTER ROLE, ALTER DATABASE or
// postgresql.conf say, and keep its timeouts away from our sessions. Startup parameters overrule all of those.
// lock_timeout is left to the caller, who knows what it waits for.
func pinnedSettings() map[string]string {
	settings := pgtext.Settings()
	maps.Copy(settings, map[string]string{
		"client_encoding":                     "UTF8",
		"statement_timeout":                   "0",
		"idle_in_transaction_session_timeout": "0",
		"idle_session_timeout":                "0",     // 14 and later, as we need
		"synchronous_commit":                  "local", // we never wait for ourselves
	})
	return settings
}

// connConfig turns what the user calls the source, a URL or libpq's key=value list completed by the PG* environment
// and the password file, into a configuration with pinned settings. With replication the connection speaks the
// replication protocol, and SQL too.
func connConfig(source, appName string, replication bool) (*pgconn.Config, error) {
	cfg, err := pgxConfig(source, appName, replication)
	if err != nil {
		return nil, err
	}
	return &cfg.Config, nil
}

func pgxConfig(source, appName string, replication bool) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(source)
	if err != nil {
		return nil, explainParse(err)
	}
	maps.Copy(cfg.RuntimeParams, pinnedSettings())
	cfg.RuntimeParams["application_name"] = appName
	delete(cfg.RuntimeParams, "replication")
	if replication {
		cfg.RuntimeParams["replication"] = "database"
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	cfg.AfterConnect = settleSession
	return cfg, nil
}

// settleSession sets what depends on the server's answer. It runs on replication connections too, where versions
// before 15 take one statement at a time.
func settleSession(ctx context.Context, conn *pgconn.PgConn) error {
	// The server's own bytes: a conversion could fail on a value, and a SQL_ASCII database has none to offer.
	if enc := conn.ParameterStatus("server_encoding"); enc != "" && enc != "UTF8" {
		if err := conn.Exec(ctx, "SET client_encoding = "+quoteLiteral(enc)).Close(); err != nil {
			return err
		}
	}
	if majorVersion(conn) >= 17 {
		return conn.Exec(ctx, "SET transaction_timeout = 0").Close()
	}
	return nil
}

// majorVersion reads the server's major version from what it said at connect, such as "15.18 (Debian 15.18-0)" or
// "19beta1"; 0 when it said nothing usable.
func majorVersion(conn *pgconn.PgConn) int {
	v := conn.ParameterStatus("server_version")
	if i := strings.IndexFunc(v, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		v = v[:i]
	}
	major, err := strconv.Atoi(v)
	if err != nil {
		return 0
	}
	return major
}

// Connect opens an ordinary SQL session to the source with pinned settings. Its errors are sentences for a person:
// they name server, role and database, never the password or the URL, and match capture.ErrUnreachable when waiting may help.
// The caller closes the connection.
func Connect(ctx context.Context, source string) (*pgx.Conn, error) {
	cfg, err := pgxConfig(source, "txreel", false)
	if err != nil {
		return nil, err
	}
	return connectPgx(ctx, cfg)
}

func connectPgx(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, explainConnect(ctx, err, &cfg.Config)
	}
	return conn, nil
}

// dial opens a connection from a connConfig, with the same errors as Connect.
func dial(ctx context.Context, cfg *pgconn.Config) (*pgconn.PgConn, error) {
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, explainConnect(ctx, err, cfg)
	}
	return conn, nil
}

// quoteLiteral quotes a string for SQL so that it means the same whatever standard_conforming_strings says.
func quoteLiteral(s string) string {
	s = strings.ReplaceAll(s, "'", "''")
	if strings.Contains(s, `\`) {
		return "E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}

// quoteIdent quotes a name, qualified when it has several parts.
func quoteIdent(parts ...string) string { return pgx.Identifier(parts).Sanitize() }
