package e2e

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"txreel/internal/dbtest"
	"txreel/internal/faults"
)

var latencyFor = flag.Duration("e2e.latency", 10*time.Second, "how long each measurement of the long form of TestCommitLatency takes")

// TestCommitLatency measures what a COMMIT takes while it waits for a store that takes its time, and for how many
// one PUT is enough. The long form prints a table, of times in milliseconds.
func TestCommitLatency(t *testing.T) {
	table := &shown{}
	if !*long {
		t.Parallel()
	} else {
		table.print(t, "engine", "mode", "PUT", "1 client: p50", "p99", "per second", "per request", "16 clients: p50", "p99", "per second", "per request")
	}
	for _, engine := range append([]string{"postgres"}, dbtest.Flavors()...) {
		t.Run(engine, func(t *testing.T) {
			if !*long {
				t.Parallel()
			}
			latency(t, engine, table)
		})
	}
}

func latency(t *testing.T, engine string, table *shown) {
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

	put := func(delay time.Duration) {
		slow.Set(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				time.Sleep(delay)
			}
			return false
		})
	}
	if !*long {
		p.waiting(t)
		put(50 * time.Millisecond)
		before := len(slow.Requests())
		all := measure(t, commits, 2*time.Second)
		puts := len(slow.Requests()) - before
		t.Logf("%-8s PUT of 50ms, 16 clients: %s, %d commits with %d requests", engine, percentiles(all), len(all), puts)
		if all[0] < 50*time.Millisecond {
			t.Errorf("a COMMIT took %v, the PUT that it waits for 50ms", all[0])
		}
		if puts > len(all)/2 {
			t.Errorf("%d requests for %d commits of 16 clients: one PUT must release many", puts, len(all))
		}
		return
	}
	for _, form := range []struct {
		name    string
		capture func() *process // nil for none
		delays  []time.Duration
	}{
		{"1 no capture", nil, []time.Duration{0}},
		{"2 asynchronous", func() *process {
			c := p.capture()
			p.waitBases(p.waitArchive(), 1, 1)
			return c
		}, []time.Duration{0}},
		{"3 `--sync`", func() *process { return p.waiting(t) }, []time.Duration{0, 20 * time.Millisecond, 50 * time.Millisecond}},
		{"4 `--sync --spool`", func() *process { return p.waiting(t, "--spool", filepath.Join(t.TempDir(), "spool")) }, []time.Duration{0, 20 * time.Millisecond, 50 * time.Millisecond}},
	} {
		put(0)
		var c *process
		if form.capture != nil {
			c = form.capture()
		}
		for _, delay := range form.delays {
			put(delay)
			cells := []string{engine, form.name, fmt.Sprint(delay.Milliseconds(), " ms")}
			for _, n := range []int{1, 16} {
				measure(t, commits[:n], time.Second) // until it is steady
				before := len(slow.Requests())
				all := measure(t, commits[:n], *latencyFor)
				per := ""
				if puts := len(slow.Requests()) - before; puts > 0 {
					per = fmt.Sprintf("%.1f", float64(len(all))/float64(puts))
				}
				cells = append(cells, between(all, 50), between(all, 99), fmt.Sprintf("%.0f", float64(len(all))/latencyFor.Seconds()), per)
			}
			table.add(cells...)
		}
		put(0)
		if c != nil {
			c.signal(terminate)
			if code := c.wait(time.Minute); code != 0 {
				t.Errorf("%s: exit code %d, want 0", form.name, code)
			}
		}
	}
}

// waiting starts a capture that COMMIT waits for.
func (s *place) waiting(t *testing.T, more ...string) *process {
	t.Helper()
	c := s.capture(append([]string{"--sync", "--sync-timeout", "60s"}, more...)...)
	s.waitBases(s.waitArchive(), 1, 1)
	eventually(t, time.Minute, "COMMIT waits", func() bool { return c.has(protectedNow) })
	return c
}

// between is a percentile, in milliseconds.
func between(sorted []time.Duration, percent int) string {
	return fmt.Sprintf("%.1f", sorted[(len(sorted)-1)*percent/100].Seconds()*1000)
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
