package mysql

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"txreel/capture"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
)

// corpus returns statements of every kind, and some that MySQL logs without GTIDs, which it
// has to be told to do first.
func corpus(t *testing.T, server *dbtest.MySQL) (with, without string) {
	t.Helper()
	for _, name := range []string{"common.sql", server.Flavor + ".sql"} {
		script, err := os.ReadFile(filepath.Join("binlog", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		with += strings.ReplaceAll(string(script), "$FILE", filepath.Join(server.Dir, "tmp", "corpus"))
	}
	if at := strings.Index(with, "SET GLOBAL gtid_mode"); at >= 0 {
		return with[:at], with[at:]
	}
	return with, ""
}

// runClient runs a script, some of which is what one of the vendors refuses.
func runClient(t *testing.T, server *dbtest.MySQL, script string) {
	t.Helper()
	if _, err := server.Client(t.Context(), "", script, "--force"); err != nil && !strings.Contains(err.Error(), "exit status 1") {
		t.Fatal(err)
	}
}

// group is a transaction as it stands in the server's files.
type group struct {
	xid  string
	raw  []byte
	file string
	end  int
}

// logged reads the groups from the server's own files.
func logged(t *testing.T, server *dbtest.MySQL) []group {
	t.Helper()
	var groups []group
	for _, file := range server.Binlogs() {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sum, open := binlog.ChecksumNone, false
		for at := len(binlog.Magic); at < len(b); {
			h, err := binlog.ParseHeader(b[at:])
			if err != nil {
				t.Fatal(err)
			}
			raw := b[at : at+int(h.Size)]
			at += int(h.Size)
			e, err := binlog.Parse(raw, sum)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case h.Type == binlog.TypeFormatDescription:
				format, err := binlog.ParseFormat(&e)
				if err != nil {
					t.Fatal(err)
				}
				sum, open = format.Checksum, false
				continue
			case h.Type.Frames():
				continue
			case h.Type.Begins():
				g, err := binlog.ParseGroup(&e)
				if err != nil {
					t.Fatal(err)
				}
				groups = append(groups, group{xid: g.GTID.String(), file: filepath.Base(file)})
				open = true
			}
			if !open {
				t.Fatalf("%s at %d: a %s event outside of a group", file, at, h.Type)
			}
			last := &groups[len(groups)-1]
			last.raw, last.end = append(last.raw, raw...), at
		}
	}
	return groups
}

// until reads transactions until the source has delivered all of a set.
func until(t *testing.T, src *Source, goal change.Position) []txn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	var all []txn
	for !covers(t, src, goal) {
		got, err := nextOf(ctx, src)
		if err != nil {
			t.Fatalf("after %d transactions: %v", len(all), err)
		}
		all = append(all, got)
	}
	return all
}

// covers reports whether the source has delivered all of a set.
func covers(t *testing.T, src *Source, goal change.Position) bool {
	t.Helper()
	set, err := gtid.Parse(src.control.Flavor, string(goal))
	if err != nil {
		t.Fatal(err)
	}
	return src.parser.held.Contains(set)
}

// same compares what a source delivered with what the server's files hold.
func same(t *testing.T, got []txn, want []group) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		g, w := &got[i], &want[i]
		if g.xid != w.xid || !bytes.Equal(bytes.Join(g.messages, nil), w.raw) {
			t.Fatalf("transaction %d is %s of %d bytes, the server logged %s of %d", i, g.xid, len(bytes.Join(g.messages, nil)), w.xid, len(w.raw))
		}
		if at := (place{w.file, uint64(w.end)}).String(); string(g.position) != at {
			t.Fatalf("transaction %s ends at %s, want %s", g.xid, g.position, at)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d transactions, the server logged %d", len(got), len(want))
	}
}

// executed is what a server has committed.
func executed(t *testing.T, server *dbtest.MySQL) change.Position {
	t.Helper()
	conn, err := Connect(t.Context(), server.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	at, err := ReadPosition(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// Statements of every kind become the transactions that the server's files hold, byte for
// byte, wherever a stream begins.
func TestStreamIsTheServersLog(t *testing.T) {
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			server := dbtest.My(t, flavor)
			before := executed(t, server)
			src := open(t, SourceOptions{URL: server.URL("")})
			if src.Position() != before || src.Start().Position != before {
				t.Fatalf("the stream begins at %s, the server stood at %s", src.Position(), before)
			}
			skip := len(logged(t, server))
			with, without := corpus(t, server)
			runClient(t, server, with)
			got := until(t, src, executed(t, server))
			want := logged(t, server)[skip:]
			same(t, got, want)
			if len(got) < 120 {
				t.Fatalf("only %d transactions", len(got))
			}
			for i := range got {
				if got[i].held == before {
					t.Fatalf("the position behind %s is still %s", got[i].xid, before)
				}
			}
			src.Close()
			// From the beginning of some of them, in a stream of its own.
			for i := 0; i < len(got); i += 1 + len(got)/12 {
				tail := before
				if i > 0 {
					tail = got[i-1].held
				}
				src := open(t, SourceOptions{URL: server.URL(""), Tail: tail, Latest: 1})
				same(t, until(t, src, executed(t, server)), want[i:])
				if src.Position() != got[len(got)-1].held {
					t.Fatalf("ends at %s, at first it was %s", src.Position(), got[len(got)-1].held)
				}
				src.Close()
			}
			if without == "" {
				return
			}
			// What has no GTID cannot be told from what is sent again.
			src = open(t, SourceOptions{URL: server.URL(""), Tail: got[len(got)-1].held})
			runClient(t, server, without)
			demand(t, failure(t, src), capture.ErrGap, "gtid_mode")
		})
	}
}
