package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/audit"
	"txreel/change"
	"txreel/segment"
)

// script is a Decoder of made-up messages: each stands for the event under its
// text, or for those under its texts between semicolons. "frame" is none, anything unknown
// an error. "120:insert" begins a message of 120 bytes.
type script struct {
	events map[string]change.Event
	left   []string // texts that Next has not come to
}

func (s *script) Size(raw []byte) int64 {
	size, _, _ := strings.Cut(string(raw), ":")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return int64(len(raw))
	}
	return n
}

func (s *script) Decode(raw []byte) error {
	text := string(raw)
	if _, rest, ok := strings.Cut(text, ":"); ok {
		text = rest
	}
	s.left = strings.Split(text, ";")
	if s.left[0] == "frame" {
		s.left = nil
	} else if _, ok := s.events[s.left[0]]; !ok {
		s.left = nil
		return errors.New(`no "such" message`)
	}
	return nil
}

func (s *script) Next(ev *change.Event) (bool, error) {
	if len(s.left) == 0 {
		return false, nil
	}
	e, ok := s.events[s.left[0]]
	if s.left = s.left[1:]; !ok {
		return false, errors.New(`no "such" row`)
	}
	*ev = e
	return true, nil
}

func text(s string) change.Value { return change.Value{State: change.Text, Bytes: []byte(s)} }

var (
	null      = change.Value{State: change.Null}
	unchanged = change.Value{State: change.Unchanged}
	notLogged = change.Value{}
)

// events is one of everything a log can show.
func events() *script {
	orders := &change.Relation{Schema: "public", Name: "orders", Columns: []change.Column{
		{Name: "id", Type: "int8", Key: true}, {Name: "note", Type: "text"}, {Name: `doc "x"`, Type: "app.json"},
	}}
	full := &change.Relation{Schema: "public", Name: "full", Columns: []change.Column{{Name: "a", Type: "text", Key: true}, {Name: "b", Type: "text", Key: true}}}
	empty := &change.Relation{Schema: "s", Name: "empty\xff"}
	values := func(v ...change.Value) []change.Value { return append([]change.Value{}, v...) }
	return &script{events: map[string]change.Event{
		"insert":      {Op: change.OpInsert, Relation: orders, New: values(text("18446744073709551615"), null, text(""))},
		"bytes":       {Op: change.OpInsert, Relation: orders, New: values(text("1"), text("\xff\x00"), change.Value{State: change.Binary, Bytes: []byte{1, 2}})},
		"update":      {Op: change.OpUpdate, Relation: orders, New: values(text("1"), text("tab\t"), unchanged)},
		"update key":  {Op: change.OpUpdate, Relation: orders, Old: values(text("1"), notLogged, notLogged), New: values(text("2"), null, text("{}"))},
		"update full": {Op: change.OpUpdate, Relation: full, Old: values(text("1"), text("large")), New: values(text("2"), unchanged)},
		"update part": {Op: change.OpUpdate, Relation: orders, Old: values(text("1"), text("x"), notLogged), New: values(notLogged, text("y"), notLogged)},
		"delete":      {Op: change.OpDelete, Relation: orders, Old: values(text("1"), notLogged, notLogged)},
		"delete full": {Op: change.OpDelete, Relation: full, Old: values(null, text("b"))},
		"empty":       {Op: change.OpInsert, Relation: empty, New: values()},
		"truncate":    {Op: change.OpTruncate, Relations: []*change.Relation{orders, full}, Cascade: true},
		"message":     {Op: change.OpMessage, Prefix: "app", Content: []byte("who=\"me\"")},
		"raw message": {Op: change.OpMessage, Prefix: "app", Content: []byte{0xff, 0}},
		"statement":   {Op: change.OpStatement, Prefix: "shop", Content: []byte("alter table t\nadd c int")},
		"latin1":      {Op: change.OpStatement, Content: []byte("drop table \xe9")},
	}}
}

func data(raws ...string) (list []change.Message) {
	for _, r := range raws {
		list = append(list, change.Message{Raw: []byte(r)})
	}
	return list
}

const prefix = `{"record":"change","archive":"ID","epoch":1,"seq":"0000000000000001","xid":"742","position":"0/1","commit_time":"2026-11-22T00:00:01.500000Z","ordinal":`

