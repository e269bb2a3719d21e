package e2e

import (
	"fmt"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/sources/mysql/gtid"
)

// TestMyRegrown takes a server through what it may do while no capture looks: nothing, ten times; purge the last
// transaction on record; and at the end forget its history and commit another one, under the same GTIDs and beyond them.
// Only the last is a break, and none of it gets into the record.
func TestMyRegrown(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			s := newMySite(t, flavor, nil)
			s.exec("create table t (id int primary key, v longblob)")
			first := s.capture()
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			first.kill()
			started := func(times int) *process {
				t.Helper()
				for {
					p := s.capture()
					eventually(t, time.Minute, "capture started", func() bool { return p.has("capture started") || !p.alive() })
					if times--; times == 0 || !p.alive() {
						return p
					}
					p.kill()
				}
			}

			// Nothing is on record but a base.
			p := started(2)
			eventually(t, time.Minute, "a warning", func() bool { return p.has("no transaction is on record yet") })
			s.exec("insert into t values (1, 'a'), (2, repeat('b', 8000000)), (5, repeat('c', 8000000)), (6, repeat('d', 8000000))")
			s.waitPast(a, s.here())
			p.kill()
			p = started(10)
			if !p.alive() || p.has("warn") {
				t.Errorf("a server that did nothing is not recognised:\n%s", tail(p.stderr(), 5))
			}
			s.exec("insert into t values (3, 'c')")
			s.waitPast(a, s.here())
			p.kill()

			s.exec("flush binary logs")
			eventually(t, time.Minute, "only the last file of the binlog is left", func() bool {
				s.exec("purge binary logs before now() + interval 1 second")
				return len(s.my.MustQuery(t, "", "show binary logs")) == 1
			})
			p = started(1)
			eventually(t, time.Minute, "a warning", func() bool { return p.has("without proof") })
			s.exec("insert into t values (4, 'd')")
			held := s.waitPast(a, s.here())
			recorded := dumpOf(t, s.my)
			p.kill()

			reset := "reset binary logs and gtids"
			if flavor == "mariadb" {
				reset = "reset master"
			}
			s.exec("set sql_log_bin = 0; delete from t where id > 2; " + reset)
			was, err := gtid.Parse(s.flavor(), string(held.Position))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(1100 * time.Millisecond) // by which MariaDB tells them
			for id := 10; id < 12 || !s.here().Contains(was); id++ {
				s.exec(fmt.Sprintf("insert into t values (%d, 'other')", id))
			}
			s.exec("insert into t values (100, 'other')")
			for range 2 {
				r := s.capture().result(time.Minute)
				if r.code != 3 {
					t.Fatalf("exit code %d, want 3:\n%s", r.code, tail(r.stderr, 5))
				}
				r.sentence(t, "gap in the record", "another transaction under the GTID", "--new-epoch")
			}
			gap, err := a.Gap(t.Context(), 1)
			if err != nil || gap == nil || gap.Cause != archive.CauseDiverged {
				t.Fatalf("gap on record: %+v, %v", gap, err)
			}
			now, err := a.Tail(t.Context(), 1)
			if err != nil || now.Position != held.Position {
				t.Errorf("the record ends at %s, was at %s: %v", now.Position, held.Position, err)
			}
			equal(t, recorded, s.restore())
			next := s.capture("--new-epoch")
			s.waitBases(a, 2, 1)
			s.exec("insert into t values (101, 'other')")
			s.waitPast(a, s.here())
			next.kill()
			s.must("verify", "--full")
		})
	}
}
