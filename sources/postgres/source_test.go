package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"txreel/capture"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sources/postgres/lsn"
)

// TestStreamOnOneServer runs what needs a server and leaves it as it was.
func TestStreamOnOneServer(t *testing.T) {
	t.Parallel()
	// The server's own wal_sender_timeout is hostile: see keepalives.
	pg := dbtest.PG(t, "wal_sender_timeout=2s", "max_wal_senders=40", "max_replication_slots=40", "autovacuum=off")
	for name, test := range map[string]func(*testing.T, *dbtest.Postgres){
		"acknowledgements":     testAcks,
		"idle after a restart": testIdleAfterRestart,
		"idle time":            testIdleTime,
		"two at once":          testTwoAtOnce,
		"publication":          testPublicationChanges,
		"publication unseen":   testPublicationUnseen,
		"terminated":           testTerminated,
		"silence":              testSilence,
		"keepalives":           testKeepalives,
		"slot":                 testSlotChecks,
		"slot creation":        testSlotCreation,
		"fences":               testFences,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, pg)
		})
	}
}

// TestRestartAtEveryTransaction commits back to back, one and two phases, and opens the
// stream anew at the end of every transaction. Nobody else may write in between.
func TestRestartAtEveryTransaction(t *testing.T) {
	t.Parallel()
	s := newSite(t, dbtest.PG(t, "autovacuum=off"), "restarts")
	var burst strings.Builder
	for i := range 4 {
		fmt.Fprintf(&burst, "begin; insert into t values (%d); prepare transaction 'r%d';", 100+i, i)
	}
	burst.WriteString("select pg_logical_emit_message(false, 'before', 'x');")
	for _, i := range []int{2, 0, 3, 1} {
		fmt.Fprintf(&burst, "commit prepared 'r%d';", i)
	}
	burst.WriteString("begin; insert into t values (200); rollback; begin; insert into t values (201); savepoint a; insert into t values (202); rollback to a; commit;")
	for i := range 8 {
		fmt.Fprintf(&burst, "begin; insert into t values (%d); commit;", 300+i)
	}
	burst.WriteString("select pg_logical_emit_message(false, 'behind', 'y'); begin; insert into t values (400); commit;")
	conn := s.conn()
	for _, sql := range strings.SplitAfter(burst.String(), ";") {
		if sql != "" {
			if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
				t.Fatal(sql, err)
			}
		}
	}
	want := []string{"message before", "102", "100", "103", "101", "201"}
	for i := range 8 {
		want = append(want, strconv.Itoa(300+i))
	}
	want = append(want, "message behind", "400")

	began := change.Time(time.Now().UnixMicro())
	whole := s.read("", len(want))
	for i, x := range whole {
		if now := change.Time(time.Now().UnixMicro()); x.commit.Received < began || x.commit.Received > now || i > 0 && x.commit.Received < whole[i-1].commit.Received {
			t.Errorf("transaction %d was received at %s, the one before it at %s, the stream was opened at %s, now it is %s",
				i, x.commit.Received, whole[max(i, 1)-1].commit.Received, began, now)
		}
	}
	if got := shown(whole); !slices.Equal(got, want) {
		t.Fatalf("in one go: %q, want %q", got, want)
	}
	touching := 0
	for i := range whole {
		if i > 0 && len(whole[i].data[0]) > 0 && whole[i].commit.XID != "" && commitStart(whole[i]) == mustLSN(t, whole[i-1].commit.Position) {
			touching++
		}
	}
	if touching == 0 {
		t.Error("no commit starts where the one before it ends: this proves nothing")
	}
	var got []transaction
	tail := change.Position("")
	for range want {
		x := s.read(tail, 1)[0]
		got, tail = append(got, x), x.commit.Position
	}
	if g := shown(got); !slices.Equal(g, want) {
		t.Fatalf("one by one: %q, want %q", g, want)
	}
	for i := range got {
		if got[i].commit.XID != whole[i].commit.XID || got[i].commit.Position != whole[i].commit.Position {
			t.Errorf("transaction %d is %+v, was %+v", i, got[i].commit, whole[i].commit)
		}
	}
	// Ids are the server's 64-bit ones: rows that are there still name theirs.
	xids := map[string]bool{}
	for _, x := range got {
		xids[x.commit.XID] = true
	}
	for _, r := range s.MustQuery(t, s.db, "select distinct xmin from t") {
		if !xids[r[0]] {
			t.Errorf("no transaction %s in %v", r[0], xids)
		}
	}
	// The tail of the last one holds everything, and its acknowledgement the slot's last.
	src := s.open(tail)
	src.Ack(tail)
	eventually(t, "the acknowledgement", func() bool { return s.confirmed() == string(tail) })
}

