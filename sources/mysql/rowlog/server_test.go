package rowlog

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sources/mysql/binlog"
)

// site is a real server, one connection to it, and the place in its log from which on
// a test reads.
type site struct {
	server *dbtest.MySQL
	conn   *dbtest.Session
	from   string // the first binlog file
}

func newSite(t *testing.T, server *dbtest.MySQL, db string) *site {
	t.Helper()
	server.MustExec(t, "", "CREATE DATABASE "+db)
	conn, err := server.Session(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Log(err)
		}
	})
	s := &site{server: server, conn: conn}
	s.exec(t, "SET time_zone = '+00:00', sql_mode = ''")
	s.mark(t)
	return s
}

func (s *site) exec(t *testing.T, sql string) {
	t.Helper()
	if err := s.conn.Exec(context.Background(), sql); err != nil {
		t.Fatal(err)
	}
}

func (s *site) query(t *testing.T, sql string) [][]string {
	t.Helper()
	rows, err := s.conn.Query(context.Background(), sql)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// mark lets events read from here on.
func (s *site) mark(t *testing.T) {
	t.Helper()
	s.exec(t, "FLUSH BINARY LOGS")
	files := s.query(t, "SHOW BINARY LOGS")
	s.from = files[len(files)-1][0]
}

// events returns all events since mark.
func (s *site) events(t *testing.T) [][]byte {
	t.Helper()
	s.exec(t, "FLUSH BINARY LOGS")
	var out [][]byte
	files := s.query(t, "SHOW BINARY LOGS")
	for _, row := range files[:len(files)-1] {
		if row[0] < s.from {
			continue
		}
		b, err := os.ReadFile(filepath.Join(s.server.DataDir(), row[0]))
		if err != nil {
			t.Fatal(err)
		}
		for b = b[len(binlog.Magic):]; len(b) > 0; {
			h, err := binlog.ParseHeader(b)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, b[:h.Size])
			b = b[h.Size:]
		}
	}
	return out
}

// count counts events by type.
func count(events [][]byte, types ...binlog.Type) (n int) {
	for _, raw := range events {
		if slices.Contains(types, binlog.Type(raw[4])) {
			n++
		}
	}
	return n
}

// decode shows the events to a Decoder and calls see for every change. It fails the test
// for every error.
func decode(t *testing.T, d *Decoder, events [][]byte, see func(*change.Event)) {
	t.Helper()
	var ev change.Event
	for _, raw := range events {
		if d.Size(raw) != int64(len(raw)) {
			t.Fatalf("an event of %d bytes has the size %d", len(raw), d.Size(raw))
		}
		err := d.Decode(raw)
		for is := true; is && err == nil; {
			if is, err = d.Next(&ev); is && err == nil {
				see(&ev)
			}
		}
		if err != nil {
			t.Errorf("%s event: %v", binlog.Type(raw[4]), err)
		}
	}
}

// schema is the Schema a base snapshot would give, from the server as it is.
func (s *site) schema(t *testing.T) Schema {
	known := make(map[string][]Column)
	for _, r := range s.query(t, "SELECT table_schema, table_name, column_name, column_type, IFNULL(character_set_name, ''), column_key = 'PRI' "+
		"FROM information_schema.columns ORDER BY table_schema, table_name, ordinal_position") {
		key := r[0] + "." + r[1]
		known[key] = append(known[key], Column{Name: r[2], Type: r[3], Charset: r[4], Key: r[5] == "1"})
	}
	return func(schema, table string) ([]Column, bool) {
		columns, ok := known[schema+"."+table]
		return columns, ok
	}
}

// shown is how a test asks the server for a column.
type shown struct {
	name, declared, set string
	binary, float       bool
}

func (s *site) columns(t *testing.T, table string) (out []shown) {
	t.Helper()
	for _, r := range s.query(t, "SELECT column_name, data_type, column_type, IFNULL(character_set_name, '') FROM information_schema.columns "+
		"WHERE table_schema = database() AND table_name = '"+table+"' ORDER BY ordinal_position") {
		c := shown{name: r[0], declared: r[2], set: r[3]}
		switch r[1] {
		case "tinyblob", "blob", "mediumblob", "longblob", "binary", "varbinary", "bit", "vector", "geometry", "point", "linestring",
			"polygon", "multipoint", "multilinestring", "multipolygon", "geomcollection", "geometrycollection":
			c.binary = true
		case "float":
			c.float = !strings.Contains(r[2], "(")
		}
		out = append(out, c)
	}
	return out
}

func (c *shown) expression() string {
	name := "`" + c.name + "`"
	switch {
	case c.binary && strings.HasPrefix(c.declared, "bit"):
		return "HEX(CONCAT(" + name + "))"
	case c.binary:
		return "HEX(" + name + ")"
	case c.float:
		return "CAST(CAST(" + name + " AS DOUBLE) AS CHAR)"
	case c.set != "":
		return "CONVERT(" + name + " USING utf8mb4)"
	}
	return "CAST(" + name + " AS CHAR)"
}

// row is a row as a test keeps it: its values, by column.
type row []change.Value

func (r row) String() string {
	var b strings.Builder
	for i, v := range r {
		fmt.Fprintf(&b, " @%d=%s %.60q", i+1, v.State, v.Bytes)
	}
	return b.String()
}

