package mysql

import (
	"strings"
	"testing"
	"time"

	"txreel/capture"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sources/mysql/gtid"
)

// lastOf is what the record knows of a transaction that a source delivered behind held.
func lastOf(t *testing.T, x *txn, held change.Position) *Last {
	t.Helper()
	var p fingerprinter
	if err := p.describe(x.defs[0].Messages[0]); err != nil {
		t.Fatal(err)
	}
	for _, raw := range x.messages {
		if err := p.add(raw); err != nil {
			t.Fatal(err)
		}
	}
	print, err := p.end()
	if err != nil {
		t.Fatal(err)
	}
	l := &Last{print: print, before: gtid.New(print.gtid.Flavor)}
	set, err := gtid.Parse(print.gtid.Flavor, string(held))
	if err != nil {
		t.Fatal(err)
	}
	if g, ok := set.Last(print.gtid.Domain); ok {
		l.before.Add(g)
	}
	return l
}

// recorded streams what a server logs while it does something, and returns the options to go on behind the last of it.
func recorded(t *testing.T, server *dbtest.MySQL, do ...string) (SourceOptions, []txn) {
	t.Helper()
	id, err := Identify(t.Context(), server.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	tail := executed(t, server)
	for _, sql := range do {
		server.MustExec(t, "", sql)
	}
	src := open(t, SourceOptions{URL: server.URL(""), Tail: tail})
	all := until(t, src, executed(t, server))
	src.Close()
	before := tail
	if len(all) > 1 {
		before = all[len(all)-2].held
	}
	x := &all[len(all)-1]
	return SourceOptions{URL: server.URL(""), Tail: x.held, Last: lastOf(t, x, before), Known: id.System}, all
}

// goesOn demands that a source opens behind a record, and delivers what is committed next and nothing before it.
func goesOn(t *testing.T, server *dbtest.MySQL, opts SourceOptions, warns string) {
	t.Helper()
	opts.URL = server.URL("")
	src := open(t, opts)
	if got := src.Warning(); (got == "") != (warns == "") || !strings.Contains(got, warns) {
		t.Errorf("it warns of %q, want %q", got, warns)
	}
	server.MustExec(t, "", "CREATE DATABASE behind")
	if got := next(t, src); !strings.HasSuffix(got.note, "CREATE DATABASE behind") {
		t.Errorf("it went on with %s: %s", got.xid, got.note)
	}
	src.Close()
	server.MustExec(t, "", "DROP DATABASE behind")
}

// A server that has forgotten its history, and by now has as much of another one under the same GTIDs, is not the one
// on record. A server that only went on is, whatever became of its settings.
func TestRegrown(t *testing.T) {
	onRough(t, func(t *testing.T, server *dbtest.MySQL) {
		opts, _ := recorded(t, server, "CREATE DATABASE d", "CREATE TABLE d.t (n int primary key, v longblob)", "INSERT INTO d.t VALUES (1, 'a')")
		for range 3 {
			open(t, opts).Close()
		}
		goesOn(t, server, opts, "")
		server.MustExec(t, "", "SET GLOBAL binlog_checksum = 'NONE'")
		goesOn(t, server, opts, "")
		if err := server.Restart(t.Context()); err != nil { // back to CRC32
			t.Fatal(err)
		}
		goesOn(t, server, opts, "")

		// A last transaction of several packets.
		large, _ := recorded(t, server, "INSERT INTO d.t VALUES (2, REPEAT('b', 20000000)), (3, REPEAT('c', 40000000))")
		goesOn(t, server, large, "")

		// The same statements.
		time.Sleep(1100 * time.Millisecond) // MariaDB knows whole seconds
		server.MustExec(t, "", resetLog(server))
		for _, sql := range []string{"DROP DATABASE d", "CREATE DATABASE d", "CREATE TABLE d.t (n int primary key, v longblob)", "INSERT INTO d.t VALUES (1, 'a')"} {
			server.MustExec(t, "", sql)
		}
		demand(t, refused(t, opts), capture.ErrDiverged, "another transaction under the GTID", opts.Last.print.gtid.String(), "--new-epoch", opts.Last.print.String())
		again, _ := recorded(t, server, "DROP DATABASE d", "CREATE DATABASE d")
		goesOn(t, server, again, "")

		// What is purged cannot be shown again.
		again, _ = recorded(t, server, "CREATE DATABASE d2")
		server.MustExec(t, "", "FLUSH BINARY LOGS")
		purge(t, server)
		goesOn(t, server, again, again.Last.print.gtid.String())
		goesOn(t, server, SourceOptions{Tail: executed(t, server), Last: &Last{Unknown: "nobody knows"}}, "nobody knows")
	})
}

// A stranger has nothing to do with the record, also when it has come as far under names that look the same: that is
// no gap of the record.
func TestStranger(t *testing.T) {
	onRough(t, func(t *testing.T, server *dbtest.MySQL) {
		opts, _ := recorded(t, server, "CREATE DATABASE d")
		other := shared(t, server.Flavor)
		other.MustExec(t, "", "CREATE DATABASE IF NOT EXISTS other")
		other.MustExec(t, "", "DROP DATABASE other")
		opts.URL = other.URL("")
		demand(t, refused(t, opts), nil, "another server")
	})
}

// An impostor has the ids of the server on record, and has come further under them. Only MariaDB has no other
// names for servers than those that people give.
func TestImpostor(t *testing.T) {
	server := rough(t, "mariadb")
	opts, _ := recorded(t, server, "CREATE DATABASE d", "SET gtid_domain_id = 4; CREATE TABLE d.t (n int)")
	other := dbtest.My(t, "mariadb", "server_id="+server.MustQuery(t, "", "SELECT @@global.server_id")[0][0])
	time.Sleep(1100 * time.Millisecond) // MariaDB knows whole seconds
	for range 4 {
		other.MustExec(t, "", "CREATE DATABASE d; SET gtid_domain_id = 4; DROP DATABASE d")
	}
	goesOn(t, server, opts, "")
	opts.URL = other.URL("")
	demand(t, refused(t, opts), capture.ErrDiverged, "another transaction under the GTID")
}

// What replicas write anew is recognised there, and what they show is recognised where it came from: whatever kind of
// transaction it is, and however long it took.
func TestReplicasAreRecognised(t *testing.T) {
	onRough(t, func(t *testing.T, primary *dbtest.MySQL) {
		replica := dbtest.MyReplica(t, primary)
		servers := []*dbtest.MySQL{primary, replica}
		tails := []change.Position{executed(t, primary), executed(t, replica)}
		with, _ := corpus(t, primary)
		runClient(t, primary, with+`
			CREATE DATABASE slow; USE slow; CREATE TABLE t (n int primary key); CREATE TABLE m (n int) ENGINE=MyISAM;
			BEGIN; INSERT INTO t VALUES (1); DO SLEEP(1.1); INSERT INTO t VALUES (2); DO SLEEP(1.1); COMMIT;
			XA START 'a'; INSERT INTO t VALUES (3); XA END 'a'; XA PREPARE 'a'; DO SLEEP(1.1); XA COMMIT 'a';
			SET timestamp = 1000000000; INSERT INTO t VALUES (4); SET timestamp = DEFAULT;
			INSERT INTO t SELECT 5 + SLEEP(1.1);`)
		if err := replica.CatchUp(t.Context(), primary); err != nil {
			t.Fatal(err)
		}
		type known struct {
			*Last
			held *gtid.Set
			xid  string
		}
		var lasts [2][]known
		has := [2]map[string]*Last{{}, {}}
		for i, server := range servers {
			src := open(t, SourceOptions{URL: server.URL(""), Tail: tails[i]})
			held := tails[i]
			for _, x := range until(t, src, executed(t, server)) {
				set, err := gtid.Parse(src.control.Flavor, string(x.held))
				if err != nil {
					t.Fatal(err)
				}
				l := lastOf(t, &x, held)
				lasts[i] = append(lasts[i], known{l, set, x.xid})
				has[i][x.xid] = l
				held = x.held
			}
			src.Close()
		}
		both, rewritten := 0, 0
		for xid, l := range has[0] {
			there := has[1][xid]
			if there == nil {
				continue // statements on temporary tables: no replica of MariaDB logs them
			}
			if both++; l.print.sum != there.print.sum {
				rewritten++
			}
			if !l.print.same(there.print) || !there.print.same(l.print) {
				t.Errorf("%s is not recognised: %s, on the replica %s", xid, l.print, there.print)
			}
		}
		if both < 100 || rewritten < both*9/10 {
			t.Errorf("%d transactions on both servers, %d of them written anew", both, rewritten)
		}
		// Asked for by its GTID, also behind one that the replica did not log.
		for i, server := range servers {
			s := &Source{opts: ours(SourceOptions{URL: server.URL("")}), control: connect(t, server.URL(""))}
			s.opts.defaults()
			for n, l := range lasts[0] {
				if has[i][l.xid] == nil || n%25 > 0 && (n == 0 || has[i][lasts[0][n-1].xid] != nil) {
					continue
				}
				if err := s.prove(t.Context(), l.held, l.Last); err != nil || s.warning != "" {
					t.Errorf("%s on server %d: %v, %q", l.xid, i, err, s.warning)
				}
			}
		}
	})
}

// TestFingerprints compares what differs between logs, and what may not.
func TestFingerprints(t *testing.T) {
	t.Parallel()
	id := gtid.GTID{Flavor: gtid.MySQL, N: 7}
	maria := gtid.GTID{Flavor: gtid.MariaDB, Server: 1, N: 7}
	for _, c := range []struct {
		name string
		a, b fingerprint
		same bool
	}{
		{"the same bytes", fingerprint{gtid: id, size: 9}, fingerprint{gtid: id, size: 9}, true},
		{"committed again", fingerprint{gtid: id, original: 5, size: 9}, fingerprint{gtid: id, original: 6, size: 9, sum: [32]byte{1}}, false},
		{"committed again, in fewer bytes", fingerprint{gtid: id, original: 5, began: 5, size: 9}, fingerprint{gtid: id, original: 6, began: 5, size: 8}, false},
		{"on a replica", fingerprint{gtid: id, original: 5, size: 9}, fingerprint{gtid: id, original: 5, size: 8}, true},
		{"of a member of a group", fingerprint{gtid: id, original: 5, view: true, size: 9}, fingerprint{gtid: id, original: 6, view: true, size: 8}, true},
		{"in place of a member's", fingerprint{gtid: id, original: 5, view: true, size: 9}, fingerprint{gtid: id, original: 6, size: 8}, false},
		{"MariaDB, on a replica", fingerprint{gtid: maria, began: 5, size: 9}, fingerprint{gtid: maria, began: 5, size: 8}, true},
		{"MariaDB, begun again", fingerprint{gtid: maria, began: 5, size: 9}, fingerprint{gtid: maria, began: 6, size: 9, sum: [32]byte{1}}, false},
		{"MariaDB, without a statement", fingerprint{gtid: maria, size: 9}, fingerprint{gtid: maria, began: 6, size: 8}, true},
		{"of another GTID", fingerprint{gtid: id}, fingerprint{gtid: maria}, false},
	} {
		if c.a.same(&c.b) != c.same || c.b.same(&c.a) != c.same {
			t.Errorf("%s: same is not %t", c.name, c.same)
		}
	}
}
