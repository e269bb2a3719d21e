package mysql

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"txreel/capture"
	"txreel/change"
	"txreel/internal/dbtest"
)

// testPatience is how long a test waits for what must come.
const testPatience = time.Minute

// ours completes options for a capture of a test.
func ours(opts SourceOptions) SourceOptions {
	if opts.ServerID == 0 {
		opts.ServerID = 4242
	}
	if opts.ReplicaUUID == "" {
		opts.ReplicaUUID = "0f5cf5a4-4242-11f0-8000-000000000001"
	}
	return opts
}

// open opens a source that ends with the test.
func open(t *testing.T, opts SourceOptions) *Source {
	t.Helper()
	src, err := Open(t.Context(), ours(opts))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(src.Close)
	return src
}

// refused returns the error of a source that must not open.
func refused(t *testing.T, opts SourceOptions) error {
	t.Helper()
	src, err := Open(t.Context(), ours(opts))
	if err == nil {
		src.Close()
		t.Fatal("the source opened")
	}
	return err
}

// txn is a transaction as a source delivered it.
type txn struct {
	xid      string
	position change.Position
	at       change.Time
	received change.Time
	note     string
	messages [][]byte
	rows     map[string]uint64
	held     change.Position // Source.Position behind it
	defs     []*change.Definition
}

// next returns the next transaction.
func next(t *testing.T, src *Source) txn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	got, err := nextOf(ctx, src)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func nextOf(ctx context.Context, src *Source) (txn, error) {
	var got txn
	for {
		m, err := src.Next(ctx)
		if err != nil {
			return got, err
		}
		got.take(m)
		if m.Kind == change.KindCommit {
			got.held = src.Position()
			return got, nil
		}
	}
}

// take adds a message to the transaction.
func (x *txn) take(m *change.Message) {
	switch m.Kind {
	case change.KindIdle:
		return
	case change.KindBegin:
		*x = txn{rows: make(map[string]uint64)}
	}
	if len(m.Raw) > 0 {
		x.messages = append(x.messages, append([]byte(nil), m.Raw...))
	}
	for _, touch := range m.Touched {
		x.rows[touch.Op.String()+" "+touch.Table.String()] += touch.Rows
	}
	x.defs = append(x.defs, m.Defs...)
	if m.Kind == change.KindCommit {
		x.xid, x.position, x.at, x.received, x.note = m.XID, m.Position, m.CommitTime, m.Received, m.Note
	}
}

// failure reads until the source fails.
func failure(t *testing.T, src *Source) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	for {
		if _, err := nextOf(ctx, src); err != nil {
			if ctx.Err() != nil {
				t.Fatal("the source did not fail")
			}
			return err
		}
	}
}

// idleUntil reads idle messages until one says what is wanted.
func idleUntil(t *testing.T, src *Source, what string, holds func(*change.Message) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	for {
		m, err := src.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if m.Kind == change.KindIdle && holds(m) {
			return
		}
	}
}

