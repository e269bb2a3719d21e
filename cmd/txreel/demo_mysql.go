package main

import (
	"context"
	"errors"
	"fmt"

	"txreel/internal/dbtest"
)

// mysqlShop is the shop on MySQL or MariaDB. A target is a server of its own.
type mysqlShop struct {
	engine  string
	live    *dbtest.MySQL
	targets []*dbtest.MySQL
}

func newMySQLShop(ctx context.Context, engine string) (*mysqlShop, error) {
	live, err := dbtest.StartMySQL(ctx, dbtest.MySQLOptions{Flavor: engine, Durable: true})
	return &mysqlShop{engine: engine, live: live}, err
}

func (s *mysqlShop) name() string {
	if s.engine == engineMariaDB {
		return "MariaDB " + s.live.Version
	}
	return "MySQL " + s.live.Version
}

func (s *mysqlShop) url(m *dbtest.MySQL) string {
	return fmt.Sprintf("%s://root@127.0.0.1:%d", s.engine, m.Port)
}

func (s *mysqlShop) source() string { return s.url(s.live) }

func (s *mysqlShop) secret() string { return "MYSQL_PWD=" + s.live.Password() }

func (s *mysqlShop) payments() string { return "shop.payment" }

func (s *mysqlShop) create(ctx context.Context) error {
	if _, err := s.live.CreateDB(ctx, "shop"); err != nil {
		return err
	}
	return s.exec(ctx, fmt.Sprintf(`
		create table account (id int primary key, owner varchar(40) not null, balance decimal(12,2) not null);
		insert into account with recursive n (i) as (select 1 union all select i + 1 from n where i < 1000)
			select i + 1000 * k, concat('customer ', i + 1000 * k), 1000 from n
			join (select 0 k union all select 1 union all select 2 union all select 3 union all select 4) thousands where i + 1000 * k <= %d;
		create table payment (id bigint auto_increment primary key, account int not null, amount decimal(12,2) not null,
			note text, at timestamp(6) not null default current_timestamp(6), key payment_account (account),
			foreign key (account) references account (id));`, accounts))
}

func (s *mysqlShop) exec(ctx context.Context, sql string) error { return s.live.Exec(ctx, "shop", sql) }

func (s *mysqlShop) client(ctx context.Context) (func(from, to int) error, func(), error) {
	conn, err := s.live.Session(ctx, "shop")
	if err != nil {
		return nil, nil, err
	}
	return func(from, to int) error {
		low, high := min(from, to), max(from, to) // always in the same order, so that clients never deadlock
		return conn.Exec(ctx, fmt.Sprintf(`begin;
			update account set balance = balance + if(id = %[1]d, -1, 1) where id = %[3]d;
			update account set balance = balance + if(id = %[1]d, -1, 1) where id = %[4]d;
			insert into payment (account, amount, note) values (%[1]d, -1, 'out'), (%[2]d, 1, 'in');
			commit`, from, to, low, high))
	}, func() { _ = conn.Close() }, nil
}

func (s *mysqlShop) state(ctx context.Context) (snapshot, string, error) {
	// MariaDB's log has whole seconds: the moment asked for later is the end of this one.
	const wait = "do sleep(1.1);"
	if s.engine == engineMariaDB {
		if err := s.exec(ctx, wait); err != nil {
			return nil, "", err
		}
	}
	rows, err := s.live.Query(ctx, "shop", "select date_format(utc_timestamp(6), '%Y-%m-%dT%H:%i:%s.%fZ')")
	if err != nil {
		return nil, "", err
	}
	dump, err := s.dump(ctx, s.live)
	if err == nil && s.engine == engineMariaDB {
		err = s.exec(ctx, wait)
	}
	return dump, rows[0][0], err
}

func (s *mysqlShop) dump(ctx context.Context, m *dbtest.MySQL) (mysqlSnapshot, error) {
	dump, err := dbtest.DumpMySQL(ctx, m.URL(""), dbtest.MySQLDumpOptions{})
	return mysqlSnapshot(dump), err
}

func (s *mysqlShop) fresh(ctx context.Context, _ string) (*freshTarget, error) {
	target, err := dbtest.StartMySQL(ctx, dbtest.MySQLOptions{Flavor: s.engine})
	if err != nil {
		return nil, err
	}
	s.targets = append(s.targets, target)
	return &freshTarget{url: s.url(target), secret: "MYSQL_PWD=" + target.Password(), read: func() (snapshot, error) {
		return s.dump(ctx, target)
	}}, nil
}

func (s *mysqlShop) close() error {
	var errs []error
	for _, m := range append(s.targets, s.live) {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// mysqlSnapshot is all that two equal servers have in common.
type mysqlSnapshot dbtest.MySQLDump

func (s mysqlSnapshot) differs(other snapshot) string {
	return dbtest.DiffMySQL(dbtest.MySQLDump(s), dbtest.MySQLDump(other.(mysqlSnapshot)))
}
