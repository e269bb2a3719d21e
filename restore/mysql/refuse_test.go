package mysql

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/restore"
	"txreel/sources/mysql/gtid"
	"txreel/sources/mysql/mybase"
)

// TestRefusals demands that Check refuses what cannot become the source, says why, and
// has written nothing.
func TestRefusals(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		ctx := context.Background()
		r := record(t, source)
		source.MustExec(t, "", "CREATE DATABASE d")
		r.capture()
		own := target.MustQuery(t, "", "SELECT @@server_id")[0][0]
		for _, c := range []struct {
			name   string
			base   func(*mybase.Engine)
			before string // on the target
			after  string
			user   string // of the target, instead of root
			want   string
		}{
			{name: "newer base", base: func(e *mybase.Engine) { e.Number, e.Version = 129900, "12.99.0" }, want: "same series (12.99) or a newer one"},
			{name: "names", base: func(e *mybase.Engine) { e.LowerCaseTableNames = 1 }, want: "lower_case_table_names=0, the source 1"},
			{name: "pages", base: func(e *mybase.Engine) { e.PageSize = 4096 }, want: "innodb_page_size=16384, the source 4096"},
			{name: "read only", before: "SET GLOBAL read_only = ON", want: "SET GLOBAL read_only = OFF"},
			{name: "a database", before: "CREATE DATABASE precious", want: "it has the databases precious"},
			{name: "a replica", before: map[string]string{"mysql": "CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'h.example', SOURCE_PORT = 3307",
				"mariadb": "CHANGE MASTER TO MASTER_HOST = 'h.example', MASTER_PORT = 3307"}[target.Flavor], want: "it replicates from h.example:3307"},
			{name: "one of several replicas", before: map[string]string{"mysql": "CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'h.example', SOURCE_PORT = 3308 FOR CHANNEL 'x'",
				"mariadb": "CHANGE MASTER 'x' TO MASTER_HOST = 'h.example', MASTER_PORT = 3308"}[target.Flavor], after: map[string]string{
				"mysql": "RESET REPLICA ALL", "mariadb": "RESET SLAVE 'x' ALL"}[target.Flavor], want: map[string]string{
				"mysql": "RESET REPLICA ALL FOR CHANNEL 'x'", "mariadb": "RESET SLAVE 'x' ALL"}[target.Flavor]},
			{name: "a history", before: map[string]string{"mysql": "SET GLOBAL gtid_purged = '" + ua + ":1-9'",
				"mariadb": "SET GLOBAL gtid_slave_pos = '0-77777-9'"}[target.Flavor], want: "transactions of other servers"},
			{name: "privileges", before: "CREATE USER weak IDENTIFIED BY 'x'; GRANT SELECT, RELOAD, " + map[string]string{"mysql": "SUPER", "mariadb": "SUPER, BINLOG ADMIN"}[target.Flavor] + " ON *.* TO weak", user: "weak", want: "GRANT INSERT, UPDATE, DELETE,"},
		} {
			t.Run(c.name, func(t *testing.T) {
				empty(t, target)
				if c.before != "" {
					target.MustExec(t, "", c.before)
					defer target.MustExec(t, "", "SET GLOBAL read_only = OFF; "+c.after)
				}
				p, err := r.plan(restore.Goal{})
				r.check(err)
				if c.base != nil {
					var e mybase.Engine
					r.check(json.Unmarshal(p.Base.Engine, &e))
					c.base(&e)
					p.Base.Engine, err = json.Marshal(e)
					r.check(err)
				}
				url := target.URL("")
				if c.user != "" {
					url = target.URLAs(c.user, "x", "")
				}
				to, err := Open(ctx, url, Options{})
				r.check(err)
				defer to.Close()
				before := target.MustQuery(t, "", "SHOW BINLOG EVENTS")
				_, err = restore.Run(ctx, r.archive, p, to, restore.Options{})
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				if after := target.MustQuery(t, "", "SHOW BINLOG EVENTS"); len(after) != len(before) {
					t.Errorf("it wrote: %v", after)
				}
				if n := target.MustQuery(t, "", "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name LIKE 'txreel%'")[0][0]; n != "0" {
					t.Error("it left a schema behind")
				}
			})
		}
		empty(t, target)
		target.MustExec(t, "", "CREATE USER somebody IDENTIFIED BY 'x'") // as a DBA sets a server up
		report := r.mustRestore(target, restore.Goal{})
		if got := strings.Join(report.Warnings, "\n"); !strings.Contains(got, "begins anew") {
			t.Errorf("warnings %q", got)
		}
		if now := target.MustQuery(t, "", "SELECT @@server_id")[0][0]; now != own {
			t.Errorf("server_id %s, was %s", now, own)
		}
	})
}

