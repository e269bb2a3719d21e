package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
)

const protectedNow = `"message":"COMMIT waits for the archive"`

// TestZeroLoss destroys the source at random moments while clients write and COMMIT waits for the archive. Whatever a
// client saw committed is in the archive at that moment: nothing of the source is looked at.
func TestZeroLoss(t *testing.T) {
	t.Parallel()
	// A thousand milliseconds are much for a COMMIT and little for a machine that runs other tests.
	patient := []string{"--sync", "--sync-timeout", "60s"}
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, dbtest.PG(t), "zero", dbtest.S3(t)).setup()
		c := s.capture(patient...)
		a := s.waitArchive()
		s.waitBases(a, 1, 1)
		eventually(t, time.Minute, "COMMIT waits", func() bool { return c.has(protectedNow) })
		work := startLedger(s, 8)
		acked := 0
		for range times(8, 100) {
			more := work.committed() + 20 + rand.IntN(20)
			eventually(t, 2*time.Minute, "clients write", func() bool { return work.committed() > more })
			if err := s.pg.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			acked += work.held(t, readRecord(t, a, 1))
			if err := s.pg.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		work.end(t)
		s.waitPast(a, s.here())
		if c.has("does not wait for the archive any more") {
			t.Errorf("the breaker let COMMITs go:\n%s", tail(c.stderr(), 10))
		}
		c.kill()
		work.check(t, readRecord(t, a, 1))
		t.Logf("%d times an acknowledged transaction was looked for", acked)
	})
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			s := semiSyncSite(t, flavor, 60*time.Second)
			c := s.capture(patient...)
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			eventually(t, time.Minute, "COMMIT waits", func() bool { return c.has(protectedNow) })
			work := startJournal(s, 8)
			for range times(8, 100) {
				more := work.count() + 20 + rand.IntN(20)
				eventually(t, 2*time.Minute, "clients write", func() bool { return work.count() > more })
				times := strings.Count(c.stderr(), protectedNow)
				if err := s.my.Kill(t.Context()); err != nil {
					t.Fatal(err)
				}
				work.held(t, s, a)
				if err := s.my.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				eventually(t, time.Minute, "COMMIT waits again", func() bool { return strings.Count(c.stderr(), protectedNow) > times })
			}
			work.end(t)
			s.waitPast(a, s.here())
			c.kill()
			restored := s.restore()
			work.check(t, restored)
		})
	}
}

// semiSyncSite is a source whose COMMIT can wait for a replica, for so long.
func semiSyncSite(t *testing.T, flavor string, timeout time.Duration) *mySite {
	t.Helper()
	limit := fmt.Sprint(timeout.Milliseconds())
	// While no capture is connected nothing waits: else each statement until then would take all of that time.
	settings := []string{"plugin_load_add=semisync_source.so", "rpl_semi_sync_source_enabled=ON", "rpl_semi_sync_source_timeout=" + limit, "rpl_semi_sync_source_wait_no_replica=OFF"}
	if flavor == "mariadb" {
		settings = []string{"rpl_semi_sync_master_enabled=ON", "rpl_semi_sync_master_wait_point=AFTER_SYNC", "rpl_semi_sync_master_timeout=" + limit, "rpl_semi_sync_master_wait_no_slave=OFF"}
	}
	s := newMySite(t, flavor, dbtest.S3(t), append(settings, "sync_binlog=1", "innodb_flush_log_at_trx_commit=1")...)
	s.exec(`create table journal (client int, n int, part int, note varchar(200), primary key (client, n, part))`)
	return s
}

// held fails the test unless the record holds every transaction that was acknowledged, and returns how many.
func (l *ledger) held(t *testing.T, txns []recordedTxn) int {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	recorded := make(map[entry]int)
	for _, txn := range txns {
		for _, row := range txn.rows["public.ledger"] {
			var e entry
			if _, err := fmt.Sscan(strings.Join(row.new[:2], " "), &e.client, &e.n); err != nil {
				t.Fatal(err)
			}
			recorded[e]++
		}
	}
	n := 0
	for e, f := range l.txns {
		if f.acked == 0 || f.rolledBack {
			continue
		}
		if n++; recorded[e] != f.rows {
			t.Errorf("%v was acknowledged with %d rows, the archive holds %d", e, f.rows, recorded[e])
		}
	}
	return n
}

// count returns how many transactions were acknowledged.
func (j *journal) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.acked)
}