var wantLines = []string{
	prefix + `1,"op":"insert","schema":"public","table":"orders","key":{"id":"18446744073709551615"},"after":{"id":"18446744073709551615","note":null,"doc \"x\"":""},"evidence":{"after":"logged"}}`,
	prefix + `2,"op":"insert","schema":"public","table":"orders","key":{"id":"1"},"after":{"id":"1","note":{"base64":"/wA="},"doc \"x\"":{"binary":"AQI="}},"evidence":{"after":"logged"}}`,
	prefix + `3,"op":"update","schema":"public","table":"orders","key":{"id":"1"},"after":{"id":"1","note":"tab\t"},"unchanged":["doc \"x\""],"evidence":{"before":"not logged","after":"partly logged"}}`,
	prefix + `4,"op":"update","schema":"public","table":"orders","key":{"id":"1"},"before":{"id":"1"},"not_logged":["note","doc \"x\""],"after":{"id":"2","note":null,"doc \"x\"":"{}"},"evidence":{"before":"key only","after":"logged"}}`,
	prefix + `5,"op":"update","schema":"public","table":"full","before":{"a":"1","b":"large"},"after":{"a":"2"},"unchanged":["b"],"evidence":{"before":"logged","after":"logged"}}`,
	prefix + `6,"op":"update","schema":"public","table":"orders","key":{"id":"1"},"before":{"id":"1","note":"x"},"not_logged":["doc \"x\""],"after":{"note":"y"},"after_not_logged":["id","doc \"x\""],"evidence":{"before":"partly logged","after":"partly logged"}}`,
	prefix + `7,"op":"delete","schema":"public","table":"orders","key":{"id":"1"},"before":{"id":"1"},"not_logged":["note","doc \"x\""],"evidence":{"before":"key only"}}`,
	prefix + `8,"op":"delete","schema":"public","table":"full","before":{"a":null,"b":"b"},"evidence":{"before":"logged"}}`,
	prefix + `9,"op":"insert","schema":"s","table":"base64:ZW1wdHn/","after":{},"evidence":{"after":"logged"}}`,
	prefix + `10,"op":"truncate","schema":"public","table":"orders","cascade":true,"restart_identity":false}`,
	prefix + `11,"op":"truncate","schema":"public","table":"full","cascade":true,"restart_identity":false}`,
	prefix + `12,"op":"message","prefix":"app","content":"who=\"me\""}`,
	prefix + `13,"op":"message","prefix":"app","content":{"base64":"/wA="}}`,
	strings.Replace(prefix, "change", "undecoded", 1) + `14,"error":"no \"such\" message","raw":"bm9uc2Vuc2U="}`,
	prefix + `15,"op":"delete","schema":"public","table":"orders","key":{"id":"1"},"before":{"id":"1"},"not_logged":["note","doc \"x\""],"evidence":{"before":"key only"}}`,
	prefix + `16,"op":"statement","database":"shop","statement":"alter table t\nadd c int"}`,
	prefix + `17,"op":"statement","database":"","statement":{"base64":"ZHJvcCB0YWJsZSDp"}}`,
	prefix + `18,"op":"update","schema":"public","table":"orders","key":{"id":"1"},"after":{"id":"1","note":"tab\t"},"unchanged":["doc \"x\""],"evidence":{"before":"not logged","after":"partly logged"}}`,
	prefix + `19,"op":"insert","schema":"public","table":"orders","key":{"id":"18446744073709551615"},"after":{"id":"18446744073709551615","note":null,"doc \"x\"":""},"evidence":{"after":"logged"}}`,
	strings.Replace(prefix, "change", "undecoded", 1) + `20,"error":"no \"such\" row","raw":"dXBkYXRlO2luc2VydDt1bmtub3duO2RlbGV0ZQ=="}`,
}

// everything is an archive whose first transaction has one of every change.
func everything(t *testing.T) *recorder {
	r := newRecorder(t, newMemory(), "postgres")
	r.add(testTxn{xid: "742", position: "0/1", at: moment(1.5), messages: data("frame", "insert", "bytes", "update", "update key", "update full", "update part",
		"delete", "delete full", "empty", "truncate", "message", "raw message", "nonsense", "delete", "frame", "statement;latin1", "update;insert;unknown;delete")})
	return r
}

