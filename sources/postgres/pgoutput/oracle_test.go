package pgoutput

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pglogrepl"

	"txreel/change"
	"txreel/internal/dbtest"
)

// allTypes writes a table with a column of every built-in type, and rows with
// values at the borders of each.
const allTypes = `
DO $$
DECLARE cols text; BEGIN
	SELECT string_agg(format('%I %s', 'c' || oid, oid::regtype), ', ' ORDER BY oid) INTO cols
	FROM pg_type WHERE oid < 10000 AND typtype <> 'p' AND oid NOT IN (75, 270, 1263); -- no columns of these: they hold pseudo-types
	EXECUTE 'CREATE TABLE every (id serial PRIMARY KEY, ' || cols || ')';
END $$;
INSERT INTO every DEFAULT VALUES;
INSERT INTO every (c16, c17, c18, c19, c20, c21, c22, c23, c24, c25, c26, c27, c28, c29, c30) VALUES
	(true, '\x00ff27', 'x', 'name', -9223372036854775808, -32768, '1 2', 2147483647, 'now', '', 4294967295, '(0,1)', '7', '8', '1 2'),
	(false, '', '', '', 9223372036854775807, 32767, '', -2147483648, 0, E'a\tb\nc"\\ ünïcödé 🎞', 0, '(4294967295,65535)', '4294967295', '0', '');
INSERT INTO every (c114, c142, c3802, c4072, c650, c869, c829, c774, c600, c628, c601, c603, c602, c604, c718) VALUES
	('{"a" :1,"a":2}', '<a>&lt;</a>', '{"b":1.10,"a":null}', '$.a[*] ? (@ > 1)', '10.0.0.0/8', '::1/64', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
	 '(1e300,-0)', '{1,2,3}', '[(0,0),(1,1)]', '(2,2),(0,0)', '((0,0),(1,1))', '((0,0),(1,1),(2,0))', '<(1,2),3>');
INSERT INTO every (c700, c701, c790, c1700, c1042, c1043, c1560, c1562, c2950, c3220, c5069, c1790) VALUES
	('NaN', 'Infinity', '-92233720368547758.08', 'NaN', 'p', '', B'1', B'', '00000000-0000-0000-0000-000000000000', 'FFFFFFFF/FFFFFFFF', '18446744073709551615', 'cursor'),
	(1.17549435e-38, 0.1::float8 + 0.2::float8, 0, 'Infinity', NULL, NULL, NULL, B'10101', NULL, '0/0', '0', NULL),
	('-Infinity', 5e-324, 1, 12345678901234567890.123456789012345678901234567890, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO every (c1082, c1083, c1114, c1184, c1186, c1266) VALUES
	('4713-01-01 BC', '24:00:00', 'infinity', '-infinity', '-178000000 years', '00:00:00-15:59'),
	('infinity', '00:00:00.000001', '0044-03-15 12:00 BC', '294276-12-31 23:59:59.999999+00', '1 mon -1 day 00:00:00.1', '23:59:59.999999+15:59');
INSERT INTO every (c3904, c3906, c3908, c3910, c3912, c3926, c4451, c4532, c4533, c4534, c4535, c4536) VALUES
	('empty', '(,1.5]', '[2026-01-01,)', '(,)', '[2026-01-01,2026-02-01)', '[1,10)', '{[1,2),[5,9)}', '{}', '{[2026-01-01,2026-01-02)}', '{(,)}', '{}', '{[1,2)}');
INSERT INTO every (c1007, c1009, c1016, c1115, c1231, c3807, c2951, c1001, c3905, c6150) VALUES
	('{}', '{NULL,"NULL","",a\"b}', '[0:1]={1,2}', '{infinity,NULL}', '{{1,2},{3,NaN}}', ARRAY['{"a":1}'::jsonb], NULL, ARRAY['\x00'::bytea], '{"[1,3)"}', '{"{[1,2)}"}');
INSERT INTO every (c3614, c3615, c2970, c5038, c2205, c2206, c4089, c4096, c1033) VALUES
	('a:1A b:2', 'a & !b:*', '10:20:10,14', '10:20:10,14', 'pg_class', 'int4', 'public', 'postgres', 'postgres=r/postgres');
`