// TestRefusedSession demands that what a server does not let the session do is not taken for an outage.
func TestRefusedSession(t *testing.T) {
	both(t, func(t *testing.T, _, target *dbtest.MySQL) {
		target.MustExec(t, "", "CREATE USER weaker IDENTIFIED BY 'x'; GRANT SELECT, RELOAD ON *.* TO weaker")
		to, err := Open(context.Background(), target.URLAs("weaker", "x", ""), Options{})
		if err == nil {
			to.Close()
		}
		if err == nil || errors.Is(err, restore.ErrUnreachable) || !strings.Contains(err.Error(), "out of the binary log") {
			t.Errorf("%v", err)
		}
	})
}

// TestOtherVendor demands that a record goes to a server of its vendor only.
func TestOtherVendor(t *testing.T) {
	_, my := servers(t, "mysql")
	source, _ := servers(t, "mariadb")
	r := record(t, source)
	source.MustExec(t, "", "CREATE DATABASE d")
	r.capture()
	_, err := r.restore(context.Background(), my, restore.Goal{}, restore.Options{})
	if err == nil || !strings.Contains(err.Error(), "the archive records MariaDB, the target is MySQL 9") {
		t.Errorf("%v", err)
	}
}

// slowStore delivers some objects late.
type slowStore struct {
	archive.Store
	late  string // the end of their keys
	delay time.Duration
}

// Open implements archive.Store.
func (s slowStore) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, int64, error) {
	if strings.HasSuffix(key, s.late) && offset == 0 && length < 0 {
		time.Sleep(s.delay)
	}
	return s.Store.Open(ctx, key, offset, length)
}

// TestSlowStore demands that a replica which is told to give a silent primary up never
// does so while the store is slow.
func TestSlowStore(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		r := record(t, source)
		small(t, source, 40)
		r.capture()
		p, err := r.plan(restore.Goal{})
		r.check(err)
		timeout := map[string]string{"mysql": "replica_net_timeout", "mariadb": "slave_net_timeout"}[target.Flavor]
		old := target.MustQuery(t, "", "SELECT @@GLOBAL."+timeout)[0][0]
		target.MustExec(t, "", "SET GLOBAL "+timeout+" = 1")
		defer target.MustExec(t, "", "SET GLOBAL "+timeout+" = "+old)
		to, err := Open(ctx, target.URL(""), Options{})
		r.check(err)
		defer to.Close()
		var links atomic.Int64
		to.period = 200 * time.Millisecond
		to.link = func(link net.Conn) net.Conn { links.Add(1); return link }
		r.archive.Store = slowStore{r.archive.Store, archive.SegmentKey(1, 22)[20:], 2500 * time.Millisecond}
		_, err = restore.Run(ctx, r.archive, p, to, restore.Options{SpillDir: r.dir})
		r.check(err)
		if n := links.Load(); n != 1 {
			t.Errorf("%d connections, want one", n)
		}
		same(t, "slow", content(t, source), content(t, target))
	})
}

// TestServe restores as into a server on another machine: the certificate goes through the server itself.
func TestServe(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		ctx := context.Background()
		r := record(t, source)
		source.MustExec(t, "", "CREATE DATABASE d; CREATE TABLE d.t (i INT PRIMARY KEY); INSERT INTO d.t VALUES (1)")
		r.capture()
		p, err := r.plan(restore.Goal{})
		r.check(err)
		to, err := Open(ctx, target.URL(""), Options{Serve: "localhost:0"})
		r.check(err)
		defer to.Close()
		report, err := restore.Run(ctx, r.archive, p, to, restore.Options{})
		r.check(err)
		same(t, "served", content(t, source), content(t, target))
		left, err := filepath.Glob(filepath.Join(target.DataDir(), "txreel-*.pem"))
		r.check(err)
		if len(left) != 1 || !strings.Contains(strings.Join(report.Warnings, "\n"), filepath.Base(left[0])) {
			t.Errorf("certificates %v, warnings %q", left, report.Warnings)
		}
		for _, path := range left {
			r.check(os.Remove(path))
		}
	})
}

