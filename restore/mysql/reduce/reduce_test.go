package reduce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"txreel/change"
	"txreel/segment"
	"txreel/sources/mysql/binlog"
)

// table holds rows by their keys.
type table map[int32]tuple

// check returns why the row may not be there; nil if it may.
func (t table) check(r tuple) error {
	for id, other := range t {
		if id == r.id || r.u != 0 && other.u == r.u {
			return fmt.Errorf("row %v meets %v", r, other)
		}
	}
	return nil
}

// history is a random record, and what the source held behind each transaction.
type history struct {
	records []segment.Record
	states  []table // by Seq
	alters  map[change.Seq]bool
}

// history draws one. The table t has a catalog's entry, the table o none; only t is followed.
func drawHistory(t *rapid.T) *history {
	h := &history{states: []table{{}}, alters: make(map[change.Seq]bool), records: []segment.Record{{Kind: segment.Definition, Raw: definition()}}}
	state := table{}
	for n := range uint64(rapid.IntRange(1, 60).Draw(t, "transactions")) {
		seq := change.Seq(n + 1)
		messages := [][]byte{gtidEvent(n + 1), queryEvent("BEGIN")}
		next := maps.Clone(state)
		for range rapid.IntRange(0, 4).Draw(t, "statements") {
			messages = append(messages, drawStatement(t, next)...)
		}
		kind := rapid.IntRange(0, 16).Draw(t, "kind")
		switch kind {
		default:
			messages = append(messages, xidEvent(n))
		case 0: // what was done is taken back
			messages, next = append(messages, queryEvent("ROLLBACK")), state
		case 1: // a part of it
			part := maps.Clone(next)
			messages = append(messages, queryEvent("SAVEPOINT `a`"))
			messages = append(messages, drawStatement(t, part)...)
			messages = append(messages, queryEvent("ROLLBACK TO `a`"), xidEvent(n))
		case 2:
			messages, next = [][]byte{gtidEvent(n + 1), queryEvent("ALTER TABLE t COMMENT 'x'")}, state
			h.alters[seq] = true
		case 3: // committed without the engine's word
			messages = append(messages, queryEvent("COMMIT"))
		case 4: // not committed at all
			next = state
		case 5: // a part of a value changes, whatever the rest is
			for id, old := range next {
				row := old
				row.w++
				next[id] = row
				messages = append(messages, mapEvent(1, "t"), rowsEvent(binlog.TypePartialUpdateRows, 1, true, old, row))
				break
			}
			messages = append(messages, xidEvent(n))
		}
		if rapid.IntRange(0, 9).Draw(t, "define") == 0 {
			h.records = append(h.records, segment.Record{Kind: segment.Definition, Raw: definition()})
		}
		list := transaction(seq, xidOf(n+1), messages...)
		if rapid.IntRange(0, 9).Draw(t, "pieces") == 0 && len(messages) > 2 {
			list = slices.Concat(list[:3], inPieces(list[3]), list[4:])
		}
		if rapid.IntRange(0, 9).Draw(t, "define within") == 0 {
			list = slices.Insert(list, rapid.IntRange(1, len(list)-1).Draw(t, "at"), segment.Record{Kind: segment.Definition, Raw: definition()})
		}
		h.records = append(h.records, list...)
		state = next
		h.states = append(h.states, state)
	}
	return h
}

func inPieces(rec segment.Record) []segment.Record {
	return []segment.Record{{Kind: segment.Message, Raw: rec.Raw[:25]}, {Kind: segment.Message, Raw: rec.Raw[25:]}}
}

// drawStatement changes rows of the state, and returns the events of that.
func drawStatement(t *rapid.T, state table) (messages [][]byte) {
	if rapid.IntRange(0, 9).Draw(t, "another table") == 0 {
		return [][]byte{mapEvent(2, "o"), rowsEvent(binlog.TypeUpdateRows, 2, true, tuple{id: 1}, tuple{id: 1, w: 9})}
	}
	messages = [][]byte{mapEvent(1, "t")}
	events := rapid.IntRange(1, 3).Draw(t, "events")
	for range events {
		typ, rows := drawRows(t, state)
		if len(rows) > 0 {
			messages = append(messages, rowsEvent(typ, 1, false, rows...))
		}
	}
	if len(messages) == 1 {
		return nil
	}
	last := messages[len(messages)-1]
	f, _ := parsedDefinition()
	binlog.EndStatement(last, f)
	binlog.Seal(last, binlog.ChecksumCRC32)
	return messages
}