func TestTransactionsHaveWhatTheIndexNeeds(t *testing.T) {
	onBoth(t, func(t *testing.T, server *dbtest.MySQL) {
		src := open(t, SourceOptions{URL: server.URL("")})
		before := change.Time(time.Now().UnixMicro())
		for _, sql := range []string{"CREATE DATABASE idx", "CREATE TABLE idx.t (n int primary key, v text)", "INSERT INTO idx.t VALUES (1,'a'),(2,'b')",
			"UPDATE idx.t SET v = 'c'", "DELETE FROM idx.t WHERE n = 1", "TRUNCATE idx.t", "CREATE USER hidden IDENTIFIED BY 'topsecret'", "DROP USER hidden"} {
			server.MustExec(t, "", sql)
		}
		if _, err := server.Client(t.Context(), "idx", "XA START 'x1'; INSERT INTO t VALUES (7,'x'); XA END 'x1'; XA PREPARE 'x1'; XA COMMIT 'x1'; XA START 'x2'; INSERT INTO t VALUES (8,'x'); XA END 'x2'; XA COMMIT 'x2' ONE PHASE"); err != nil {
			t.Fatal(err)
		}
		for i, want := range []struct{ note, rows string }{
			{"CREATE DATABASE idx", ""}, {"CREATE TABLE idx.t (n int primary key, v text)", ""}, {"", "insert idx.t 2"}, {"", "update idx.t 2"}, {"", "delete idx.t 1"},
			{"TRUNCATE idx.t", "truncate idx.t 1"}, {"CREATE USER", ""}, {"DROP USER", ""},
			{"XA PREPARE X'7831',X'',1", "insert idx.t 1"}, {"XA COMMIT X'7831',X'',1", ""}, {"", "insert idx.t 1"},
		} {
			got := next(t, src)
			rows := ""
			for table, n := range got.rows {
				rows += table + " " + string(rune('0'+n))
			}
			if !strings.Contains(got.note, want.note) || (want.note == "") != (got.note == "") || strings.Contains(got.note, "topsecret") || rows != want.rows {
				t.Errorf("transaction %d has the note %q and the rows %q, want %+v", i, got.note, rows, want)
			}
			now := change.Time(time.Now().UnixMicro())
			if got.at < before-1_000_000 || got.at > now || got.received < before || got.received > now || got.received%1_000_000 == 0 {
				t.Errorf("transaction %d was committed at %s and received at %s, between %s and %s", i, got.at, got.received, before, now)
			}
			if len(got.defs) != 1 || len(got.defs[0].Messages) != 1 {
				t.Errorf("transaction %d has the definitions %v", i, got.defs)
			}
		}
	})
}

// What is idle says up to when nothing happened, and no earlier than that is so.
func TestIdleTimes(t *testing.T) {
	onBoth(t, func(t *testing.T, server *dbtest.MySQL) {
		src := open(t, SourceOptions{URL: server.URL(""), lookEvery: 50 * time.Millisecond})
		conn := connect(t, server.URL(""))
		clock := func() change.Time {
			now, err := Clock(t.Context(), conn)
			if err != nil {
				t.Fatal(err)
			}
			return now
		}
		start := src.Start()
		if start.Kind != change.KindIdle || start.Position == "" || start.CommitTime > clock() || start.CommitTime < clock()-60e6 {
			t.Fatalf("start %+v", start)
		}
		moment := clock()
		idleUntil(t, src, "the clock to go on", func(m *change.Message) bool {
			if m.CommitTime > clock() {
				t.Fatalf("idle at %s, which is in the future", m.CommitTime)
			}
			return m.Position == start.Position && m.CommitTime > moment
		})
		// A transaction that is open, or a log that is behind, is no time when nothing happens.
		server.MustExec(t, "", "CREATE DATABASE IF NOT EXISTS idle")
		moment = clock()
		got := next(t, src)
		idleUntil(t, src, "the clock to go on behind a transaction", func(m *change.Message) bool {
			if m.Position != "" && m.Position != got.held {
				t.Fatalf("idle at %s behind %s", m.Position, got.held)
			}
			return m.Position == got.held && m.CommitTime > moment
		})
	})
}

// A stream that ends at any message goes on behind the last transaction, and every
// transaction comes once.
func TestReconnectAtEveryMessage(t *testing.T) {
	onBoth(t, func(t *testing.T, server *dbtest.MySQL) {
		tail := executed(t, server)
		server.MustExec(t, "", "CREATE DATABASE rec")
		server.MustExec(t, "", "CREATE TABLE rec.t (n int primary key, v text)")
		server.MustExec(t, "", "INSERT INTO rec.t VALUES (1,'a'),(2,'b')")
		server.MustExec(t, "", "FLUSH BINARY LOGS")
		server.MustExec(t, "", "UPDATE rec.t SET v = 'c'")
		server.MustExec(t, "", "ALTER TABLE rec.t ADD w int")
		server.MustExec(t, "", "DELETE FROM rec.t")
		goal := executed(t, server)
		src := open(t, SourceOptions{URL: server.URL(""), Tail: tail})
		whole := until(t, src, goal)
		src.Close()
		messages := 0
		for _, x := range whole {
			messages += len(x.messages)
		}
		for cut := 1; cut <= messages; cut++ {
			src := open(t, SourceOptions{URL: server.URL(""), Tail: tail})
			var got []txn
			var x txn
			for n := 0; n < cut; {
				m, err := src.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if x.take(m); m.Kind != change.KindIdle {
					n++
				}
				if m.Kind == change.KindCommit {
					got = append(got, x)
				}
			}
			position := src.Position()
			src.Close()
			src = open(t, SourceOptions{URL: server.URL(""), Tail: position})
			if got = append(got, until(t, src, goal)...); len(got) != len(whole) {
				t.Fatalf("cut behind message %d: %d transactions, want %d", cut, len(got), len(whole))
			}
			for i := range got {
				if got[i].xid != whole[i].xid || got[i].position != whole[i].position {
					t.Fatalf("cut behind message %d: transaction %d is %s at %s, want %s at %s", cut, i, got[i].xid, got[i].position, whole[i].xid, whole[i].position)
				}
			}
			src.Close()
		}
	})
}

