package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sources/mysql/gtid"
)

// TestMyKill ends a capture with SIGKILL at random moments, and the source too, while clients write and the binlog
// rotates. Whatever was going on, the record holds every transaction exactly once, and every one that a client saw
// committed.
func TestMyKill(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			// A source that takes nothing back when it is killed.
			s := newMySite(t, flavor, nil, "sync_binlog=1", "innodb_flush_log_at_trx_commit=1", "max_binlog_size=65536")
			s.racing()
			s.exec(`create table journal (client int, n int, part int, note varchar(200), primary key (client, n, part))`)
			first := s.capture()
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			first.kill()
			start := s.startOf(a)

			work := startJournal(s, 4)
			for range times(12, 250) {
				p := s.capture()
				time.Sleep(time.Duration(20+rand.IntN(300)) * time.Millisecond)
				p.kill()
			}
			survivor := s.capture()
			s.waitPast(a, s.here())
			for range times(3, 10) {
				if err := s.my.Kill(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := s.my.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
			}
			work.end(t)
			s.waitPast(a, s.here())
			if !survivor.alive() {
				t.Errorf("the capture did not survive the source:\n%s", tail(survivor.stderr(), 5))
			}
			survivor.kill()

			s.exactlyOnce(a, start)
			want := dumpOf(t, s.my)
			restored := s.restore()
			equal(t, want, restored)
			work.check(t, restored)
			s.must("verify", "--full")
		})
	}
}

// startOf is the set with which the first epoch begins.
func (s *mySite) startOf(a *archive.Archive) *gtid.Set {
	s.t.Helper()
	e, ok, err := a.Lookup(s.t.Context(), 1, 1)
	if err != nil || !ok || e.Kind != change.TxnHeartbeat {
		s.t.Fatalf("the record does not begin with a heartbeat: %+v, %v", e, err)
	}
	set, err := gtid.Parse(s.flavor(), string(e.Position))
	if err != nil {
		s.t.Fatal(err)
	}
	return set
}

// exactlyOnce fails the test unless the first epoch has one transaction for each GTID that the source has executed
// since start, and the source no gap on record.
func (s *mySite) exactlyOnce(a *archive.Archive, start *gtid.Set) {
	s.t.Helper()
	if epochs, err := a.Epochs(s.t.Context()); err != nil || len(epochs) != 1 {
		s.t.Errorf("%d epochs, %v", len(epochs), err)
	}
	if gap, err := a.Gap(s.t.Context(), 1); err != nil || gap != nil {
		s.t.Errorf("gap %+v, %v", gap, err)
	}
	held, n := start.Clone(), 0
	for x, err := range a.Segments(s.t.Context(), 1, 1) {
		if err != nil {
			s.t.Fatal(err)
		}
		for i := range x.Txns {
			e := &x.Txns[i]
			if e.Kind != change.TxnSource {
				continue
			}
			g, err := gtid.ParseGTID(e.XID)
			if err != nil {
				s.t.Fatal(err)
			}
			if !held.Add(g) {
				s.t.Errorf("%s is on record twice, the second time as %s", g, e.Seq)
			}
			n++
		}
		if string(x.End) != held.String() {
			s.t.Errorf("%s says that %s is held, its transactions make %s", x.Key, x.End, held)
		}
	}
	if here := s.here(); !held.Equal(here) {
		s.t.Errorf("the source has %s, the record %s", here, held)
	}
	s.t.Logf("%d transactions, each once", n)
}

// journal is a workload whose clients remember what they saw committed.
type journal struct {
	stop   context.CancelFunc
	joined sync.WaitGroup

	mu    sync.Mutex
	acked map[string]bool

	rows map[string]int // of each transaction, as far as held has read the archive
	read change.Seq     // up to which that is
}

// startJournal lets clients write until end.
func startJournal(s *mySite, clients int) *journal {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	j := &journal{stop: cancel, acked: make(map[string]bool)}
	for client := range clients {
		j.joined.Go(func() { j.client(ctx, s.my, client) })
	}
	s.t.Cleanup(func() {
		cancel()
		j.joined.Wait()
	})
	return j
}

// client writes, over as many connections as it takes: a source that was killed comes back.
func (j *journal) client(stop context.Context, my *dbtest.MySQL, client int) {
	ctx := context.WithoutCancel(stop)
	random := rand.New(rand.NewPCG(1, uint64(client)))
	n := 0
	for stop.Err() == nil {
		conn, err := my.Session(ctx, "shop")
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		for stop.Err() == nil && err == nil {
			n++
			parts := 1 + random.IntN(4)
			sql := "begin;"
			for part := range parts {
				sql += fmt.Sprintf("insert into journal values (%d, %d, %d, repeat('x', %d));", client, n, part, random.IntN(200))
			}
			if random.IntN(4) == 0 {
				sql += fmt.Sprintf("savepoint a; update journal set note = 'changed' where client = %d and n < %d order by n desc limit 3; rollback to a;", client, n)
			}
			end := "commit"
			if random.IntN(8) == 0 {
				end = "rollback"
			}
			if err = conn.Exec(ctx, sql+end); err == nil && end == "commit" {
				j.mu.Lock()
				j.acked[fmt.Sprintf("%d %d %d", client, n, parts)] = true
				j.mu.Unlock()
			}
			time.Sleep(5 * time.Millisecond) // what is tested is not how fast it goes
		}
		_ = conn.Close() // it may be lost
	}
}

// end stops the clients, each after the transaction it is in.
func (j *journal) end(t *testing.T) {
	t.Helper()
	j.stop()
	j.joined.Wait()
	if len(j.acked) == 0 {
		t.Fatal("no client committed anything")
	}
}

// check fails the test unless a server holds every transaction that was seen to commit, whole.
func (j *journal) check(t *testing.T, m *dbtest.MySQL) {
	t.Helper()
	held := make(map[string]bool)
	for _, row := range m.MustQuery(t, "shop", "select concat_ws(' ', client, n, count(*)) from journal group by client, n") {
		held[row[0]] = true
	}
	lost := 0
	for id := range j.acked {
		if !held[id] {
			lost++
			if lost < 5 {
				t.Errorf("transaction (client, number, rows) %s was committed and is not there", id)
			}
		}
	}
	t.Logf("%d acknowledged transactions, %d lost", len(j.acked), lost)
}