// shapes writes what rows, definitions, truncates and messages can look like.
const shapes = `
CREATE TYPE mood AS ENUM ('sad', 'ok', 'so "so"');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN small AS int CHECK (value < 10);
CREATE DOMAIN words AS text[];
CREATE SCHEMA "Sch.ema";
CREATE TABLE "Sch.ema"."Ta ""ble" (id int PRIMARY KEY, m mood, p pair, d small, w words, ms mood[], ps pair[], ds small[], "Col.umn" varchar(7), n numeric(10,2));
INSERT INTO "Sch.ema"."Ta ""ble" VALUES (1, 'so "so"', '(1,"x y")', 3, '{a,b}', '{sad,NULL}', ARRAY[(1,'z')::pair], '{1,2}', '', 1);
CREATE TABLE def (id int PRIMARY KEY, big text, small text);
ALTER TABLE def ALTER big SET STORAGE EXTERNAL;
CREATE TABLE ful (LIKE def INCLUDING ALL);
ALTER TABLE ful REPLICA IDENTITY FULL;
CREATE TABLE idx (a int NOT NULL, b text NOT NULL, c text);
CREATE UNIQUE INDEX idx_ab ON idx (b);
ALTER TABLE idx REPLICA IDENTITY USING INDEX idx_ab;
INSERT INTO def VALUES (1, repeat('x', 9000), ''), (2, NULL, NULL);
INSERT INTO ful SELECT * FROM def;
INSERT INTO idx VALUES (1, 'k', NULL);
UPDATE def SET small = 'new' WHERE id = 1;
UPDATE def SET id = 10 WHERE id = 1;
UPDATE def SET big = 'short', id = 11 WHERE id = 10;
UPDATE ful SET small = 'new' WHERE id = 1;
UPDATE idx SET b = 'l';
UPDATE idx SET c = '';
DELETE FROM def WHERE id = 2; DELETE FROM ful; DELETE FROM idx;
CREATE TABLE parent (id serial PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY REFERENCES parent);
TRUNCATE parent CASCADE; TRUNCATE parent, child RESTART IDENTITY; TRUNCATE def;
CREATE TABLE gen (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED, gone int, z int);
ALTER TABLE gen DROP COLUMN gone;
INSERT INTO gen VALUES (1, DEFAULT, 3);
CREATE TABLE part (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (10);
CREATE TABLE part2 PARTITION OF part FOR VALUES FROM (10) TO (20);
INSERT INTO part VALUES (1, 'a'); UPDATE part SET id = 11;
SELECT pg_logical_emit_message(true, 'prefix', E'\\x0001ff'::bytea);
SELECT pg_logical_emit_message(false, 'alone', '');
`

// testOracle compares every message with another implementation's reading of it.
func testOracle(t *testing.T, pg *dbtest.Postgres) {
	s := newSource(t, pg, "oracle")
	s.exec("SET client_min_messages = error;" + allTypes)
	s.exec(shapes)
	var d Decoder
	var ev change.Event
	seen := map[byte]int{}
	last := map[string]pglogrepl.RelationMessage{}
	for _, m := range s.messages() {
		seen[m[0]]++
		want, err := pglogrepl.Parse(bytes.Clone(m))
		if err != nil {
			t.Fatal(err)
		}
		is, err := d.Event(m, &ev)
		if err != nil {
			t.Fatalf("%q: %v", m, err)
		}
		var wantOld, wantNew *pglogrepl.TupleData
		var wantOp change.Op
		var wantRel, oldKind = uint32(0), byte('O')
		switch w := want.(type) {
		case *pglogrepl.BeginMessage:
			b, err := ParseBegin(m)
			if err != nil || b.FinalLSN != uint64(w.FinalLSN) || b.XID != w.Xid || int64(b.CommitTime) != w.CommitTime.UnixMicro() {
				t.Errorf("begin: %+v, %v; want %+v", b, err, w)
			}
		case *pglogrepl.CommitMessage:
			c, err := ParseCommit(m)
			if err != nil || c.CommitLSN != uint64(w.CommitLSN) || c.EndLSN != uint64(w.TransactionEndLSN) || int64(c.CommitTime) != w.CommitTime.UnixMicro() {
				t.Errorf("commit: %+v, %v; want %+v", c, err, w)
			}
		case *pglogrepl.RelationMessage:
			compareRelation(t, m, w)
			last[w.Namespace+"."+w.RelationName] = *w
		case *pglogrepl.TypeMessage:
			id, err := RelationID(m)
			if err != nil || id != w.DataType || !strings.HasSuffix(d.types[id], w.Name) {
				t.Errorf("type: %d %q, %v; want %+v", id, d.types[id], err, w)
			}
		case *pglogrepl.InsertMessage:
			wantOp, wantRel, wantNew = change.OpInsert, w.RelationID, w.Tuple
		case *pglogrepl.UpdateMessage:
			wantOp, wantRel, wantNew, wantOld, oldKind = change.OpUpdate, w.RelationID, w.NewTuple, w.OldTuple, w.OldTupleType
		case *pglogrepl.DeleteMessage:
			wantOp, wantRel, wantOld, oldKind = change.OpDelete, w.RelationID, w.OldTuple, w.OldTupleType
		case *pglogrepl.TruncateMessage:
			wantOp = change.OpTruncate
			var ids []uint32
			for _, r := range ev.Relations {
				ids = append(ids, r.ID)
			}
			if fmt.Sprint(ids) != fmt.Sprint(w.RelationIDs) || ev.Cascade != (w.Option&1 != 0) || ev.RestartIdentity != (w.Option&2 != 0) {
				t.Errorf("truncate: %v %v %v, want %+v", ids, ev.Cascade, ev.RestartIdentity, w)
			}
		case *pglogrepl.LogicalDecodingMessage:
			wantOp = change.OpMessage
			l, err := ParseLogicalMessage(m)
			if err != nil || ev.Prefix != w.Prefix || !bytes.Equal(ev.Content, w.Content) || l.Transactional != w.Transactional || l.LSN != uint64(w.LSN) {
				t.Errorf("message: %+v %v; want %+v", l, err, w)
			}
		default:
			t.Errorf("a message this test does not compare: %T", w)
		}
		if is != (wantOp != 0) || ev.Op != wantOp || wantRel != 0 && ev.Relation.ID != wantRel {
			t.Errorf("%q: %v %v, want %v", m, is, ev.Op, wantOp)
		}
		compareTuple(t, ev.Old, wantOld, oldKind == 'K')
		compareTuple(t, ev.New, wantNew, false)
	}
	for _, tag := range []byte("BCRYIUDTM") {
		if seen[tag] == 0 {
			t.Errorf("the server sent no %q", tag)
		}
	}
	if seen['Y'] < 7 || seen['I'] < 20 || seen['T'] != 3 || seen['M'] != 2 {
		t.Errorf("the workload has lost messages: %v", seen)
	}
}

