package e2e

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/segment"
	"txreel/sources/mysql/gtid"
)

// dumpOf reads all that two equal servers have in common. The next value of AUTO_INCREMENT is not logged when it was
// taken for a row that is not there; a replica does not know it either.
func dumpOf(t *testing.T, m *dbtest.MySQL) dbtest.MySQLDump {
	t.Helper()
	dump, err := dbtest.DumpMySQL(t.Context(), m.URL(""), dbtest.MySQLDumpOptions{IgnoreAutoIncrement: true})
	if err != nil {
		t.Fatal(err)
	}
	return dump
}

// equal fails the test unless a restored server holds what the source held.
func equal(t *testing.T, want dbtest.MySQLDump, restored *dbtest.MySQL) {
	t.Helper()
	if diff := dbtest.DiffMySQL(want, dumpOf(t, restored)); diff != "" {
		t.Errorf("the restored server differs from the source:\n%s", diff)
	}
}

// TestMyStory records a server from the first command to the last while sysbench writes, and restores it to its end
// and to points at which the load stood still. Bases are taken while the load runs.
func TestMyStory(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			var gateway *dbtest.Gateway
			if flavor == "mysql" {
				gateway = dbtest.S3(t)
			}
			s := newMySite(t, flavor, gateway)
			s.must("setup", "--apply")
			s.must("doctor")
			sysbench(t, s.my, "prepare")
			capture := s.capture()
			a := s.waitArchive()
			s.waitBases(a, 1, 1)

			type still struct {
				set  string
				dump dbtest.MySQLDump
			}
			var points []still
			for range times(2, 20) {
				load, err := dbtest.StartSysbench(s.my, "shop", "oltp_read_write", append(sysbenchTables, "--threads=8", "--time=0", "run")...)
				if err != nil {
					t.Fatal(err)
				}
				s.must("base", "--reason", "under load")
				time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
				if out, err := load.Stop(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				points = append(points, still{s.here().String(), dumpOf(t, s.my)})
			}
			s.exec("create table after_all (id int primary key); insert into after_all values (1)")
			s.waitPast(a, s.here())
			s.must("mark", "the-end")
			want := dumpOf(t, s.my)

			equal(t, want, s.restore())
			for i, p := range points {
				t.Logf("point %d: %.60s", i, p.set)
				equal(t, p.dump, s.restore("--to-position", p.set))
			}
			// From the first base to the place of the last, which were taken under load: what was captured and replayed comes to what
			// the source held.
			bases := s.waitBases(a, 1, 1+len(points))
			slices.SortFunc(bases, func(x, y archive.Base) int { return cmp.Compare(x.Seq, y.Seq) })
			from, to := bases[0], bases[len(bases)-1]
			target := s.target()
			s.hidden = append(s.hidden, target.Password())
			proven(t, s.must("restore", "--target", target.URL(""), "--base", from.ID, "--to-seq", to.Seq.String(), "--json"), from.ID, to.ID)
			s.randomGTID(a)
			s.must("verify", "--full")
			s.must("status", "--source", s.my.URL(""))
			if r := s.run("log", "--op", "statement"); r.code != 0 && r.code != 2 {
				t.Errorf("log: %d %s", r.code, r.stderr)
			}
			if r := s.must("log", "-n", "5"); !strings.Contains(r.stdout, "after_all") {
				t.Errorf("the log does not show the last statements:\n%s", r.stdout)
			}
			capture.signal(terminate)
			if code := capture.wait(20 * time.Second); code != 0 {
				t.Errorf("capture ended with %d", code)
			}
		})
	}
}

var sysbenchTables = []string{"--tables=4", "--table-size=2000"}

func sysbench(t *testing.T, m *dbtest.MySQL, command string) {
	t.Helper()
	if out, err := dbtest.Sysbench(t.Context(), m, "shop", "oltp_read_write", append(sysbenchTables, command)...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// randomGTID restores to a transaction chosen at random behind the first base, and to just before it, and compares with
// a native replica of the source that was told to stop at the same place.
func (s *mySite) randomGTID(a *archive.Archive) {
	s.t.Helper()
	bases, err := a.Bases(s.t.Context(), 1)
	if err != nil {
		s.t.Fatal(err)
	}
	tail, err := a.Tail(s.t.Context(), 1)
	if err != nil {
		s.t.Fatal(err)
	}
	var e segment.Entry
	for e.Kind != change.TxnSource {
		var ok bool
		if e, ok, err = a.Lookup(s.t.Context(), 1, bases[0].Seq+1+change.Seq(rand.Int64N(int64(tail.Seq-bases[0].Seq)))); err != nil || !ok {
			s.t.Fatal(ok, err)
		}
	}
	s.t.Logf("random transaction %s", e.XID)
	equal(s.t, dumpOf(s.t, s.replicaUntil(e.XID, true)), s.restore("--to-txn", e.XID))
	equal(s.t, dumpOf(s.t, s.replicaUntil(e.XID, false)), s.restore("--to-txn", e.XID, "--before"))
}

// replicaUntil starts a replica of the source and lets it stop right behind a transaction, or before it. The source's
// own transactions are numbered in commit order.
func (s *mySite) replicaUntil(xid string, included bool) *dbtest.MySQL {
	s.t.Helper()
	replica := s.target()
	s.hidden = append(s.hidden, replica.Password())
	g, err := gtid.ParseGTID(xid)
	if err != nil {
		s.t.Fatal(err)
	}
	if !included {
		g.N--
	}
	if s.my.Flavor == "mariadb" {
		replica.MustExec(s.t, "", fmt.Sprintf(`change master to master_host = '127.0.0.1', master_port = %d, master_user = 'root', master_password = '%s',
			master_use_gtid = slave_pos, master_ssl = 0, master_ssl_verify_server_cert = 0`, s.my.Port, s.my.Password()))
		replica.MustExec(s.t, "", fmt.Sprintf("start slave until master_gtid_pos = '%s'; do master_gtid_wait('%[1]s')", g))
		replica.MustExec(s.t, "", "stop slave")
		return replica
	}
	set := fmt.Sprintf("%s:1-%d", g.SID, g.N)
	replica.MustExec(s.t, "", fmt.Sprintf(`change replication source to source_host = '127.0.0.1', source_port = %d, source_user = 'root', source_password = '%s',
		source_auto_position = 1, source_ssl = 0, get_source_public_key = 1`, s.my.Port, s.my.Password()))
	replica.MustExec(s.t, "", fmt.Sprintf("start replica until sql_after_gtids = '%s'; do wait_for_executed_gtid_set('%[1]s')", set))
	replica.MustExec(s.t, "", "stop replica")
	return replica
}
