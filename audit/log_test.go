package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/audit"
	"txreel/change"
)

// moment is a commit time, in seconds after a fixed one.
func moment(seconds float64) change.Time {
	return change.Time(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC).UnixMicro() + int64(seconds*1e6))
}

func touch(t *change.Table, op change.Op, rows uint64) change.Message {
	return change.Message{Raw: []byte("x"), Touched: []change.Touch{{Table: t, Op: op, Rows: rows}}}
}

func list(t *testing.T, a *archive.Archive, q audit.Query) []string {
	t.Helper()
	var got []string
	err := audit.Log(t.Context(), a, q, func(e *audit.Entry) error {
		name := e.XID
		switch e.Kind {
		case audit.KindHeartbeat, audit.KindFence:
			name = e.Kind
		case audit.KindGap:
			name = "gap"
		}
		got = append(got, name)
		return nil
	})
	if err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	return got
}

// shop is an archive with two epochs, and a clock that was set back.
func shop(t *testing.T) *archive.Archive {
	orders, items := &change.Table{Schema: "public", Name: "orders"}, &change.Table{Schema: "public", Name: "order_items"}
	other := &change.Table{Schema: "audit.log", Name: "orders"}
	r := newRecorder(t, newMemory(), "postgres")
	r.add(
		testTxn{xid: "a", position: "1", at: moment(1), messages: []change.Message{touch(orders, change.OpInsert, 1), touch(items, change.OpInsert, 5)}},
		testTxn{xid: "b", position: "2", at: moment(2), messages: []change.Message{touch(orders, change.OpDelete, 1200), touch(items, change.OpUpdate, 2)}},
	)
	r.ship()
	r.add(testTxn{kind: change.TxnHeartbeat, position: "3", at: moment(30)})
	r.ship()
	r.add(
		testTxn{xid: "c", position: "4", at: moment(40), messages: []change.Message{touch(other, change.OpTruncate, 0)}},
		testTxn{xid: "d", position: "5", at: moment(20), messages: []change.Message{touch(items, change.OpInsert, 1500)}},
		testTxn{xid: "e", position: "6", at: moment(41), messages: []change.Message{{Raw: []byte("only a message")}}},
	)
	r.ship()
	r.check(r.a.RecordGap(t.Context(), 1, archive.CauseGap, "the slot is gone"))
	r.startEpoch(archive.CauseGap, "the slot is gone")
	r.add(testTxn{xid: "f", position: "9", at: moment(50), messages: []change.Message{touch(orders, change.OpUpdate, 1000)}})
	r.ship()
	return r.a
}

