package pgoutput

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"txreel/change"
	"txreel/internal/dbtest"
)

// show renders an event: - is not logged, ~ unchanged.
func show(ev *change.Event) string {
	image := func(vs []change.Value) string {
		if vs == nil {
			return " none"
		}
		b := " ("
		for i, v := range vs {
			if i > 0 {
				b += " "
			}
			switch v.State {
			case change.NotLogged:
				b += "-"
			case change.Null:
				b += "null"
			case change.Unchanged:
				b += "~"
			case change.Text:
				if len(v.Bytes) > 20 {
					b += fmt.Sprintf("%d bytes", len(v.Bytes))
				} else {
					b += "'" + string(v.Bytes) + "'"
				}
			default:
				b += v.State.String()
			}
		}
		return b + ")"
	}
	switch ev.Op {
	case change.OpTruncate:
		b := "truncate"
		for _, r := range ev.Relations {
			b += " " + r.String()
		}
		if ev.Cascade {
			b += " cascade"
		}
		if ev.RestartIdentity {
			b += " restart"
		}
		return b
	case change.OpMessage:
		return fmt.Sprintf("message %s %x", ev.Prefix, ev.Content)
	}
	return ev.Op.String() + " " + ev.Relation.String() + image(ev.Old) + image(ev.New)
}

// events decodes what the server has sent since the last call, as a line per
// transaction with changes.
func (s *source) events(d *Decoder) []string {
	s.t.Helper()
	var list, txn []string
	var ev change.Event
	for _, m := range s.messages() {
		is, err := d.Event(m, &ev)
		if err != nil {
			s.t.Fatal(err)
		}
		if is {
			txn = append(txn, show(&ev))
		}
		if m[0] == TagCommit && len(txn) > 0 {
			list, txn = append(list, strings.Join(txn, "|")), nil
		}
	}
	return append(list, txn...)
}

// testEvents states what each kind of statement looks like decoded.
func testEvents(t *testing.T, pg *dbtest.Postgres) {
	s := newSource(t, pg, "events")
	s.exec(`CREATE TABLE def (id int PRIMARY KEY, big text, small text); ALTER TABLE def ALTER big SET STORAGE EXTERNAL;
		CREATE TABLE ful (LIKE def INCLUDING ALL); ALTER TABLE ful REPLICA IDENTITY FULL;
		CREATE TABLE idx (a int, b text NOT NULL, c text); CREATE UNIQUE INDEX i ON idx (b); ALTER TABLE idx REPLICA IDENTITY USING INDEX i;
		CREATE TABLE gen (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED, gone int, z int); ALTER TABLE gen DROP COLUMN gone;
		CREATE TABLE parent (id serial PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY REFERENCES parent);
		CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id);
		CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (10); CREATE TABLE part2 PARTITION OF part FOR VALUES FROM (10) TO (20);
		CREATE TABLE none ()`)
	var d Decoder
	cases := []struct{ sql, want string }{
		{"INSERT INTO def VALUES (1, repeat('x', 9000), ''), (2, NULL, 'null')", "insert public.def none ('1' 9000 bytes '')|insert public.def none ('2' null 'null')"},
		{"UPDATE def SET small = 'new' WHERE id = 1", "update public.def none ('1' ~ 'new')"},
		{"UPDATE def SET id = 10 WHERE id = 1", "update public.def ('1' - -) ('10' ~ 'new')"},
		{"UPDATE def SET big = NULL WHERE id = 10", "update public.def none ('10' null 'new')"},
		{"DELETE FROM def WHERE id = 2", "delete public.def ('2' - -) none"},
		{"INSERT INTO ful VALUES (1, repeat('x', 9000), NULL)", "insert public.ful none ('1' 9000 bytes null)"},
		{"UPDATE ful SET small = ''", "update public.ful ('1' 9000 bytes null) ('1' ~ '')"},
		{"DELETE FROM ful", "delete public.ful ('1' 9000 bytes '') none"},
		{"INSERT INTO idx VALUES (1, 'k', NULL)", "insert public.idx none ('1' 'k' null)"},
		{"UPDATE idx SET c = ''", "update public.idx none ('1' 'k' '')"},
		{"UPDATE idx SET b = 'l'", "update public.idx (- 'k' -) ('1' 'l' '')"},
		{"DELETE FROM idx", "delete public.idx (- 'l' -) none"},
		{"INSERT INTO gen VALUES (1, DEFAULT, 3)", "insert public.gen none ('1' '3')"},
		{"INSERT INTO none DEFAULT VALUES", "insert public.none none ()"},
		{"TRUNCATE def", "truncate public.def"},
		{"TRUNCATE parent CASCADE", "truncate public.parent public.child cascade"},
		{"TRUNCATE parent, child RESTART IDENTITY", "truncate public.parent public.child restart"},
		{"INSERT INTO part VALUES (1)", "insert public.part1 none ('1')"},
		{"UPDATE part SET id = 11", "delete public.part1 ('1') none|insert public.part2 none ('11')"},
		{"SELECT pg_logical_emit_message(true, 'in', E'\\\\x0001ff'::bytea)", "message in 0001ff"},
		{"SELECT pg_logical_emit_message(false, 'out', ''); SELECT pg_current_xact_id()", "message out "},
	}
	for _, c := range cases {
		s.exec(c.sql)
	}
	got := s.events(&d)
	for i, c := range cases {
		if i >= len(got) || got[i] != c.want {
			t.Fatalf("%s\n got %q\nwant %q", c.sql, got[min(i, len(got)):], c.want)
		}
	}
	s.exec(`CREATE TYPE mood AS ENUM ('sad'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN small AS int; CREATE SCHEMA "o.ther"; CREATE TYPE "o.ther"."T" AS ENUM ('x');
		CREATE TABLE typed (m mood, p pair, d small, ms mood[], t "o.ther"."T", i information_schema.sql_identifier, v varchar(3)); INSERT INTO typed VALUES ('sad', '(1,)', 7)`)
	var types []string
	s.events(&d)
	for _, r := range d.relations {
		if r.Name == "typed" {
			for _, c := range r.Columns {
				types = append(types, c.Type)
			}
		}
	}
	// The server describes a domain by the type it is based on.
	if want := []string{"public.mood", "public.pair", "int4", "public._mood", "o.ther.T", "name", "varchar"}; !slices.Equal(types, want) {
		t.Errorf("types %q, want %q", types, want)
	}
}

