package rowlog

import (
	"strings"
	"testing"

	"txreel/change"
	"txreel/internal/dbtest"
)

// testMetadata reads logs that do not name their columns, with and without a schema.
func testMetadata(t *testing.T, server *dbtest.MySQL) {
	levels := []string{"MINIMAL"}
	samples := append(append(numbers(), temporals()...), binaries()...)
	if server.Flavor == "mariadb" {
		levels = append(levels, "NO_LOG")
		samples = append(samples, mariadbs()...)
	}
	samples = append(samples, texts(server.Flavor == "mysql")[:30]...)
	for _, level := range levels {
		t.Run(level, func(t *testing.T) {
			s := newSite(t, server, "metadata_"+strings.ToLower(level))
			s.exec(t, "SET GLOBAL binlog_row_metadata = "+level)
			defer s.exec(t, "SET GLOBAL binlog_row_metadata = FULL")
			s.create(t, samples)
			s.mark(t)
			s.insert(t, samples, 1)
			columns, want := s.columns(t, "t"), s.selected(t, "t")
			events := s.events(t)
			m := follow(t, NewDecoder(s.schema(t)), events, "t", columns)
			m.compare(t, want)
			for i, c := range columns {
				if got := m.rel.Columns[i]; got.Name != c.name || got.Type != c.declared || got.Key != (i == 0) {
					t.Errorf("column %d is described as %+v, want %+v", i+1, got, c)
				}
			}

			m = follow(t, NewDecoder(nil), events, "t", columns)
			if len(m.rows) != len(want) {
				t.Errorf("%d rows decoded without a schema, the server has %d", len(m.rows), len(want))
			}
			for i, c := range m.rel.Columns {
				if !strings.HasPrefix(c.Name, "@") || c.Key {
					t.Errorf("column %d is described as %+v although nothing says so", i+1, c)
				}
			}
			if got := m.rel.Columns[2].Type; got != "tinyint (signed or unsigned)" && level == "NO_LOG" || got != "tinyint" && level == "MINIMAL" {
				t.Errorf("a TINYINT is described as %q", got)
			}

			// What does not fit, and what DDL has passed, is not used.
			other := s.schema(t)
			m = follow(t, NewDecoder(func(schema, table string) ([]Column, bool) {
				columns, ok := other(schema, table)
				columns = append([]Column(nil), columns...)
				columns[1].Type = "smallint"
				return columns, ok
			}), events, "t", columns)
			if got := m.rel.Columns[0].Name; got != "@1" {
				t.Errorf("a schema with another type gave column 1 the name %q", got)
			}
			s.exec(t, "ALTER TABLE t COMMENT 'x'; DELETE FROM t LIMIT 3")
			d := NewDecoder(s.schema(t))
			var names []string
			decode(t, d, s.events(t), func(ev *change.Event) {
				if ev.Relation != nil && ev.Relation.Name == "t" {
					names = append(names, ev.Relation.Columns[0].Name)
				}
			})
			if names[0] != "id" || names[len(names)-1] != "@1" {
				t.Errorf("names around a DDL statement: %q", names)
			}
		})
	}
}
