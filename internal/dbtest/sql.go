package dbtest

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Null stands for NULL in the rows Query returns; no text the server sends contains a zero byte.
const Null = "\x00NULL"

// Conn opens a connection as the superuser through the server's socket. The caller closes it.
func (p *Postgres) Conn(ctx context.Context, db string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(p.URL("postgres"))
	if err != nil {
		return nil, fmt.Errorf("connect to test server: %w", err)
	}
	cfg.Host, cfg.Database, cfg.Password = p.Dir, db, ""
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to test server: %w", err)
	}
	return conn, nil
}

// Exec runs one or more statements in a connection of their own; several form one transaction unless they say
// otherwise.
func (p *Postgres) Exec(ctx context.Context, db, sql string) error {
	_, err := p.Query(ctx, db, sql)
	return err
}

// Query runs statements as Exec does and returns the rows of all of them as the server's text, NULL as Null.
func (p *Postgres) Query(ctx context.Context, db, sql string) ([][]string, error) {
	conn, err := p.Conn(ctx, db)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // what mattered has been answered
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("run %.200q: %w", sql, err)
	}
	var rows [][]string
	for _, r := range results {
		for _, values := range r.Rows {
			row := make([]string, len(values))
			for i, v := range values {
				if row[i] = string(v); v == nil {
					row[i] = Null
				}
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// CreateDB creates an empty database and returns its URL.
func (p *Postgres) CreateDB(ctx context.Context, name string) (string, error) {
	err := p.Exec(ctx, "postgres", "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" TEMPLATE template0")
	if err != nil {
		return "", err
	}
	return p.URL(name), nil
}