func compareRelation(t *testing.T, m []byte, w *pglogrepl.RelationMessage) {
	t.Helper()
	r, err := ParseRelation(m)
	if err != nil || r.ID != w.RelationID || r.Schema != w.Namespace || r.Name != w.RelationName || r.Identity != w.ReplicaIdentity || len(r.Columns) != len(w.Columns) {
		t.Fatalf("relation: %+v, %v; want %+v", r, err, w)
	}
	for i, c := range w.Columns {
		if got := r.Columns[i]; got.Name != c.Name || got.Type != c.DataType || got.Mod != c.TypeModifier || got.Key != (c.Flags&1 != 0) {
			t.Errorf("column of %s: %+v, want %+v", r.Name, got, *c)
		}
	}
}

func compareTuple(t *testing.T, got []change.Value, want *pglogrepl.TupleData, key bool) {
	t.Helper()
	if want == nil {
		if got != nil {
			t.Errorf("image %v where the message has none", got)
		}
		return
	}
	if got == nil || len(got) != len(want.Columns) {
		t.Fatalf("image of %d columns, want %d", len(got), len(want.Columns))
	}
	for i, c := range want.Columns {
		state := map[uint8]change.State{'n': change.Null, 'u': change.Unchanged, 't': change.Text, 'b': change.Binary}[c.DataType]
		if key && state == change.Null {
			state = change.NotLogged
		}
		if got[i].State != state || !bytes.Equal(got[i].Bytes, c.Data) {
			t.Errorf("column %d: %v %q, want %v %q", i, got[i].State, got[i].Bytes, state, c.Data)
		}
	}
}

// testTable compares decoded rows with what a query of the same
// table returns, and every column's type with the catalog.
func testTable(t *testing.T, pg *dbtest.Postgres) {
	s := newSource(t, pg, "every")
	s.exec("SET client_min_messages = error;" + allTypes)
	want := s.pg.MustQuery(t, s.db, "SELECT * FROM every ORDER BY id")
	types := s.pg.MustQuery(t, s.db, `SELECT COALESCE(e.typname || '[]', t.typname) FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
		LEFT JOIN pg_type e ON e.typarray = t.oid WHERE attrelid = 'every'::regclass AND attnum > 0 ORDER BY attnum`)
	var d Decoder
	var ev change.Event
	row := 0
	for _, m := range s.messages() {
		is, err := d.Event(m, &ev)
		if err != nil {
			t.Fatal(err)
		}
		if !is {
			continue
		}
		for i, v := range ev.New {
			got := string(v.Bytes)
			if v.State == change.Null {
				got = dbtest.Null
			}
			if got != want[row][i] || ev.Relation.Columns[i].Type != types[i][0] {
				t.Errorf("row %d, column %+v: %q, the table holds %q of type %s", row, ev.Relation.Columns[i], got, want[row][i], types[i][0])
			}
		}
		row++
	}
	if row != len(want) || row < 10 {
		t.Errorf("%d rows decoded, the table holds %d", row, len(want))
	}
}
