package fold

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"txreel/archive"
	"txreel/change"
	"txreel/sink/dir"
)

// cell is a value of a model's row; nil is NULL.
type cell = *string

func text(s string) cell { return &s }

// modelTable is a table as a server has it.
type modelTable struct {
	Table
	id       uint32
	identity byte
	key      []int // empty: whole rows
	rows     [][]cell
}

func (m *modelTable) relation() []byte {
	b := binary.BigEndian.AppendUint32([]byte{'R'}, m.id)
	b = append(append(b, m.Schema...), 0)
	b = append(append(b, m.Name...), 0, m.identity)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Columns)))
	for i, c := range m.Columns {
		var flag byte
		if slices.Contains(m.key, i) || m.identity == 'f' {
			flag = 1
		}
		b = append(append(append(b, flag), c...), 0)
		b = append(b, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff)
	}
	return b
}

func appendImage(b []byte, row []cell, kept []bool) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(row)))
	for i, c := range row {
		switch {
		case kept != nil && kept[i]:
			b = append(b, 'u')
		case c == nil:
			b = append(b, 'n')
		default:
			b = append(binary.BigEndian.AppendUint32(append(b, 't'), uint32(len(*c))), *c...)
		}
	}
	return b
}

// lines is the table's content as COPY would have it, in order.
func (m *modelTable) lines() []string {
	var all []string
	for _, r := range m.rows {
		var b []byte
		for i, c := range r {
			if i > 0 {
				b = append(b, '\t')
			}
			if c == nil {
				b = append(b, `\N`...)
			} else {
				b = append(b, strings.NewReplacer("\\", `\\`, "\n", `\n`, "\t", `\t`, "\r", `\r`, "\b", `\b`, "\f", `\f`, "\v", `\v`).Replace(*c)...)
			}
		}
		all = append(all, string(b))
	}
	slices.Sort(all)
	return all
}

// history makes a random record and knows what every table is after each of its transactions.
type history struct {
	t       *rapid.T
	tables  []*modelTable
	writer  *archive.Writer
	archive *archive.Archive
	defs    []*change.Definition
	touch   []*change.Table
	states  [][][]string // by transaction, then table
	at      int
	made    int // rows that were put together
}

var letters = rapid.SampledFrom([]string{"a", "b", "c", "d", "", "\t", "\\", "a\nb", "é", "\\N", "\v\b\f\r", strings.Repeat("long ", 60)})

func newHistory(t *rapid.T, folder string) *history {
	store, err := dir.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	h := &history{t: t}
	if h.archive, err = archive.Init(ctx, store, archive.Identity{Engine: "postgres", System: "1", Database: "d"}); err != nil {
		t.Fatal(err)
	}
	if _, err = h.archive.StartEpoch(ctx, nil, "first", "", nil); err != nil {
		t.Fatal(err)
	}
	if h.writer, err = h.archive.NewWriter(ctx, 1, folder); err != nil {
		t.Fatal(err)
	}
	h.tables = []*modelTable{
		{Table: Table{Schema: "s", Name: "one", Columns: []string{"k", "v", "w"}}, id: 1, identity: 'd', key: []int{0}},
		{Table: Table{Schema: "s", Name: "two", Columns: []string{"v", "k", "l", "w"}}, id: 2, identity: 'i', key: []int{2, 1}},
		{Table: Table{Schema: "s", Name: "bag", Columns: []string{"v", "w"}}, id: 3, identity: 'f'},
		{Table: Table{Schema: "s", Name: "full", Columns: []string{"k", "v"}}, id: 5, identity: 'f', key: []int{0}},
		{Table: Table{Schema: "s", Name: "still", Columns: []string{"k"}}, id: 4, identity: 'd', key: []int{0}},
	}
	for _, m := range h.tables {
		h.touch = append(h.touch, &change.Table{Schema: m.Schema, Name: m.Name, Version: 1})
		h.defs = append(h.defs, &change.Definition{Messages: [][]byte{m.relation()}})
	}
	return h
}

// row draws a row whose key no other has.
func (h *history) row(m *modelTable, from []cell) []cell {
	row := make([]cell, len(m.Columns))
	for {
		for i := range row {
			switch {
			case from != nil && rapid.IntRange(0, 2).Draw(h.t, "same") > 0:
				row[i] = from[i]
			case !slices.Contains(m.key, i) && rapid.IntRange(0, 5).Draw(h.t, "null") == 0:
				row[i] = nil
			default:
				row[i] = text(letters.Draw(h.t, "value"))
			}
		}
		if len(m.key) == 0 || h.find(m, row) < 0 || from != nil && h.sameKey(m, row, from) {
			return row
		}
		if rapid.IntRange(0, 3).Draw(h.t, "give up") == 0 {
			return nil
		}
	}
}