// TestSettings demands that the target's settings are what they were, also when a restore was
// interrupted and the server started again in between.
func TestSettings(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		ctx := context.Background()
		r := record(t, source)
		small(t, source, 20)
		r.capture()
		set := "SET GLOBAL sync_binlog = 17, GLOBAL innodb_flush_log_at_trx_commit = 1, GLOBAL event_scheduler = ON"
		undo := "SET GLOBAL sync_binlog = 0, GLOBAL innodb_flush_log_at_trx_commit = 2"
		read := "SELECT @@GLOBAL.sync_binlog, @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.event_scheduler, @@GLOBAL.max_allowed_packet, @@GLOBAL.server_id"
		if target.Flavor == "mysql" {
			read += ", @@GLOBAL.replica_parallel_workers"
		} else {
			read += ", @@GLOBAL.slave_parallel_threads, @@GLOBAL.slave_parallel_mode, @@GLOBAL.slave_run_triggers_for_rbr"
		}
		target.MustExec(t, "", set)
		defer target.MustExec(t, "", undo)
		want := strings.Join(target.MustQuery(t, "", read)[0], " ")
		p, err := r.plan(restore.Goal{})
		r.check(err)
		to, err := Open(ctx, target.URL(""), Options{})
		r.check(err)
		job := &restore.Job{Archive: r.archive, Plan: p, Workers: 3, Progress: func(restore.Phase, int64, int64, string) {}}
		_, err = to.Check(ctx, job)
		r.check(err)
		r.check(to.Load(ctx))
		if got := target.MustQuery(t, "", "SELECT @@GLOBAL.sync_binlog, @@GLOBAL.event_scheduler")[0]; got[0] != "0" || got[1] != "OFF" {
			t.Errorf("while it loads: %v", got)
		}
		to.Close()
		r.mustRestore(target, restore.Goal{})
		if got := strings.Join(target.MustQuery(t, "", read)[0], " "); got != want {
			t.Errorf("settings %s, were %s", got, want)
		}
	})
}

func TestLedger(t *testing.T) {
	t.Parallel()
	l := newLedger(7)
	g := func(n uint64) gtid.GTID { return gtid.GTID{Flavor: gtid.MariaDB, Server: 1, N: n} }
	for n := uint64(1); n <= 100; n++ {
		l.add(g(n), change.Seq(7+n), ledgerStep/4, n == 100)
	}
	set := gtid.New(gtid.MariaDB)
	if l.executed(set); l.at() != 7 {
		t.Errorf("nothing executed: %s", l.at())
	}
	set.Add(g(50))
	if l.executed(set); l.at() < 7+46 || l.at() > 7+50 {
		t.Errorf("50 of 100 executed: %s", l.at())
	}
	// Domains are executed beside each other: what is behind in one is not passed over.
	other := func(n uint64) gtid.GTID { return gtid.GTID{Flavor: gtid.MariaDB, Domain: 3, Server: 1, N: n} }
	two := newLedger(0)
	two.add(other(1), 1, 1, false)
	two.add(other(2), 2, 1, false)
	two.add(g(1), 3, ledgerStep, false)
	two.restart() // the replica has the three, but has not executed them
	two.add(g(2), 4, ledgerStep, true)
	ahead := gtid.New(gtid.MariaDB)
	ahead.Add(g(2))
	ahead.Add(other(1))
	if two.executed(ahead); two.at() != 0 {
		t.Errorf("domain 3 is behind: %s", two.at())
	}
	ahead.Add(other(2))
	if two.executed(ahead); two.at() != 4 {
		t.Errorf("both domains executed: %s", two.at())
	}
	l.add(g(101), 108, window, true)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := l.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a window is on its way: %v", err)
	}
	set.Add(g(101))
	l.executed(set)
	if err := l.wait(context.Background()); err != nil || l.at() != 108 {
		t.Errorf("all executed: %v, at %s", err, l.at())
	}
}
