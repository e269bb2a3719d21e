package dbtest

import (
	"fmt"
	"strings"
	"testing"
)

// testDumpMySQL changes a server in every way that counts, expects each to be seen, and undoes it.
func testDumpMySQL(t *testing.T, m *MySQL) {
	ctx := t.Context()
	dump := func(opts MySQLDumpOptions) MySQLDump {
		t.Helper()
		d, err := DumpMySQL(ctx, m.URL(""), opts)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	schema := `
		CREATE DATABASE ` + "`we``ird`" + `;
		CREATE DATABASE x CHARACTER SET latin1;
		USE x;
		CREATE TABLE ` + "`we``ird`.`ta ble`" + ` (` + "`from`" + ` text, ` + "`a``b`" + ` int) CHARACTER SET utf8mb4;
		INSERT INTO ` + "`we``ird`.`ta ble`" + ` VALUES ('r\n', 1);
		CREATE TABLE two (a varchar(9), b varchar(9)) ENGINE=MyISAM;
		INSERT INTO two VALUES (NULL, ''), ('', NULL), ('x', 'y'), ('x', 'y');
		CREATE TABLE parted (n int) PARTITION BY HASH (n) PARTITIONS 2;
		INSERT INTO parted VALUES (1), (2);
		CREATE TABLE types (id int AUTO_INCREMENT PRIMARY KEY, f float, d double, e enum('', 'b'), s set('a', 'b'), at timestamp(6) NOT NULL,
			dt datetime(6), raw varbinary(9), l char(3) CHARACTER SET latin1, bits bit(9), z int(5) ZEROFILL, g geometry, j json,
			made int AS (z * 2) VIRTUAL, kept int AS (z * 3) STORED, hidden int INVISIBLE);
		INSERT INTO types (f, d, e, s, at, dt, raw, l, bits, z, g, j, hidden) VALUES (0.1234567, 0.1 + 0.2e0, 1, 'a,b', '2026-03-01 10:00:00.123456',
			'0000-00-00', x'00ff', x'e9', 257, 42, ST_GeomFromText('POINT(1 2)'), '{"a": 1}', 7);
		CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE none (n int);
		CREATE VIEW v AS SELECT a FROM two;
		CREATE PROCEDURE p() SELECT 1;
		CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 1;
		CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2026-01-01 00:00:00' DO SELECT 1;
		CREATE TRIGGER t1 BEFORE INSERT ON none FOR EACH ROW SET @a = 1;
		CREATE TRIGGER t2 BEFORE INSERT ON none FOR EACH ROW SET @b = 1;
		CREATE USER u@localhost IDENTIFIED BY 'one'; GRANT SELECT ON x.two TO u@localhost;
		CREATE ROLE r; GRANT r TO u@localhost;`
	m.MustExec(t, "", "SET sql_mode = ''; "+schema)
	if m.Flavor == "mariadb" {
		m.MustExec(t, "x", `CREATE SEQUENCE seq; DO NEXTVAL(seq); CREATE TABLE hist (n int PRIMARY KEY) WITH SYSTEM VERSIONING;
			CREATE TABLE named (n int, s timestamp(6) GENERATED ALWAYS AS ROW START, e timestamp(6) GENERATED ALWAYS AS ROW END,
			PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING;
			SET timestamp = 1000; INSERT INTO hist VALUES (1); INSERT INTO named (n) VALUES (3);
			SET timestamp = 2000; UPDATE hist SET n = 2; DELETE FROM named;
			SET SESSION sql_mode = 'ORACLE'; CREATE PACKAGE pack AS FUNCTION one RETURN int; END;
			CREATE PACKAGE BODY pack AS FUNCTION one RETURN int AS BEGIN RETURN 1; END; END;`)
	} else {
		m.MustExec(t, "x", `SET sql_generate_invisible_primary_key = ON; CREATE TABLE gipk (n int); INSERT INTO gipk VALUES (5), (6);
			CREATE TABLE vec (v vector(2)); INSERT INTO vec VALUES (to_vector('[1, 2]'))`)
	}
	before := dump(MySQLDumpOptions{})
	for name, want := range map[string]int64{"`we``ird`.`ta ble`": 1, "`x`.`two`": 4, "`x`.`parted`": 2, "`x`.`types`": 1, "`x`.`none`": 0} {
		if got, ok := before.Tables[name]; !ok || got.Rows != want || before.Checksums[name] == "" || before.Checksums[name] == Null {
			t.Errorf("%s: %d rows (%v), want %d; CHECKSUM TABLE says %q", name, got.Rows, ok, want, before.Checksums[name])
		}
	}
	for _, name := range []string{"TABLE `x`.`types`", "VIEW `x`.`v`", "PROCEDURE `x`.`p`", "FUNCTION `x`.`f`", "EVENT `x`.`e`",
		"TRIGGER `x`.`t2`", "DATABASE `x`", "USER 'u'@'localhost'"} {
		if before.Definitions[name] == "" {
			t.Errorf("no definition of %s", name)
		}
	}
	if m.Flavor == "mariadb" {
		past := `"1970-01-01 00:16:40.000000", "1970-01-01 00:33:20.000000")`
		hist, named := before.Tables["`x`.`hist`"].Sample, before.Tables["`x`.`named`"].Sample
		if len(hist) != 2 || hist[0] != `("1", `+past || len(named) != 1 || named[0] != `("3", `+past {
			t.Errorf("history: %s and %s", hist, named)
		}
	}
	for name := range before.Definitions {
		if strings.Contains(name, "root") || strings.Contains(name, "sys") || strings.Contains(name, "`mysql`") {
			t.Errorf("the server's own %s is in the dump", name)
		}
	}
	if row := before.Tables["`x`.`types`"].Sample[0]; !strings.Contains(row, `"0.12345670163631439"`) || !strings.Contains(row, `"0.30000000000000004"`) ||
		!strings.Contains(row, `"2026-03-01 10:00:00.123456"`) || !strings.Contains(row, `"\x00\xff", "\xe9", "\x01\x01"`) ||
		!strings.Contains(row, `"84", "126", "7"`) {
		t.Errorf("row: %s", row)
	}

	// MySQL makes the semicolon part of a body unless it is the last of a text.
	type change struct{ name, change, undo, want string }
	changes := []change{
		{"other settings and another order", `SET GLOBAL time_zone = '+05:30'; DELETE FROM two; INSERT INTO two VALUES ('x', 'y'), ('', NULL), ('x', 'y'), (NULL, '')`,
			`SET GLOBAL time_zone = 'SYSTEM'`, ""},
		{"null became empty", `UPDATE two SET a = '' WHERE a IS NULL`, `UPDATE two SET a = NULL WHERE b = ''`, `- (NULL, "")`},
		{"a duplicate is gone", `DELETE FROM two WHERE a = 'x' LIMIT 1`, `INSERT INTO two VALUES ('x', 'y')`, `- ("x", "y")`},
		{"twice the same more", `INSERT INTO two VALUES ('x', 'y'), ('x', 'y')`, `DELETE FROM two WHERE a = 'x' LIMIT 2`, "CHECKSUM TABLE says"},
		{"one bit of a float", `UPDATE types SET f = 0.12345671, at = at`, `UPDATE types SET f = 0.1234567, at = at`, "`x`.`types`: 1 rows"},
		{"one bit of a double", `UPDATE types SET d = 0.3, at = at`, `UPDATE types SET d = 0.1 + 0.2e0, at = at`, "`x`.`types`: 1 rows"},
		{"an enum's error", `SET sql_mode = ''; UPDATE types SET e = 0, at = at`, `UPDATE types SET e = 1, at = at`, "`x`.`types`: 1 rows"},
		{"a hidden column", `UPDATE types SET hidden = 8, at = at`, `UPDATE types SET hidden = 7, at = at`, "`x`.`types`: 1 rows"},
		{"a microsecond", `UPDATE types SET at = '2026-03-01 10:00:00.123457'`, `UPDATE types SET at = '2026-03-01 10:00:00.123456'`, "`x`.`types`: 1 rows"},
		{"a partition", `ALTER TABLE parted TRUNCATE PARTITION p1`, `INSERT INTO parted VALUES (1)`, "`x`.`parted`: 2 rows"},
		{"a table", `RENAME TABLE two TO drei`, `RENAME TABLE drei TO two`, "`x`.`two`: only in the first"},
		{"a column's type", `ALTER TABLE none MODIFY n bigint`, `ALTER TABLE none MODIFY n int`, "TABLE `x`.`none` is defined otherwise"},
		{"a database", `ALTER DATABASE x CHARACTER SET utf8mb4`, `ALTER DATABASE x CHARACTER SET latin1`, "DATABASE `x` is defined otherwise"},
		{"a view", `ALTER VIEW v AS SELECT b FROM two`, `ALTER VIEW v AS SELECT a FROM two`, "VIEW `x`.`v` is defined otherwise"},
		{"a procedure", `ALTER PROCEDURE p SQL SECURITY INVOKER`, `ALTER PROCEDURE p SQL SECURITY DEFINER`, "PROCEDURE `x`.`p` is defined otherwise"},
		{"a routine's sql_mode", `DROP FUNCTION f; SET sql_mode = 'ANSI_QUOTES'; CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 1; DO 0`,
			`DROP FUNCTION f; SET sql_mode = ''; CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 1; DO 0`, "- \n  + ANSI_QUOTES"},
		{"an event's state", `ALTER EVENT e DISABLE`, `ALTER EVENT e ENABLE`, "EVENT `x`.`e` is defined otherwise"},
		{"order of triggers", `SET sql_mode = ''; DROP TRIGGER t2; CREATE TRIGGER t2 BEFORE INSERT ON none FOR EACH ROW PRECEDES t1 SET @b = 1; DO 0`,
			`SET sql_mode = ''; DROP TRIGGER t2; CREATE TRIGGER t2 BEFORE INSERT ON none FOR EACH ROW FOLLOWS t1 SET @b = 1; DO 0`, "+ fires as number 1"},
		{"a password", `ALTER USER u@localhost IDENTIFIED BY 'two'`, "", "USER 'u'@'localhost' is defined otherwise"},
		{"a grant", `GRANT INSERT ON x.two TO u@localhost`, `REVOKE INSERT ON x.two FROM u@localhost`, "USER 'u'@'localhost' is defined otherwise"},
		{"a user", `CREATE USER w`, `DROP USER w`, "USER 'w'@'%': only in the second"},
		{"a counter", `ALTER TABLE types AUTO_INCREMENT = 100`, "", "AUTO_INCREMENT=100"},
	}
	if m.Flavor == "mariadb" {
		changes = append(changes,
			change{"a sequence's place", `DO SETVAL(seq, 5000)`, "", "`x`.`seq`: 1 rows"},
			change{"a sequence", `ALTER SEQUENCE seq INCREMENT 5`, `ALTER SEQUENCE seq INCREMENT 1`, "SEQUENCE `x`.`seq` is defined otherwise"},
			change{"history", `DELETE HISTORY FROM hist`, "", "`x`.`hist`: 2 rows"},
			change{"a role", `GRANT SELECT ON x.two TO r`, `REVOKE SELECT ON x.two FROM r`, "ROLE `r` is defined otherwise"},
			change{"a package", `SET sql_mode = 'ORACLE'; CREATE OR REPLACE PACKAGE BODY pack AS FUNCTION one RETURN int AS BEGIN RETURN 2; END; END`, "", "PACKAGE BODY `x`.`pack`"},
		)
	} else {
		changes = append(changes,
			change{"a generated key", `UPDATE gipk SET my_row_id = 9 WHERE n = 5`, "", `+ ("9", "5")`},
			change{"a vector", `UPDATE vec SET v = to_vector('[1, 3]')`, `UPDATE vec SET v = to_vector('[1, 2]')`, "`x`.`vec`: 1 rows"},
			change{"a default role", `ALTER USER u@localhost DEFAULT ROLE r`, `ALTER USER u@localhost DEFAULT ROLE NONE`, "USER 'u'@'localhost' is defined otherwise"},
		)
	}
	for _, c := range changes {
		m.MustExec(t, "x", c.change)
		after := dump(MySQLDumpOptions{})
		if diff := DiffMySQL(before, after); (c.want == "") != (diff == "") || !strings.Contains(diff, c.want) {
			t.Errorf("%s: want %q in:\n%s", c.name, c.want, diff)
		}
		if c.undo == "" {
			before = after
			continue
		}
		m.MustExec(t, "x", c.undo)
		if diff := DiffMySQL(before, dump(MySQLDumpOptions{})); diff != "" {
			t.Errorf("%s, undone:\n%s", c.name, diff)
		}
	}

	opts := MySQLDumpOptions{IgnoreAutoIncrement: true, IgnoreAccounts: true, SkipDatabases: []string{"we`ird"}}
	before = dump(opts)
	m.MustExec(t, "x", "ALTER TABLE types AUTO_INCREMENT = 200; CREATE USER w; DROP TABLE `we``ird`.`ta ble`")
	if diff := DiffMySQL(before, dump(opts)); diff != "" {
		t.Errorf("what was to be ignored is not:\n%s", diff)
	}
	m.MustExec(t, "x", `CREATE TABLE big AS SELECT a.n * 10 + b.n AS n, repeat('x', 1000) FROM
		(SELECT 1 AS n UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9) a,
		(SELECT 1 AS n UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9) b`)
	if big := dump(opts).Tables["`x`.`big`"]; big.Rows != 81 || big.Sample != nil {
		t.Errorf("%d rows, %d kept", big.Rows, len(big.Sample))
	}
	m.MustExec(t, "", "DROP USER w")

	for _, url := range []string{"postgres://u:hush@h/d", "mysql://u:hush@[h/d", fmt.Sprintf("mysql://u:hush@127.0.0.1:%d/", m.Port)} {
		if _, err := DumpMySQL(ctx, url, opts); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("a bad URL: %v", err)
		}
	}
}
