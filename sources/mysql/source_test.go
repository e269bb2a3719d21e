package mysql

import (
	"context"
	"testing"
	"time"

	"txreel/change"
	"txreel/internal/dbtest"
)

// testPatience is how long a test waits for what must come.
const testPatience = time.Minute

// open opens a source that ends with the test.
func open(t *testing.T, opts SourceOptions) *Source {
	t.Helper()
	if opts.ServerID == 0 {
		opts.ServerID = 4242
	}
	if opts.ReplicaUUID == "" {
		opts.ReplicaUUID = "0f5cf5a4-4242-11f0-8000-000000000001"
	}
	src, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(src.Close)
	return src
}

// txn is a transaction as a source delivered it.
type txn struct {
	xid      string
	position change.Position
	at       change.Time
	note     string
	messages [][]byte
	rows     map[string]uint64
	held     change.Position // Source.Position behind it
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
		switch m.Kind {
		case change.KindIdle:
			continue
		case change.KindBegin:
			got = txn{rows: make(map[string]uint64)}
		}
		if len(m.Raw) > 0 {
			got.messages = append(got.messages, append([]byte(nil), m.Raw...))
		}
		for _, touch := range m.Touched {
			got.rows[touch.Op.String()+" "+touch.Table.String()] += touch.Rows
		}
		if m.Kind == change.KindCommit {
			got.xid, got.position, got.at, got.note, got.held = m.XID, m.Position, m.CommitTime, m.Note, src.Position()
			return got, nil
		}
	}
}

func TestSmoke(t *testing.T) {
	onBoth(t, func(t *testing.T, server *dbtest.MySQL) {
		src := open(t, SourceOptions{URL: server.URL("")})
		server.MustExec(t, "", "CREATE DATABASE smoke")
		server.MustExec(t, "smoke", "CREATE TABLE t (n int primary key, v text)")
		server.MustExec(t, "smoke", "INSERT INTO t VALUES (1,'a'),(2,'b')")
		for range 3 {
			got := next(t, src)
			t.Logf("%s %s %s %q %v %s %d", got.xid, got.position, got.at, got.note, got.rows, got.held, len(got.messages))
		}
		for range 30 {
			m, err := src.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if m.Position != "" {
				t.Logf("%+v", m)
				break
			}
		}
		t.Logf("%+v", src.Health())
	})
}