func parsedDefinition() (*binlog.Format, error) {
	e, err := binlog.Parse(definition(), binlog.ChecksumCRC32)
	if err != nil {
		return nil, err
	}
	return binlog.ParseFormat(&e)
}

// drawRows changes the state by one event's rows.
func drawRows(t *rapid.T, state table) (typ binlog.Type, rows []tuple) {
	typ = rapid.SampledFrom([]binlog.Type{binlog.TypeWriteRows, binlog.TypeDeleteRows, binlog.TypeUpdateRows, binlog.TypeUpdateRows, binlog.TypeUpdateRows}).Draw(t, "type")
	for range rapid.IntRange(1, 4).Draw(t, "rows") {
		id := rapid.Int32Range(1, 6).Draw(t, "id")
		old, there := state[id]
		r := old
		r.w = rapid.Int32Range(0, 1000).Draw(t, "w")
		r.v = strings.Repeat("v", rapid.IntRange(0, 280).Draw(t, "v"))
		switch {
		case typ == binlog.TypeDeleteRows && there:
			delete(state, id)
			rows = append(rows, old)
		case typ == binlog.TypeWriteRows && !there:
			r.id, r.u = id, rapid.Int32Range(0, 8).Draw(t, "u")
			if state.check(r) == nil {
				state[id] = r
				rows = append(rows, r)
			}
		case typ == binlog.TypeUpdateRows && there:
			switch rapid.IntRange(0, 5).Draw(t, "which") {
			case 0:
				r.id = rapid.Int32Range(1, 6).Draw(t, "key")
			case 1:
				r.u = rapid.Int32Range(0, 8).Draw(t, "u")
			}
			delete(state, id)
			if state.check(r) != nil {
				state[id] = old
				continue
			}
			state[r.id] = r
			rows = append(rows, old, r)
		}
	}
	return typ, rows
}

// replica applies what a Stream hands on, as a server does: it finds rows by their keys, and makes of them what the image after an update holds.
type replica struct {
	t     *rapid.T
	f     *binlog.Format
	state table
}

// apply executes a transaction.
func (r *replica) apply(messages [][]byte) {
	saved, point := maps.Clone(r.state), table(nil)
	open, ended := false, false
	for _, raw := range messages {
		e, err := r.f.Parse(raw)
		if err == nil {
			err = e.Verify()
		}
		if err != nil {
			r.t.Fatalf("an event that a server refuses: %v", err)
		}
		switch e.Type {
		case binlog.TypeTableMap:
			open = true
		case binlog.TypeQuery:
			switch text := string(e.Body[14:]); text {
			case "COMMIT":
				ended = true
			case "ROLLBACK":
				r.state = saved
			case "SAVEPOINT `a`":
				point = maps.Clone(r.state)
			case "ROLLBACK TO `a`":
				r.state = point
			}
		case binlog.TypeXID:
			ended = true
		case binlog.TypeWriteRows, binlog.TypeDeleteRows, binlog.TypeUpdateRows, binlog.TypePartialUpdateRows:
			rows, err := binlog.ParseRows(&e, r.f)
			if err != nil || !open || len(rows.Data) == 0 {
				r.t.Fatalf("a row event of %d bytes, in a statement: %v: %v", len(rows.Data), open, err)
			}
			open = rows.Flags&binlog.RowsEndStatement == 0
			if rows.TableID == 1 {
				r.rows(e.Type, rows.Data)
			}
		}
	}
	if open {
		r.t.Fatal("a statement does not end")
	}
	if !ended {
		r.state = saved
	}
}

func (r *replica) rows(typ binlog.Type, data []byte) {
	for len(data) > 0 {
		var row, after tuple
		row, data = tupleOf(data)
		old, there := r.state[row.id]
		if typ == binlog.TypePartialUpdateRows && old != row {
			r.t.Fatalf("a part of %v changes where %v stands", row, old)
		}
		if there != (typ != binlog.TypeWriteRows) {
			r.t.Fatalf("%s of %v finds a row: %v", typ, row, there)
		}
		delete(r.state, row.id)
		switch typ {
		case binlog.TypeDeleteRows:
			continue
		case binlog.TypeUpdateRows, binlog.TypePartialUpdateRows:
			after, data = tupleOf(data)
		default:
			after = row
		}
		if err := r.state.check(after); err != nil {
			r.t.Fatal(err)
		}
		r.state[after.id] = after
	}
}