func (h *history) sameKey(m *modelTable, a, b []cell) bool {
	for _, k := range m.key {
		if *a[k] != *b[k] {
			return false
		}
	}
	return true
}

func (h *history) find(m *modelTable, row []cell) int {
	return slices.IndexFunc(m.rows, func(r []cell) bool { return h.sameKey(m, r, row) })
}

// step makes one change.
func (h *history) step(i int) {
	m := h.tables[i]
	head := func(tag byte) []byte { return binary.BigEndian.AppendUint32([]byte{tag}, m.id) }
	var b []byte
	var op change.Op
	switch n := rapid.IntRange(0, 30).Draw(h.t, "what"); {
	case n == 0:
		op, b = change.OpTruncate, append([]byte{'T', 0, 0, 0, 1, 0}, head('T')[1:]...)
		m.rows = nil
	case n < 12 || len(m.rows) == 0:
		row := h.row(m, nil)
		if row == nil {
			return
		}
		op, b = change.OpInsert, appendImage(append(head('I'), 'N'), row, nil)
		m.rows = append(m.rows, row)
	case n < 24:
		k := rapid.IntRange(0, len(m.rows)-1).Draw(h.t, "row")
		old := m.rows[k]
		row := h.row(m, old)
		if row == nil {
			return
		}
		op, b = change.OpUpdate, head('U')
		kept := make([]bool, len(row))
		for c := range row {
			kept[c] = row[c] != nil && row[c] == old[c] && rapid.IntRange(0, 3).Draw(h.t, "kept") > 0
		}
		switch moved := len(m.key) > 0 && !h.sameKey(m, row, old); {
		case m.identity == 'f':
			b = appendImage(append(b, 'O'), old, nil)
		case moved || rapid.IntRange(0, 5).Draw(h.t, "external") == 0: // or the key is a large one
			b = appendImage(append(b, 'K'), h.keyOnly(m, old), nil)
			if moved {
				for _, c := range m.key {
					kept[c] = kept[c] && row[c] == old[c]
				}
			}
		default:
			for _, c := range m.key {
				kept[c] = false
			}
		}
		b = appendImage(append(b, 'N'), row, kept)
		m.rows[k] = row
	default:
		k := rapid.IntRange(0, len(m.rows)-1).Draw(h.t, "row")
		op, b = change.OpDelete, head('D')
		if m.identity == 'f' {
			b = appendImage(append(b, 'O'), m.rows[k], nil)
		} else {
			b = appendImage(append(b, 'K'), h.keyOnly(m, m.rows[k]), nil)
		}
		m.rows = slices.Delete(m.rows, k, k+1)
	}
	h.append(&change.Message{Kind: change.KindData, Raw: b, Defs: []*change.Definition{h.defs[i]}, Touched: []change.Touch{{Table: h.touch[i], Op: op, Rows: 1}}})
}

func (h *history) keyOnly(m *modelTable, row []cell) []cell {
	only := make([]cell, len(row))
	for _, k := range m.key {
		only[k] = row[k]
	}
	return only
}

func (h *history) append(m *change.Message) {
	if err := h.writer.Append(m); err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) transaction() {
	h.append(&change.Message{Kind: change.KindBegin})
	for range rapid.IntRange(0, 6).Draw(h.t, "steps") {
		h.step(rapid.IntRange(0, 3).Draw(h.t, "table"))
	}
	h.at++
	h.append(&change.Message{Kind: change.KindCommit, XID: fmt.Sprint(h.at), Position: change.Position(fmt.Sprint(h.at)), CommitTime: change.Time(h.at)})
	var state [][]string
	for _, m := range h.tables {
		state = append(state, m.lines())
	}
	h.states = append(h.states, state)
	if rapid.IntRange(0, 3).Draw(h.t, "seal") == 0 {
		h.seal()
	}
}

