package mysql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"txreel/capture"
	"txreel/change"
	"txreel/internal/dbtest"
)

// demand wants an error of a kind, with the words.
func demand(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if kind != nil && !errors.Is(err, kind) {
		t.Errorf("%v: is not %v", err, kind)
	}
	for _, other := range []error{capture.ErrGap, capture.ErrDiverged, capture.ErrOtherCapture, capture.ErrUnreachable} {
		if errors.Is(err, other) && !errors.Is(kind, other) {
			t.Errorf("%v: is %v", err, other)
		}
	}
	for _, word := range words {
		if !strings.Contains(fmt.Sprint(err), word) {
			t.Errorf("%v: says nothing of %q", err, word)
		}
	}
}

// purge makes a server forget all of its log but the last file. MariaDB keeps a file until its
// engine has taken note of what is in it.
func purge(t *testing.T, server *dbtest.MySQL) {
	t.Helper()
	conn := connect(t, server.URL(""))
	eventually(t, "the server to purge its log", func() bool {
		files, err := conn.logFiles(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		server.MustExec(t, "", "PURGE BINARY LOGS TO '"+files[len(files)-1].name+"'")
		return len(files) == 1
	})
}

// Purged logs, and histories that are not those of the record.
func TestGaps(t *testing.T) {
	onRough(t, func(t *testing.T, server *dbtest.MySQL) {
		exec := func(sql string) {
			t.Helper()
			server.MustExec(t, "", sql)
		}
		exec("CREATE DATABASE d")
		exec("CREATE TABLE d.t (n int)")
		tail := executed(t, server)
		src := open(t, SourceOptions{URL: server.URL(""), Tail: tail})
		exec("INSERT INTO d.t VALUES (1)")
		held := next(t, src).held
		src.Close()

		exec("INSERT INTO d.t VALUES (2)")
		exec("FLUSH BINARY LOGS")
		purge(t, server)
		missing := "" // MariaDB does not say
		if server.Flavor == "mysql" {
			missing = "not recorded: " + strings.Replace(string(held), ":1-3", ":4", 1)
		}
		demand(t, refused(t, SourceOptions{URL: server.URL(""), Tail: held}), capture.ErrGap, "purged", "--new-epoch", missing)
		demand(t, refused(t, SourceOptions{URL: server.URL(""), Tail: tail}), capture.ErrGap, "purged")
		src = open(t, SourceOptions{URL: server.URL(""), Tail: executed(t, server)})
		src.Close()

		// A reset while a stream is open, and before one.
		exec("INSERT INTO d.t VALUES (3)")
		held = executed(t, server)
		id, err := Identify(t.Context(), server.URL(""))
		if err != nil {
			t.Fatal(err)
		}
		exec(resetLog(server))
		err = refused(t, SourceOptions{URL: server.URL(""), Tail: held, Known: id.System})
		demand(t, err, capture.ErrDiverged, "reset")
		exec("INSERT INTO d.t VALUES (4)")
		demand(t, refused(t, SourceOptions{URL: server.URL(""), Tail: held, Known: id.System}), capture.ErrDiverged)
		// Of an empty server, a set with nothing in it is a place as well.
		exec(resetLog(server))
		src = open(t, SourceOptions{URL: server.URL("")})
		start := src.Start().Position
		src.Close()
		if start == "" {
			t.Fatal("the position of an empty log is none")
		}
		exec("INSERT INTO d.t VALUES (5)")
		src = open(t, SourceOptions{URL: server.URL(""), Tail: start})
		if got := next(t, src); got.rows["insert d.t"] != 1 {
			t.Fatalf("got %+v", got)
		}
		src.Close()

		// Another server has nothing to do with it, and that is no gap.
		other := shared(t, server.Flavor)
		other.MustExec(t, "", "CREATE DATABASE other")
		demand(t, refused(t, SourceOptions{URL: other.URL(""), Tail: held, Known: id.System}), nil, "another server")
		demand(t, refused(t, SourceOptions{URL: other.URL(""), Tail: held}), nil, "another server")
	})
}

// A reset under an open stream is found out, although neither server says anything of it there
// and soon has transactions of the same names.
func TestResetUnderTheStream(t *testing.T) {
	onRough(t, func(t *testing.T, server *dbtest.MySQL) {
		server.MustExec(t, "", "CREATE DATABASE d")
		src := open(t, SourceOptions{URL: server.URL(""), Tail: executed(t, server), lookEvery: 50 * time.Millisecond})
		for range 3 {
			server.MustExec(t, "", "CREATE DATABASE d2")
			server.MustExec(t, "", "DROP DATABASE d2")
		}
		held := until(t, src, executed(t, server))
		eventually(t, "a look", func() bool { return src.fence.Load() != nil && src.parser.at == src.fence.Load().at })
		server.MustExec(t, "", resetLog(server))
		server.MustExec(t, "", "CREATE DATABASE d3")
		before := src.Position()
		demand(t, failure(t, src), capture.ErrDiverged, "reset")
		if src.Position() != before || len(held) != 6 {
			t.Errorf("went on from %s to %s", before, src.Position())
		}
	})
}

// After a failover to a replica the stream goes on there, without gap or repetition.
func TestFailover(t *testing.T) {
	onRough(t, func(t *testing.T, primary *dbtest.MySQL) {
		replica := dbtest.MyReplica(t, primary)
		exec := func(server *dbtest.MySQL, sql string) {
			t.Helper()
			server.MustExec(t, "", sql)
		}
		src := open(t, SourceOptions{URL: primary.URL("")})
		id, err := Identify(t.Context(), primary.URL(""))
		if err != nil {
			t.Fatal(err)
		}
		exec(primary, "CREATE DATABASE d")
		exec(primary, "CREATE TABLE d.t (n int)")
		exec(primary, "INSERT INTO d.t VALUES (1)")
		exec(primary, "INSERT INTO d.t VALUES (2)")
		goal := executed(t, primary)
		var held change.Position
		for range 3 { // all but the last
			held = next(t, src).held
		}
		src.Close()
		eventually(t, "the replica", func() bool { return executed(t, replica) == goal })
		if err := primary.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if replica.Flavor == "mysql" {
			exec(replica, "STOP REPLICA")
		} else {
			exec(replica, "STOP SLAVE")
		}
		exec(replica, "INSERT INTO d.t VALUES (3)")
		src = open(t, SourceOptions{URL: replica.URL(""), Tail: held, Known: id.System})
		for n := range 2 {
			if got := next(t, src); got.rows["insert d.t"] != 1 {
				t.Fatalf("transaction %d behind the failover: %+v", n, got)
			}
		}
		if src.Position() != executed(t, replica) {
			t.Fatalf("at %s, the server at %s", src.Position(), executed(t, replica))
		}
		held = src.Position()
		src.Close()

		// Back on the old primary, which lacks what was committed since.
		if err := primary.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		demand(t, refused(t, SourceOptions{URL: primary.URL(""), Tail: held, Known: id.System}), capture.ErrDiverged)
		exec(primary, "INSERT INTO d.t VALUES (30)")
		err = refused(t, SourceOptions{URL: primary.URL(""), Tail: held, Known: "somebody"})
		if primary.Flavor == "mysql" {
			demand(t, err, capture.ErrDiverged)
			return
		}
		// MariaDB's GTIDs tell the server that committed last, and it has never logged anything of that one.
		demand(t, err, nil, "another server")
	})
}

// A server that stops answering, goes, or is killed can be reached again.
func TestServerGoesAway(t *testing.T) {
	onRough(t, func(t *testing.T, server *dbtest.MySQL) {
		server.MustExec(t, "", "CREATE DATABASE d")
		server.MustExec(t, "", "CREATE TABLE d.t (n int)")
		opts := SourceOptions{URL: server.URL(""), Tail: executed(t, server), heartbeat: 100 * time.Millisecond, silence: 500 * time.Millisecond, lookEvery: time.Hour}
		for n, fault := range []struct {
			name      string
			hit, mend func() error
		}{
			{"silence", server.Pause, server.Resume},
			{"kill -9", func() error { return server.Kill(t.Context()) }, func() error { return server.Start(t.Context()) }},
			{"shutdown", func() error { return server.Stop(t.Context()) }, func() error { return server.Start(t.Context()) }},
		} {
			src := open(t, opts)
			server.MustExec(t, "", fmt.Sprintf("INSERT INTO d.t VALUES (%d)", n))
			held := next(t, src).held
			if err := fault.hit(); err != nil {
				t.Fatal(err)
			}
			demand(t, failure(t, src), capture.ErrUnreachable)
			if fault.name != "silence" {
				demand(t, refused(t, opts), capture.ErrUnreachable)
			}
			if err := fault.mend(); err != nil {
				t.Fatal(err)
			}
			src.Close()
			opts.Tail = held
		}
		src := open(t, opts)
		server.MustExec(t, "", "INSERT INTO d.t VALUES (99)")
		if got := next(t, src); got.rows["insert d.t"] != 1 {
			t.Fatalf("%+v", got)
		}
	})
}

// mute is a connection on which nothing comes for a while, once some bytes have.
type mute struct {
	net.Conn
	passes   int           // bytes that come first
	quiet    time.Duration // and then nothing for so long
	deadline time.Time
}

func (m *mute) SetReadDeadline(t time.Time) error {
	m.deadline = t
	return m.Conn.SetReadDeadline(t)
}

func (m *mute) Read(p []byte) (int, error) {
	if m.passes > 0 {
		n, err := m.Conn.Read(p[:min(len(p), m.passes)])
		m.passes -= n
		return n, err
	}
	if m.quiet > 0 {
		time.Sleep(min(m.quiet, time.Until(m.deadline)))
		if !time.Now().Before(m.deadline) {
			return 0, os.ErrDeadlineExceeded
		}
		m.quiet = 0
	}
	return m.Conn.Read(p)
}

// A server that takes long to find the place in its log is waited for; before its first word, and behind it.
func TestServerSeeks(t *testing.T) {
	onBoth(t, func(t *testing.T, server *dbtest.MySQL) {
		tail := executed(t, server)
		server.MustExec(t, "", "CREATE DATABASE seeks")
		for _, passes := range []int{0, 64} {
			src := open(t, SourceOptions{URL: server.URL(""), Tail: tail, heartbeat: 100 * time.Millisecond, silence: 500 * time.Millisecond, lookEvery: time.Hour,
				wrap: func(c net.Conn) net.Conn { return &mute{Conn: c, passes: passes, quiet: 2500 * time.Millisecond} }})
			if got := next(t, src); !strings.Contains(got.note, "DATABASE seeks") {
				t.Fatalf("got %+v", got)
			}
			src.Close()
		}
	})
}

// What a server must have, and the statement that gives it.
func TestServersThatCannotBeRecorded(t *testing.T) {
	mysql := dbtest.My(t, "mysql", "gtid_mode=OFF", "enforce_gtid_consistency=OFF")
	for _, step := range []string{"", "SET GLOBAL enforce_gtid_consistency = ON", "SET GLOBAL gtid_mode = OFF_PERMISSIVE", "SET GLOBAL gtid_mode = ON_PERMISSIVE"} {
		if step != "" {
			mysql.MustExec(t, "", step)
		}
		demand(t, refused(t, SourceOptions{URL: mysql.URL("")}), nil, "gtid_mode = ON")
	}
	mysql.MustExec(t, "", "SET GLOBAL gtid_mode = ON")
	open(t, SourceOptions{URL: mysql.URL("")}).Close()
	mysql.MustExec(t, "", "CREATE USER nobody IDENTIFIED BY 'secret'")
	demand(t, refused(t, SourceOptions{URL: mysql.URLAs("nobody", "secret", "")}), nil, "GRANT REPLICATION SLAVE")
	mysql.MustExec(t, "", "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO nobody")
	open(t, SourceOptions{URL: mysql.URLAs("nobody", "secret", "")}).Close()
	maria := dbtest.My(t, "mariadb", "log_bin=OFF")
	demand(t, refused(t, SourceOptions{URL: maria.URL("")}), nil, "log_bin")
	maria = shared(t, "mariadb")
	maria.MustExec(t, "", "CREATE USER nobody IDENTIFIED BY 'secret'")
	demand(t, refused(t, SourceOptions{URL: maria.URLAs("nobody", "secret", "")}), nil, "REPLICATION SLAVE", "BINLOG MONITOR", "GRANT")
	maria.MustExec(t, "", "GRANT REPLICATION SLAVE ON *.* TO nobody")
	src, err := Open(t.Context(), ours(SourceOptions{URL: maria.URLAs("nobody", "secret", "")}))
	if err == nil {
		err = failure(t, src)
		src.Close()
	}
	demand(t, err, nil, "GRANT", "BINLOG MONITOR")
	maria.MustExec(t, "", "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO nobody")
	src = open(t, SourceOptions{URL: maria.URLAs("nobody", "secret", ""), lookEvery: 50 * time.Millisecond})
	eventually(t, "a look at the log", func() bool { return src.Health() != nil })
	src.Close()
	for _, server := range []*dbtest.MySQL{mysql, maria} {
		rows := server.MustQuery(t, "", "SELECT @@global.server_id")
		var id uint32
		if _, err := fmt.Sscan(rows[0][0], &id); err != nil {
			t.Fatal(err)
		}
		demand(t, refused(t, SourceOptions{URL: server.URL(""), ServerID: id}), nil, "server id")
	}
}

// A MariaDB that is killed while it writes leaves a part of a transaction in its log, which was
// never committed: the stream comes past it. MySQL cuts it off.
func TestLogCutOffByACrash(t *testing.T) {
	onRough(t, func(t *testing.T, server *dbtest.MySQL) {
		tail := executed(t, server)
		server.MustExec(t, "", "CREATE DATABASE d")
		held := executed(t, server)
		server.MustExec(t, "", "CREATE TABLE d.t (n int)")
		server.MustExec(t, "", "INSERT INTO d.t VALUES (1)")
		conn := connect(t, server.URL(""))
		end, err := conn.logEnd(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(server.DataDir(), end.file)
		whole, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, whole.Size()-10); err != nil { // its XID event
			t.Fatal(err)
		}
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		server.MustExec(t, "", "CREATE DATABASE e")
		goal := executed(t, server)
		// The engine had committed the transaction that the log has lost. A server that had come to note that says so.
		if lost, err := connect(t, server.URL("")).readSet(t.Context(), "@@global.gtid_purged"); server.Flavor == "mysql" && (err != nil || !lost.IsEmpty()) {
			demand(t, cmp.Or(err, refused(t, SourceOptions{URL: server.URL(""), Tail: tail})), capture.ErrGap, "purged")
			return
		}
		src := open(t, SourceOptions{URL: server.URL(""), Tail: tail})
		var got []txn
		for !covers(t, src, goal) {
			ctx, cancel := context.WithTimeout(t.Context(), testPatience)
			x, err := nextOf(ctx, src)
			cancel()
			if err != nil {
				demand(t, err, capture.ErrUnreachable, "cut off")
				at := src.Position()
				src.Close()
				if len(got) > 2 || t.Failed() {
					t.Fatalf("after %d transactions: %v", len(got), err)
				}
				src = open(t, SourceOptions{URL: server.URL(""), Tail: at})
				continue
			}
			got = append(got, x)
		}
		if len(got) != 3 || got[0].held != held || !strings.Contains(got[2].note, "DATABASE e") {
			t.Fatalf("%d transactions: %+v", len(got), got)
		}
	})
}
