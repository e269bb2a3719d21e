package mysql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"

	"txreel/restore"
)

// conn is a session in the target. Statements of it never reach the target's binary
// log. It is not for concurrent use.
type conn struct {
	*client.Conn
	broken error // the connection is of no more use
}

// row is a row as text; nil is NULL.
type row []*string

// text returns a column; "" for NULL.
func (r row) text(i int) string {
	if r[i] == nil {
		return ""
	}
	return *r[i]
}

// connect opens a session with settings that make it read and write every value as it
// is, whatever the target's defaults are.
func (c *config) connect(ctx context.Context) (*conn, error) {
	session, err := c.dial(ctx, c.tls)
	if err != nil && c.mode == "preferred" && strings.Contains(err.Error(), "does not support TLS") {
		session, err = c.dial(ctx, nil)
	}
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	s := &conn{Conn: session}
	for _, sql := range []string{
		"SET NAMES utf8mb4",
		"SET SESSION time_zone = '+00:00', sql_mode = 'NO_AUTO_VALUE_ON_ZERO', sql_select_limit = 18446744073709551615, wait_timeout = 2147483, net_read_timeout = 600, net_write_timeout = 600, autocommit = 1",
		"SET SESSION sql_log_bin = 0",
	} {
		if err := s.exec(ctx, sql); err != nil {
			s.close()
			return nil, c.explain(ctx, err)
		}
	}
	return s, nil
}

func (c *config) dial(ctx context.Context, secure *tls.Config) (*client.Conn, error) {
	dialer := net.Dialer{Timeout: c.timeout}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var stop func() bool
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		link, err := dialer.DialContext(ctx, network, address)
		if err == nil { // the login is bounded too
			stop = context.AfterFunc(ctx, func() { _ = link.SetDeadline(time.Unix(1, 0)) })
		}
		return link, err
	}
	session, err := client.ConnectWithDialer(ctx, c.network, c.address, c.user, c.password, "", dial, func(s *client.Conn) error {
		if secure != nil {
			s.SetTLSConfig(secure.Clone())
		}
		s.SetAttributes(map[string]string{"program_name": "txreel restore"})
		// Both change the shape of packets that are read here.
		s.UnsetCapability(mysql.CLIENT_QUERY_ATTRIBUTES)
		s.UnsetCapability(mysql.CLIENT_DEPRECATE_EOF)
		return nil
	})
	if stop != nil && !stop() && err == nil {
		_ = session.Close()
		err = ctx.Err()
	}
	return session, err
}

// explain turns a failure to connect into a sentence without the URL.
func (c *config) explain(ctx context.Context, err error) error {
	where := fmt.Sprintf("target %s, user %q", c.address, c.user)
	if ctx.Err() != nil {
		return fmt.Errorf("connect to %s: %w", where, ctx.Err())
	}
	var refused *ServerError // while the session was set up
	var login *mysql.MyError
	if errors.As(err, &login) {
		refused = serverError(login)
	}
	if refused != nil || errors.As(err, &refused) {
		switch refused.Code {
		case mysql.ER_ACCESS_DENIED_ERROR:
			return fmt.Errorf("connect to %s: %w: check user and password, and from which hosts the user may come; "+
				"where a restore is to be continued, what it has replayed may have changed the account: use another", where, refused)
		case mysql.ER_SPECIFIC_ACCESS_DENIED_ERROR:
			return fmt.Errorf("connect to %s: %w: the user must be able to keep the restore out of the binary log; see `txreel restore --help`", where, refused)
		case mysql.ER_CON_COUNT_ERROR, mysql.ER_SERVER_SHUTDOWN:
			return fmt.Errorf("connect to %s: %w: %w", where, restore.ErrUnreachable, refused)
		}
		return fmt.Errorf("connect to %s: %w", where, refused)
	}
	return fmt.Errorf("connect to %s: %w: %w: check host and port, and that the server runs", where, restore.ErrUnreachable, plain(err))
}

// plain drops what the client library wraps around a cause: traces, and its own words.
func plain(err error) error {
	cause := err
	for next := err; next != nil; next = errors.Unwrap(next) {
		cause = next
	}
	return cause
}

// ServerError is an error that the target's server answered.
type ServerError struct {
	Code    uint16
	Message string
}

// Error returns the server's words and its number for them.
func (e *ServerError) Error() string { return fmt.Sprintf("%s (error %d)", e.Message, e.Code) }

func serverError(e *mysql.MyError) *ServerError { return &ServerError{e.Code, e.Message} }

// isError reports whether the server answered with one of the codes.
func isError(err error, codes ...uint16) bool {
	var e *ServerError
	return errors.As(err, &e) && slices.Contains(codes, e.Code)
}

// do runs what talks to the server. When ctx ends, the connection is closed.
func (c *conn) do(ctx context.Context, talk func() error) error {
	if c.broken != nil {
		return c.broken
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err := talk()
	if !stop() {
		c.broken = ctx.Err()
		c.close()
		return ctx.Err()
	}
	var refused *mysql.MyError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return serverError(refused)
	}
	c.broken = fmt.Errorf("%w: %w", restore.ErrUnreachable, plain(err))
	c.close()
	return c.broken
}

// exec runs a statement.
func (c *conn) exec(ctx context.Context, sql string) error {
	return c.do(ctx, func() error {
		_, err := c.Execute(sql)
		return err
	})
}

// query runs a statement and returns its rows as text.
func (c *conn) query(ctx context.Context, sql string) ([]row, error) {
	rows, _, err := c.named(ctx, sql)
	return rows, err
}

// named is query for statements such as SHOW, whose columns differ from version to
// version.
func (c *conn) named(ctx context.Context, sql string) (rows []row, names map[string]int, err error) {
	err = c.do(ctx, func() error {
		r, err := c.Execute(sql)
		if err != nil || r.Resultset == nil {
			return err
		}
		names = make(map[string]int)
		for i, f := range r.Fields {
			names[strings.ToLower(string(f.Name))] = i
		}
		for i := range r.RowNumber() {
			out := make(row, r.ColumnNumber())
			for k := range out {
				if null, err := r.IsNull(i, k); err != nil || null {
					continue
				}
				text, err := r.GetString(i, k)
				if err != nil {
					return err
				}
				text = strings.Clone(text)
				out[k] = &text
			}
			rows = append(rows, out)
		}
		return nil
	})
	return rows, names, err
}

// value returns the first column of a statement's only row; "" for NULL and for none.
func (c *conn) value(ctx context.Context, sql string) (string, error) {
	rows, err := c.query(ctx, sql)
	if err != nil || len(rows) == 0 || len(rows[0]) == 0 {
		return "", err
	}
	return rows[0].text(0), nil
}

// close ends the session; what mattered has been answered.
func (c *conn) close() { _ = c.Close() }

// quote quotes a name, qualified when it has several parts.
func quote(parts ...string) string {
	quoted := make([]string, len(parts))
	for i, part := range parts {
		quoted[i] = "`" + strings.ReplaceAll(part, "`", "``") + "`"
	}
	return strings.Join(quoted, ".")
}

// literal quotes a string for the sessions that connect opens, where a backslash escapes.
func literal(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", "''", "\x00", `\0`).Replace(s) + "'"
}
