package mysql

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"txreel/change"
)

// TestPast tells for histories of every kind which of the tables d.a (with transactions), d.child, which cascades from it,
// d.other and d.myisam are certain to be what they were, and how many rows are certain.
func TestPast(t *testing.T) {
	name := func(s string) tableName { return tableName{"d", s} }
	table := map[string]*change.Table{}
	for _, n := range []string{"a", "child", "other", "myisam"} {
		table[n] = &change.Table{Schema: "d", Name: n}
	}
	rows := func(n string, inserts, deletes uint64) change.Txn {
		return change.Txn{Kind: change.TxnSource, Messages: 5, Tables: []change.TableCount{{Table: table[n], Inserts: inserts, Updates: 1, Deletes: deletes}}}
	}
	note := func(text string) change.Txn {
		return change.Txn{Kind: change.TxnSource, Messages: 2, Note: text}
	}
	const all = "a child other myisam"
	for _, c := range []struct {
		name      string
		txns      []change.Txn
		untouched string         // by name
		rows      map[string]int // of those that had 10 at the base
	}{
		{"nothing", nil, all, map[string]int{"a": 10, "child": 10, "other": 10}},
		{"rows", []change.Txn{rows("a", 5, 2), rows("a", 1, 0)}, "other myisam", map[string]int{"a": 14, "other": 10}},
		{"rows of a child", []change.Txn{rows("child", 5, 2)}, "a other myisam", map[string]int{"a": 10, "child": 13, "other": 10}},
		{"rows without transactions", []change.Txn{rows("myisam", 5, 2)}, "a child other", map[string]int{"a": 10, "child": 10, "other": 10}},
		{"a heartbeat", []change.Txn{{Kind: change.TxnHeartbeat}}, all, map[string]int{"a": 10, "child": 10, "other": 10}},
		{"an empty transaction", []change.Txn{{Kind: change.TxnSource, Messages: 3}}, all, map[string]int{"a": 10, "child": 10, "other": 10}},
		{"what the index does not tell", []change.Txn{{Kind: change.TxnSource, Messages: 5}}, "", nil},
		{"a statement that changes rows", []change.Txn{note("use `d`; UPDATE other SET v = 1")}, "", nil},
		{"a statement behind rows", []change.Txn{{Kind: change.TxnSource, Messages: 9, Note: "use `d`; INSERT INTO x SELECT 1", Tables: rows("a", 1, 0).Tables}}, "", nil},
		{"rows that capture could not count", []change.Txn{{Kind: change.TxnSource, Messages: 9, Note: "not all of it could be counted", Tables: rows("a", 1, 0).Tables}}, "", nil},
		{"a call", []change.Txn{note("SELECT `d`.`f`()")}, "", nil},
		{"LOAD DATA", []change.Txn{note("use `d`; LOAD DATA INFILE 'x' INTO TABLE other")}, "", nil},
		{"SET STATEMENT", []change.Txn{note("SET STATEMENT max_statement_time = 1 FOR DELETE FROM d.other")}, "", nil},
		{"accounts and code", []change.Txn{note("GRANT SELECT ON d.* TO u"), note("CREATE USER u IDENTIFIED BY <redacted>"), note("SET PASSWORD FOR u = <redacted>"), note("RENAME USER u TO v"),
			note("use `d`; CREATE DEFINER=`r`@`%` PROCEDURE other() DELETE FROM other"), note("use `d`; CREATE OR REPLACE ALGORITHM=MERGE VIEW v AS SELECT * FROM a"), note("use `d`; ALTER EVENT other ENABLE"), note("CREATE DATABASE e"), note("ALTER DATABASE d CHARACTER SET latin1"),
			note("use `d`; CREATE UNIQUE INDEX i ON other (v)"), note("FLUSH TABLES"), note("use `d`; ANALYZE TABLE other"), note("use `d`; DROP TRIGGER tr")}, all, map[string]int{"a": 10, "child": 10, "other": 10}},
		{"ALTER TABLE", []change.Txn{note("use `d`; ALTER TABLE `other` ADD COLUMN x INT, RENAME COLUMN v TO w, RENAME INDEX i TO k, CONVERT TO CHARACTER SET utf8mb4")}, "a child myisam", map[string]int{"a": 10, "child": 10}},
		{"in another case, of another schema", []change.Txn{note("use `e`; alter online table if exists D.OTHER engine=innodb")}, "a child myisam", map[string]int{"a": 10, "child": 10}},
		{"rename by ALTER TABLE", []change.Txn{note("use `d`; ALTER TABLE x RENAME TO other")}, "", nil},
		{"an exchange", []change.Txn{note("use `d`; ALTER TABLE x EXCHANGE PARTITION p WITH TABLE other")}, "", nil},
		{"a partition that becomes a table", []change.Txn{note("use `d`; ALTER TABLE x CONVERT PARTITION p TO TABLE other")}, "", nil},
		{"a note that was cut", []change.Txn{note("use `d`; ALTER TABLE x ADD COLUMN y INT COMMENT 'lon…")}, "", nil},
		{"a string that hides the rest", []change.Txn{note(`use ` + "`d`" + `; ALTER TABLE x COMMENT 'back\', RENAME TO other`)}, "", nil},
		{"a name that was redacted", []change.Txn{note("CREATE TABLE <redacted>")}, "", nil},
		{"a name that cannot be printed", []change.Txn{note("use `d`; TRUNCATE TABLE `oth?r`")}, "", nil},
		{"tables made", []change.Txn{note("use `d`; CREATE TABLE IF NOT EXISTS x (i INT, FOREIGN KEY (i) REFERENCES a (i))"), note("CREATE OR REPLACE TABLE `d`.`other` AS SELECT 1")}, "a child myisam", map[string]int{"a": 10, "child": 10}},
		{"truncated", []change.Txn{note("use `d`; TRUNCATE other")}, "a child myisam", map[string]int{"a": 10, "child": 10}},
		{"dropped", []change.Txn{note("use `e`; DROP TABLE IF EXISTS x, `d`.`other`, `y`")}, "a child myisam", map[string]int{"a": 10, "child": 10}},
		{"the parent dropped", []change.Txn{note("use `d`; DROP TABLE a")}, "other myisam", map[string]int{"other": 10}},
		{"renamed", []change.Txn{note("use `d`; RENAME TABLE x TO y, other TO z")}, "a child myisam", map[string]int{"a": 10, "child": 10}},
		{"renamed with patience", []change.Txn{note("use `d`; RENAME TABLE x WAIT 5 TO other")}, "", nil},
		{"the schema dropped", []change.Txn{note("DROP DATABASE IF EXISTS `D`")}, "", nil},
		{"another schema dropped", []change.Txn{note("drop schema e")}, all, map[string]int{"a": 10, "child": 10, "other": 10}},
		{"temporary", []change.Txn{note("use `d`; DROP TEMPORARY TABLE IF EXISTS `other`")}, all, map[string]int{"a": 10, "child": 10, "other": 10}},
		{"temporary, and more beside it", []change.Txn{{Kind: change.TxnSource, Messages: 6, Note: "use `d`; CREATE TEMPORARY TABLE x (i INT)"}}, "", nil},
		{"XA", []change.Txn{rows("a", 5, 2), note("XA PREPARE X'31',X'',1"), rows("other", 1, 0), note("XA COMMIT X'31',X'',1")}, "myisam", nil},
	} {
		h := newPast(false, false, func(n tableName) bool { return n.name != "myisam" })
		for i := range c.txns {
			h.add(&c.txns[i])
		}
		h.spread(map[tableName][]tableName{name("a"): {name("child")}})
		var untouched []string
		got := map[string]int{}
		for _, n := range strings.Fields(all) {
			if h.untouched(name(n)) {
				untouched = append(untouched, n)
			}
			if rows, ok := h.rows(name(n), 10); ok {
				got[n] = int(rows)
			}
		}
		if !slices.Equal(untouched, strings.Fields(c.untouched)) || !maps.Equal(got, c.rows) {
			t.Errorf("%s: untouched %v, want %q; rows %v, want %v (%s)", c.name, untouched, c.untouched, got, c.rows, h.any)
		}
	}
	// MariaDB logs what was rolled back together with what could not be.
	h := newPast(true, false, func(n tableName) bool { return n.name != "myisam" })
	both := rows("a", 5, 2)
	both.Tables = append(both.Tables, rows("myisam", 1, 0).Tables...)
	h.add(&both)
	if _, ok := h.rows(name("a"), 10); ok {
		t.Error("rows beside those of a table without transactions are certain")
	}
	// Where names have no case, a log may write them otherwise.
	h = newPast(false, true, func(tableName) bool { return true })
	other := rows("a", 1, 0)
	other.Tables[0].Table = &change.Table{Schema: "D", Name: "A"}
	h.add(&other)
	if rows, ok := h.rows(name("a"), 10); h.untouched(name("a")) || rows != 11 || !ok {
		t.Errorf("%d rows, certain %v", rows, ok)
	}
}