// held fails the test unless the site's archive holds every transaction that was acknowledged. It reads what has come
// since it was called last: objects are created once.
func (j *journal) held(t *testing.T, s *mySite, a *archive.Archive) {
	t.Helper()
	j.mu.Lock()
	acked := maps.Clone(j.acked)
	j.mu.Unlock()
	end, err := a.Tail(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if j.rows == nil {
		j.rows = make(map[string]int)
	}
	if end.Seq > j.read {
		j.export(t, s, j.read+1, end.Seq)
		j.read = end.Seq
	}
	recorded := make(map[string]bool)
	for id, n := range j.rows {
		recorded[fmt.Sprint(id, " ", n)] = true
	}
	for id := range acked {
		if !recorded[id] {
			t.Errorf("transaction (client, number, rows) %s was acknowledged and is not in the archive", id)
		}
	}
}

// export counts the rows of each transaction in a part of the site's archive.
func (j *journal) export(t *testing.T, s *mySite, from, to change.Seq) {
	t.Helper()
	out := s.must("audit", "export", "--table", "shop.journal", "--op", "insert", "--from", from.String(), "--to", to.String()).stdout
	for line := range strings.Lines(out) {
		var row struct {
			After struct{ Client, N json.Number }
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		j.rows[row.After.Client.String()+" "+row.After.N.String()]++
	}
}

// protection is what status says of the last epoch.
func (s *place) protection() []archive.Span {
	s.t.Helper()
	var report struct {
		Epochs []struct{ Protection []archive.Span }
	}
	s.must("status", "--json").decode(s.t, &report)
	if len(report.Epochs) == 0 {
		return nil
	}
	return report.Epochs[len(report.Epochs)-1].Protection
}

// TestBreaker lets the store hang, and the capture too, while COMMIT waits for them. It goes on all the same, the
// record says for which transactions it did not wait, and a capture that stands by takes over.
func TestBreaker(t *testing.T) {
	t.Parallel()
	eager := []string{"--sync", "--sync-timeout", "3s"}
	type source interface {
		exec(sql string)
	}
	story := func(t *testing.T, p *place, s source, gateway *dbtest.Gateway) {
		p.racing()
		first := p.capture(eager...)
		a := p.waitArchive()
		p.waitBases(a, 1, 1)
		n := 0
		write := func() {
			n++
			s.exec(fmt.Sprintf("insert into journal values (0, %d, 0, 'x')", n))
		}
		protected := func(c *process, times int) {
			t.Helper()
			eventually(t, time.Minute, "COMMIT waits", func() bool { write(); return strings.Count(c.stderr(), protectedNow) >= times })
			write() // the one before may have been too early to wait
		}
		protected(first, 1)

		if err := gateway.Pause(); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		write()
		t.Logf("with the store hung a COMMIT took %v", time.Since(begun))
		eventually(t, time.Minute, "COMMITs go on", func() bool {
			begun := time.Now()
			write()
			return time.Since(begun) < time.Second
		})
		if err := gateway.Resume(); err != nil {
			t.Fatal(err)
		}
		protected(first, 2)
		spans := p.protection()
		if n := len(spans); n < 3 || !spans[n-1].Protected || spans[n-2].Protected || !spans[n-3].Protected {
			t.Errorf("the record says %+v", spans)
		}

		second := p.capture(append(eager, "--standby")...)
		eventually(t, time.Minute, "it stands by", func() bool { return second.has("standing by") })
		first.kill()
		begun = time.Now()
		write()
		t.Logf("with the capture killed a COMMIT took %v", time.Since(begun))
		protected(second, 1)
		t.Logf("the other one protects %v after that", time.Since(begun))
		if spans := p.protection(); !spans[len(spans)-1].Protected {
			t.Errorf("the record says %+v", spans)
		}
		r := p.must("restore", "--dry-run")
		if !strings.Contains(r.stdout, "COMMIT of the chosen transaction waited for the archive") {
			t.Errorf("the plan says nothing of zero-loss mode:\n%s", r.stdout)
		}
		p.must("verify", "--full")

		second.signal(os.Interrupt)
		second.wait(time.Minute)
		begun = time.Now()
		write()
		t.Logf("with no capture a COMMIT took %v", time.Since(begun))
		if spans := p.protection(); spans[len(spans)-1].Protected {
			t.Errorf("the record says %+v after the end", spans)
		}
	}
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, dbtest.PG(t), "breaker", dbtest.S3(t)).setup()
		s.exec(`CREATE TABLE journal (client int, n int, part int, note text, PRIMARY KEY (client, n, part))`)
		s.exec(`CREATE ROLE humble LOGIN REPLICATION PASSWORD 'humble'; GRANT pg_read_all_data TO humble`)
		r := s.with("TXREEL_SOURCE="+s.pg.URLAs("humble", "humble", s.db)).run("capture", "--sync")
		r.sentence(t, "GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO")
		story(t, &s.place, s, s.gateway)
	})
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			s := semiSyncSite(t, flavor, 3*time.Second)
			s.run("capture", "--sync", "--sync-timeout", "2s").sentence(t, "longer than --sync-timeout", "timeout = 2000")
			story(t, &s.place, s, s.gateway)
		})
	}
}
