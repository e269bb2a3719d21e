package rowlog

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"txreel/internal/dbtest"
	"txreel/sources/mysql/binlog"
)

// TestServers compares what is decoded from the logs of real servers with what SELECT
// shows.
func TestServers(t *testing.T) {
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			server := dbtest.My(t, flavor)
			mysql := flavor == "mysql"
			for name, samples := range map[string][]sample{
				"numbers": numbers(), "temporals": temporals(), "binaries": binaries(), "texts": texts(mysql), "spatials": spatials(mysql),
			} {
				t.Run(name, func(t *testing.T) { testSamples(t, server, name, samples) })
			}
			if mysql {
				t.Run("json", func(t *testing.T) { testJSON(t, server) })
				t.Run("partial json", func(t *testing.T) { testPartialJSON(t, server) })
			} else {
				t.Run("only here", func(t *testing.T) { testSamples(t, server, "mariadbs", mariadbs()) })
				t.Run("old times", func(t *testing.T) { testOldTimes(t, server) })
			}
			t.Run("generated", func(t *testing.T) { testGenerated(t, server) })
			t.Run("images", func(t *testing.T) { testImages(t, server) })
			t.Run("metadata", func(t *testing.T) { testMetadata(t, server) })
			t.Run("compressed", func(t *testing.T) { testCompressed(t, server) })
			t.Run("statements", func(t *testing.T) { testStatements(t, server) })
		})
	}
}

// seed makes random values the same in every run.
func seed() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// fill makes a table of the samples and inserts each of their values, some NULL, and random
// ones.
func (s *site) fill(t *testing.T, samples []sample) {
	t.Helper()
	s.create(t, samples)
	s.mark(t) // a schema knows nothing of what stands before a table's CREATE
	s.insert(t, samples, 1)
}

func (s *site) create(t *testing.T, samples []sample) {
	t.Helper()
	list := make([]string, len(samples))
	for i, c := range samples {
		list[i] = fmt.Sprintf(", v%d %s", i+1, c.typ)
	}
	s.exec(t, "CREATE TABLE t (id int PRIMARY KEY"+strings.Join(list, "")+") DEFAULT CHARSET utf8mb4")
}

func (s *site) insert(t *testing.T, samples []sample, first int) (next int) {
	t.Helper()
	most := 0
	for _, c := range samples {
		most = max(most, len(c.values))
	}
	r := seed()
	var rows []string
	for n := range most + 25 {
		list := make([]string, len(samples))
		for i, c := range samples {
			switch {
			case n > 0 && r.IntN(8) == 0:
				list[i] = "NULL"
			case n < most || c.random == nil:
				list[i] = c.values[n%len(c.values)]
			default:
				list[i] = c.random(r)
			}
		}
		rows = append(rows, fmt.Sprintf("(%d,%s)", first+n, strings.Join(list, ",")))
	}
	for i := 0; i < len(rows); i += 5 {
		s.exec(t, "INSERT INTO t VALUES "+strings.Join(rows[i:min(i+5, len(rows))], ","))
	}
	return first + most + 25
}

func testSamples(t *testing.T, server *dbtest.MySQL, db string, samples []sample) {
	s := newSite(t, server, db)
	s.fill(t, samples)
	s.exec(t, "UPDATE t SET id = id + 1000 WHERE id % 3 = 0; DELETE FROM t WHERE id % 5 = 0")
	d := NewDecoder(s.schema(t))
	m := follow(t, d, s.events(t), "t", s.columns(t, "t"))
	m.compare(t, s.selected(t, "t"))
	for i, c := range s.columns(t, "t") {
		if got := m.rel.Columns[i]; got.Name != c.name || got.Type != c.declared || got.Key != (i == 0) {
			t.Errorf("column %d is described as %+v, want %+v", i+1, got, c)
		}
	}
	if m.lacked > 0 {
		t.Errorf("%d values are not logged", m.lacked)
	}

	// Without a schema: the same values, but for what no log can tell.
	m = follow(t, NewDecoder(nil), s.events(t), "t", s.columns(t, "t"))
	want := s.selected(t, "t")
	for i, c := range s.columns(t, "t") {
		switch {
		case m.rel.Columns[i].Name != c.name:
			t.Errorf("column %d is called %q, want %q", i+1, m.rel.Columns[i].Name, c.name)
		case strings.Contains(c.declared, "zerofill"), c.declared == "uuid", strings.HasPrefix(c.declared, "inet"),
			strings.HasPrefix(c.declared, "float("), strings.HasPrefix(c.declared, "double("):
			for _, r := range want {
				r[i].State = 0
			}
			for _, r := range m.rows {
				r[i].State = 0
			}
		case !sameType(m.rel.Columns[i].Type, c.declared):
			t.Errorf("column %d has the type %q, want %q", i+1, m.rel.Columns[i].Type, c.declared)
		}
	}
	m.compare(t, want)
}