func (h *history) seal() {
	if h.writer.Txns() == 0 {
		return
	}
	s, err := h.writer.Seal(change.Position(fmt.Sprint(h.at)))
	if err == nil {
		err = h.writer.Ship(context.Background(), s)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.writer.Release(s)
}

// gathered is a Sink that keeps what it is given.
type gathered struct {
	mu    sync.Mutex
	lines [][]string
}

func (g *gathered) Rows(_ context.Context, _, table int, lines []byte, rows int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if int64(bytes.Count(lines, []byte("\n"))) != rows {
		return fmt.Errorf("%d rows that are not", rows)
	}
	for l := range strings.Lines(string(lines)) {
		g.lines[table] = append(g.lines[table], strings.TrimSuffix(l, "\n"))
	}
	return nil
}

// result folds the record onto what the tables were after from, as a restore does, and returns what they come to.
func (h *history) result(f *Fold, passes int, base [][]string) ([][]string, error) {
	ctx := context.Background()
	g := &gathered{lines: make([][]string, len(h.tables))}
	for pass := range passes {
		if err := f.History(ctx, pass, g); err != nil {
			return nil, err
		}
		if rapid.Bool().Draw(h.t, "again") { // as one that was interrupted does
			if err := f.History(ctx, pass, nil); err != nil {
				return nil, err
			}
		}
		for i := range h.tables {
			r := f.Result(i)
			if r.Truncated || !r.Touched && pass > 0 {
				continue
			}
			if !r.Touched {
				g.lines[i] = append(g.lines[i], base[i]...)
				continue
			}
			var taken, seen int64
			for part := range slices.Chunk(base[i], rapid.IntRange(1, 10).Draw(h.t, "chunk")) {
				in := f.Filter(i, iotestReader(h.t, strings.Join(part, "\n")+"\n"))
				out, err := io.ReadAll(in)
				if err != nil {
					return nil, err
				}
				for l := range strings.Lines(string(out)) {
					g.lines[i] = append(g.lines[i], strings.TrimSuffix(l, "\n"))
				}
				taken, seen = taken+in.Taken(), seen+in.Seen()
				if in.Rows() != int64(bytes.Count(out, []byte("\n"))) {
					return nil, errors.New("a Filter counts wrong")
				}
			}
			if taken != r.Expected || seen != int64(len(base[i])) {
				return nil, fmt.Errorf("table %d: took %d rows of the base instead of %d, saw %d of %d", i, taken, r.Expected, seen, len(base[i]))
			}
		}
	}
	for i := range g.lines {
		slices.Sort(g.lines[i])
		rows := int64(len(base[i]))
		if f.Result(i).Truncated {
			rows = 0
		}
		if rows += f.Result(i).Delta; rows != int64(len(g.lines[i])) {
			return nil, fmt.Errorf("table %d has %d rows, the counts say %d", i, len(g.lines[i]), rows)
		}
	}
	return g.lines, nil
}

func iotestReader(t *rapid.T, s string) io.Reader {
	n := rapid.IntRange(1, 400).Draw(t, "read")
	return &shortReader{s, n}
}

// shortReader delivers a few bytes at a time.
type shortReader struct {
	rest string
	n    int
}

func (r *shortReader) Read(p []byte) (int, error) {
	if r.rest == "" {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.n)], r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// TestModel folds random histories, between random points, in several passes and pieces, and compares what comes out with the
// tables that made them.
func TestModel(t *testing.T) {
	t.Parallel()
	var folded, made int
	scratch := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(rt, t.TempDir())
		defer func() { h.writer.Close() }()
		for range rapid.IntRange(1, 40).Draw(rt, "transactions") {
			h.transaction()
		}
		h.seal()
		for range 4 {
			h.fold(scratch)
			folded++
		}
		made += h.made
	})
	if made == 0 {
		t.Errorf("no row of %d histories had to be put together", folded)
	}
}

// fold folds a random span.
func (h *history) fold(scratch string) {
	t := h.t
	from := rapid.IntRange(0, len(h.states)-1).Draw(t, "from")
	to := rapid.IntRange(from+1, len(h.states)).Draw(t, "to")
	base := make([][]string, len(h.tables))
	if from > 0 {
		base = h.states[from-1]
	}
	var tables []Table
	for _, m := range h.tables {
		tables = append(tables, m.Table)
	}
	passes := 1 << rapid.IntRange(0, 3).Draw(t, "passes")
	f := New(h.archive, Span{Epoch: 1, From: change.Seq(from), To: change.Seq(to)}, tables,
		Options{Jobs: rapid.IntRange(1, 3).Draw(t, "jobs"), Memory: 64 << 20, Passes: passes, SpillDir: scratch})
	f.most = rapid.SampledFrom([]int{1, 300, 1 << 20}).Draw(t, "piece")
	f.seed = rapid.Uint64().Draw(t, "seed")
	got, err := h.result(f, passes, base)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if want := h.states[to-1][i]; !slices.Equal(got[i], want) {
			t.Fatalf("%d to %d in %d passes: table %s holds\n%q\nand should hold\n%q", from, to, passes, h.tables[i].Name, got[i], want)
		}
	}
	h.made += len(f.waiters)
}