func TestLogFilters(t *testing.T) {
	t.Parallel()
	a := shop(t)
	ops := func(o ...change.Op) []change.Op { return o }
	for _, c := range []struct {
		name string
		q    audit.Query
		want string
	}{
		{"all", audit.Query{}, "f gap e d c b a"},
		{"heartbeats", audit.Query{Heartbeats: true}, "f gap e d c heartbeat b a"},
		{"limit", audit.Query{Limit: 2}, "f gap e"},
		{"epoch", audit.Query{Epoch: 1}, "gap e d c b a"},
		{"last epoch", audit.Query{Epoch: 2}, "f"},
		{"seq", audit.Query{Epoch: 1, From: 2, To: 4}, "c b"},
		{"seq to the end", audit.Query{Epoch: 1, From: 5}, "gap e d"},
		{"xid", audit.Query{XID: "c", Epoch: 1, To: 5}, "c"},
		{"since judges each transaction", audit.Query{Epoch: 1, To: 6, Since: moment(25)}, "e c"},
		{"since is included", audit.Query{Epoch: 1, To: 6, Since: moment(40)}, "e c"},
		{"until sees what a clock set back hides", audit.Query{Epoch: 1, Until: moment(20)}, "d b a"},
		{"table", audit.Query{Tables: []string{"public.orders"}, Epoch: 1, To: 6}, "b a"},
		{"table in any schema", audit.Query{Tables: []string{"orders"}, Epoch: 1, To: 6}, "c b a"},
		{"glob", audit.Query{Tables: []string{"*.order*"}, Epoch: 1, To: 6}, "d c b a"},
		{"schema with a dot", audit.Query{Tables: []string{"audit.*"}, Epoch: 1, To: 6}, "c"},
		{"two patterns", audit.Query{Tables: []string{"audit.*", "order_item?"}, Epoch: 1, To: 6}, "d c b a"},
		{"op", audit.Query{Ops: ops(change.OpDelete), Epoch: 1, To: 6}, "b"},
		{"op truncate", audit.Query{Ops: ops(change.OpTruncate), Epoch: 1, To: 6}, "c"},
		{"ops", audit.Query{Ops: ops(change.OpTruncate, change.OpUpdate), Epoch: 1, To: 6}, "c b"},
		{"min rows", audit.Query{MinRows: 1000}, "f gap d b"},
		{"the mass delete", audit.Query{MinRows: 1000, Ops: ops(change.OpDelete)}, "gap b"},
		{"rows of other operations do not count", audit.Query{MinRows: 3, Ops: ops(change.OpUpdate), Epoch: 1, To: 6}, ""},
		{"rows of other tables do not count", audit.Query{MinRows: 6, Tables: []string{"order_items"}, Epoch: 1, To: 6}, "d"},
		{"filters hide heartbeats", audit.Query{MinRows: 1, Heartbeats: true, Epoch: 1, To: 6}, "d b a"},
		{"an epoch that began before since hides the gap", audit.Query{Since: change.Time(time.Now().UnixMicro()) + 1<<40}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			want := strings.Fields(c.want)
			if got := list(t, a, c.q); !slices.Equal(got, want) {
				t.Errorf("newest first: got %v, want %v", got, want)
			}
			if c.q.Limit > 0 {
				return
			}
			c.q.Reverse = true
			slices.Reverse(want)
			if got := list(t, a, c.q); !slices.Equal(got, want) {
				t.Errorf("oldest first: got %v, want %v", got, want)
			}
		})
	}
}

