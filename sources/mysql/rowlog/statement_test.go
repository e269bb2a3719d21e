package rowlog

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sources/mysql/binlog"
)

// testGenerated has columns that the server fills in, or hides.
func testGenerated(t *testing.T, server *dbtest.MySQL) {
	s := newSite(t, server, "generated_columns")
	s.exec(t, `CREATE TABLE t (id int PRIMARY KEY, a int, s int AS (a * 2) STORED, v varchar(20) AS (CONCAT('v', a)) VIRTUAL,
		hidden int INVISIBLE DEFAULT 3, u timestamp(3) NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3), KEY (v))`)
	s.exec(t, "INSERT INTO t (id, a) VALUES (1, 10), (2, NULL); UPDATE t SET a = a + 1; INSERT INTO t (id, a, hidden) VALUES (3, 5, 7)")
	m := follow(t, NewDecoder(nil), s.events(t), "t", s.columns(t, "t"))
	m.compare(t, s.selected(t, "t"))
	if server.Flavor != "mysql" {
		testOnlyMariaDB(t, s)
		return
	}
	s.exec(t, "SET sql_generate_invisible_primary_key = ON")
	s.exec(t, `CREATE TABLE g (j json, n int, KEY ((CAST(j->'$.a' AS UNSIGNED ARRAY))), KEY ((n + 1)));
		INSERT INTO g VALUES ('{"a": [1,2,3]}', 1), (NULL, 2); UPDATE g SET j = '{"a": [4]}', n = 5 WHERE n = 2`)
	m = follow(t, NewDecoder(nil), s.events(t), "g", s.columns(t, "g"))
	m.compare(t, s.selected(t, "g"))
	if !m.rel.Columns[0].Key || m.rel.Columns[0].Name != "my_row_id" {
		t.Errorf("the key that the server made is described as %+v", m.rel.Columns[0])
	}
}

