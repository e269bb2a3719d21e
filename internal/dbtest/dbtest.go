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
	opts := PostgresOptions{Settings: map[string]string{}}
	for _, s := range settings {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			t.Fatalf("server setting %q: want name=value", s)
		}
		opts.Settings[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return PGWith(t, opts)
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
