package mysql

import (
	"context"
	"testing"

	"txreel/internal/dbtest"
	"txreel/restore"
)

// TestOverwrittenViewOfAnotherCase has a view whose name differs from a table's in case only, and whose columns stand in another order.
func TestOverwrittenViewOfAnotherCase(t *testing.T) {
	for name, second := range map[string]string{
		"view":   "CREATE VIEW Z AS SELECT w, id, n FROM z",
		"schema": "CREATE DATABASE O; CREATE VIEW O.z AS SELECT w, id, n FROM o.z",
		"myisam": "CREATE TABLE Z (w INT, id INT PRIMARY KEY, n INT) ENGINE=MyISAM",
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, source, target *dbtest.MySQL) {
				r := record(t, source)
				r.perSeg, r.impatient = 40, true
				s, err := source.Session(context.Background(), "")
				r.check(err)
				defer s.Close()
				r.check(s.Exec(context.Background(), "CREATE DATABASE o; USE o; CREATE TABLE z (id INT PRIMARY KEY, w INT, n INT); "+
					"INSERT INTO z VALUES (1, 7, 0), (2, 7, 0); "+second+
					"; UPDATE z SET n = 1 WHERE id = 1; UPDATE z SET n = 2 WHERE id = 2; UPDATE z SET n = 3 WHERE id = 2"))
				r.capture()
				r.mustRestore(target, restore.Goal{})
				same(t, "end", content(t, source), content(t, target))
			})
		})
	}
}

// TestOverwrittenFulltextIDStep inserts a document behind others that got new numbers: InnoDB takes none that is 65535 or more above the last one it knows.
func TestOverwrittenFulltextIDStep(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		r := record(t, source)
		r.perSeg, r.impatient = 40, true
		s, err := source.Session(context.Background(), "")
		r.check(err)
		defer s.Close()
		r.check(s.Exec(context.Background(), "CREATE DATABASE o; USE o; CREATE TABLE d (id INT PRIMARY KEY, FTS_DOC_ID BIGINT UNSIGNED NOT NULL, body TEXT, FULLTEXT KEY (body)) ENGINE=InnoDB; "+
			"INSERT INTO d VALUES (1, 5, 'first')"))
		for _, n := range []string{"60000", "120000", "180000"} {
			r.check(s.Exec(context.Background(), "UPDATE d SET body = 'again', FTS_DOC_ID = "+n+" WHERE id = 1"))
		}
		r.check(s.Exec(context.Background(), "INSERT INTO d VALUES (2, 180001, 'second')"))
		r.check(s.Exec(context.Background(), "UPDATE d SET body = 'last', FTS_DOC_ID = 180002 WHERE id = 1"))
		r.capture()
		p, err := r.plan(restore.Goal{})
		r.check(err)
		for _, exact := range []bool{true, false} {
			empty(t, target)
			to, err := Open(context.Background(), target.URL(""), Options{Exact: exact})
			r.check(err)
			to.patience = 0
			report, err := restore.Run(context.Background(), r.archive, p, to, restore.Options{SpillDir: r.dir})
			to.Close()
			if err != nil {
				t.Fatalf("exact %v: %v", exact, err)
			}
			t.Logf("exact %v: %d left out", exact, report.Overwritten)
			same(t, "end", content(t, source), content(t, target))
		}
	})
}

// TestOverwrittenMariaDBKeys hands values on among rows under MariaDB's special unique keys.
func TestOverwrittenMariaDBKeys(t *testing.T) {
	for name, sql := range map[string]string{
		"long": "CREATE TABLE k (id INT PRIMARY KEY, b TEXT, n INT, UNIQUE KEY (b)); INSERT INTO k VALUES (1,'a',0),(2,'b',0); " +
			"UPDATE k SET b='c' WHERE id=1; UPDATE k SET b='a' WHERE id=2; UPDATE k SET b='d' WHERE id=1",
		"overlaps": "CREATE TABLE k (id INT PRIMARY KEY, r INT, s DATE, e DATE, PERIOD FOR p (s, e), UNIQUE KEY (r, p WITHOUT OVERLAPS)); " +
			"INSERT INTO k VALUES (1,1,'2020-01-01','2020-02-01'),(2,1,'2020-03-01','2020-04-01'); " +
			"UPDATE k SET s='2021-01-01', e='2021-02-01' WHERE id=1; UPDATE k SET s='2020-01-01', e='2020-02-01' WHERE id=2; UPDATE k SET s='2022-01-01', e='2022-02-01' WHERE id=1",
		"overlapsprimary": "CREATE TABLE k (id INT, n INT, s DATE, e DATE, PERIOD FOR p (s, e), PRIMARY KEY (id, p WITHOUT OVERLAPS)); " +
			"INSERT INTO k VALUES (1,1,'2020-01-01','2020-02-01'),(1,2,'2020-03-01','2020-04-01'); " +
			"UPDATE k SET s='2021-01-01', e='2021-02-01' WHERE n=1; UPDATE k SET s='2020-01-01', e='2020-02-01' WHERE n=2; UPDATE k SET s='2022-01-01', e='2022-02-01' WHERE n=1; " +
			"UPDATE k FOR PORTION OF p FROM '2022-01-10' TO '2022-01-20' SET n = 9; UPDATE k SET n = n + 1; UPDATE k SET n = n + 1",
		"ignored": "CREATE TABLE k (id INT PRIMARY KEY, r INT, UNIQUE KEY u (r) IGNORED); INSERT INTO k VALUES (1,1),(2,2); " +
			"UPDATE k SET r=3 WHERE id=1; UPDATE k SET r=1 WHERE id=2; UPDATE k SET r=4 WHERE id=1",
		"compressed": "CREATE TABLE k (id INT PRIMARY KEY, c TEXT COMPRESSED, r INT); INSERT INTO k VALUES (1,REPEAT('a',2000),1),(2,'b',2); " +
			"UPDATE k SET r=3 WHERE id=1; UPDATE k SET r=1, c=REPEAT('x',5000) WHERE id=2; UPDATE k SET r=4, c = '' WHERE id=1; UPDATE k SET r=9",
		"partitions": "CREATE TABLE k (id INT, a INT, r INT, PRIMARY KEY (id, a)) PARTITION BY RANGE (a) (PARTITION x VALUES LESS THAN (10), PARTITION y VALUES LESS THAN (20)); " +
			"INSERT INTO k VALUES (1,1,1),(2,2,2),(2,12,3); UPDATE k SET r = r + 1; UPDATE k SET r = r + 1; UPDATE k SET a = a + 10 WHERE id = 1; UPDATE k SET r = r + 1; UPDATE k SET r = r + 1",
	} {
		t.Run(name, func(t *testing.T) {
			source, target := servers(t, "mariadb")
			r := record(t, source)
			r.perSeg, r.impatient = 40, true
			s, err := source.Session(context.Background(), "")
			r.check(err)
			defer s.Close()
			r.check(s.Exec(context.Background(), "CREATE DATABASE o; USE o; "+sql))
			r.capture()
			r.mustRestore(target, restore.Goal{})
			same(t, "end", content(t, source), content(t, target))
		})
	}
}