// testOnlyMariaDB has tables that are no common ones, and an ALTER in two phases.
func testOnlyMariaDB(t *testing.T, s *site) {
	s.mark(t)
	s.exec(t, `CREATE TABLE v (id int PRIMARY KEY, a int) WITH SYSTEM VERSIONING; INSERT INTO v VALUES (1, 1), (2, 2); UPDATE v SET a = 3 WHERE id = 1;
		DELETE FROM v WHERE id = 2; CREATE SEQUENCE q; SELECT NEXTVAL(q)`)
	s.exec(t, "SET binlog_alter_two_phase = ON; ALTER TABLE v COMMENT 'x'")
	if err := s.conn.Exec(t.Context(), "CREATE TABLE w AS SELECT 1 a UNION ALL SELECT 1; ALTER TABLE w ADD UNIQUE (a)"); err == nil {
		t.Error("a key that is not unique is taken for one")
	}
	var got []string
	decode(t, NewDecoder(s.schema(t)), s.events(t), func(ev *change.Event) {
		switch {
		case ev.Op == change.OpStatement:
			got = append(got, string(ev.Content[:min(len(ev.Content), 11)]))
		case ev.Relation != nil:
			got = append(got, ev.Op.String()+" "+ev.Relation.Name+" "+ev.Relation.Columns[len(ev.Relation.Columns)-1].Name)
		}
	})
	want := []string{"CREATE TABL", "insert v row_end", "insert v row_end", "update v row_end", "insert v row_end", "update v row_end", "CREATE SEQU", "insert q cycle_count",
		"ALTER TABLE", "CREATE TABL", "insert w a", "insert w a"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// testOldTimes reads the formats that MariaDB used before it took over MySQL's, which do not
// tell how many digits a fraction has.
func testOldTimes(t *testing.T, server *dbtest.MySQL) {
	s := newSite(t, server, "old_times")
	s.exec(t, "SET GLOBAL mysql56_temporal_format = OFF")
	defer s.exec(t, "SET GLOBAL mysql56_temporal_format = ON")
	samples := temporals()
	s.create(t, samples)
	s.mark(t)
	s.insert(t, samples, 1)
	m := follow(t, NewDecoder(s.schema(t)), s.events(t), "t", s.columns(t, "t"))
	m.compare(t, s.selected(t, "t"))

	d, failed := NewDecoder(nil), 0
	var ev change.Event
	events := s.events(t)
	for _, raw := range events {
		err := d.Decode(raw)
		for is := true; is && err == nil; {
			is, err = d.Next(&ev)
		}
		if err != nil {
			failed++
		}
	}
	if want := count(events, binlog.TypeWriteRowsV1); failed != want {
		t.Errorf("%d of %d events were refused without a schema", failed, want)
	}
}

// testStatements has what a log holds as text.
func testStatements(t *testing.T, server *dbtest.MySQL) {
	s := newSite(t, server, "statements")
	mysql := server.Flavor == "mysql"
	s.exec(t, "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, a varchar(50), b double) ENGINE=InnoDB; CREATE TABLE m (id int) ENGINE=MyISAM")
	s.mark(t)
	if mysql {
		s.exec(t, "SET binlog_rows_query_log_events = ON")
	}
	s.exec(t, "INSERT INTO t VALUES (1, 'row', 1)")
	s.exec(t, "BEGIN; INSERT INTO t VALUES (2, 'kept', 1); SAVEPOINT s1; INSERT INTO t VALUES (3, 'lost', 1); ROLLBACK TO s1; COMMIT")
	s.exec(t, "INSERT INTO m VALUES (1)")
	if mysql {
		s.exec(t, "SET binlog_rows_query_log_events = OFF")
	}
	s.exec(t, "SET @a = 'it''s', @`q``` = -5, @n = NULL, @d = 1.50, @f = 1e20, @u = 18446744073709551615, @x = x'00ff'")
	s.exec(t, "SET binlog_format = STATEMENT")
	s.exec(t, "INSERT INTO t (a, b) VALUES (CONCAT(@a, @`q```, COALESCE(@n, ''), @d, @f, @u, HEX(@x)), RAND())")
	s.exec(t, "SET binlog_format = ROW")
	s.exec(t, "SET NAMES latin1; ALTER TABLE t COMMENT 'caf\xe9'; SET NAMES utf8mb4")
	s.exec(t, "TRUNCATE TABLE m; CREATE USER who@localhost IDENTIFIED BY 'sesame-in-the-log'; DROP USER who@localhost")
	s.exec(t, "XA START 'x1'; INSERT INTO t VALUES (100, 'xa', 1); XA END 'x1'; XA PREPARE 'x1'; XA COMMIT 'x1'")
	s.exec(t, "XA START 'x2'; INSERT INTO t VALUES (101, 'xa', 1); XA END 'x2'; XA PREPARE 'x2'; XA ROLLBACK 'x2'")
	s.exec(t, "CREATE TABLE copy AS SELECT id FROM t")
	s.exec(t, "DROP TABLE copy")

	var got []string
	ops := make(map[change.Op]int)
	decode(t, NewDecoder(nil), s.events(t), func(ev *change.Event) {
		ops[ev.Op]++
		if ev.Op == change.OpStatement || ev.Op == change.OpMessage {
			got = append(got, ev.Op.String()+" "+ev.Prefix+": "+string(ev.Content))
		}
	})
	all := strings.Join(got, "\n")
	for _, want := range []string{
		"message query: INSERT INTO t VALUES (1, 'row', 1)", "message query: INSERT INTO t VALUES (2, 'kept', 1)", "message query: INSERT INTO m VALUES (1)",
		"message user_var: @`a` := 'it''s'", "message user_var: @`q``` := -5", "message user_var: @`n` := NULL", "message user_var: @`d` := 1.50",
		"message user_var: @`f` := 1e20", "message user_var: @`u` := 18446744073709551615", "message user_var: @`x` := x'00ff'",
		"statement statements: INSERT INTO t (a, b) VALUES (CONCAT(@a", "statement statements: ALTER TABLE t COMMENT 'café'", "statement statements: TRUNCATE TABLE m",
		"statement statements: CREATE USER", "statement statements: DROP USER", "statement statements: XA COMMIT X'7831'", "statement statements: XA ROLLBACK X'7832'",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q", want)
		}
	}
	if n := strings.Count(all, "statement "); mysql && n != 9 || !mysql && n < 9 {
		t.Errorf("%d statements", n)
	}
	if strings.Contains(all, "sesame") {
		t.Error("a password is not redacted")
	}
	if ops[change.OpInsert] < 5 {
		t.Errorf("changes by operation: %v", ops)
	}
	if t.Failed() {
		t.Log(all)
	}
	testLoadData(t, s)
}

// testLoadData has a statement with a file, of which each block is refused by itself.
func testLoadData(t *testing.T, s *site) {
	s.mark(t)
	file := filepath.Join(t.TempDir(), "rows")
	if err := os.WriteFile(file, []byte("500\ta\t1\n501\tb\t2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.exec(t, "SET binlog_format = STATEMENT; LOAD DATA LOCAL INFILE '"+file+"' INTO TABLE t; SET binlog_format = ROW; DELETE FROM t WHERE id = 500")
	d := NewDecoder(nil)
	var ev change.Event
	var got []string
	for _, raw := range s.events(t) {
		err := d.Decode(raw)
		for is := err == nil; is; {
			if is, err = d.Next(&ev); is {
				got = append(got, ev.Op.String())
			}
		}
		if err != nil {
			got = append(got, "refused "+binlog.Type(raw[4]).String())
		}
	}
	got = slices.DeleteFunc(got, func(s string) bool { return s == "message" })
	if want := []string{"refused BEGIN_LOAD_QUERY", "statement", "delete"}; !slices.Equal(got, want) {
		t.Errorf("LOAD DATA is shown as %q, want %q", got, want)
	}
}