// selected reads a table as SELECT shows it, by its first column.
func (s *site) selected(t *testing.T, table string) map[string]row {
	t.Helper()
	columns := s.columns(t, table)
	list := make([]string, len(columns))
	for i := range columns {
		list[i] = columns[i].expression()
	}
	out := make(map[string]row)
	for _, r := range s.query(t, "SELECT "+strings.Join(list, ", ")+" FROM "+table) {
		values := make(row, len(r))
		for i, text := range r {
			v := change.Value{State: change.Text, Bytes: []byte(text)}
			switch {
			case text == dbtest.Null:
				v = change.Value{State: change.Null}
			case columns[i].binary:
				b, err := hex.DecodeString(text)
				if err != nil {
					t.Fatal(err)
				}
				v = change.Value{State: change.Binary, Bytes: b}
			case columns[i].float:
				f, err := strconv.ParseFloat(text, 64)
				if err != nil {
					t.Fatal(err)
				}
				v.Bytes = []byte(strconv.FormatFloat(f, 'g', -1, 32))
			}
			values[i] = v
		}
		out[r[0]] = values
	}
	if len(out) == 0 {
		t.Fatalf("table %s is empty", table)
	}
	s.doubles(t, table, columns, out)
	return out
}

// doubles reads the DOUBLE columns of a table again through the vendor's client: MySQL's CAST
// prints fewer digits than its SELECT, and drivers print numbers by themselves.
func (s *site) doubles(t *testing.T, table string, columns []shown, rows map[string]row) {
	t.Helper()
	for i, c := range columns {
		if c.declared != "double" {
			continue
		}
		text, err := s.server.Client(t.Context(), s.query(t, "SELECT database()")[0][0], fmt.Sprintf("SELECT `%s`, `%s` FROM %s", columns[0].name, c.name, table))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			id, value, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if rows[id][i].State == change.Text {
				rows[id][i].Bytes = []byte(value)
			}
		}
	}
}

// model is a table that a test keeps up to date by the changes it is shown.
type model struct {
	rows   map[string]row
	rel    *change.Relation
	float  map[int]bool // columns that are compared as numbers
	lacked int          // values that images did not hold
}

// apply applies a change, and compares the image before with what it must be.
func (m *model) apply(t *testing.T, ev *change.Event) {
	t.Helper()
	m.rel = ev.Relation
	key := func(image []change.Value) string { return string(image[0].Bytes) }
	var old row
	if ev.Old != nil {
		var ok bool
		if old, ok = m.rows[key(ev.Old)]; !ok {
			t.Fatalf("%s of %q, which is not there", ev.Op, key(ev.Old))
		}
		for i, v := range ev.Old {
			switch {
			case v.State == change.NotLogged:
				m.lacked++
			case old[i].State == change.NotLogged: // it was not known
			case !m.same(i, v, old[i]):
				t.Errorf("%s of row %s, before: column %s is %s %.80q, was %s %.80q", ev.Op, key(ev.Old),
					m.rel.Columns[i].Name, v.State, v.Bytes, old[i].State, old[i].Bytes)
			}
		}
		delete(m.rows, key(ev.Old))
	}
	if ev.New == nil {
		return
	}
	next := make(row, len(ev.New))
	for i, v := range ev.New {
		v.Bytes = slices.Clone(v.Bytes)
		if v.State == change.NotLogged {
			m.lacked++
			if old != nil {
				v = old[i]
			}
		}
		next[i] = v
	}
	id := key(ev.New)
	if ev.New[0].State == change.NotLogged {
		id = key(ev.Old)
	}
	m.rows[id] = next
}

func (m *model) same(i int, a, b change.Value) bool {
	if a.State != b.State {
		return false
	}
	if m.float[i] && a.State == change.Text {
		return floatText(a.Bytes) == floatText(b.Bytes)
	}
	return string(a.Bytes) == string(b.Bytes)
}

func floatText(b []byte) string {
	f, _ := strconv.ParseFloat(string(b), 32)
	return strconv.FormatFloat(f, 'g', -1, 32)
}

// follow decodes events and returns what they make of one table.
func follow(t *testing.T, d *Decoder, events [][]byte, table string, columns []shown) *model {
	t.Helper()
	m := &model{rows: make(map[string]row), float: make(map[int]bool)}
	for i, c := range columns {
		m.float[i] = c.float
	}
	decode(t, d, events, func(ev *change.Event) {
		if ev.Relation != nil && ev.Relation.Name == table {
			m.apply(t, ev)
		}
	})
	return m
}

// compare demands that the model holds what the server shows. Columns of which an insert did not
// log the value, which is then the default, are passed over.
func (m *model) compare(t *testing.T, want map[string]row) {
	t.Helper()
	if len(m.rows) != len(want) {
		t.Errorf("%d rows decoded, the server has %d", len(m.rows), len(want))
	}
	bad := 0
	for id, w := range want {
		got, ok := m.rows[id]
		if !ok {
			t.Errorf("row %s was not decoded", id)
			continue
		}
		for i := range w {
			if got[i].State != change.NotLogged && !m.same(i, got[i], w[i]) && bad < 40 {
				bad++
				t.Errorf("row %s, column %s of type %q: got %s %.120q, want %s %.120q", id, m.rel.Columns[i].Name, m.rel.Columns[i].Type,
					got[i].State, got[i].Bytes, w[i].State, w[i].Bytes)
			}
		}
	}
}
