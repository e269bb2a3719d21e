package mysql

import (
	"strings"
	"testing"

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

		// The same statements, in the same second perhaps.
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
