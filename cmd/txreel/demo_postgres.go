package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"txreel/internal/dbtest"
)

// postgresShop is the shop on PostgreSQL. Targets are databases of a second server.
type postgresShop struct{ live, spare *dbtest.Postgres }

func newPostgresShop(ctx context.Context) (_ *postgresShop, err error) {
	s := &postgresShop{}
	if s.live, err = dbtest.StartPostgres(ctx, dbtest.PostgresOptions{Durable: true}); err != nil {
		return nil, err
	}
	if s.spare, err = dbtest.StartPostgres(ctx, dbtest.PostgresOptions{}); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *postgresShop) name() string { return "PostgreSQL" }

func (s *postgresShop) source() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/shop", s.live.Port)
}

func (s *postgresShop) secret() string { return "PGPASSWORD=" + s.live.Password() }

func (s *postgresShop) payments() string { return "public.payment" }

func (s *postgresShop) create(ctx context.Context) error {
	if _, err := s.live.CreateDB(ctx, "shop"); err != nil {
		return err
	}
	return s.exec(ctx, fmt.Sprintf(`
		create table account (id int primary key, owner text not null, balance numeric(12,2) not null);
		insert into account select i, 'customer ' || i, 1000 from generate_series(1, %d) i;
		create table payment (id bigint generated always as identity primary key, account int not null references account,
			amount numeric(12,2) not null, note text, at timestamptz not null default clock_timestamp());
		create index payment_account on payment (account);`, accounts))
}

func (s *postgresShop) exec(ctx context.Context, sql string) error {
	return s.live.Exec(ctx, "shop", sql)
}

func (s *postgresShop) client(ctx context.Context) (func(from, to int) error, func(), error) {
	conn, err := s.live.Conn(ctx, "shop")
	if err != nil {
		return nil, nil, err
	}
	return func(from, to int) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			// Always in the same order, so that clients never deadlock.
			_, err := tx.Exec(ctx, `update account set balance = balance + case id when $1 then -1 else 1 end
				where id in (select id from account where id in ($1, $2) order by id for update)`, from, to)
			if err == nil {
				_, err = tx.Exec(ctx, `insert into payment (account, amount, note) values ($1, -1, 'out'), ($2, 1, 'in')`, from, to)
			}
			return err
		})
	}, func() { _ = conn.Close(ctx) }, nil
}

func (s *postgresShop) state(ctx context.Context) (snapshot, string, error) {
	rows, err := s.live.Query(ctx, "shop", `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`)
	if err != nil {
		return nil, "", err
	}
	dump, err := dbtest.Dump(ctx, s.live.URL("shop"))
	return postgresSnapshot(dump), rows[0][0], err
}

func (s *postgresShop) fresh(ctx context.Context, name string) (*freshTarget, error) {
	_, err := s.spare.CreateDB(ctx, name)
	return &freshTarget{
		url:    fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", s.spare.Port, name),
		secret: "PGPASSWORD=" + s.spare.Password(),
		read: func() (snapshot, error) {
			dump, err := dbtest.Dump(ctx, s.spare.URL(name))
			return postgresSnapshot(dump), err
		},
	}, err
}

func (s *postgresShop) close() error {
	err := s.live.Close()
	if s.spare != nil {
		err = errors.Join(err, s.spare.Close())
	}
	return err
}

// postgresSnapshot is every table's rows.
type postgresSnapshot map[string]dbtest.TableDump

func (s postgresSnapshot) differs(other snapshot) string {
	return dbtest.Diff(s, other.(postgresSnapshot))
}