// export returns the header, the lines and the trailer.
func export(t *testing.T, a *archive.Archive, opts audit.ExportOptions) (head map[string]any, list []string, sum *audit.Summary) {
	t.Helper()
	var b bytes.Buffer
	opts.SpillDir = t.TempDir()
	sum, err := audit.Export(t.Context(), a, events(), opts, &b)
	if err != nil {
		t.Fatalf("%+v: %v", opts, err)
	}
	list = strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for i, l := range list {
		if !json.Valid([]byte(l)) {
			t.Errorf("line %d is not JSON: %s", i, l)
		}
		list[i] = strings.Replace(l, a.Identity.Archive, "ID", 1)
	}
	if err := json.Unmarshal([]byte(list[0]), &head); err != nil {
		t.Fatal(err)
	}
	var last audit.Summary
	if err := json.Unmarshal([]byte(list[len(list)-1]), &last); err != nil || head["record"] != "header" || last.Record != "trailer" || !last.Complete {
		t.Fatalf("header %v, trailer %+v, %v", head, last, err)
	}
	return head, list[1 : len(list)-1], sum
}

func TestExportLines(t *testing.T) {
	t.Parallel()
	r := everything(t)
	r.add(testTxn{kind: change.TxnHeartbeat, position: "0/2", at: moment(60)}, testTxn{xid: "743", position: "0/3", at: moment(61), messages: data("frame")})
	r.ship()
	head, got, sum := export(t, r.a, audit.ExportOptions{})
	for i := range max(len(got), len(wantLines)) {
		g, w := "", ""
		if i < len(got) {
			g = got[i]
		}
		if i < len(wantLines) {
			w = wantLines[i]
		}
		if g != w {
			t.Errorf("line %d\n got %s\nwant %s", i+1, g, w)
		}
	}
	tail, err := r.a.Tail(t.Context(), 1)
	r.check(err)
	if *sum.FirstSeq != 1 || *sum.LastSeq != 3 || sum.Transactions != 2 || sum.Heartbeats != 1 || sum.Changes != 18 || sum.Undecoded != 2 || sum.Skipped != 0 ||
		*sum.LastHash != tail.Hash || sum.LastSegment != archive.SegmentKey(1, 1) || sum.LastPosition != "0/3" || sum.GapAfter != nil || sum.GapBefore != nil {
		t.Errorf("trailer %+v", sum)
	}
	if head["engine"] != "postgres" || head["database"] != "shop" || head["from"] != "0000000000000001" || head["to"] != "0000000000000003" || head["recorded_until"] != "2026-11-22T00:01:01.000000Z" {
		t.Errorf("header %v", head)
	}
	// The types, and the transactions without changes.
	_, got, _ = export(t, r.a, audit.ExportOptions{Types: true, Empty: true})
	if want := strings.TrimSuffix(wantLines[0], "}") + `,"types":{"id":"int8","note":"text","doc \"x\"":"app.json"}}`; got[0] != want {
		t.Errorf("with types\n got %s\nwant %s", got[0], want)
	}
	if want := `{"record":"transaction","archive":"ID","epoch":1,"seq":"0000000000000003","xid":"743","position":"0/3","commit_time":"2026-11-22T00:01:01.000000Z","changes":0}`; got[len(got)-1] != want {
		t.Errorf("empty transaction\n got %s\nwant %s", got[len(got)-1], want)
	}
}