func (s *site) read(tail change.Position, n int) []transaction {
	s.t.Helper()
	src := s.open(tail)
	defer src.Close()
	var all []transaction
	for range n {
		all = append(all, nextTransaction(s.t, src))
	}
	return all
}

// shown names transactions by their only value or message.
func shown(all []transaction) []string {
	var names []string
	for _, x := range all {
		switch {
		case len(x.values) > 0:
			names = append(names, strings.Join(x.values, "+"))
		case len(x.data) == 1 && x.data[0][0] == 'M':
			name, _, _ := strings.Cut(string(x.data[0][10:]), "\x00")
			names = append(names, "message "+name)
		default:
			names = append(names, fmt.Sprintf("%q", x.data))
		}
	}
	return names
}

// commitStart reads where the commit record starts out of the Commit message.
func commitStart(x transaction) lsn.LSN {
	var at lsn.LSN
	for _, b := range x.commit.Raw[2:10] {
		at = at<<8 | lsn.LSN(b)
	}
	return at
}

func mustLSN(t *testing.T, p change.Position) lsn.LSN {
	t.Helper()
	at, err := lsn.FromPosition(p)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func testAcks(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "acks")
	start := s.confirmed()
	for range 5 {
		s.exec("insert into t default values")
	}
	// Reading, and closing, tells the server nothing.
	first := s.open("")
	if p := first.Start().Position; string(p) != start {
		t.Errorf("starts at %s, the slot stands at %s", p, start)
	}
	var all []transaction
	for range 5 {
		all = append(all, nextTransaction(t, first))
	}
	eventually(t, "a status to be sent", func() bool {
		return s.one("select coalesce(max(reply_time), '-infinity') > now() - interval '1s' from pg_stat_replication r join pg_replication_slots on active_pid = pid where slot_name = 'acks'") == "t"
	})
	first.Close()
	if now := s.confirmed(); now != start {
		t.Errorf("the slot went from %s to %s without an acknowledgement", start, now)
	}
	// An acknowledgement says that position, while later ones are at hand.
	src := s.open("")
	for i, x := range all {
		if got := nextTransaction(t, src); got.commit.Position != x.commit.Position {
			t.Fatalf("%s again as %s", x.commit.Position, got.commit.Position)
		}
		if i%2 == 0 {
			src.Ack(x.commit.Position)
			eventually(t, "acknowledgement "+string(x.commit.Position), func() bool { return s.confirmed() == string(x.commit.Position) })
		}
		src.Ack(all[0].commit.Position) // never back
	}
	if now := s.confirmed(); now != string(all[4].commit.Position) {
		t.Errorf("the slot stands at %s, want %s", now, all[4].commit.Position)
	}
	// Write and apply are the same: a zero would count as "everything".
	if got := s.one("select write_lsn = flush_lsn and replay_lsn = flush_lsn and flush_lsn = '" + string(all[4].commit.Position) + "' from pg_stat_replication r join pg_replication_slots on active_pid = pid where slot_name = 'acks'"); got != "t" {
		t.Error("write, flush and replay differ")
	}
	// What no position is ends the stream, and not the slot.
	src.Ack("nonsense")
	if err := failure(t, src); err == nil || !strings.Contains(err.Error(), "not an LSN") {
		t.Errorf("acknowledged nonsense: %v", err)
	}
}

