package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/internal/faults"
	"txreel/sources"
)

// loaded is a source of any engine that clients write to, the place of its archive, and a proxy that captures reach it by.
type loaded struct {
	*place
	t      *testing.T
	engine string
	proxy  *faults.Proxy
	pg     *site   // nil unless it is one
	my     *mySite // nil unless it is one
}

// recorder is the account that captures of loaded sources log in as: setup made it, for zero-loss mode too, so that it has
// no privilege but those that setup prints.
const recorder = "recorder"

// loadedPG makes a PostgreSQL source of a database.
func loadedPG(t *testing.T, s *site) *loaded {
	t.Helper()
	s.must("setup", "--apply", "--slot", s.slot(), "--role", recorder)
	s.exec(`ALTER ROLE ` + recorder + ` PASSWORD '` + recorder + `'`)
	admin := s.place
	l := &loaded{place: &s.place, t: t, engine: "postgres", pg: s}
	s.source = []string{"TXREEL_SOURCE=" + s.pg.URLAs(recorder, recorder, s.db), "TXREEL_SLOT=" + s.slot()}
	l.prepare(&admin, "--role", recorder)
	return l.ready(s.pg.Port)
}

// loadedMy makes a source of a MySQL or MariaDB server, whose COMMITs wait for a limit at most.
func loadedMy(t *testing.T, s *mySite, limit time.Duration) *loaded {
	t.Helper()
	admin := s.place
	admin.extra = []string{"TXREEL_ACCOUNT_PASSWORD=" + recorder + "-A1", "TXREEL_SYNC_TIMEOUT=" + limit.String()}
	admin.must("setup", "--apply", "--user", recorder, "--no-tls")
	l := &loaded{place: &s.place, t: t, engine: s.my.Flavor, my: s}
	s.source = []string{"TXREEL_SOURCE=" + s.my.URLAs(recorder, recorder+"-A1", ""), "TXREEL_SYNC_TIMEOUT=" + limit.String()}
	l.prepare(&admin, "--user", recorder, "--no-tls")
	return l.ready(s.my.Port)
}

// prepare sets the source up for zero-loss mode, and lets the doctor look before and after.
func (l *loaded) prepare(admin *place, setup ...string) {
	l.t.Helper()
	look := func() (problems []string) {
		var findings []sources.Finding
		l.run("doctor", "--sync", "--json").decode(l.t, &findings)
		for _, f := range findings {
			if f.Check == "zero-loss mode" && f.Severity == sources.SeverityProblem {
				problems = append(problems, f.Detail+" "+f.Fix)
			}
		}
		return problems
	}
	if found := look(); len(found) == 0 {
		l.t.Error("the doctor has nothing to say of a source that is not set up for zero-loss mode")
	}
	admin.must(append([]string{"setup", "--apply", "--sync"}, setup...)...)
	if found := look(); len(found) != 0 {
		l.t.Errorf("after setup --sync the doctor says: %q", found)
	}
	if r := admin.must(append([]string{"setup", "--sync"}, setup...)...); strings.Contains(r.stdout, ";") {
		l.t.Errorf("a second setup --sync prints:\n%s", r.stdout)
	}
}

func (l *loaded) ready(port int) *loaded {
	l.t.Helper()
	l.exec(`CREATE TABLE commits (client int, n int, note text, PRIMARY KEY (client, n))`)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	var err error
	if l.proxy, err = faults.NewProxy(address); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(l.proxy.Close)
	for i, variable := range l.source {
		l.source[i] = strings.Replace(variable, address, l.proxy.Addr(), 1)
	}
	return l
}

func (l *loaded) exec(sql string) {
	l.t.Helper()
	if l.pg != nil {
		l.pg.exec(sql)
	} else {
		l.my.exec(sql)
	}
}

// session opens a connection past the proxy.
func (l *loaded) session(ctx context.Context) (exec func(sql string) error, done func(), err error) {
	if l.pg != nil {
		conn, err := l.pg.pg.Conn(ctx, l.pg.db)
		if err != nil {
			return nil, nil, err
		}
		return func(sql string) error { return conn.PgConn().Exec(ctx, sql).Close() }, func() { _ = conn.Close(ctx) }, nil
	}
	conn, err := l.my.my.Session(ctx, "shop")
	if err != nil {
		return nil, nil, err
	}
	return func(sql string) error { return conn.Exec(ctx, sql) }, func() { _ = conn.Close() }, nil
}

// waitAll waits until the archive holds all that the source has now.
func (l *loaded) waitAll(a *archive.Archive) {
	l.t.Helper()
	if l.pg != nil {
		l.pg.waitPast(a, l.pg.here())
	} else {
		l.my.waitPast(a, l.my.here())
	}
}

// load is clients that commit one row after the other and remember how long each COMMIT took.
type load struct {
	t      *testing.T
	stop   context.CancelFunc
	joined sync.WaitGroup

	mu      sync.Mutex
	commits []commit // in the order in which they returned
	latest  []time.Time
	failed  error
}

