package mysql

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"txreel/internal/dbtest"
	"txreel/restore"
)

// step is a part of a history, run in one session.
type step struct {
	name string
	only string // a flavor; "" for both
	sql  string
	in   int // the session
}

// history has something of everything that is replayed in a way of its own. Every step
// ends on a transaction.
var history = []step{
	{name: "tables", sql: `CREATE DATABASE d; USE d;
		CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(200), f DOUBLE, n INT);
		INSERT INTO t (v) VALUES ('a'), ('b'), ('c')`},
	{name: "statements", sql: `USE d; SET SESSION binlog_format = 'STATEMENT'; SET @x = 'a user''s';
		INSERT INTO t (v, f) VALUES (@x, RAND()), (@x, RAND()); UPDATE t SET n = LAST_INSERT_ID() + id WHERE id > 2;
		SET SESSION binlog_format = 'ROW'; INSERT INTO t (v) VALUES ('row')`},
	{name: "load data", sql: `USE d; SET SESSION binlog_format = 'STATEMENT'; LOAD DATA INFILE '%ROWS%' INTO TABLE t (v); SET SESSION binlog_format = 'ROW';
		LOAD DATA INFILE '%ROWS%' INTO TABLE t (v) SET n = 7`},
	{name: "cascades", sql: `USE d; CREATE TABLE p (id INT PRIMARY KEY) ENGINE=InnoDB;
		CREATE TABLE c (id INT PRIMARY KEY, p INT, q INT, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE ON UPDATE CASCADE, FOREIGN KEY (q) REFERENCES p (id) ON DELETE SET NULL) ENGINE=InnoDB;
		INSERT INTO p VALUES (1), (2), (3); INSERT INTO c VALUES (1, 1, 2), (2, 1, 3), (3, 2, 1), (4, 3, 3);
		DELETE FROM p WHERE id = 1; UPDATE p SET id = 20 WHERE id = 2`},
	{name: "triggers", sql: `USE d; CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, t INT, at DATETIME(6) DEFAULT NOW(6));
		CREATE TRIGGER t_ai AFTER INSERT ON t FOR EACH ROW INSERT INTO log (t) VALUES (NEW.id);
		INSERT INTO t (v) VALUES ('fires'), ('twice'); SET SESSION binlog_format = 'MIXED'; INSERT INTO t (v) VALUES (UUID()); SET SESSION binlog_format = 'ROW'`},
	{name: "renames", sql: `USE d; CREATE TABLE x AS SELECT id, v FROM t; CREATE TABLE y (k INT PRIMARY KEY, w TEXT); INSERT INTO y VALUES (1, 'y');
		RENAME TABLE x TO z, y TO x, z TO y; ALTER TABLE y ADD COLUMN extra BIT(9) DEFAULT b'1', ADD INDEX (v); INSERT INTO y VALUES (1000, 'after', b'101010101');
		TRUNCATE TABLE x`},
	{name: "savepoints", sql: `USE d; BEGIN; INSERT INTO t (v) VALUES ('one'); SAVEPOINT s; INSERT INTO t (v) VALUES ('gone'); ROLLBACK TO s; INSERT INTO t (v) VALUES ('two'); COMMIT`},
	{name: "not transactional", sql: `USE d; CREATE TABLE m0 (id INT PRIMARY KEY, v INT) ENGINE=MyISAM; INSERT INTO m0 VALUES (1, 1), (2, 2); DELETE FROM m0 WHERE id = 1`},
	{name: "rolled back", only: "mariadb", sql: `USE d; CREATE TABLE m (id INT PRIMARY KEY, v INT) ENGINE=MyISAM; BEGIN; INSERT INTO m VALUES (1, 1); INSERT INTO t (v) VALUES ('rolled back'); INSERT INTO m VALUES (2, 2); ROLLBACK`},
	{name: "temporary", sql: `USE d; SET SESSION binlog_format = 'ROW'; CREATE TEMPORARY TABLE tmp (i INT); INSERT INTO tmp VALUES (1), (2); INSERT INTO t (n) SELECT i FROM tmp`},
	{name: "accounts", sql: `CREATE USER u1 IDENTIFIED BY 'first secret'; GRANT SELECT ON d.* TO u1; CREATE ROLE r1; GRANT r1 TO u1; SET PASSWORD FOR u1 = %PASSWORD%`},
	{name: "code", sql: `USE d; CREATE VIEW vw AS SELECT id, v FROM t WHERE id < 5; CREATE PROCEDURE pr(i INT) INSERT INTO t (n) VALUES (i); CREATE FUNCTION fu(i INT) RETURNS INT DETERMINISTIC RETURN i + 1; CALL pr(99)`},
	{name: "events", sql: `USE d; CREATE EVENT e1 ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01 00:00:00' DO SELECT 1;
		CREATE EVENT e2 ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01 00:00:00' ON COMPLETION PRESERVE DISABLE COMMENT 'ENABLE' DO SELECT 2;
		SET sql_mode = 'ANSI_QUOTES'; SET time_zone = '+03:00'; CREATE DEFINER = u1 EVENT "e 3" ON SCHEDULE AT '2035-01-01 00:00:00' DO SELECT 3; SET sql_mode = DEFAULT`},
	{name: "altered events", sql: `USE d; ALTER EVENT e1 DISABLE; ALTER EVENT e2 RENAME TO e4; ALTER EVENT e4 ENABLE; DROP EVENT d.` + "`e 3`" + `; CREATE EVENT IF NOT EXISTS e1 ON SCHEDULE EVERY 2 HOUR DO SELECT 5`},
	{name: "compressed", only: "mysql", sql: `USE d; SET SESSION binlog_transaction_compression = ON; BEGIN; INSERT INTO t (v) VALUES (REPEAT('z', 150)); UPDATE t SET n = 1; COMMIT; SET SESSION binlog_transaction_compression = OFF`},
	{name: "compressed", only: "mariadb", sql: `USE d; SET GLOBAL log_bin_compress = ON; BEGIN; INSERT INTO t (v) VALUES (REPEAT('z', 150)); UPDATE t SET n = 1; COMMIT; CREATE TABLE long_comment (i INT COMMENT 'zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz'); SET GLOBAL log_bin_compress = OFF`},
	{name: "json", only: "mysql", sql: `USE d; CREATE TABLE j (id INT PRIMARY KEY, doc JSON); INSERT INTO j VALUES (1, '{"a": 1, "b": [1, 2, {"c": "long enough to be worth a partial update"}], "d": 1.5}');
		SET SESSION binlog_row_value_options = 'PARTIAL_JSON'; UPDATE j SET doc = JSON_SET(doc, '$.a', 2, '$.d', 'x'); SET SESSION binlog_row_value_options = ''`},
	{name: "tagged", only: "mysql", sql: `USE d; SET SESSION gtid_next = 'AUTOMATIC:blue'; INSERT INTO t (v) VALUES ('blue'); SET SESSION gtid_next = 'AUTOMATIC:red_2'; INSERT INTO t (v) VALUES ('red');
		SET SESSION gtid_next = 'AUTOMATIC'; INSERT INTO t (v) VALUES ('plain')`},
	{name: "sequences", only: "mariadb", sql: `USE d; CREATE SEQUENCE sq START WITH 5 CACHE 3; SELECT NEXTVAL(sq), NEXTVAL(sq); CREATE TABLE sv (i INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING; INSERT INTO sv VALUES (1, 1); UPDATE sv SET v = 2; DELETE FROM sv`},
	{name: "domains", only: "mariadb", sql: `USE d; SET SESSION gtid_domain_id = 3; CREATE TABLE dom3 (i INT PRIMARY KEY); INSERT INTO dom3 VALUES (1); SET SESSION gtid_domain_id = 0; INSERT INTO t (v) VALUES ('domain 0'); SET SESSION gtid_domain_id = 3; INSERT INTO dom3 VALUES (2)`},
	{name: "prepared", in: 1, sql: `USE d; XA START 'x1', 'b', 7; INSERT INTO t (v) VALUES ('xa'); XA END 'x1', 'b', 7; XA PREPARE 'x1', 'b', 7`},
	{name: "beside it", sql: `USE d; INSERT INTO t (v) VALUES ('while prepared')`},
	{name: "decided", in: 1, sql: `XA COMMIT 'x1', 'b', 7`},
	{name: "another file", sql: `FLUSH BINARY LOGS; USE d; XA START 'x2'; UPDATE t SET n = 3 WHERE id = 1; XA END 'x2'; XA COMMIT 'x2' ONE PHASE`},
	{name: "huge", sql: `USE d; CREATE TABLE big (id INT PRIMARY KEY, b LONGBLOB); BEGIN; INSERT INTO big VALUES (1, REPEAT('0123456789', 1 << 21)); UPDATE big SET b = CONCAT(b, 'x'); COMMIT; DELETE FROM big`},
	{name: "schemas", sql: `CREATE DATABASE d2; CREATE TABLE d2.k (i INT PRIMARY KEY); INSERT INTO d2.k VALUES (1); CREATE EVENT d2.e ON SCHEDULE EVERY 1 DAY DO SELECT 1; DROP DATABASE d2; CREATE DATABASE d2; DROP TABLE d.x, d.y`},
}