// bits is a connection that returns little at a time.
type bits struct {
	net.Conn
	most int
}

func (b *bits) Read(p []byte) (int, error) { return b.Conn.Read(p[:min(len(p), b.most)]) }

func TestStreamInSmallParts(t *testing.T) {
	onBoth(t, func(t *testing.T, server *dbtest.MySQL) {
		tail := executed(t, server)
		server.MustExec(t, "", "CREATE DATABASE parts")
		server.MustExec(t, "", "CREATE TABLE parts.t (n int primary key, v longtext)")
		server.MustExec(t, "", "INSERT INTO parts.t VALUES (1, REPEAT('x', 100000)), (2, REPEAT('y', 3000))")
		goal := executed(t, server)
		src := open(t, SourceOptions{URL: server.URL(""), Tail: tail})
		want := until(t, src, goal)
		src.Close()
		for _, most := range []int{1, 7, 1024} {
			src := open(t, SourceOptions{URL: server.URL(""), Tail: tail, wrap: func(c net.Conn) net.Conn { return &bits{c, most} }})
			got := until(t, src, goal)
			src.Close()
			if len(got) != len(want) {
				t.Fatalf("%d bytes at a time: %d transactions, want %d", most, len(got), len(want))
			}
			for i := range got {
				if joined(got[i]) != joined(want[i]) {
					t.Fatalf("%d bytes at a time: %s differs", most, got[i].xid)
				}
			}
		}
	})
}

func joined(x txn) string {
	var b strings.Builder
	for _, m := range x.messages {
		b.Write(m)
	}
	return b.String()
}

// The server ends a stream of ours that nobody reads any more when the next one comes.
func TestSuccessorEndsItsPredecessor(t *testing.T) {
	onBoth(t, func(t *testing.T, server *dbtest.MySQL) {
		first := open(t, SourceOptions{URL: server.URL(""), ServerID: 999})
		second := open(t, SourceOptions{URL: server.URL(""), ServerID: 999})
		if err := failure(t, first); !errors.Is(err, capture.ErrOtherCapture) || errors.Is(err, capture.ErrUnreachable) {
			t.Fatalf("the first stream ended with %v", err)
		}
		idleUntil(t, second, "a word", func(*change.Message) bool { return true })
		// Another archive's is let alone.
		third := open(t, SourceOptions{URL: server.URL(""), ServerID: 998, ReplicaUUID: "0f5cf5a4-4242-11f0-8000-000000000998"})
		idleUntil(t, third, "a word", func(*change.Message) bool { return true })
		idleUntil(t, second, "a word", func(*change.Message) bool { return true })
	})
}

// Nothing of a source lingers on the server.
func TestCloseEndsTheServersHalf(t *testing.T) {
	onBoth(t, func(t *testing.T, server *dbtest.MySQL) {
		// Without heartbeats the server would not notice that nobody listens.
		src := open(t, SourceOptions{URL: server.URL(""), ServerID: 997, ReplicaUUID: "0f5cf5a4-4242-11f0-8000-000000000997", heartbeat: time.Hour, silence: 2 * time.Hour})
		dumps := func() int {
			return len(server.MustQuery(t, "", "SELECT 1 FROM information_schema.processlist WHERE id = "+src.dump.id()))
		}
		if dumps() != 1 {
			t.Fatal("no stream to be seen")
		}
		src.Close()
		eventually(t, "the server to end its half", func() bool { return dumps() == 0 })
		_ = failure(t, src) // it ends
	})
}
