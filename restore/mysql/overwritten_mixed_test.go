package mysql

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"txreel/internal/dbtest"
	"txreel/restore"
)

// mixedTables have keys of many types, foreign keys of each kind, triggers and partitions.
const mixedTables = `CREATE DATABASE o; USE o;
CREATE TABLE t1 (k DECIMAL(12,3), f FLOAT, bt BIT(11), e ENUM('a','b','c'), s SET('x','y','z'), b BINARY(6), d DATETIME(3), w INT, j TEXT, PRIMARY KEY (k, bt, e, s, b, d)) ENGINE=InnoDB;
CREATE TABLE t2 (f FLOAT PRIMARY KEY, v VARCHAR(20) COLLATE utf8mb4_general_ci, w INT, UNIQUE KEY (v(3) DESC)) ENGINE=InnoDB;
CREATE TABLE t3 (c CHAR(8), y YEAR, ti TIME(2), ts TIMESTAMP(6) NOT NULL DEFAULT '2020-01-01', w INT, bl BLOB, PRIMARY KEY (c, y, ti, ts)) ENGINE=InnoDB;
CREATE TABLE p1 (id INT PRIMARY KEY, code INT UNIQUE, w INT) ENGINE=InnoDB;
CREATE TABLE c1 (id INT PRIMARY KEY, code INT, code2 INT, w INT, FOREIGN KEY (code) REFERENCES p1 (code) ON UPDATE CASCADE ON DELETE SET NULL, KEY (code2)) ENGINE=InnoDB;
CREATE TABLE c2 (id INT PRIMARY KEY, cid INT, w INT, FOREIGN KEY (cid) REFERENCES c1 (id) ON UPDATE CASCADE ON DELETE CASCADE) ENGINE=InnoDB;
CREATE TABLE self (id INT PRIMARY KEY, up INT, w INT, FOREIGN KEY (up) REFERENCES self (id) ON DELETE CASCADE) ENGINE=InnoDB;
CREATE TABLE au (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(40), w INT) ENGINE=InnoDB;
CREATE TABLE cnt (id INT PRIMARY KEY, n INT, w INT) ENGINE=InnoDB;
INSERT INTO cnt VALUES (1,0,0),(2,0,0);
CREATE TABLE pt (id INT, a INT, w INT, PRIMARY KEY (id, a)) ENGINE=InnoDB PARTITION BY RANGE (a) (PARTITION x VALUES LESS THAN (4), PARTITION y VALUES LESS THAN (8), PARTITION z VALUES LESS THAN MAXVALUE);
CREATE TRIGGER tr1 AFTER UPDATE ON p1 FOR EACH ROW BEGIN UPDATE cnt SET n = n + 1, w = NEW.w WHERE id = 1; INSERT INTO au (what, w) VALUES ('u', NEW.w); UPDATE pt SET w = w + 1 WHERE a < 5; END;
CREATE TRIGGER tr2 BEFORE UPDATE ON t2 FOR EACH ROW UPDATE cnt SET n = n + 1 WHERE id = 2;
CREATE TRIGGER tr3 AFTER DELETE ON t1 FOR EACH ROW UPDATE self SET w = w + 1;
`

