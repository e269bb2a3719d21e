package mysql

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"txreel/internal/dbtest"
	"txreel/restore"
	source "txreel/sources/mysql"
)

// meddler lets somebody else into the target before it is looked at.
type meddler struct {
	*Target
	beforeVerify func()
}

func (m meddler) Verify(ctx context.Context) (*restore.Verification, error) {
	m.beforeVerify()
	return m.Target.Verify(ctx)
}

// evidence returns by what each table of a report was verified.
func evidence(rep *restore.Report) map[string]restore.Evidence {
	by := make(map[string]restore.Evidence)
	for _, t := range rep.Tables {
		by[t.Table] = t.Verified
	}
	return by
}

// verified runs a restore, and something on the target before it is looked at.
func (r *recorder) verified(to *dbtest.MySQL, g restore.Goal, level restore.Level, before string) (*restore.Report, error) {
	r.t.Helper()
	ctx := context.Background()
	p, err := r.plan(g)
	r.check(err)
	target, err := Open(ctx, to.URL(""), Options{})
	r.check(err)
	defer target.Close()
	m := meddler{Target: target, beforeVerify: func() {
		if before != "" {
			to.MustExec(r.t, "", "SET sql_log_bin = 0; SET time_zone = '+00:00'; "+before)
		}
	}}
	return restore.Run(ctx, r.archive, p, m, restore.Options{Jobs: 2, Verify: level, SpillDir: r.dir})
}