// testVersions changes a table step by step: the version must change exactly when
// rows stop fitting what was there before.
func testVersions(t *testing.T, pg *dbtest.Postgres) {
	s := newSource(t, pg, "versions")
	s.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(10))")
	steps := []struct {
		sql     string
		changes bool
	}{
		{"SELECT 1", true},
		{"ALTER TABLE t REPLICA IDENTITY FULL", false},
		{"CREATE UNIQUE INDEX i ON t (id); ALTER TABLE t REPLICA IDENTITY USING INDEX i", false},
		{"ALTER TABLE t REPLICA IDENTITY DEFAULT; CLUSTER t USING t_pkey", false},
		{"ALTER TABLE t ALTER v SET DEFAULT 'x'; CREATE INDEX ON t (v); ALTER TABLE t ADD CHECK (id > 0)", false},
		{"ALTER TABLE t ALTER v DROP DEFAULT; TRUNCATE t", false},
		{"ALTER TABLE t ADD n int", true},
		{"ALTER TABLE t RENAME n TO m", true},
		{"ALTER TABLE t ALTER m TYPE bigint", true},
		{"ALTER TABLE t ALTER v TYPE varchar(20)", true},
		{"ALTER TABLE t ALTER v TYPE text", true},
		{"ALTER TABLE t DROP m", true},
		{"ALTER TABLE t SET SCHEMA public", false},
		{"DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text)", true},
		{"CREATE SCHEMA other; ALTER TABLE t SET SCHEMA other; CREATE VIEW t AS TABLE other.t", true},
	}
	var got []uint64 // the version at each insert
	var v uint64
	read := func() {
		for _, m := range s.messages() {
			switch m[0] {
			case TagRelation:
				r, err := ParseRelation(m)
				if err != nil {
					t.Fatal(err)
				}
				v = r.Version()
			case TagInsert:
				got = append(got, v)
			}
		}
	}
	for i, c := range steps {
		s.exec(c.sql)
		s.exec("INSERT INTO t (id) SELECT COALESCE(max(id), 0) + 1 FROM t")
		if i == 0 || i == 6 {
			read() // what comes then is described anew, as after a reconnect
			v = 0
		}
	}
	read()
	if len(got) != len(steps) {
		t.Fatalf("%d inserts seen, want %d", len(got), len(steps))
	}
	seen := map[uint64]string{}
	last := uint64(0)
	for i, c := range steps {
		before, ok := seen[got[i]]
		if got[i] == 0 || ok == c.changes || !c.changes && got[i] != last {
			t.Errorf("%s: version %x, seen after %q, the last was %x; want changed: %v", c.sql, got[i], before, last, c.changes)
		}
		seen[got[i]], last = c.sql, got[i]
	}
}
