// Package dbtest starts throw-away database servers and object stores on loopback, for tests and the demo.
package dbtest

import (
	"context"
	"strings"
	"time"
)

// TB is the part of testing.TB the helpers need. Naming it here keeps package testing out of the txreel binary,
// which starts servers for its demo.
type TB interface {
	Helper()
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// PG starts a server for one test and removes it when the test ends. Each setting is a line of postgresql.conf such
// as "wal_level=replica". When the test failed, the end of the server's log becomes part of its output.
func PG(t TB, settings ...string) *Postgres {
	t.Helper()
	return PGWith(t, PostgresOptions{Settings: parseSettings(t, settings)})
}

// PGWith is PG for tests that need more than settings.
func PGWith(t TB, opts PostgresOptions) *Postgres {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	p, err := StartPostgres(ctx, opts)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", tailOf(p.Log(), 40))
		}
		if err := p.Close(); err != nil {
			t.Logf("clean up: %v", err)
		}
	})
	return p
}

// My starts a MySQL or MariaDB server for one test and removes it when the test ends. Each setting is a server
// variable such as "binlog_row_image=MINIMAL". When the test failed, the end of the server's log becomes part of its
// output.
func My(t TB, flavor string, settings ...string) *MySQL {
	t.Helper()
	return MyWith(t, MySQLOptions{Flavor: flavor, Settings: parseSettings(t, settings)})
}

// MyWith is My for tests that need more than settings.
func MyWith(t TB, opts MySQLOptions) *MySQL {
	t.Helper()
	return adopt(t, func(ctx context.Context) (*MySQL, error) { return StartMySQL(ctx, opts) })
}

// MyReplica starts a replica of a server for one test. Each setting is a server variable, as for My.
func MyReplica(t TB, primary *MySQL, settings ...string) *MySQL {
	t.Helper()
	opts := MySQLOptions{Settings: parseSettings(t, settings)}
	return adopt(t, func(ctx context.Context) (*MySQL, error) { return ReplicaOf(ctx, primary, opts) })
}

// adopt starts a server that ends with the test.
func adopt(t TB, start func(context.Context) (*MySQL, error)) *MySQL {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	m, err := start(ctx)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", tailOf(m.Log(), 40))
		}
		if err := m.Close(); err != nil {
			t.Logf("clean up: %v", err)
		}
	})
	return m
}

// parseSettings reads "name=value" settings.
func parseSettings(t TB, settings []string) map[string]string {
	t.Helper()
	parsed := map[string]string{}
	for _, s := range settings {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			t.Fatalf("server setting %q: want name=value", s)
		}
		parsed[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return parsed
}

// MustExec is Exec for tests: an error ends the test.
func (m *MySQL) MustExec(t TB, db, sql string) {
	t.Helper()
	if err := m.Exec(context.Background(), db, sql); err != nil {
		t.Fatalf("%v", err)
	}
}

// MustQuery is Query for tests: an error ends the test.
func (m *MySQL) MustQuery(t TB, db, sql string) [][]string {
	t.Helper()
	rows, err := m.Query(context.Background(), db, sql)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return rows
}

// MustExec is Exec for tests: an error ends the test.
func (p *Postgres) MustExec(t TB, db, sql string) {
	t.Helper()
	if err := p.Exec(context.Background(), db, sql); err != nil {
		t.Fatalf("%v", err)
	}
}

// MustQuery is Query for tests: an error ends the test.
func (p *Postgres) MustQuery(t TB, db, sql string) [][]string {
	t.Helper()
	rows, err := p.Query(context.Background(), db, sql)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return rows
}

// tailOf returns the last n lines of s.
func tailOf(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