// TestVerify restores from one base to the place of the next, with changes of every kind in between, and to a point
// behind it; and each time alters the target behind the restore's back, in ways that leave all numbers of rows as they
// were. The same restore, run again, looks again.
func TestVerify(t *testing.T) {
	both(t, func(t *testing.T, from, to *dbtest.MySQL) {
		r := record(t, from)
		r.heartbeat()
		json, decimal := "LONGTEXT", `'{"n": 1.50, "s": "1.50"}'`
		if from.Flavor == "mysql" {
			json, decimal = "JSON", "JSON_OBJECT('n', CAST(1.50 AS DECIMAL(5,2)), 'big', CAST(12345678901234567890.5 AS DECIMAL(30,10)), 's', '1.50', 'at', CAST('2024-01-02' AS DATE), 'f', 0.1e0, 'i', -1)"
		}
		from.MustExec(t, "", `CREATE DATABASE v; USE v; CREATE TABLE a (id INT, v VARCHAR(20), w BLOB) ENGINE=InnoDB; INSERT INTO a VALUES (1, 'one', x'00'), (2, 'two', NULL), (3, 'three', ''), (3, 'three', '');
			CREATE TABLE b LIKE a; INSERT INTO b VALUES (1, 'One', x'00'); CREATE TABLE still (id INT PRIMARY KEY, f DOUBLE, ts TIMESTAMP(6) NULL, doc `+json+`) ENGINE=InnoDB; INSERT INTO still VALUES (1, 1e-300, '2024-03-31 01:30:00.5', `+decimal+`);
			CREATE TABLE p (id INT PRIMARY KEY) ENGINE=InnoDB; CREATE TABLE c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE) ENGINE=InnoDB; INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1, 1), (2, 2);
			CREATE TABLE my (id INT PRIMARY KEY, v INT) ENGINE=MyISAM; INSERT INTO my VALUES (1, 1); CREATE TABLE gone (id INT PRIMARY KEY)`)
		first := r.takeBase(source.BaseOptions{})
		want := map[string]restore.Evidence{"v.a": restore.ByContent, "v.b": restore.ByContent, "v.still": restore.ByContent, "v.p": restore.ByContent, "v.c": restore.ByContent, "v.my": restore.ByContent, "v.gone": restore.ByContent}
		expect := func(what string, rep *restore.Report, err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if got := evidence(rep); !maps.Equal(got, want) {
				t.Errorf("%s: verified by %v, want %v", what, got, want)
			}
		}
		rep, err := r.verified(to, restore.Goal{}, restore.VerifyContent, "")
		expect("the base itself", rep, err)
		empty(t, to)

		// Only rows, and a cascade that no log of these versions may show.
		from.MustExec(t, "", "USE v; INSERT INTO a VALUES (4, 'four', NULL); DELETE FROM p WHERE id = 2; INSERT INTO my VALUES (2, 2)")
		r.capture()
		want["v.a"], want["v.p"], want["v.c"], want["v.my"] = restore.ByRows, restore.ByRows, restore.ByPresence, restore.ByPresence
		rep, err = r.verified(to, restore.Goal{Base: first.ID}, restore.VerifyContent, "")
		expect("behind the base", rep, err)
		empty(t, to)

		from.MustExec(t, "", "USE v; SET SESSION binlog_format = 'STATEMENT'; UPDATE a SET v = CONCAT(v, id) WHERE id < 3; SET SESSION binlog_format = 'ROW'; ALTER TABLE b ADD COLUMN more INT DEFAULT 7; INSERT INTO b VALUES (9, 'nine', x'5c0a09', 9); "+
			"CREATE TABLE made AS SELECT * FROM a; INSERT INTO made VALUES (7, 'seven', NULL); INSERT INTO a VALUES (6, 'six', NULL); DROP TABLE gone; UPDATE still SET ts = '2024-10-27 00:30:00.000001'; INSERT INTO still VALUES (2, 0.1, NULL, "+decimal+")")
		second := r.takeBase(source.BaseOptions{})
		from.MustExec(t, "", "USE v; INSERT INTO a VALUES (5, 'later', NULL)")
		r.capture()
		goal := restore.Goal{Kind: restore.AtSeq, Seq: second.Seq, Base: first.ID}
		undo := ""
		for _, c := range []struct {
			name, sql, undo string
			tables          []string
		}{
			{"one bit of one value", "UPDATE v.a SET v = 'pne1' WHERE id = 1", "UPDATE v.a SET v = 'one1' WHERE id = 1", []string{"v.a"}},
			{"two rows swapped between tables", "UPDATE v.a SET id = 7, v = 'seven' WHERE id = 6; UPDATE v.made SET id = 6, v = 'six' WHERE id = 7", "UPDATE v.a SET id = 6, v = 'six' WHERE id = 7; UPDATE v.made SET id = 7, v = 'seven' WHERE id = 6", []string{"v.a", "v.made"}},
			{"one row twice and another lost", "UPDATE v.c SET id = 5", "UPDATE v.c SET id = 1", []string{"v.c"}},
			{"NULL and no text", "UPDATE v.a SET w = '' WHERE w IS NULL AND id = 4", "UPDATE v.a SET w = NULL WHERE id = 4", []string{"v.a"}},
			{"the last bit of a double", "UPDATE v.still SET f = 0.10000000000000002 WHERE id = 2", "UPDATE v.still SET f = 0.1 WHERE id = 2", []string{"v.still"}},
			{"a table lost and another made", "RENAME TABLE v.made TO v.other", "RENAME TABLE v.other TO v.made", []string{"v.made", "v.other"}},
		} {
			_, err := r.verified(to, goal, restore.VerifyContent, undo+c.sql)
			undo = c.undo + "; "
			var wrong restore.MismatchError
			if !errors.As(err, &wrong) {
				t.Fatalf("%s: error %v is no MismatchError", c.name, err)
			}
			var names []string
			for _, m := range wrong {
				names = append(names, m.Table)
				if m.Record != "base "+second.ID || m.Want == m.Found {
					t.Errorf("%s: %s", c.name, &m)
				}
			}
			if slices.Sort(names); fmt.Sprint(names) != fmt.Sprint(c.tables) {
				t.Errorf("%s: found in %s, it is in %s: %v", c.name, names, c.tables, err)
			}
		}
		rep, err = r.verified(to, goal, restore.VerifyContent, strings.TrimSuffix(undo, "; "))
		want = map[string]restore.Evidence{"v.a": restore.ByContent, "v.b": restore.ByContent, "v.made": restore.ByContent, "v.still": restore.ByContent, "v.p": restore.ByContent, "v.c": restore.ByContent, "v.my": restore.ByPresence}
		expect("from one base to the next", rep, err)
		if rep.Base.ID != first.ID || rep.Proof != second.ID || !strings.Contains(rep.String(), "6 tables by content") {
			t.Errorf("from %s against %s:\n%s", rep.Base.ID, rep.Proof, rep)
		}
		same(t, "from one base to the next", content(t, from), func() dbtest.MySQLDump {
			to.MustExec(t, "", "INSERT INTO v.a VALUES (5, 'later', NULL)")
			return content(t, to)
		}())
		empty(t, to)

		// Who asks for rows has them counted, and no more.
		want = map[string]restore.Evidence{"v.a": restore.ByRows, "v.b": restore.ByRows, "v.made": restore.ByRows, "v.still": restore.ByRows, "v.p": restore.ByRows, "v.c": restore.ByRows, "v.my": restore.ByPresence}
		rep, err = r.verified(to, restore.Goal{}, restore.VerifyRows, "UPDATE v.b SET v = 'other'")
		expect("rows", rep, err)
		empty(t, to)
		if _, err = r.verified(to, restore.Goal{}, restore.VerifyRows, "DELETE FROM v.b LIMIT 1"); err == nil || !strings.Contains(err.Error(), "table v.b: on record (base and changes) are 2 rows, the target has 1 rows") {
			t.Errorf("a row that was lost: %v", err)
		}
	})
}
