package e2e

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/internal/failpoint"
	"txreel/sources/mysql/gtid"
)

// failMy is a MySQL or MariaDB. In the short form each of them comes to a part of the points.
type failMy struct {
	*mySite
	turn  int // which part is its own
	asked int // how often source was
	start *gtid.Set
	work  *journal
}

func newFailMy(t *testing.T, flavor string, turn int) failEngine {
	t.Helper()
	settings := []string{"plugin_load_add=semisync_source.so", "rpl_semi_sync_source_enabled=ON", "rpl_semi_sync_source_timeout=60000", "rpl_semi_sync_source_wait_no_replica=OFF"}
	var gateway *dbtest.Gateway
	if flavor == "mariadb" { // whose store can be killed, too
		gateway = dbtest.S3(t)
		settings = []string{"rpl_semi_sync_master_enabled=ON", "rpl_semi_sync_master_wait_point=AFTER_SYNC", "rpl_semi_sync_master_timeout=60000", "rpl_semi_sync_master_wait_no_slave=OFF"}
	}
	// One that takes nothing back when it is killed.
	e := &failMy{mySite: newMySite(t, flavor, gateway, append(settings, "sync_binlog=1", "innodb_flush_log_at_trx_commit=1", "max_binlog_size=65536")...), turn: turn}
	for _, sql := range []string{
		`create table journal (client int, n int, part int, note varchar(200), primary key (client, n, part))`,
		`create table a (id int primary key, v varchar(200), key (v))`,
		`create table b (k int, v text)`,
		`create table c (id int auto_increment primary key, a int, v varchar(20) unique, foreign key (a) references a (id))`,
		`create procedure fill(rows_wanted int) begin
			declare i int default 0;
			start transaction;
			while i < rows_wanted do
				set i = i + 1;
				insert into a values (i, concat('v', i));
				insert into b values (i, 'v');
				insert into c (a, v) values (i, concat('c', i));
			end while;
			commit;
		end`,
		`call fill(2000)`,
		`create view w as select count(*) n from c`,
		`create trigger tr before insert on b for each row set new.v = 'inserted'`,
		`create event ev on schedule every 1 year disable do delete from b`,
		`create user somebody@localhost; grant select on shop.* to somebody@localhost`,
		`create procedure history(times int) begin
			declare i int default 0;
			while i < times do
				start transaction;
				update a set v = concat('u', i) where id = 1 + i * 7 % 2000;
				insert into b values (i, 'x');
				insert into c (a, v) values (1 + i % 2000, concat('d', i));
				delete from c where id = i;
				commit;
				set i = i + 1;
			end while;
		end`,
	} {
		e.exec(sql)
	}
	return e
}

func (e *failMy) where() *place { return &e.place }

// source returns the source or, where that is a process, the store in turn.
func (e *failMy) source() server {
	if e.asked++; e.gateway != nil && e.asked%2 == 0 {
		return store{e.gateway}
	}
	return e.my
}

// store is a gateway that is killed.
type store struct{ *dbtest.Gateway }

func (s store) Kill(context.Context) error { return s.Stop() }

func (e *failMy) has(p failpoint.Point) bool {
	return !slices.Contains(ofPostgres, p) && (e.gateway == nil || !strings.HasPrefix(string(p), "dir-"))
}

// ofMySQL are the points that only MySQL and MariaDB come to.
var ofMySQL = []failpoint.Point{
	failpoint.RestoreStepDone, failpoint.RestoreStepNoted, failpoint.RestoreForgotten, failpoint.RestorePhaseNoted,
	failpoint.RestoreReplicaStarted, failpoint.RestoreReplicaDropped, failpoint.RestoreSettingBack,
}

// kills gives each point of a restore to both flavors, of which one loses the restore there and the other one the
// target; MySQL, which takes long to start, does so less often. Of a capture's points a flavor comes to every other
// one, and loses the capture there or the source, or the store.
func (e *failMy) kills(i int, p failpoint.Point) (process, server bool) {
	i += e.turn
	switch {
	case *long:
		return true, true
	case strings.HasPrefix(string(p), "restore-"):
		server := i%2 == 1 && (e.my.Flavor == "mariadb" || i%3 == 0)
		return !server, server
	}
	return i%4 == 0, i%4 == 2
}

func (e *failMy) begun(a *archive.Archive) {
	e.t.Helper()
	e.passed(a)
	e.start = e.startOf(a)
	e.work = startJournal(e.mySite, 2)
}

func (e *failMy) between() {}

func (e *failMy) passed(a *archive.Archive) {
	e.t.Helper()
	e.waitPast(a, e.here())
}

func (e *failMy) settle() {
	e.t.Helper()
	e.work.end(e.t)
	e.exec(`call history(1000)`)
}

func (e *failMy) check(a *archive.Archive) {
	e.t.Helper()
	e.exactlyOnce(a, e.start)
}

func (e *failMy) gap() { e.t.Fatal("a gap of this engine is no part of it") }

func (e *failMy) target(t *testing.T) *failTarget {
	t.Helper()
	target := e.mySite.target()
	settings := func() [][]string {
		t.Helper()
		return target.MustQuery(t, "", `select @@global.sync_binlog, @@global.innodb_flush_log_at_trx_commit, @@global.event_scheduler,
			@@global.max_allowed_packet, @@global.server_id, @@global.local_infile`)
	}
	before := settings()
	return &failTarget{server: target, url: target.URL(""), secret: target.Password(), equal: func() {
		t.Helper()
		equal(t, dumpOf(t, e.my), target)
		e.work.check(t, target)
		if after := settings(); !reflect.DeepEqual(before, after) {
			t.Errorf("the target has the settings %q behind the restore, before it had %q", after, before)
		}
	}}
}