// testIdleAfterRestart restarts where the server must decode again from long before the
// archive's tail. The positions it names meanwhile must not become the record's.
func testIdleAfterRestart(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "rewind")
	long := s.conn()
	if _, err := long.Exec(t.Context(), "begin; insert into t values (-1)"); err != nil {
		t.Fatal(err)
	}
	src := s.open("")
	var tail change.Position
	for range 3 {
		s.exec("insert into t select from generate_series(1, 2000)")
		tail = nextTransaction(t, src).commit.Position
	}
	src.Close()
	if s.one("select restart_lsn + 100000 < '"+string(tail)+"' from pg_replication_slots where slot_name = 'rewind'") != "t" {
		t.Fatal("nothing to decode again: this proves nothing")
	}
	for range 5 {
		src := s.open(tail)
		for caught := false; !caught; {
			m, err := src.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if m.Kind != change.KindIdle {
				t.Fatalf("%+v", m)
			}
			if m.Position != "" && mustLSN(t, m.Position) < mustLSN(t, tail) {
				t.Fatalf("idle at %s, the archive ends at %s", m.Position, tail)
			}
			caught = m.Position != ""
		}
		src.Close()
	}
}

// testIdleTime expects the time of an idle stream to go on although nothing is logged, and
// never to run ahead of what has been delivered.
func testIdleTime(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "idletime")
	src := s.open("")
	idle := func() *change.Message {
		t.Helper()
		m, err := src.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for range 3 {
		var now int64
		if err := connectTo(t, s.url()).QueryRow(t.Context(), "select (extract(epoch from clock_timestamp()) * 1000000)::bigint").Scan(&now); err != nil {
			t.Fatal(err)
		}
		eventually(t, "an idle time that goes on", func() bool { m := idle(); return m.Kind == change.KindIdle && int64(m.CommitTime) > now })
	}
	// With a backlog that nobody has asked for the time stands still.
	s.exec("insert into t default values")
	at := idle().CommitTime
	for m := idle(); m.Kind != change.KindCommit; m = idle() {
		at = max(at, m.CommitTime)
	}
	if x := nextIdle(t, src); x.CommitTime < at {
		t.Errorf("time went from %s back to %s", at, x.CommitTime)
	}
}

func nextIdle(t *testing.T, src *Source) change.Message {
	t.Helper()
	for {
		m, err := src.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind == change.KindIdle && m.Position != "" {
			return *m
		}
	}
}

func testTwoAtOnce(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "two")
	first := s.open("")
	o := s.options("")
	o.BusyWait = time.Millisecond
	if _, err := s.tryOpen(o); !errors.Is(err, capture.ErrOtherCapture) || !strings.Contains(err.Error(), `slot "two" is read by another connection`) {
		t.Fatal(err)
	}
	// One that ends meanwhile is waited for.
	opened := make(chan error)
	go func() {
		src, err := s.tryOpen(s.options(""))
		if err == nil {
			src.Close()
		}
		opened <- err
	}()
	eventually(t, "the second one to have been refused", func() bool { return strings.Contains(pg.Log(), `replication slot "two" is active`) })
	first.Close()
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}

func testPublicationChanges(t *testing.T, pg *dbtest.Postgres) {
	for i, c := range []struct{ sql, want string }{
		{"drop publication txreel", "dropped or created anew"},
		{"drop publication txreel; create publication txreel for all tables", "dropped or created anew"},
		{"alter publication txreel set (publish = 'insert')", "no UPDATE"},
		{"alter publication txreel set (publish_via_partition_root)", "under their root's name"},
	} {
		s := newSite(t, pg, fmt.Sprintf("pub%d", i))
		src := s.open("")
		tail := nextIdle(t, src).Position
		s.exec(c.sql)
		if err := failure(t, src); !errors.Is(err, capture.ErrGap) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.sql, err)
		}
		if strings.Contains(c.sql, "create") {
			continue // looks as it did before
		}
		if _, err := s.tryOpen(s.options(tail)); !errors.Is(err, capture.ErrGap) {
			t.Errorf("opened after %s: %v", c.sql, err)
		}
	}
}

