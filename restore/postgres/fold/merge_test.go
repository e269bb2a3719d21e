package fold

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"txreel/change"
)

// merging is a Merger that keeps what it is given.
type merging struct {
	gathered
	gone, partial [][]string
}

func (m *merging) Gone(_ context.Context, _, table int, lines []byte, keys int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if int64(bytes.Count(lines, []byte("\n"))) != keys {
		return fmt.Errorf("%d keys that are not", keys)
	}
	m.gone[table] = append(m.gone[table], strings.Split(strings.TrimSuffix(string(lines), "\n"), "\n")...)
	return nil
}

func (m *merging) Partial(_ context.Context, table int, lines []byte, rows int64) error {
	if int64(bytes.Count(lines, []byte("\n"))) != rows {
		return fmt.Errorf("%d rows that are not", rows)
	}
	m.partial[table] = append(m.partial[table], strings.Split(strings.TrimSuffix(string(lines), "\n"), "\n")...)
	return nil
}

// onto carries out what a table has been told, as a server does: rows are completed, then the keys go, then rows come.
func (m *merging) onto(i int, key []int, r Result, base []string) ([]string, error) {
	keyOf := func(fields []string) string {
		var parts []string
		for _, k := range key {
			parts = append(parts, fields[k])
		}
		return strings.Join(parts, "\t")
	}
	there := make(map[string][]string)
	for _, l := range base {
		if fields := strings.Split(l, "\t"); !r.Truncated {
			there[keyOf(fields)] = fields
		}
	}
	rows := m.lines[i]
	for _, l := range m.partial[i] {
		fields := strings.Split(l, "\t")
		old, missing, values := there[strings.Join(fields[:len(key)], "\t")], fields[len(key)], fields[len(key)+1:]
		if old == nil {
			return nil, fmt.Errorf("a row waits for %q, which is not there", fields[:len(key)])
		}
		for k := range values {
			if missing[k] == '1' {
				values[k] = old[k]
			}
		}
		rows = append(rows, strings.Join(values, "\t"))
	}
	var took int64
	take := func(k string) {
		if there[k] != nil {
			delete(there, k)
			took++
		}
	}
	for _, k := range m.gone[i] {
		take(k)
	}
	for _, l := range rows {
		take(keyOf(strings.Split(l, "\t")))
	}
	if took != r.Expected {
		return nil, fmt.Errorf("%d rows went, %d were to", took, r.Expected)
	}
	for _, fields := range there {
		rows = append(rows, strings.Join(fields, "\t"))
	}
	slices.Sort(rows)
	return rows, nil
}

// TestMerge reduces random histories, and carries out what is left of them in the tables as they were before.
func TestMerge(t *testing.T) {
	t.Parallel()
	var partial, gone, others int
	scratch := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(rt, t.TempDir())
		defer func() { h.writer.Close() }()
		for range rapid.IntRange(1, 40).Draw(rt, "transactions") {
			h.transaction()
		}
		h.seal()
		for range 4 {
			m, other := h.merge(scratch)
			for i := range m.gone {
				partial, gone = partial+len(m.partial[i]), gone+len(m.gone[i])
			}
			if other {
				others++
			}
		}
	})
	if partial == 0 || gone == 0 || others == 0 {
		t.Errorf("%d rows were not whole, %d keys went, other tables had changes in %d histories", partial, gone, others)
	}
}

// merge folds a random span into tables with keys.
func (h *history) merge(scratch string) (*merging, bool) {
	t := h.t
	from := rapid.IntRange(0, len(h.states)-1).Draw(t, "from")
	to := rapid.IntRange(from+1, len(h.states)).Draw(t, "to")
	base := make([][]string, len(h.tables))
	if from > 0 {
		base = h.states[from-1]
	}
	var tables []Table
	var number []int // of h.tables
	for i, m := range h.tables {
		tab := m.Table
		if rapid.Bool().Draw(t, "by number") {
			tab.ID, tab.Name = m.id, "renamed"
		}
		for _, k := range m.key {
			tab.Key = append(tab.Key, m.Columns[k])
		}
		if len(m.key) > 0 {
			tables, number = append(tables, tab), append(number, i)
		}
	}
	passes := 1 << rapid.IntRange(0, 3).Draw(t, "passes")
	f := New(h.archive, Span{Epoch: 1, From: change.Seq(from), To: change.Seq(to), Only: true}, tables,
		Options{Jobs: rapid.IntRange(1, 3).Draw(t, "jobs"), Memory: 64 << 20, Passes: passes, SpillDir: scratch})
	f.most = rapid.SampledFrom([]int{1, 300, 1 << 20}).Draw(t, "piece")
	m := &merging{gathered{lines: make([][]string, len(tables))}, make([][]string, len(tables)), make([][]string, len(tables))}
	results := make([]Result, len(tables))
	for pass := range passes {
		if err := f.History(context.Background(), pass, m); err != nil {
			t.Fatal(err)
		}
		for i := range tables {
			r := f.Result(i)
			r.Expected += results[i].Expected
			results[i] = r
		}
	}
	for i, n := range number {
		key := slices.Sorted(slices.Values(h.tables[n].key)) // in the order of columns
		got, err := m.onto(i, key, results[i], base[n])
		if err == nil && results[i].Touched && results[i].ID != h.tables[n].id {
			err = errors.New("a table has another number")
		}
		if want := h.states[to-1][n]; err != nil || !slices.Equal(got, want) {
			t.Fatalf("%d to %d in %d passes: %v; table %s holds\n%q\nand should hold\n%q", from, to, passes, err, h.tables[n].Name, got, want)
		}
	}
	return m, f.Others()
}