func TestLogRefuses(t *testing.T) {
	t.Parallel()
	a := shop(t)
	stop := errors.New("enough")
	for _, c := range []struct {
		q    audit.Query
		want string
	}{
		{audit.Query{From: 2}, "name the epoch"},
		{audit.Query{Epoch: 7}, "epoch 7"},
		{audit.Query{Epoch: 1, From: 4, To: 2}, "ends before it begins"},
		{audit.Query{Tables: []string{""}}, "table pattern"},
		{audit.Query{Tables: []string{`a\`}}, "table pattern"},
		{audit.Query{}, "enough"},
	} {
		err := audit.Log(t.Context(), a, c.q, func(*audit.Entry) error { return stop })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.q, err, c.want)
		}
	}
}

func TestLogRenders(t *testing.T) {
	t.Parallel()
	a := shop(t)
	for _, c := range []struct {
		name   string
		render func(*bytes.Buffer) func(*audit.Entry) error
		want   string
	}{
		{"text", func(b *bytes.Buffer) func(*audit.Entry) error { return audit.Text(b, audit.TextOptions{}) }, `epoch 2
SEQ               COMMIT TIME                    ROWS  XID         POSITION
0000000000000001  2026-11-22T00:00:50.000000Z    1000  f           9
    public.orders  1000 updated
epoch 1
SEQ               COMMIT TIME                    ROWS  XID         POSITION
0000000000000006  2026-11-22T00:00:41.000000Z  GAP at 6: the slot is gone
0000000000000005  2026-11-22T00:00:20.000000Z    1500  d           5
    public.order_items  1500 inserted
0000000000000002  2026-11-22T00:00:02.000000Z    1202  b           2
    public.orders       1200 deleted
    public.order_items  2 updated
`},
		{"one line", func(b *bytes.Buffer) func(*audit.Entry) error { return audit.Text(b, audit.TextOptions{OneLine: true}) }, `epoch 2
SEQ               COMMIT TIME                    ROWS  XID         POSITION
0000000000000001  2026-11-22T00:00:50.000000Z    1000  f           9
epoch 1
SEQ               COMMIT TIME                    ROWS  XID         POSITION
0000000000000006  2026-11-22T00:00:41.000000Z  GAP at 6: the slot is gone
0000000000000005  2026-11-22T00:00:20.000000Z    1500  d           5
0000000000000002  2026-11-22T00:00:02.000000Z    1202  b           2
`},
		{"json", func(b *bytes.Buffer) func(*audit.Entry) error { return audit.JSONLines(b) },
			`{"kind":"transaction","seq":"0000000000000001","epoch":2,"xid":"f","commit_time":"2026-11-22T00:00:50.000000Z","position":"9","tables":[{"schema":"public","table":"orders","inserts":0,"updates":1000,"deletes":0,"truncates":0}],"rows":1000,"bytes":1}
{"kind":"gap","seq":"0000000000000006","epoch":1,"commit_time":"2026-11-22T00:00:41.000000Z","position":"6","tables":[],"rows":0,"bytes":0,"detail":"the slot is gone"}
{"kind":"transaction","seq":"0000000000000005","epoch":1,"xid":"d","commit_time":"2026-11-22T00:00:20.000000Z","position":"5","tables":[{"schema":"public","table":"order_items","inserts":1500,"updates":0,"deletes":0,"truncates":0}],"rows":1500,"bytes":1}
{"kind":"transaction","seq":"0000000000000002","epoch":1,"xid":"b","commit_time":"2026-11-22T00:00:02.000000Z","position":"2","tables":[{"schema":"public","table":"orders","inserts":0,"updates":0,"deletes":1200,"truncates":0},{"schema":"public","table":"order_items","inserts":0,"updates":2,"deletes":0,"truncates":0}],"rows":1202,"bytes":2}
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			if err := audit.Log(t.Context(), a, audit.Query{MinRows: 1000}, c.render(&b)); err != nil {
				t.Fatal(err)
			}
			if b.String() != c.want {
				t.Errorf("got\n%s\nwant\n%s", b.String(), c.want)
			}
		})
	}
}

func TestLogShowsNotes(t *testing.T) {
	t.Parallel()
	orders := &change.Table{Schema: "shop", Name: "orders"}
	r := newRecorder(t, newMemory(), "mysql")
	r.add(
		testTxn{xid: "u:1", position: "u:1", at: moment(1), received: moment(1.5), note: "ALTER TABLE orders\n\tADD c INT"},
		testTxn{xid: "u:2", position: "u:1-2", at: moment(2), messages: []change.Message{touch(orders, change.OpInsert, 1)}},
		testTxn{xid: "u:3", position: "u:1-3", at: moment(3), note: "CREATE TABLE summary AS SELECT " + strings.Repeat("é", 60) + "\x1b[2J", messages: []change.Message{touch(orders, change.OpInsert, 7)}},
	)
	r.ship()
	const head = "epoch 1\nSEQ               COMMIT TIME                    ROWS  XID         POSITION\n"
	for _, c := range []struct {
		name   string
		render func(*bytes.Buffer) func(*audit.Entry) error
		want   string
	}{
		{"text", func(b *bytes.Buffer) func(*audit.Entry) error { return audit.Text(b, audit.TextOptions{}) }, head +
			`0000000000000001  2026-11-22T00:00:01.000000Z       0  u:1         u:1
    ALTER TABLE orders ADD c INT
0000000000000002  2026-11-22T00:00:02.000000Z       1  u:2         u:1-2
    shop.orders  1 inserted
0000000000000003  2026-11-22T00:00:03.000000Z       7  u:3         u:1-3
    "CREATE TABLE summary AS SELECT ` + strings.Repeat("é", 60) + `\x1b[2J"
    shop.orders  7 inserted
`},
		{"one line", func(b *bytes.Buffer) func(*audit.Entry) error { return audit.Text(b, audit.TextOptions{OneLine: true}) }, head +
			`0000000000000001  2026-11-22T00:00:01.000000Z       0  u:1         u:1  ALTER TABLE orders ADD c INT
0000000000000002  2026-11-22T00:00:02.000000Z       1  u:2         u:1-2
0000000000000003  2026-11-22T00:00:03.000000Z       7  u:3         u:1-3  "CREATE TABLE summary AS SELECT ` + strings.Repeat("é", 27) + `…
`},
		{"json", func(b *bytes.Buffer) func(*audit.Entry) error { return audit.JSONLines(b) },
			`{"kind":"transaction","seq":"0000000000000001","epoch":1,"xid":"u:1","commit_time":"2026-11-22T00:00:01.000000Z","received":"2026-11-22T00:00:01.500000Z","position":"u:1","note":"ALTER TABLE orders\n\tADD c INT","tables":[],"rows":0,"bytes":0}
{"kind":"transaction","seq":"0000000000000002","epoch":1,"xid":"u:2","commit_time":"2026-11-22T00:00:02.000000Z","position":"u:1-2","tables":[{"schema":"shop","table":"orders","inserts":1,"updates":0,"deletes":0,"truncates":0}],"rows":1,"bytes":1}
{"kind":"transaction","seq":"0000000000000003","epoch":1,"xid":"u:3","commit_time":"2026-11-22T00:00:03.000000Z","position":"u:1-3","note":"CREATE TABLE summary AS SELECT ` + strings.Repeat("é", 60) + `\u001b[2J","tables":[{"schema":"shop","table":"orders","inserts":7,"updates":0,"deletes":0,"truncates":0}],"rows":7,"bytes":1}
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			r.check(audit.Log(t.Context(), r.a, audit.Query{Reverse: true}, c.render(&b)))
			if b.String() != c.want {
				t.Errorf("got\n%s\nwant\n%s", b.String(), c.want)
			}
		})
	}
}

func TestTextQuotesWhatSteersTerminals(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	e := audit.Entry{Kind: audit.KindTransaction, Tables: []audit.Table{{Schema: "s", Table: "t\x1b[2J", Inserts: 1}}}
	if err := audit.Text(&b, audit.TextOptions{})(&e); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "\x1b") {
		t.Errorf("an escape character reaches the terminal: %q", b.String())
	}
}

// day writes a day of one-second segments.
func day(t *testing.T, seconds int) (*memory, *archive.Archive) {
	store := newMemory()
	r := newRecorder(t, store, "postgres")
	table := &change.Table{Schema: "public", Name: "t"}
	for s := range seconds {
		r.add(testTxn{xid: fmt.Sprint(s), position: "p", at: moment(float64(s)), messages: []change.Message{touch(table, change.OpInsert, 1)}})
		r.ship()
	}
	return store, r.a
}

func TestLogOfADayTakesFewRequests(t *testing.T) {
	t.Parallel()
	const seconds = 86400
	store, a := day(t, seconds)
	for _, c := range []struct {
		name  string
		q     audit.Query
		n     int
		limit int
	}{
		{"newest first", audit.Query{}, seconds, 200},
		{"oldest first", audit.Query{Reverse: true}, seconds, 200},
		{"the last twenty", audit.Query{Limit: 20}, 20, 40},
		{"the first twenty", audit.Query{Limit: 20, Reverse: true}, 20, 40},
		{"the last before a moment", audit.Query{Limit: 1, Until: moment(50000)}, 1, 100},
		{"a minute", audit.Query{Since: moment(40000), Until: moment(40059)}, 60, 100},
		{"a minute, oldest first", audit.Query{Since: moment(40000), Until: moment(40059), Reverse: true}, 60, 100},
		{"one transaction", audit.Query{From: 50001, To: 50001}, 1, 40},
	} {
		store.requests = 0
		n := 0
		err := audit.Log(t.Context(), a, c.q, func(*audit.Entry) error { n++; return nil })
		t.Logf("%s: %d requests", c.name, store.requests)
		if err != nil || n != c.n || store.requests > c.limit {
			t.Errorf("%s: %d transactions in %d requests, %v; want %d in at most %d", c.name, n, store.requests, err, c.n, c.limit)
		}
	}
}

// TestBackwardEqualsForward compares the two walks over segments from every place,
// with rollups whole, damaged and lost.
func TestBackwardEqualsForward(t *testing.T) {
	t.Parallel()
	store, a := day(t, 2200) // two rollups of level 2, some of level 1, some segments
	check := func(t *testing.T) {
		t.Helper()
		var want []change.Seq
		for x, err := range a.Segments(t.Context(), 1, 1) {
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, x.First())
		}
		for _, upto := range []change.Seq{1, 2, 31, 32, 33, 1023, 1024, 1025, 1500, 2047, 2048, 2049, 2176, 2177, 2199, 2200, 2201, 1 << 40, 1<<64 - 1} {
			var got []change.Seq
			for x, err := range a.Backward(t.Context(), 1, upto) {
				if err != nil {
					t.Fatalf("from %d: %v", upto, err)
				}
				if x.Key != archive.SegmentKey(1, x.First()) {
					t.Fatalf("key %s of segment %s", x.Key, x.First())
				}
				got = append(got, x.First())
			}
			slices.Reverse(got)
			if !reflect.DeepEqual(got, want[:min(upto, 2200)]) {
				t.Fatalf("from %d: got %d segments, want %d", upto, len(got), min(upto, 2200))
			}
		}
	}
	check(t)
	upper, lower := store.below("epochs/00000001/rollups/2/"), store.below("epochs/00000001/rollups/1/")
	store.objects[upper[1]] = append(bytes.Clone(store.objects[upper[1]][:5000]), store.objects[upper[1]][5001:]...)
	check(t)
	store.objects[lower[40]][100] ^= 1
	check(t)
	store.remove(lower[len(lower)-1])
	check(t)
	store.remove(upper[0])
	check(t)
	for _, k := range append(upper[1:], lower[:len(lower)-1]...) {
		store.remove(k)
	}
	check(t)

	hole := archive.SegmentKey(1, 1500)
	kept := store.objects[hole]
	store.remove(hole)
	for _, upto := range []change.Seq{2200, 1501, 1500, 1 << 40} {
		var found *archive.HoleError
		for x, err := range a.Backward(t.Context(), 1, upto) {
			if errors.As(err, &found) {
				break
			}
			if err != nil || x.First() < 1500 {
				t.Fatalf("from %d: segment %v, %v", upto, x, err)
			}
		}
		if found == nil || found.After != 1499 || found.Next != 1501 {
			t.Errorf("from %d: %v, want the hole at 1500", upto, found)
		}
	}
	if err := store.Create(t.Context(), hole, bytes.NewReader(kept), int64(len(kept))); err != nil {
		t.Fatal(err)
	}
	check(t)
}

// TestLogHidesFences demands that what capture itself writes into the source's log is told from transactions of others.
func TestLogHidesFences(t *testing.T) {
	t.Parallel()
	note := change.Fence{Chain: "0123456789abcdef", Number: 7}.String()
	r := newRecorder(t, newMemory(), "postgres")
	r.add(
		testTxn{xid: "a", position: "1", at: moment(1), messages: []change.Message{{Raw: []byte("x")}}},
		testTxn{position: "2", at: moment(2), note: note, messages: []change.Message{{Raw: []byte("x")}}},
		testTxn{xid: "b", position: "3", at: moment(3), note: note, messages: []change.Message{{Raw: []byte("somebody's own")}}},
	)
	r.ship()
	for _, c := range []struct {
		q    audit.Query
		want string
	}{{audit.Query{}, "b a"}, {audit.Query{Heartbeats: true}, "b fence a"}} {
		if got := list(t, r.a, c.q); !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%+v: %v, want %s", c.q, got, c.want)
		}
	}
}