// testPublicationUnseen drops the publication between two looks at the catalog: the stream itself must end. Version 18
// only warns, and leaves out what would have been published.
func testPublicationUnseen(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "unseen")
	o := s.options("")
	o.statusEvery, o.silence = time.Hour, time.Hour
	src, err := s.tryOpen(o)
	if err != nil {
		t.Fatal(err)
	}
	s.exec("insert into t default values")
	nextTransaction(t, src)
	s.exec("drop publication txreel")
	s.exec("insert into t default values")
	if err := failure(t, src); !errors.Is(err, capture.ErrGap) || !strings.Contains(err.Error(), "publication") {
		t.Error(err)
	}
}

func testTerminated(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "terminated")
	for what, sql := range map[string]string{
		"walsender": "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'terminated'",
		"control":   "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'terminated' and backend_type = 'client backend' and application_name = 'txreel'",
	} {
		src := s.open("")
		if s.one(sql) != "t" {
			t.Fatal(what)
		}
		if err := failure(t, src); !errors.Is(err, capture.ErrUnreachable) || errors.Is(err, capture.ErrGap) {
			t.Errorf("%s: %v", what, err)
		}
		src.Close()
	}
}

// TestServerEnds stops a server under a stream at once.
func TestServerEnds(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "ends")
	for _, mode := range []string{"immediate", "fast"} {
		src := s.open("")
		if err := pg.Stop(t.Context(), mode); err != nil {
			t.Fatal(err)
		}
		err := failure(t, src)
		if !errors.Is(err, capture.ErrUnreachable) {
			t.Errorf("%s: %v", mode, err)
		}
		src.Close()
		if _, err := s.tryOpen(s.options("")); !errors.Is(err, capture.ErrUnreachable) {
			t.Errorf("opened while it is down: %v", err)
		}
		if err := pg.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// proxy forwards connections to a server until it is told to swallow what replication
// connections say: what a network does that is gone without a word.
type proxy struct {
	net.Listener
	to     string
	mu     sync.Mutex
	silent bool
	budget int // bytes of the server's that still pass when silent
	conns  []net.Conn
	joined sync.WaitGroup
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, to: to}
	p.joined.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				_ = c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c, s)
			p.mu.Unlock()
			replication := &atomic.Bool{}
			p.joined.Go(func() { p.forward(s, c, replication, false) })
			p.joined.Go(func() { p.forward(c, s, replication, true) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.joined.Wait()
	})
	return p
}

func (p *proxy) forward(to, from net.Conn, replication *atomic.Bool, answers bool) {
	hush := func(n int) int {
		if !replication.Load() {
			return -1
		}
		return p.hush(n)
	}
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		if err != nil {
			if hush(0) < 0 {
				_ = to.Close()
			}
			return
		}
		if !answers && bytes.Contains(b[:n], []byte("replication\x00database\x00")) {
			replication.Store(true)
		}
		if answers {
			if left := hush(n); left >= 0 {
				n = left
			}
		} else if hush(0) >= 0 {
			n = 0
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// hush returns how many of n bytes may pass, negative when all may.
func (p *proxy) hush(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.silent {
		return -1
	}
	n = min(n, p.budget)
	p.budget -= n
	return n
}

func (p *proxy) silence(budget int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent, p.budget = true, budget
}

// through names the server as the proxy sees it.
func through(t *testing.T, p *proxy, source string) string {
	t.Helper()
	u, err := url.Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = p.Addr().String()
	return u.String()
}

func testSilence(t *testing.T, pg *dbtest.Postgres) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(pg.Port))
	for _, c := range []struct {
		name   string
		budget int
	}{
		{"between messages", 0},
		{"in the middle of a message", 3000},
	} {
		s := newSite(t, pg, "silent"+strconv.Itoa(c.budget))
		p := newProxy(t, address)
		o := s.options("")
		o.URL, o.silence = through(t, p, s.url()), time.Second
		src, err := s.tryOpen(o)
		if err != nil {
			t.Fatal(err)
		}
		nextIdle(t, src)
		p.silence(c.budget)
		s.exec("insert into t (v) values (repeat('x', 100000))")
		err = failure(t, src)
		if !errors.Is(err, capture.ErrUnreachable) || !strings.Contains(err.Error(), "silent") {
			t.Errorf("%s: %v", c.name, err)
		}
		src.Close()
	}
}