// catalog is a Catalog that knows nothing for a while when something was altered, and behind some of it no tables.
type catalog struct {
	altered change.Seq
	told    []change.Seq
	blind   int
}

// none reports whether there are no tables behind a transaction that altered some.
func none(altered change.Seq) bool { return altered%2 == 1 }

func (c *catalog) Tables(context.Context, int64) (Tables, error) {
	if c.blind > 0 {
		c.blind--
		return nil, nil
	}
	if none(c.altered) {
		return Tables{}, nil
	}
	return known, nil
}

func (c *catalog) Altered(seq change.Seq) {
	c.altered, c.blind = seq, int(seq)%3
	c.told = append(c.told, seq)
}

// run hands the record behind a transaction to the replica, up to a last transaction, and returns how many updates were left out.
func (h *history) run(t *rapid.T, r *replica, after, last change.Seq, window int) int64 {
	c := &catalog{}
	src := &records{list: h.behind(after), err: io.EOF}
	s := NewStream(src, c, window)
	var messages [][]byte
	seq, altered := after, change.Seq(0)
	for {
		rec, err := s.Next(context.Background())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch rec.Kind {
		case segment.Begin:
			if seq++; rec.Seq != seq {
				t.Fatalf("transaction %s comes where %s belongs", rec.Seq, seq)
			}
			messages = messages[:0]
		case segment.Message:
			messages = h.join(messages, rec.Raw)
		case segment.Commit:
			if h.alters[seq] {
				if c.altered < seq {
					t.Fatalf("the catalog was not told of %s", seq)
				}
				if !maps.Equal(r.state, h.states[seq]) {
					t.Fatalf("in front of a statement, %s, the replica holds %v, the source held %v", seq, r.state, h.states[seq])
				}
			}
			r.apply(messages)
			if slices.Contains(c.told, seq) {
				altered = seq
			}
			if none(altered) && !maps.Equal(r.state, h.states[seq]) {
				t.Fatalf("at %s, where no update may go, the replica holds %v, the source held %v", seq, r.state, h.states[seq])
			}
			if seq == last {
				return s.LeftOut()
			}
		}
	}
	if last == 0 && int(seq) != len(h.states)-1 {
		t.Fatalf("it ends at %s", seq)
	}
	return s.LeftOut()
}

// join adds a message, or a piece of one.
func (h *history) join(messages [][]byte, raw []byte) [][]byte {
	if n := len(messages) - 1; n >= 0 {
		if hd, _ := binlog.ParseHeader(messages[n]); int(hd.Size) > len(messages[n]) {
			messages[n] = append(messages[n], raw...)
			return messages
		}
	}
	return append(messages, bytes.Clone(raw))
}

// behind returns the records behind a transaction, with the definition they need.
func (h *history) behind(after change.Seq) []segment.Record {
	i := slices.IndexFunc(h.records, func(r segment.Record) bool { return r.Kind == segment.Begin && r.Seq == after+1 })
	if i < 0 {
		return nil
	}
	return append([]segment.Record{{Kind: segment.Definition, Raw: definition()}}, h.records[i:]...)
}

// TestStream replays random histories, each a second time after a replica was killed and its rest read anew, with other windows, and compares
// with the source: at the end, and in front of every statement that may look at rows.
func TestStream(t *testing.T) {
	var leftOut int64
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		f, err := parsedDefinition()
		if err != nil {
			t.Fatal(err)
		}
		end := h.states[len(h.states)-1]
		window := func(name string) int { return rapid.SampledFrom([]int{1, 200, 2000, 20_000, 1 << 20}).Draw(t, name) }
		whole := &replica{t, f, table{}}
		leftOut += h.run(t, whole, 0, 0, window("window"))
		if !maps.Equal(whole.state, end) {
			t.Fatalf("the replica holds %v, the source %v", whole.state, end)
		}
		killed := &replica{t, f, table{}}
		at := change.Seq(rapid.IntRange(1, len(h.states)-1).Draw(t, "killed at"))
		h.run(t, killed, 0, at, window("window before"))
		h.run(t, killed, at, 0, window("window behind"))
		if !maps.Equal(killed.state, end) {
			t.Fatalf("the replica that was killed at %s holds %v, the source %v", at, killed.state, end)
		}
	})
	if leftOut == 0 {
		t.Error("no update was left out")
	}
}