// looked are the steps behind which a restore is compared with the source.
var looked = map[string]bool{"cascades": true, "events": true, "altered events": true, "tagged": true, "domains": true, "prepared": true, "beside it": true}

// moment is how a source stood after a step.
type moment struct {
	step
	xid  string
	dump dbtest.MySQLDump
}

// live runs the history on a server and records it, and returns the moments behind its steps.
func live(t *testing.T, r *recorder, steps []step) []moment {
	t.Helper()
	ctx := context.Background()
	var sessions [2]*dbtest.Session
	for i := range sessions {
		s, err := r.my.Session(ctx, "")
		r.check(err)
		defer s.Close()
		sessions[i] = s
	}
	file := filepath.Join(t.TempDir(), "rows")
	r.check(os.WriteFile(file, []byte("from a file\nand another row\nthird\n"), 0o644))
	r.check(os.Chmod(filepath.Dir(file), 0o755))
	var all []moment
	for _, s := range steps {
		if s.only != "" && s.only != r.my.Flavor {
			continue
		}
		sql := strings.ReplaceAll(s.sql, "%ROWS%", file)
		password := "'second secret'"
		if r.my.Flavor == "mariadb" {
			password = "PASSWORD(" + password + ")"
		}
		r.check(sessions[s.in].Exec(ctx, strings.ReplaceAll(sql, "%PASSWORD%", password)))
		if s.name == "prepared" { // let others decide it
			r.check(sessions[s.in].Close())
			var err error
			sessions[s.in], err = r.my.Session(ctx, "")
			r.check(err)
		}
		r.capture()
		if s.name == "beside it" {
			r.heartbeat()
		}
		m := moment{step: s, xid: r.xids[len(r.xids)-1]}
		if looked[s.name] {
			m.dump = content(t, r.my)
		}
		all = append(all, m)
	}
	return all
}

// TestMoments restores a history to the end of steps behind which something is pending,
// and to its own end, which shows what every step left.
func TestMoments(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		r := record(t, source)
		moments := live(t, r, history)
		for i := len(moments) - 1; i >= 0; i-- {
			m := moments[i]
			if i == len(moments)-1 {
				m.dump = content(t, source)
			} else if !looked[m.name] {
				continue
			}
			report := r.mustRestore(target, restore.Goal{Kind: restore.AtXID, Text: m.xid})
			same(t, m.name, m.dump, content(t, target))
			prepared := m.name == "prepared" || m.name == "beside it"
			if got := strings.Contains(strings.Join(report.Warnings, "\n"), "XA COMMIT X'7831', X'62', 7"); got != prepared {
				t.Errorf("%s: warned of a prepared XA transaction: %t\n%s", m.name, got, strings.Join(report.Warnings, "\n"))
			}
			if report.Cut.XID != m.xid {
				t.Errorf("%s: restored to %s, not %s", m.name, report.Cut.XID, m.xid)
			}
			empty(t, target)
		}
	})
}
