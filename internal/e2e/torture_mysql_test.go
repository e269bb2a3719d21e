package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/internal/faults"
	"txreel/sources/mysql/gtid"
)

// myEngine is a MySQL or MariaDB that takes nothing back when it is killed, under a clock of its own. Its COMMIT can wait
// for a capture.
type myEngine struct {
	*mySite
	time  *faults.Clock
	spare *dbtest.MySQL // to be restored into
}

func newMyEngine(t *testing.T, flavor string, gateway *dbtest.Gateway) *myEngine {
	t.Helper()
	spare := dbtest.My(t, flavor)
	clock, root := newClock(t, spare.Root, "bin/"+filepath.Base(spare.Program("mysqld")))
	settings := map[string]string{"sync_binlog": "1", "innodb_flush_log_at_trx_commit": "1", "max_binlog_size": "65536"}
	limit := fmt.Sprint(mode{}.timeout().Milliseconds())
	if spare.Flavor == "mariadb" {
		maps.Copy(settings, map[string]string{"rpl_semi_sync_master_enabled": "ON", "rpl_semi_sync_master_wait_point": "AFTER_SYNC",
			"rpl_semi_sync_master_timeout": limit, "rpl_semi_sync_master_wait_no_slave": "OFF"})
	} else {
		maps.Copy(settings, map[string]string{"plugin_load_add": "semisync_source.so", "rpl_semi_sync_source_enabled": "ON",
			"rpl_semi_sync_source_timeout": limit, "rpl_semi_sync_source_wait_no_replica": "OFF"})
	}
	source := dbtest.MyWith(t, dbtest.MySQLOptions{Flavor: flavor, Root: root, Settings: settings})
	return &myEngine{mySiteOn(t, source, gateway), clock, spare}
}

func (e *myEngine) name() string {
	version, _, _ := strings.Cut(e.my.Version, "-")
	if e.my.Flavor == "mariadb" {
		return "MariaDB " + version
	}
	return "MySQL " + version
}
func (e *myEngine) where() (*place, string) {
	return &e.place, net.JoinHostPort("127.0.0.1", strconv.Itoa(e.my.Port))
}
func (e *myEngine) kill(ctx context.Context) error  { return e.my.Kill(ctx) }
func (e *myEngine) start(ctx context.Context) error { return e.my.Start(ctx) }
func (e *myEngine) clock() *faults.Clock            { return e.time }

// restart stops the server in order. MariaDB's timers wait for a time of day. After the clock was set back none of them comes, until it has caught
// up, and with them the flush of InnoDB's log for which the binlog's background thread holds up a shutdown: such a server is killed, as its operator would.
func (e *myEngine) restart(ctx context.Context) error {
	stopping, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := e.my.Stop(stopping)
	if errors.Is(err, context.DeadlineExceeded) && e.my.Flavor == "mariadb" && e.time.Counts()[faults.Back] > 0 {
		e.t.Log("the server whose clock was set back does not end: it is killed")
		err = e.my.Kill(ctx)
	}
	return errors.Join(err, e.my.Start(ctx))
}

func (e *myEngine) grain() time.Duration {
	if e.my.Flavor == "mariadb" {
		return time.Second
	}
	return time.Microsecond
}
func (e *myEngine) patient(ctx context.Context, limit time.Duration) error {
	who := "rpl_semi_sync_source_timeout"
	if e.my.Flavor == "mariadb" {
		who = "rpl_semi_sync_master_timeout"
	}
	return e.my.Exec(ctx, "", fmt.Sprintf("set global %s = %d", who, limit.Milliseconds()))
}

// pause stops all of it: what serves a capture is a thread.
func (e *myEngine) pause(context.Context, bool) (faults.Kind, func() error, error) {
	return sourcePaused, e.my.Resume, e.my.Pause()
}
func (e *myEngine) exec(ctx context.Context, sql string) error { return e.my.Exec(ctx, "shop", sql) }
func (e *myEngine) query(sql string) [][]string                { return e.my.MustQuery(e.t, "shop", sql) }

func (e *myEngine) cut(ctx context.Context) (int, error) {
	rows, err := e.my.Query(ctx, "", "select id from information_schema.processlist where db = 'shop'")
	for _, row := range rows {
		if err := e.my.Exec(ctx, "", "kill connection "+row[0]); err != nil {
			return 0, err
		}
	}
	return len(rows), err
}

// definitions change the bank's own table, too: the log holds them, and any point can be restored.
func (e *myEngine) definitions() []string {
	return []string{
		`set lock_wait_timeout = 2; drop table if exists side; create table side (id int primary key, v text); insert into side values (1, 'one')`,
		`set lock_wait_timeout = 2; alter table side add w int default 7; insert into side values (2, 'two', 2); alter table side drop v`,
		`set lock_wait_timeout = 2; alter table accounts add extra int default 1`,
		`set lock_wait_timeout = 2; alter table accounts drop extra`,
	}
}

func (e *myEngine) holds(a *archive.Archive) func() bool {
	want := e.here()
	return func() bool {
		tail, err := a.Tail(e.t.Context(), 1)
		if err != nil || tail.Seq == 0 {
			return false
		}
		held, err := gtid.Parse(e.flavor(), string(tail.Position))
		return err == nil && held.Contains(want)
	}
}

// ready has nothing to do: the log has the definitions, and the way from the first base is the longest.
func (e *myEngine) ready() {}

func (e *myEngine) reaches(...string) bool { return true }

func (e *myEngine) target(int) victim {
	e.t.Helper()
	target := e.spare
	if e.spare = nil; target == nil {
		target = e.mySite.target()
	}
	return victim{target.URL(""), func(sql string) [][]string { return target.MustQuery(e.t, "shop", sql) }, target.Kill, target.Start}
}

// connect opens a session. With MySQL every other client's transactions are compressed in the log.
func (e *myEngine) connect(ctx context.Context, client int) (teller, error) {
	session, err := e.my.Session(ctx, "shop")
	if err != nil {
		return nil, err
	}
	if e.my.Flavor == "mysql" && client%2 == 1 {
		if err := session.Exec(ctx, "set session binlog_transaction_compression = on"); err != nil {
			return nil, errors.Join(err, session.Close())
		}
	}
	return &myTeller{session}, nil
}

type myTeller struct{ *dbtest.Session }

func (s *myTeller) exec(ctx context.Context, sql string) error {
	err := s.Exec(ctx, sql)
	var refusal *mysql.MySQLError
	// A deadlock or a lock that nobody gave: whatever it took back, the COMMIT behind it was not run.
	if errors.As(err, &refusal) && (refusal.Number == 1213 || refusal.Number == 1205) && s.Exec(ctx, "rollback") == nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return err
}

func (s *myTeller) close() { _ = s.Close() } // it may be lost