// testKeepalives lets a stream wait for its reader longer than the server's own
// wal_sender_timeout allows.
func testKeepalives(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "keepalives")
	s.exec("insert into t (v) select repeat(md5(i::text), 300) from generate_series(1, 4000) i") // more than all buffers
	o := s.options("")
	o.statusEvery = 5 * time.Second // what saves it is the timeout it brought along
	src, err := s.tryOpen(o)
	if err != nil {
		t.Fatal(err)
	}
	next(t, src)
	begun := s.one("select extract(epoch from clock_timestamp())")
	eventually(t, "twice the server's timeout to pass", func() bool {
		return s.one("select extract(epoch from clock_timestamp()) > 4.5 + "+begun) == "t"
	})
	for m := next(t, src); m.Kind != change.KindCommit; m = next(t, src) {
	}
	// And it is told about us meanwhile.
	quick := newSite(t, pg, "keepalives2")
	quick.exec("insert into t (v) select repeat(md5(i::text), 300) from generate_series(1, 4000) i")
	src = quick.open("")
	next(t, src)
	reply := func() string {
		return quick.one("select coalesce(reply_time::text, '') from pg_stat_replication r join pg_replication_slots on active_pid = pid where slot_name = 'keepalives2'")
	}
	for range 3 {
		before := reply()
		eventually(t, "another status", func() bool { return reply() != before })
	}
}

// TestCloseLeavesNothing closes streams in every state. It does not run in parallel: it
// counts goroutines.
func TestCloseLeavesNothing(t *testing.T) {
	pg := dbtest.PG(t)
	s := newSite(t, pg, "closing")
	s.exec("insert into t (v) select repeat(md5(i::text), 300) from generate_series(1, 4000) i")
	for name, state := range map[string]func(*Source){
		"just opened": func(*Source) {},
		"full": func(src *Source) {
			next(t, src)
			eventually(t, "full channels", func() bool { return len(src.batches) == cap(src.batches) })
		},
		"failed": func(src *Source) { src.fail(errors.New("test")) },
		"terminated": func(src *Source) {
			s.exec("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'closing'")
			_ = failure(t, src) // any
		},
		"acknowledging": func(src *Source) { src.Ack(src.Start().Position) },
		"twice":         func(src *Source) { src.Close() },
		"cancelled": func(src *Source) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			for range 1000 {
				if _, err := src.Next(ctx); errors.Is(err, context.Canceled) {
					return
				}
			}
		},
	} {
		before := runtime.NumGoroutine()
		src, err := Open(t.Context(), s.options(""))
		if err != nil {
			t.Fatal(name, err)
		}
		state(src)
		src.Close()
		eventually(t, name+": goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
		eventually(t, name+": sessions to end", func() bool {
			return s.one("select count(*) from pg_stat_activity where datname = 'closing' and pid <> pg_backend_pid()") == "0"
		})
	}
	// An Open that fails late leaves nothing either.
	before := runtime.NumGoroutine()
	first, err := Open(t.Context(), s.options(""))
	if err != nil {
		t.Fatal(err)
	}
	o := s.options("")
	o.BusyWait = time.Millisecond
	if _, err := Open(t.Context(), o); err == nil {
		t.Fatal("opened twice")
	}
	first.Close()
	eventually(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
}

// A stream that never pauses is left as soon as ctx ends.
func TestNextLooksAtContextWhileTheStreamFlows(t *testing.T) {
	t.Parallel()
	s := &Source{batches: make(chan *batch, 1), free: make(chan *batch, 3), timer: time.NewTimer(time.Hour)}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		select {
		case s.batches <- &batch{data: msgMessage(0, 1), items: []item{{end: len(msgMessage(0, 1))}}}:
		default:
		}
		if _, err := s.Next(ctx); err != nil {
			return
		}
		for range s.parser.queue {
			s.parser.queued()
		}
		select {
		case <-s.free:
		default:
		}
	}
	t.Fatal("ctx is never looked at")
}