// sameType compares a type by the log with the server's name of it, which has widths that mean
// nothing and in MariaDB's case names of no type of its own.
func sameType(got, declared string) bool {
	declared, _, _ = strings.Cut(declared, " /*")
	base, _, _ := strings.Cut(declared, "(")
	for _, n := range []string{"tinyint", "smallint", "mediumint", "int", "bigint", "year"} {
		if base == n {
			_, rest, wide := strings.Cut(declared, ")")
			if declared = n; wide {
				declared += rest
			}
		}
	}
	if got == "geomcollection" { // MySQL's name; MariaDB has the longer one
		declared = strings.Replace(declared, "geometrycollection", "geomcollection", 1)
	}
	return got == declared
}

func testImages(t *testing.T, server *dbtest.MySQL) {
	for _, image := range []string{"FULL", "NOBLOB", "MINIMAL"} {
		t.Run(image, func(t *testing.T) {
			s := newSite(t, server, "image_"+strings.ToLower(image))
			s.exec(t, "SET binlog_row_image = "+image)
			s.exec(t, "CREATE TABLE t (id int PRIMARY KEY, a int, b text, c varchar(20), d blob, e int DEFAULT 7)")
			r := seed()
			for i := range 60 {
				s.exec(t, fmt.Sprintf("INSERT INTO t (id, a, b, c, d, e) VALUES (%d, %d, 'b%d', NULL, x'%02x', 8)", i, r.IntN(100), i, i))
			}
			for i := range 200 {
				set := []string{"a = a + 1", "b = CONCAT(b, 'x')", "c = 'c'", "d = NULL", "e = NULL", "b = NULL, c = NULL", "id = id + 1000"}[r.IntN(7)]
				s.exec(t, fmt.Sprintf("UPDATE t SET %s WHERE id %% 60 = %d AND id < 5000", set, i%60))
			}
			s.exec(t, "DELETE FROM t WHERE id % 7 = 0")
			m := follow(t, NewDecoder(nil), s.events(t), "t", s.columns(t, "t"))
			m.compare(t, s.selected(t, "t"))
			if (m.lacked > 0) != (image != "FULL") {
				t.Errorf("%d values are not logged", m.lacked)
			}
		})
	}
}

func testCompressed(t *testing.T, server *dbtest.MySQL) {
	s := newSite(t, server, "compressed")
	samples := append(numbers(), binaries()...)
	if server.Flavor == "mysql" {
		s.exec(t, "SET binlog_transaction_compression = ON")
	} else {
		s.exec(t, "SET GLOBAL log_bin_compress = ON, GLOBAL log_bin_compress_min_len = 10")
		defer s.exec(t, "SET GLOBAL log_bin_compress = OFF")
	}
	s.fill(t, samples)
	s.exec(t, "BEGIN; UPDATE t SET id = id + 1000; DELETE FROM t WHERE id % 5 = 0; UPDATE t SET v2 = 1; COMMIT")
	s.exec(t, "ALTER TABLE t COMMENT '"+strings.Repeat("long ", 200)+"'")
	events := s.events(t)
	if count(events, binlog.TypeTransactionPayload) < 5 && count(events, binlog.TypeWriteRowsCompressedV1) < 5 ||
		server.Flavor != "mysql" && (count(events, binlog.TypeUpdateRowsCompressedV1) == 0 || count(events, binlog.TypeDeleteRowsCompressedV1) == 0 ||
			count(events, binlog.TypeQueryCompressed) == 0) {
		t.Fatal("the log is not compressed")
	}
	d := NewDecoder(s.schema(t))
	m := follow(t, d, events, "t", s.columns(t, "t"))
	m.compare(t, s.selected(t, "t"))
}