// mixedStatement draws a statement on them; n draws a number from 1 on.
func mixedStatement(n func(int) int) string {
	switch n(34) {
	case 1, 2:
		return fmt.Sprintf("INSERT INTO t1 VALUES (%d.5, 1.5, %d, %d, %d, UNHEX('0%d00'), '2020-01-01 00:00:00.%d', 0, 'x')", n(3), n(3), n(3), n(7), n(3), n(3))
	case 3, 4:
		return fmt.Sprintf("UPDATE t1 SET w = w + 1, j = REPEAT('j', %d) WHERE bt = %d", n(3000), n(3))
	case 5:
		return fmt.Sprintf("UPDATE t1 SET s = %d, w = 0 WHERE bt = %d AND e = %d", n(7), n(3), n(3))
	case 6:
		return fmt.Sprintf("DELETE FROM t1 WHERE e = %d AND s = %d", n(3), n(7))
	case 7:
		return fmt.Sprintf("INSERT INTO t2 VALUES (%d * 0.1, '%c%c%c%c', 1)", n(6), "aAb"[n(3)-1], "aAb"[n(3)-1], "é e"[0:1][0], "x yz"[n(4)-1])
	case 8:
		return fmt.Sprintf("INSERT INTO t2 VALUES (%d * 0.1, 'q%d ', 1)", n(6), n(9))
	case 9, 10:
		return fmt.Sprintf("UPDATE t2 SET w = w + 1 WHERE f < %d * 0.11", n(6))
	case 11:
		return fmt.Sprintf("UPDATE t2 SET v = CONCAT('q%d', ' ', w), w = w + 1 WHERE f < %d * 0.11 ORDER BY f LIMIT 1", n(9), n(6))
	case 12:
		return fmt.Sprintf("INSERT INTO t3 VALUES ('%c ', 200%d, '-00:00:0%d.5', '2020-01-0%d 00:00:00.123456', 0, NULL)", "aAb"[n(3)-1], n(3), n(3), n(3))
	case 13, 14:
		return fmt.Sprintf("UPDATE t3 SET w = w + 1, bl = REPEAT(x'00', %d) WHERE y = 200%d", n(9000), n(3))
	case 15:
		return fmt.Sprintf("UPDATE t3 SET c = '%c' WHERE y = 200%d", "aAb"[n(3)-1], n(3))
	case 16:
		return fmt.Sprintf("REPLACE INTO p1 VALUES (%d, %d, 1)", n(5), n(9))
	case 17, 18:
		return fmt.Sprintf("UPDATE p1 SET w = w + 1 WHERE id <= %d", n(5))
	case 19:
		return fmt.Sprintf("UPDATE p1 SET code = %d, w = w + 1 WHERE id = %d", n(9), n(5))
	case 20:
		return fmt.Sprintf("INSERT INTO c1 VALUES (%d, %d, %d, 0)", n(6), n(9), n(9))
	case 21:
		return fmt.Sprintf("UPDATE c1 SET w = w + 1, code2 = %d WHERE id >= %d", n(9), n(6))
	case 22:
		return fmt.Sprintf("UPDATE c1 SET id = %d WHERE id = %d", n(6), n(6))
	case 23:
		return fmt.Sprintf("INSERT INTO c2 VALUES (%d, %d, 0)", n(6), n(6))
	case 24:
		return "UPDATE c2, c1, p1 SET c2.w = c2.w + 1, c1.w = c1.w + 1, p1.w = p1.w + 1 WHERE c2.cid = c1.id AND c1.code = p1.code"
	case 25:
		return fmt.Sprintf("DELETE FROM p1 WHERE id = %d", n(5))
	case 26:
		return fmt.Sprintf("DELETE FROM c1 WHERE id = %d", n(6))
	case 27:
		i := n(6)
		return fmt.Sprintf("INSERT INTO self VALUES (%d, %d, 0) ON DUPLICATE KEY UPDATE w = w + 1", i, i-1)
	case 28:
		i := n(6)
		return fmt.Sprintf("SET foreign_key_checks = 0; UPDATE self SET up = %d, w = w + 1 WHERE id = %d; INSERT IGNORE INTO self VALUES (%d, NULL, 0); SET foreign_key_checks = 1", i-1, i, n(6))
	case 29:
		return fmt.Sprintf("DELETE FROM self WHERE id = %d", n(6))
	case 30:
		return fmt.Sprintf("INSERT IGNORE INTO pt VALUES (%d, %d, 0)", n(3), n(9))
	case 31:
		return fmt.Sprintf("UPDATE pt SET a = %d, w = w + 1 WHERE id = %d AND a = %d", n(9), n(3), n(9))
	case 32:
		return "UPDATE pt SET w = w + 1"
	case 33:
		return fmt.Sprintf("UPDATE pt, cnt SET pt.w = pt.w + 1, cnt.w = pt.w WHERE pt.id = %d AND cnt.id = 1", n(3))
	}
	return "UPDATE c2 SET w = w + 1"
}

// TestOverwrittenMixed runs random statements over mixedTables, in sessions that log them in every way there is.
func TestOverwrittenMixed(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 1))
		n := func(most int) int { return 1 + rnd.IntN(most) }
		r := record(t, source)
		r.perSeg, r.impatient = 40, true
		ctx := context.Background()
		s, err := source.Session(ctx, "")
		r.check(err)
		defer s.Close()
		for _, sql := range strings.SplitAfter(mixedTables, ";\n") {
			if strings.TrimSpace(sql) != "" {
				r.check(s.Exec(ctx, sql))
			}
		}
		if source.Flavor == "mysql" {
			r.check(s.Exec(ctx, "SET binlog_rows_query_log_events = ON"))
		}
		sets := []string{"SET SESSION binlog_row_image = MINIMAL", "SET SESSION binlog_row_image = NOBLOB"}
		if source.Flavor == "mysql" {
			sets = append(sets, "SET SESSION binlog_transaction_compression = ON", "SET SESSION binlog_transaction_compression = OFF", "SET SESSION binlog_row_value_options = PARTIAL_JSON", "SET SESSION binlog_row_value_options = ''",
				"SET SESSION gtid_next = 'AUTOMATIC:tag'", "SET SESSION gtid_next = 'AUTOMATIC'")
		}
		for range 800 {
			if n(25) == 1 {
				r.check(s.Exec(ctx, sets[rnd.IntN(len(sets))]))
			} else if n(6) == 1 {
				_ = s.Exec(ctx, "SET SESSION binlog_row_image = FULL")
			}
			_ = s.Exec(ctx, "BEGIN")
			for range n(4) {
				_ = s.Exec(ctx, mixedStatement(n)) // it may fail for what other rows hold
			}
			_ = s.Exec(ctx, "COMMIT")
		}
		r.capture()
		p, err := r.plan(restore.Goal{})
		r.check(err)
		for _, exact := range []bool{false, true} {
			empty(t, target)
			to, err := Open(ctx, target.URL(""), Options{Exact: exact})
			r.check(err)
			to.patience = 0
			report, err := restore.Run(ctx, r.archive, p, to, restore.Options{Jobs: 4, SpillDir: r.dir})
			to.Close()
			r.check(err)
			if left := report.Overwritten > 0; left == exact {
				t.Errorf("exact %v: %d left out", exact, report.Overwritten)
			}
			same(t, fmt.Sprintf("exact %v", exact), content(t, source), content(t, target))
		}
	})
}
