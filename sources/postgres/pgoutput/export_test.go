package pgoutput

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"txreel/archive"
	"txreel/audit"
	"txreel/change"
	"txreel/sink/dir"
)

var _ audit.Decoder = (*Decoder)(nil)

// archived writes the messages of one transaction into a new archive, Relation
// and Type messages as definitions and the others txns times over.
func archived(t testing.TB, messages [][]byte, txns int) *archive.Archive {
	t.Helper()
	store, err := dir.Open(t.TempDir())
	check(t, err)
	a, err := archive.Init(t.Context(), store, archive.Identity{Engine: "postgres", System: "1", Database: "d"})
	check(t, err)
	_, err = a.StartEpoch(t.Context(), nil, archive.CauseFirst, "", nil)
	check(t, err)
	w, err := a.NewWriter(t.Context(), 1, t.TempDir())
	check(t, err)
	defer w.Close()
	var def change.Definition
	for _, m := range messages {
		if m[0] == TagRelation || m[0] == TagType {
			def.Messages = append(def.Messages, m)
		}
	}
	for range txns {
		check(t, w.Append(&change.Message{Kind: change.KindBegin}))
		for _, m := range messages {
			if m[0] != TagRelation && m[0] != TagType {
				check(t, w.Append(&change.Message{Kind: change.KindData, Raw: m, Defs: []*change.Definition{&def}}))
			}
		}
		check(t, w.Append(&change.Message{Kind: change.KindCommit, XID: "742", Position: "0/1", CommitTime: 1}))
	}
	s, err := w.Seal("0/1")
	check(t, err)
	check(t, w.Ship(t.Context(), s))
	w.Release(s)
	return a
}

func check(t testing.TB, err error) {
	if err != nil {
		t.Helper()
		t.Fatal(err)
	}
}

// TestExport exports what a server sent and compares it with the events decoded
// from the same messages.
func TestExport(t *testing.T) {
	t.Parallel()
	messages := recorded(t)
	a := archived(t, messages, 2)
	var out bytes.Buffer
	sum, err := audit.Export(t.Context(), a, new(Decoder), audit.ExportOptions{}, &out)
	check(t, err)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	lines = lines[1 : len(lines)-1]
	next := func() (v struct {
		Record, Op, Schema, Table, Prefix string
		Before, After                     map[string]*string
		Unchanged                         []string
		NotLogged                         []string `json:"not_logged"`
		Content                           any
	}) {
		t.Helper()
		if len(lines) == 0 {
			t.Fatal("the export has too few lines")
		}
		check(t, json.Unmarshal([]byte(lines[0]), &v))
		lines = lines[1:]
		return v
	}
	image := func(rel *change.Relation, row []change.Value, got map[string]*string, missing []string) {
		t.Helper()
		for i, v := range row {
			name := rel.Columns[i].Name
			s, ok := got[name]
			switch v.State {
			case change.Text:
				ok = s != nil && *s == string(v.Bytes)
			case change.Null:
				ok = ok && s == nil
			default:
				ok = !ok && slices.Contains(missing, name)
			}
			if !ok {
				t.Errorf("%s.%s: %v %q became %v, missing %v", rel, name, v.State, v.Bytes, s, missing)
			}
		}
		if len(got)+len(missing) != len(row) {
			t.Errorf("%s: %d columns and %d missing ones of %d", rel, len(got), len(missing), len(row))
		}
	}
	for range 2 {
		var d Decoder
		var ev change.Event
		for _, m := range messages {
			is, err := d.Event(m, &ev)
			check(t, err)
			switch {
			case !is:
			case ev.Op == change.OpTruncate:
				for _, r := range ev.Relations {
					if v := next(); v.Op != "truncate" || v.Schema != r.Schema || v.Table != r.Name {
						t.Errorf("%+v, want the truncate of %s", v, r)
					}
				}
			case ev.Op == change.OpMessage:
				if v := next(); v.Op != "message" || v.Prefix != ev.Prefix {
					t.Errorf("%+v, want message %s", v, ev.Prefix)
				}
			default:
				v := next()
				if v.Op != ev.Op.String() || v.Schema != ev.Relation.Schema || v.Table != ev.Relation.Name {
					t.Errorf("%+v, want %s of %s", v, ev.Op, ev.Relation)
				}
				image(ev.Relation, ev.Old, v.Before, v.NotLogged)
				image(ev.Relation, ev.New, v.After, v.Unchanged)
			}
		}
	}
	if len(lines) != 0 || sum.Undecoded != 0 || sum.Transactions != 2 {
		t.Errorf("%d lines too many, %+v", len(lines), sum)
	}
}

// BenchmarkExport exports rows of ten columns from a directory.
func BenchmarkExport(b *testing.B) {
	const rows = 200000
	rel := "R\x00\x00\x00\x07public\x00bench\x00d\x00\x0a"
	row := "I\x00\x00\x00\x07N\x00\x0a"
	for i := range 10 {
		rel += string(byte(i&1^1)) + "column" + string(rune('0'+i)) + "\x00\x00\x00\x00\x19\xff\xff\xff\xff"
		row += "t\x00\x00\x00\x08value 0" + string(rune('0'+i))
	}
	messages := [][]byte{[]byte(rel)}
	for range rows {
		messages = append(messages, []byte(row))
	}
	a := archived(b, messages, 1)
	for _, c := range []struct {
		name string
		opts audit.ExportOptions
	}{{"all", audit.ExportOptions{}}, {"filtered", audit.ExportOptions{Tables: []string{"another"}}}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := audit.Export(b.Context(), a, new(Decoder), c.opts, io.Discard); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
