package e2e

import (
	"fmt"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
)

// TestMyGap takes from the capture what it has not read yet: the binlog is purged, or the server forgets its history.
// Each time it ends with exit code 3 and puts the break on record with its cause; each time --new-epoch goes on behind
// it, with a base.
func TestMyGap(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		reset := "reset binary logs and gtids"
		if flavor == "mariadb" {
			reset = "reset master"
		}
		for _, c := range []struct {
			name, happens, says, cause string
		}{
			{"purged", "insert into t values (2); flush binary logs; insert into t values (3); flush binary logs", "purged", archive.CauseGap},
			{"reset", reset + "; insert into t values (2)", "", archive.CauseDiverged},
		} {
			t.Run(flavor+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				s := newMySite(t, flavor, nil)
				s.exec("create table t (id int primary key)")
				first := s.capture()
				a := s.waitArchive()
				s.waitBases(a, 1, 1)
				s.exec("insert into t values (1)")
				before := s.waitPast(a, s.here())
				recorded := dumpOf(t, s.my)
				first.kill()
				s.exec(c.happens)
				// A file goes once nobody reads it, and recovery after a crash does not need it any more.
				eventually(t, time.Minute, "only the last file of the binlog is left", func() bool {
					s.exec("purge binary logs before now() + interval 1 second")
					return len(s.my.MustQuery(t, "", "show binary logs")) == 1
				})

				for range 2 { // it stays that way until somebody decides
					r := s.capture().result(time.Minute)
					if r.code != 3 {
						t.Fatalf("exit code %d, want 3:\n%s", r.code, tail(r.stderr, 5))
					}
					r.sentence(t, "gap in the record", c.says, "--new-epoch")
				}
				gap, err := a.Gap(t.Context(), 1)
				if err != nil || gap == nil || gap.Cause != c.cause || gap.Tail.Seq < before.Seq {
					t.Fatalf("gap on record: %+v, %v", gap, err)
				}

				next := s.capture("--new-epoch")
				s.waitBases(a, 2, 1)
				s.exec("insert into t values (10)")
				s.waitPast(a, s.here())
				next.kill()
				epochs, err := a.Epochs(t.Context())
				if err != nil || len(epochs) != 2 || epochs[1].Cause != c.cause {
					t.Fatalf("epochs %+v, %v", epochs, err)
				}
				equal(t, dumpOf(t, s.my), s.restore())
				// What was on record before is still there, untouched.
				equal(t, recorded, s.restore("--to-seq", gap.Tail.Seq.String(), "--epoch", "1"))
				s.must("verify", "--full")
			})
		}
	}
}

// TestMyFailover moves a record from a server to its replica, with the old one gone: it goes on without a gap and
// without a duplicate. To a server that has nothing to do with it, it does not.
func TestMyFailover(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			s := newMySite(t, flavor, nil)
			settings := map[string]string{}
			if flavor == "mariadb" { // the other one does by itself
				settings["log_slave_updates"] = "ON"
			}
			replica, err := dbtest.ReplicaOf(t.Context(), s.my, dbtest.MySQLOptions{Settings: settings})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = replica.Close() })
			s.exec("create table t (id int primary key)")
			capture := s.capture()
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			start := s.startOf(a)
			for i := range 50 {
				s.exec(fmt.Sprintf("insert into t values (%d)", i))
			}
			if err := replica.CatchUp(t.Context(), s.my); err != nil {
				t.Fatal(err)
			}
			if err := s.my.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			capture.kill()

			stranger := mySiteOn(t, s.target(), nil)
			stranger.exec("create table other (id int)")
			stranger.archive = s.archive
			if r := stranger.capture().result(time.Minute); r.code == 0 || r.code == 3 {
				t.Errorf("a capture of another server: exit code %d\n%s", r.code, tail(r.stderr, 3))
			}

			if err := replica.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.my = replica
			s.source = []string{"TXREEL_SOURCE=" + replica.URL("")}
			s.hidden = append(s.hidden, replica.Password())
			next := s.capture()
			for i := range 50 {
				s.exec(fmt.Sprintf("insert into t values (%d)", 100+i))
			}
			s.waitPast(a, s.here())
			next.kill()
			s.exactlyOnce(a, start)
			equal(t, dumpOf(t, replica), s.restore())
		})
	}
}