// commit is one that was acknowledged.
type commit struct {
	client, n   int
	begun, done time.Time
}

// startLoad lets clients write until end; pace is the least time from one COMMIT of a client to its next, and size that of
// a row.
func (l *loaded) startLoad(first, clients int, pace time.Duration, size int) *load {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.t.Context()))
	w := &load{t: l.t, stop: cancel, latest: make([]time.Time, clients)}
	var ready sync.WaitGroup
	for i := range clients {
		ready.Add(1)
		w.joined.Go(func() {
			if err := w.client(ctx, l, first, i, pace, size, sync.OnceFunc(ready.Done)); err != nil {
				w.mu.Lock()
				w.failed = err
				w.mu.Unlock()
			}
		})
	}
	l.t.Cleanup(w.end)
	ready.Wait()
	return w
}

// client commits until ctx ends. No statement may fail: nothing happens to the source.
func (w *load) client(ctx context.Context, l *loaded, first, i int, pace time.Duration, size int, ready func()) error {
	defer ready()
	exec, done, err := l.session(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	defer done()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	note := strings.Repeat("md5(random()::text) || ", size/32) + "''"
	if l.my != nil {
		note = "concat(" + strings.Repeat("sha2(rand(), 256), ", size/64) + "'')"
	}
	for n := 1; ctx.Err() == nil; n++ {
		c := commit{client: first + i, n: n, begun: time.Now()}
		if err := exec(fmt.Sprintf("INSERT INTO commits VALUES (%d, %d, %s)", c.client, n, note)); err != nil {
			return err
		}
		c.done = time.Now()
		w.mu.Lock()
		w.commits, w.latest[i] = append(w.commits, c), c.begun
		w.mu.Unlock()
		ready()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// end stops the clients, each after the COMMIT it is in.
func (w *load) end() {
	w.stop()
	w.joined.Wait()
	if w.failed != nil {
		w.t.Error(w.failed)
	}
}

// since waits until every client has come back from a COMMIT that began after a moment.
func (w *load) since(at time.Time) {
	w.t.Helper()
	eventually(w.t, 2*time.Minute, "COMMITs return", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.failed != nil || !slices.ContainsFunc(w.latest, func(begun time.Time) bool { return begun.Before(at) })
	})
}

// phase is what clients saw of a span of time.
type phase struct {
	rate            float64 // COMMITs that returned, per second
	p50, p99, worst time.Duration
}

// between sums up the COMMITs that were under way at some moment of a span, as far as they have returned.
func (w *load) between(from, to time.Time) phase {
	w.mu.Lock()
	defer w.mu.Unlock()
	var took []time.Duration
	returned := 0
	for _, c := range w.commits {
		if c.done.Before(from) || c.begun.After(to) {
			continue
		}
		took = append(took, c.done.Sub(c.begun))
		if !c.done.After(to) {
			returned++
		}
	}
	slices.Sort(took)
	if len(took) == 0 {
		return phase{}
	}
	return phase{rate: float64(returned) / to.Sub(from).Seconds(), p50: took[len(took)/2], p99: took[len(took)*99/100], worst: took[len(took)-1]}
}

// onRecord fails the test unless the site's archive holds each COMMIT of the load that began after a moment, once.
func (w *load) onRecord(p *place, since time.Time) {
	w.t.Helper()
	table := "public.commits"
	if !strings.Contains(strings.Join(p.source, " "), "postgres://") {
		table = "shop.commits"
	}
	rows := make(map[[2]int]int)
	for line := range strings.Lines(p.must("audit", "export", "--table", table, "--op", "insert").stdout) {
		var change struct {
			After struct{ Client, N json.Number }
		}
		if err := json.Unmarshal([]byte(line), &change); err != nil {
			w.t.Fatal(err)
		}
		client, _ := change.After.Client.Int64() // the trailer has none
		n, _ := change.After.N.Int64()
		rows[[2]int{int(client), int(n)}]++
	}
	wrong, all := 0, 0
	for _, c := range w.commits {
		if c.begun.Before(since) {
			continue // a base has it
		}
		all++
		if n := rows[[2]int{c.client, c.n}]; n != 1 {
			if wrong++; wrong < 5 {
				w.t.Errorf("row %d of client %d was committed, and is on record %d times", c.n, c.client, n)
			}
		}
	}
	w.t.Logf("%d COMMITs looked for on record, %d not there once", all, wrong)
}

// ms writes a time for a table.
func ms(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// shown are rows of a table that subtests fill in.
type shown struct {
	mu    sync.Mutex
	lines []string
}

func (s *shown) add(cells ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, "| "+strings.Join(cells, " | ")+" |")
}

// print shows the table once all subtests have ended.
func (s *shown) print(t *testing.T, head ...string) {
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		slices.Sort(s.lines)
		t.Logf("\n| %s |\n|%s\n%s", strings.Join(head, " | "), strings.Repeat(" --- |", len(head)), strings.Join(s.lines, "\n"))
	})
}

// engines are the kinds of source.
func engines() []string { return append([]string{"postgres"}, dbtest.Flavors()...) }
