package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"txreel/internal/dbtest"
	"txreel/internal/faults"
)

// TestCommitLatency measures what a COMMIT takes while it waits for a store that takes its time, and for how many
// one PUT is enough. The long form prints a table.
func TestCommitLatency(t *testing.T) {
	if !*long {
		t.Parallel()
	}
	for _, engine := range append([]string{"postgres"}, dbtest.Flavors()...) {
		t.Run(engine, func(t *testing.T) {
			if !*long {
				t.Parallel()
			}
			latency(t, engine)
		})
	}
}

func latency(t *testing.T, engine string) {
	var p *place
	var connect func() (commit func(context.Context) error)
	const insert = "insert into journal (note) values ('one row, and not a long one')"
	if engine == "postgres" {
		s := newSite(t, dbtest.PGWith(t, dbtest.PostgresOptions{Durable: true}), "latency", dbtest.S3(t)).setup()
		s.exec(`CREATE TABLE journal (n bigserial PRIMARY KEY, note text)`)
		p = &s.place
		connect = func() func(context.Context) error {
			conn, err := s.pg.Conn(t.Context(), s.db)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close(context.Background()) })
			return func(ctx context.Context) error { return conn.PgConn().Exec(ctx, insert).Close() }
		}
	} else {
		s := semiSyncSite(t, engine, time.Minute)
		s.exec(`drop table journal; create table journal (n bigint auto_increment primary key, note text)`)
		p = &s.place
		connect = func() func(context.Context) error {
			conn, err := s.my.Session(t.Context(), "shop")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			return func(ctx context.Context) error { return conn.Exec(ctx, insert) }
		}
	}
	slow, err := faults.NewHTTP(p.gateway.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(slow.Close)
	p.archive = strings.Replace(p.archive, url.QueryEscape(p.gateway.URL), url.QueryEscape(slow.URL()), 1)
	commits := make([]func(context.Context) error, 16)
	for i := range commits {
		commits[i] = connect()
	}

	delays, counts, lasting := []time.Duration{50 * time.Millisecond}, []int{16}, 2*time.Second
	if *long {
		delays, counts, lasting = []time.Duration{0, 20 * time.Millisecond, 50 * time.Millisecond}, []int{1, 16}, 10*time.Second
		for _, n := range counts {
			all := measure(t, commits[:n], lasting)
			t.Logf("%-8s no capture, %2d clients: %s", engine, n, percentiles(all))
		}
	}
	c := p.capture("--sync", "--sync-timeout", "60s")
	p.waitBases(p.waitArchive(), 1, 1)
	eventually(t, time.Minute, "COMMIT waits", func() bool { return c.has(protectedNow) })
	for _, delay := range delays {
		slow.Set(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				time.Sleep(delay)
			}
			return false
		})
		for _, n := range counts {
			before := len(slow.Requests())
			all := measure(t, commits[:n], lasting)
			puts := len(slow.Requests()) - before
			t.Logf("%-8s PUT of %v, %2d clients: %s, %d commits with %d requests", engine, delay, n, percentiles(all), len(all), puts)
			if all[0] < delay {
				t.Errorf("a COMMIT took %v, the PUT that it waits for %v", all[0], delay)
			}
			if n > 4 && delay > 0 && puts > len(all)/2 {
				t.Errorf("%d requests for %d commits of %d clients: one PUT must release many", puts, len(all), n)
			}
		}
	}
}

// measure lets clients commit for a while, and returns how long each COMMIT took, in ascending order.
func measure(t *testing.T, commits []func(context.Context) error, lasting time.Duration) []time.Duration {
	t.Helper()
	var mu sync.Mutex
	var all []time.Duration
	var joined sync.WaitGroup
	end := time.Now().Add(lasting)
	for _, commit := range commits {
		joined.Go(func() {
			var took []time.Duration
			for time.Now().Before(end) {
				begun := time.Now()
				if err := commit(t.Context()); err != nil {
					t.Error(err)
					break
				}
				took = append(took, time.Since(begun))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	joined.Wait()
	slices.Sort(all)
	if len(all) == 0 {
		t.Fatal("nobody committed anything")
	}
	return all
}

func percentiles(sorted []time.Duration) string {
	at := func(percent int) time.Duration {
		return sorted[(len(sorted)-1)*percent/100].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p99 %v", at(50), at(99))
}
