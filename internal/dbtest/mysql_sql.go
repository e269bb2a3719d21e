package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"
)

// DB opens a pool of connections as root through the server's socket. The caller closes it. Several statements in
// one text are allowed.
func (m *MySQL) DB(db string) (*sql.DB, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.DBName = "root", m.password, "unix", m.socket(), db
	cfg.MultiStatements, cfg.AllowAllFiles = true, true
	cfg.Logger = &mysql.NopLogger{} // it has nothing to say that an error does not
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to test server: %w", err)
	}
	return sql.OpenDB(connector), nil
}

// Session is one connection as root, for what has to happen in one: transactions, XA, session variables.
type Session struct {
	// Conn is the connection itself.
	Conn *sql.Conn
	pool *sql.DB
}

// Session opens a connection as root through the server's socket. The caller closes it.
func (m *MySQL) Session(ctx context.Context, db string) (*Session, error) {
	pool, err := m.DB(db)
	if err != nil {
		return nil, err
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to test server: %w", err), pool.Close())
	}
	return &Session{Conn: conn, pool: pool}, nil
}

// Close ends the connection; an open transaction is rolled back.
func (s *Session) Close() error { return errors.Join(s.Conn.Close(), s.pool.Close()) }

// Exec runs one or more statements.
func (s *Session) Exec(ctx context.Context, sql string) error {
	_, err := s.Query(ctx, sql)
	return err
}

// Query runs one or more statements and returns the rows of all of them as text, NULL as Null. The driver parses
// numbers on the way: 1e16 comes as 1e+16 and a ZEROFILL without its zeros. Cast in SQL, or use Client, where the
// server's own text matters.
func (s *Session) Query(ctx context.Context, query string) ([][]string, error) {
	results, err := s.Conn.QueryContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("run %.200q: %w", query, err)
	}
	defer func() { _ = results.Close() }() // a second time
	var rows [][]string
	for more := true; more; more = results.NextResultSet() {
		columns, err := results.Columns()
		if err != nil {
			return nil, fmt.Errorf("run %.200q: %w", query, err)
		}
		values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		for results.Next() {
			if err := results.Scan(into...); err != nil {
				return nil, fmt.Errorf("run %.200q: %w", query, err)
			}
			row := make([]string, len(values))
			for i, v := range values {
				if row[i] = v.String; !v.Valid {
					row[i] = Null
				}
			}
			rows = append(rows, row)
		}
	}
	if err := errors.Join(results.Err(), results.Close()); err != nil {
		return nil, fmt.Errorf("run %.200q: %w", query, err)
	}
	return rows, nil
}

// Exec runs one or more statements in a connection of their own.
func (m *MySQL) Exec(ctx context.Context, db, sql string) error {
	_, err := m.Query(ctx, db, sql)
	return err
}

// Query runs statements in a connection of their own, as Session.Query does.
func (m *MySQL) Query(ctx context.Context, db, sql string) ([][]string, error) {
	s, err := m.Session(ctx, db)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }() // what mattered has been answered
	return s.Query(ctx, sql)
}

// CreateDB creates an empty database and returns its URL.
func (m *MySQL) CreateDB(ctx context.Context, name string) (string, error) {
	if err := m.Exec(ctx, "", "CREATE DATABASE "+quoteName(name)); err != nil {
		return "", err
	}
	return m.URL(name), nil
}

// refused tells an answer of the server from not having reached it.
func refused(err error) bool {
	var answer *mysql.MySQLError
	return errors.As(err, &answer)
}