func TestExportFilters(t *testing.T) {
	t.Parallel()
	r := everything(t)
	r.ship()
	for _, c := range []struct {
		name string
		opts audit.ExportOptions
		want []int  // numbers of lines
		left uint64 // statements left out
	}{
		{"table", audit.ExportOptions{Tables: []string{"public.full"}}, []int{5, 8, 11, 14, 20}, 2},
		{"ops", audit.ExportOptions{Ops: []change.Op{change.OpDelete, change.OpMessage}}, []int{7, 8, 12, 13, 14, 15, 20}, 2},
		{"both", audit.ExportOptions{Tables: []string{"f*"}, Ops: []change.Op{change.OpTruncate, change.OpMessage}}, []int{11, 12, 13, 14, 20}, 2},
		{"statements", audit.ExportOptions{Ops: []change.Op{change.OpStatement}}, []int{14, 16, 17, 20}, 0},
		{"statements beside a table", audit.ExportOptions{Tables: []string{"full"}, Ops: []change.Op{change.OpStatement, change.OpDelete}}, []int{8, 14, 16, 17, 20}, 0},
	} {
		_, got, sum := export(t, r.a, c.opts)
		var want []string
		for _, n := range c.want {
			want = append(want, wantLines[n-1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if sum.Changes+sum.Skipped+sum.Undecoded != uint64(len(wantLines)) || sum.SkippedStatements != c.left {
			t.Errorf("%s: the trailer does not account for every change: %+v", c.name, sum)
		}
	}
}

// TestExportShowsReceiptsAndNotes demands both where they were recorded, and only
// there.
func TestExportShowsReceiptsAndNotes(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, newMemory(), "mysql")
	r.add(
		testTxn{xid: "a:1", position: "a:1", at: moment(1), received: moment(1.25), note: "CREATE TABLE `t`\n(id INT)", messages: data("frame")},
		testTxn{xid: "a:2", position: "a:1-2", at: moment(2), received: moment(1.75), note: "ALTER TABLE t", messages: data("statement", "nonsense")},
		testTxn{xid: "a:3", position: "a:1-3", at: moment(3), note: "cut \xc3", messages: data("frame")},
	)
	r.ship()
	_, got, _ := export(t, r.a, audit.ExportOptions{Empty: true})
	const second = `,"archive":"ID","epoch":1,"seq":"0000000000000002","xid":"a:2","position":"a:1-2","commit_time":"2026-11-22T00:00:02.000000Z","received":"2026-11-22T00:00:01.750000Z","ordinal":`
	want := []string{
		`{"record":"transaction","archive":"ID","epoch":1,"seq":"0000000000000001","xid":"a:1","position":"a:1","commit_time":"2026-11-22T00:00:01.000000Z","received":"2026-11-22T00:00:01.250000Z","note":"CREATE TABLE ` + "`t`" + `\n(id INT)","changes":0}`,
		`{"record":"change"` + second + `1,"op":"statement","database":"shop","statement":"alter table t\nadd c int"}`,
		`{"record":"undecoded"` + second + `2,"error":"no \"such\" message","raw":"bm9uc2Vuc2U="}`,
		`{"record":"transaction","archive":"ID","epoch":1,"seq":"0000000000000003","xid":"a:3","position":"a:1-3","commit_time":"2026-11-22T00:00:03.000000Z","note":"base64:Y3V0IMM=","changes":0}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// gapped is an archive of two epochs with transactions a to d and e to f.
func gapped(t *testing.T) *archive.Archive {
	r := newRecorder(t, newMemory(), "postgres")
	for i, xid := range []string{"a", "b", "c", "d"} {
		r.add(testTxn{xid: xid, position: "1", at: []change.Time{moment(10), moment(20), moment(15), moment(30)}[i], messages: data("insert")})
		if i%2 == 1 {
			r.ship()
		}
	}
	r.check(r.a.RecordGap(t.Context(), 1, archive.CauseGap, "the slot is gone"))
	r.startEpoch(archive.CauseGap, "the slot is gone")
	now := change.Time(time.Now().UnixMicro()) + 10e6
	r.add(testTxn{xid: "e", position: "2", at: now, messages: data("insert")}, testTxn{xid: "f", position: "3", at: now + 10e6, messages: data("delete")})
	r.ship()
	return r.a
}

func TestExportRanges(t *testing.T) {
	t.Parallel()
	a := gapped(t)
	for _, c := range []struct {
		name          string
		opts          audit.ExportOptions
		want          string
		before, after bool // a gap borders on the range
	}{
		{"epoch", audit.ExportOptions{Epoch: 1}, "a b c d", false, true},
		{"later epoch", audit.ExportOptions{Epoch: 2}, "e f", true, false},
		{"from", audit.ExportOptions{Epoch: 1, From: 3}, "c d", false, true},
		{"to", audit.ExportOptions{Epoch: 1, To: 3}, "a b c", false, false},
		{"one", audit.ExportOptions{Epoch: 1, From: 2, To: 2}, "b", false, false},
		{"since, in commit order", audit.ExportOptions{Epoch: 1, Since: moment(16)}, "b c d", false, true},
		{"until stops before the first that is later", audit.ExportOptions{Epoch: 1, Until: moment(16)}, "a", false, false},
		{"until is included", audit.ExportOptions{Epoch: 1, Until: moment(20)}, "a b c", false, false},
		{"nothing that late", audit.ExportOptions{Epoch: 1, Since: moment(31)}, "", false, true},
		{"what comes next", audit.ExportOptions{Epoch: 2, From: 3}, "", false, false},
		{"over the gap, knowingly", audit.ExportOptions{Epoch: 1, Until: moment(1e6), AllowGap: true}, "a b c d", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			head, got, sum := export(t, a, c.opts)
			var xids []string
			for _, l := range got {
				var v struct{ XID string }
				if err := json.Unmarshal([]byte(l), &v); err != nil {
					t.Fatal(err)
				}
				xids = append(xids, v.XID)
			}
			if s := strings.Join(xids, " "); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
			if (sum.GapBefore != nil) != c.before || (sum.GapAfter != nil) != c.after || (head["gap_before"] != nil) != c.before || (head["gap_after"] != nil) != c.after {
				t.Errorf("gaps: header %v %v, trailer %v %v", head["gap_before"], head["gap_after"], sum.GapBefore, sum.GapAfter)
			}
			if (sum.LastSeq == nil) != (c.want == "") {
				t.Errorf("trailer %+v", sum)
			}
		})
	}
	for _, c := range []struct {
		name string
		opts audit.ExportOptions
		want error
	}{
		{"all of several epochs", audit.ExportOptions{}, audit.ErrGap},
		{"until behind the gap", audit.ExportOptions{Epoch: 1, Until: moment(1e6)}, audit.ErrGap},
		{"since before the gap", audit.ExportOptions{Epoch: 2, Since: moment(5)}, audit.ErrGap},
		{"no such epoch", audit.ExportOptions{Epoch: 3}, fs.ErrNotExist},
		{"to past the end", audit.ExportOptions{Epoch: 1, To: 5}, fs.ErrNotExist},
		{"from past the end", audit.ExportOptions{Epoch: 1, From: 6}, fs.ErrNotExist},
	} {
		var b bytes.Buffer
		if _, err := audit.Export(t.Context(), a, events(), c.opts, &b); !errors.Is(err, c.want) || b.Len() > 0 {
			t.Errorf("%s: %v, %d bytes written; want %v and none", c.name, err, b.Len(), c.want)
		}
	}
}

// TestExportOfADamagedArchiveHasNoTrailer flips bytes of the segment, those behind
// the range too.
func TestExportOfADamagedArchiveHasNoTrailer(t *testing.T) {
	t.Parallel()
	r := everything(t)
	r.add(testTxn{xid: "743", position: "0/3", at: moment(61), messages: data("insert")})
	r.ship()
	key := archive.SegmentKey(1, 1)
	whole := r.store.objects[key]
	for at := 0; at < len(whole); at += 7 {
		r.store.objects[key] = bytes.Clone(whole)
		r.store.objects[key][at] ^= 0x10
		var b bytes.Buffer
		_, err := audit.Export(t.Context(), r.a, events(), audit.ExportOptions{To: 1}, &b)
		if err == nil || strings.Contains(b.String(), `"record":"trailer"`) {
			t.Fatalf("byte %d: exported in spite of it: %v", at, err)
		}
		if !errors.Is(err, archive.ErrCorrupt) && !errors.Is(err, segment.ErrCorrupt) {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func TestExportReportsAFailingWriter(t *testing.T) {
	t.Parallel()
	r := everything(t)
	r.ship()
	for _, n := range []int{0, 100, 4000} {
		if _, err := audit.Export(t.Context(), r.a, events(), audit.ExportOptions{}, &failing{n}); err == nil || !strings.Contains(err.Error(), "write export: disk full") {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

// TestExportTakesNoMemoryPerRow compares transactions of different sizes.
func TestExportTakesNoMemoryPerRow(t *testing.T) {
	rows := func(n int) *archive.Archive {
		r := newRecorder(t, newMemory(), "postgres")
		r.add(testTxn{xid: "1", position: "1", messages: data(slices.Repeat([]string{"update key"}, n)...)})
		r.ship()
		return r.a
	}
	dec := &fixed{event: events().events["update key"]}
	allocs := func(a *archive.Archive) float64 {
		return testing.AllocsPerRun(5, func() {
			if _, err := audit.Export(t.Context(), a, dec, audit.ExportOptions{}, io.Discard); err != nil {
				t.Fatal(err)
			}
		})
	}
	few, many := allocs(rows(1000)), allocs(rows(21000))
	if perRow := (many - few) / 20000; perRow > 0.001 {
		t.Errorf("%v allocations for 1000 rows, %v for 21000: %v a row", few, many, perRow)
	}
}

// fixed decodes every message as the same event.
type fixed struct {
	event change.Event
	ready bool
}

func (f *fixed) Size(raw []byte) int64 { return int64(len(raw)) }

func (f *fixed) Decode([]byte) error { f.ready = true; return nil }

func (f *fixed) Next(ev *change.Event) (bool, error) {
	if !f.ready {
		return false, nil
	}
	*ev, f.ready = f.event, false
	return true, nil
}
