package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"txreel/change"
	"txreel/internal/dbtest"
)

// definitionSteps change the schema of a database in every way that the stream says nothing of. Each string is what a client
// sends at once.
var definitionSteps = []struct {
	name string
	send []string
}{
	{"tables and columns", []string{
		`CREATE TABLE made (id int PRIMARY KEY, v text DEFAULT 'x' NOT NULL, n numeric(10,2) CHECK (n > 0))`,
		`INSERT INTO made VALUES (1, 'one', 1), (2, 'two', 2)`,
		`ALTER TABLE made ADD w int DEFAULT 7, ADD at timestamptz DEFAULT now()`,
		`INSERT INTO made VALUES (3, 'three', 3)`,
		`CREATE TABLE grown (id int PRIMARY KEY, n int); INSERT INTO grown VALUES (1, 1), (2, 2)`, `ALTER TABLE grown ADD at timestamptz DEFAULT now()`,
		`UPDATE grown SET at = '2001-02-03 04:05Z' WHERE id = 1`, `ALTER TABLE grown ALTER n SET DEFAULT 4`, // which changes no row
		`ALTER TABLE made DROP w, ALTER v TYPE varchar(20), ALTER n SET DEFAULT 5`,
		`UPDATE made SET v = v || '!' WHERE id = 2`,
		`ALTER TABLE made RENAME v TO label; ALTER TABLE made RENAME TO renamed`,
		`UPDATE renamed SET label = 'four' WHERE id = 1; DELETE FROM renamed WHERE id = 3`,
		`ALTER TABLE renamed ALTER n TYPE int USING (n * 10)::int`,
		`ALTER TABLE renamed DROP label; ALTER TABLE renamed ADD label int DEFAULT 1`,
		`CREATE SCHEMA away; ALTER TABLE renamed SET SCHEMA away; INSERT INTO away.renamed (id) VALUES (9)`,
		`UPDATE unkeyed_base SET a = a + 1; DELETE FROM unkeyed_base WHERE a = 3; ALTER TABLE unkeyed_base RENAME TO unkeyed_away; UPDATE unkeyed_away SET a = 7`,
		`COMMENT ON TABLE away.renamed IS 'a comment with ''quotes'''; COMMENT ON COLUMN away.renamed.id IS 'its key'`,
	}},
	{"one transaction", []string{
		`BEGIN; CREATE TABLE a (id serial PRIMARY KEY, b int); INSERT INTO a (b) VALUES (1), (2); ALTER TABLE a ADD c text; INSERT INTO a (b, c) VALUES (3, 'c');
		 SAVEPOINT s; ALTER TABLE a DROP c; INSERT INTO a (b) VALUES (4); ROLLBACK TO s; ALTER TABLE a ALTER c SET DEFAULT 'd'; UPDATE a SET c = 'e' WHERE b = 1; COMMIT`,
		`BEGIN; DROP TABLE a; CREATE TABLE a (x text); INSERT INTO a VALUES ('again'); COMMIT`,
		`BEGIN; CREATE TABLE never (x int); ROLLBACK`,
	}},
	{"rows before their table", []string{
		`CREATE TABLE copied AS SELECT g AS id, 'v' || g AS v, now() AS at FROM generate_series(1, 100) g`,
		`SELECT id, v COLLATE "C" AS v INTO copied_again FROM copied WHERE id <= 10`,
		`UPDATE copied SET v = 'changed' WHERE id = 7; DELETE FROM copied_again WHERE id = 3`,
		`CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS one`,
	}},
	{"functions that define", []string{
		`CREATE FUNCTION mk(n int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, "odd "" name" text)', n); CREATE TABLE IF NOT EXISTS zz AS SELECT n AS a; END $$`,
		`SELECT mk(1); SELECT mk(2)`,
		`INSERT INTO t1 VALUES (1, 'x')`,
		`DO $$ BEGIN FOR i IN 3..5 LOOP PERFORM mk(i); END LOOP; ALTER TABLE t3 ADD more int DEFAULT 3; DROP TABLE t4; END $$`,
		`CREATE FUNCTION insql() RETURNS void LANGUAGE sql AS $$ CREATE TABLE from_sql (a int); CREATE TABLE from_sql_2 (b int PRIMARY KEY) $$; SELECT insql()`,
		`CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE in_p (a int PRIMARY KEY); COMMIT; CREATE INDEX ON in_p (a); END $$`,
		`CALL p()`,
		`CREATE OR REPLACE FUNCTION mk(n int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN NULL; END $$`,
	}},
	{"several at once", []string{
		`CREATE TABLE m1 (a int); INSERT INTO m1 VALUES (1); ALTER TABLE m1 ADD b int; INSERT INTO m1 VALUES (2, 2); ALTER TABLE m1 ADD c int; DROP TABLE IF EXISTS nope; CREATE INDEX ON m1 (a); CREATE INDEX ON m1 (b)`,
		`CREATE TABLE IF NOT EXISTS m1 (other int)`,
	}},
	{"views and rules", []string{
		`CREATE VIEW v1 AS SELECT id, label FROM away.renamed; CREATE VIEW v2 AS SELECT id FROM v1`,
		`CREATE MATERIALIZED VIEW mv AS SELECT count(*) AS n FROM away.renamed`,
		`REFRESH MATERIALIZED VIEW mv`,
		`CREATE OR REPLACE VIEW v2 AS SELECT id, 1 AS one FROM v1`,
		`CREATE RULE quiet AS ON DELETE TO m1 DO INSTEAD NOTHING; DELETE FROM m1; DROP RULE quiet ON m1`,
		`DROP VIEW v1 CASCADE`,
	}},
	{"triggers", []string{
		`CREATE TABLE audited (id int PRIMARY KEY, by text); CREATE TABLE trail (id int, what text)`,
		`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO trail VALUES (NEW.id, TG_OP); NEW.by := 'trigger'; RETURN NEW; END $$`,
		`CREATE TRIGGER noted BEFORE INSERT OR UPDATE ON audited FOR EACH ROW EXECUTE FUNCTION note()`,
		`ALTER TABLE trail REPLICA IDENTITY FULL`,
		`INSERT INTO audited VALUES (1), (2)`,
		`ALTER TABLE audited ENABLE ALWAYS TRIGGER noted; UPDATE audited SET id = 3 WHERE id = 1; ALTER TABLE audited ADD more text`, `INSERT INTO audited VALUES (4)`,
	}},
	{"types", []string{
		`CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE moods (id int PRIMARY KEY, m mood); INSERT INTO moods VALUES (1, 'ok')`,
		`ALTER TYPE mood ADD VALUE 'happy' AFTER 'ok'`, `INSERT INTO moods VALUES (2, 'happy')`, `ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'`,
		`CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TABLE dom (p positive PRIMARY KEY); INSERT INTO dom VALUES (5); ALTER DOMAIN positive ADD CONSTRAINT small CHECK (VALUE < 100)`,
		`CREATE TYPE pair AS (x int, y text); CREATE TABLE pairs (id int PRIMARY KEY, p pair, l positive[]); INSERT INTO pairs VALUES (1, '(1,a)', '{1,2}')`,
		`ALTER TYPE pair ADD ATTRIBUTE z int`, `INSERT INTO pairs VALUES (2, '(1,a,3)', NULL)`,
		`CREATE DOMAIN keyed AS int; CREATE TABLE unkeyed (id keyed PRIMARY KEY, v int); INSERT INTO unkeyed VALUES (1, 1), (2, 2)`, `DROP DOMAIN keyed CASCADE`, `DELETE FROM unkeyed WHERE v = 1`,
		`ALTER TABLE unkeyed REPLICA IDENTITY NOTHING`, `UPDATE unkeyed SET v = 3`,
		`CREATE TYPE span AS RANGE (subtype = float8); ALTER TABLE pairs ADD s span DEFAULT '[1,2)'`,
	}},
	{"partitions", []string{
		`CREATE TABLE part (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k); CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10)`,
		`INSERT INTO part VALUES (1, 1); CREATE TABLE part_2 (id int NOT NULL, k int NOT NULL); INSERT INTO part_2 VALUES (2, 12)`,
		`ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES FROM (10) TO (20); ALTER TABLE part ADD extra text; UPDATE part SET k = 15, extra = 'moved' WHERE id = 1`,
		`CREATE INDEX ON part (extra); ALTER TABLE part DETACH PARTITION part_1; INSERT INTO part_1 VALUES (7, 7)`,
		`CREATE TABLE parent (id int PRIMARY KEY, v text); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent); INSERT INTO child VALUES (1, 'c'); ALTER TABLE parent ADD w int DEFAULT 4; UPDATE parent SET w = 5`,
	}},
	{"constraints and indexes", []string{
		`CREATE TABLE refs (id int PRIMARY KEY, d int); ALTER TABLE refs ADD CONSTRAINT to_dom FOREIGN KEY (d) REFERENCES dom (p) ON DELETE CASCADE; INSERT INTO refs VALUES (1, 5); DELETE FROM dom`,
		`CREATE UNIQUE INDEX CONCURRENTLY refs_d ON refs (d)`,
		`ALTER TABLE refs ADD UNIQUE (id, d) DEFERRABLE INITIALLY DEFERRED; ALTER TABLE refs RENAME CONSTRAINT to_dom TO to_domain; ALTER TABLE refs ADD CHECK (d > 0) NOT VALID`,
		`REINDEX INDEX refs_d`, `REINDEX TABLE CONCURRENTLY refs`, `DROP INDEX CONCURRENTLY refs_d`, `ALTER TABLE refs DROP CONSTRAINT to_domain`, `CREATE STATISTICS refs_stat ON id, d FROM refs`,
		`ALTER TABLE refs CLUSTER ON refs_pkey`,
	}},
	{"sequences and identity", []string{
		`CREATE SEQUENCE sq START 10 INCREMENT 5; CREATE TABLE ident (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int DEFAULT nextval('sq'), g int GENERATED ALWAYS AS (v * 2) STORED)`,
		`INSERT INTO ident (v) VALUES (DEFAULT), (DEFAULT); UPDATE ident SET v = 1 WHERE id = 1; ALTER SEQUENCE sq MAXVALUE 1000; ALTER SEQUENCE sq OWNED BY ident.v`,
		`ALTER TABLE ident ALTER id SET GENERATED BY DEFAULT; INSERT INTO ident (id) VALUES (100)`,
		`CREATE SEQUENCE of_times; CREATE SEQUENCE of_numbers; CREATE TABLE owns (at timestamptz PRIMARY KEY, n numeric); ALTER SEQUENCE of_times OWNED BY owns.at; ALTER SEQUENCE of_numbers OWNED BY owns.n`,
		`INSERT INTO owns VALUES ('2024-02-03 12:00Z', 'NaN'), ('2024-02-04 12:00Z', 1e30), ('2024-02-05 12:00Z', 41.5)`,
	}},
	{"who may what", []string{
		`CREATE ROLE owner_of_things; GRANT CREATE ON SCHEMA public TO owner_of_things; SET ROLE owner_of_things; CREATE TABLE owned (id int PRIMARY KEY); RESET ROLE`,
		`CREATE ROLE reader; GRANT SELECT ON owned TO reader; GRANT UPDATE (id) ON owned TO reader; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader; CREATE TABLE readable (id int PRIMARY KEY)`,
		`ALTER TABLE readable OWNER TO owner_of_things; REVOKE SELECT ON owned FROM reader`,
		`CREATE FUNCTION anybodys() RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT SELECT ON owned TO reader WITH GRANT OPTION; CREATE ROLE third`,
		`SET ROLE reader; GRANT EXECUTE ON FUNCTION anybodys() TO owner_of_things; GRANT ALL ON owned TO third; GRANT USAGE ON SCHEMA public TO third; RESET ROLE`,
		`BEGIN; GRANT USAGE ON TYPE mood TO third; CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'; SET ROLE reader; GRANT EXECUTE ON FUNCTION mine() TO third; COMMIT; RESET ROLE; REVOKE EXECUTE ON FUNCTION mine() FROM PUBLIC`,
		`ALTER TABLE owned ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON owned FOR SELECT TO reader USING (id > 0); ALTER POLICY mine ON owned USING (id > 1)`,
	}},
	{"search path and settings", []string{
		`SET search_path = away, public; CREATE TABLE in_away (id int PRIMARY KEY); RESET search_path`,
		`SET datestyle = 'German'; SET timezone = 'Asia/Tokyo'; CREATE TABLE dated (id int PRIMARY KEY, d date DEFAULT '03.02.2024', t timestamptz DEFAULT '2024-02-03 12:00'); INSERT INTO dated VALUES (1); RESET datestyle; RESET timezone`,
		`SET standard_conforming_strings = off; SET escape_string_warning = off; CREATE TABLE slashed (id int PRIMARY KEY, s text DEFAULT 'a\\b'); RESET standard_conforming_strings; INSERT INTO slashed VALUES (1)`,
	}},
	{"functions of one name", []string{
		`CREATE TABLE not_meant (id int PRIMARY KEY); CREATE TABLE meant (id int PRIMARY KEY); CREATE DOMAIN meant_too AS int; CREATE SCHEMA twins`,
		`CREATE FUNCTION twin() RETURNS void LANGUAGE sql AS 'ALTER TABLE not_meant FORCE ROW LEVEL SECURITY; ALTER TABLE not_meant ADD a int; ALTER TABLE not_meant ADD b int; ALTER TABLE not_meant ADD c int'`,
		// The catalog is the same behind each of these, so that it does not tell whose statement it was.
		`CREATE FUNCTION twins.twin() RETURNS void LANGUAGE sql AS 'ALTER DOMAIN meant_too DROP NOT NULL; ALTER TABLE meant DISABLE ROW LEVEL SECURITY; ALTER TABLE IF EXISTS nowhere ADD c int; ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC'`,
		`SELECT twins.twin()`, `ALTER TABLE not_meant ADD a text, ADD b text, ADD c text; ALTER DEFAULT PRIVILEGES GRANT USAGE ON TYPES TO PUBLIC`,
	}},
	{"what does not last", []string{
		`CREATE TEMP TABLE tmp (id int); ALTER TABLE tmp ADD b int; CREATE INDEX ON tmp (b); DROP TABLE tmp; CREATE TEMP TABLE owned (x int); DROP TABLE owned`,
	}},
	{"extensions", []string{
		`CREATE EXTENSION hstore`, `CREATE TABLE things (id int PRIMARY KEY, h hstore); INSERT INTO things VALUES (1, 'a=>1')`, `ALTER TABLE things ALTER h SET DEFAULT 'b=>2'; INSERT INTO things VALUES (2)`,
		`CREATE EXTENSION citext SCHEMA away`, `DROP EXTENSION citext`,
		`CREATE EXTENSION cube VERSION '1.4'; CREATE TABLE cubes (id int PRIMARY KEY, c cube); INSERT INTO cubes VALUES (1, '(1,2)')`, `ALTER EXTENSION cube UPDATE TO '1.5'; COMMENT ON EXTENSION cube IS 'newer'`, `UPDATE cubes SET c = '(3,4)'`,
	}},
	{"subscriptions", []string{
		`CREATE SUBSCRIPTION defined_sub CONNECTION 'host=127.0.0.1 port=1 password=not-for-the-archive' PUBLICATION p WITH (connect = false, slot_name = NONE)`,
		`COMMENT ON SUBSCRIPTION defined_sub IS 'it is not restored'; ALTER SUBSCRIPTION defined_sub OWNER TO CURRENT_USER; ALTER SUBSCRIPTION defined_sub RENAME TO defined_sub_2; ALTER SUBSCRIPTION defined_sub_2 SET (binary = true)`, `DROP SUBSCRIPTION defined_sub_2`,
	}},
	{"unlogged", []string{
		`CREATE TABLE unlogged_now (id int PRIMARY KEY); INSERT INTO unlogged_now VALUES (1), (2)`, `ALTER TABLE unlogged_now SET UNLOGGED`, `TRUNCATE unlogged_now`, // which no log tells of
	}},
	{"schemas", []string{
		`CREATE SCHEMA old; CREATE TABLE old.t (id int PRIMARY KEY, v text); CREATE TABLE old.twice (a int)`, `INSERT INTO old.t VALUES (1, 'a'); INSERT INTO old.twice VALUES (1), (1); INSERT INTO early.t VALUES (2)`,
		`ALTER SCHEMA old RENAME TO young; ALTER SCHEMA early RENAME TO late`,
		`UPDATE young.t SET v = 'b'; INSERT INTO young.t VALUES (2, 'c'); DELETE FROM young.twice WHERE ctid = (SELECT min(ctid) FROM young.twice); UPDATE late.t SET id = id + 10`,
		`CREATE SCHEMA old; CREATE TABLE old.t (id int PRIMARY KEY, other int)`, `INSERT INTO old.t VALUES (7, 7); INSERT INTO young.t VALUES (3, 'd'); TRUNCATE young.twice`,
		`DROP TABLE old.t; CREATE TABLE old.u (id int PRIMARY KEY); INSERT INTO old.u VALUES (8); ALTER TABLE young.t SET SCHEMA old`, `INSERT INTO old.t VALUES (4, 'e'); DELETE FROM old.u; INSERT INTO young.twice VALUES (5)`,
	}},
	{"what is left", []string{
		`CREATE FUNCTION gone() RETURNS int LANGUAGE sql AS 'SELECT 1'; DROP FUNCTION gone(); CREATE AGGREGATE total (int) (sfunc = int4pl, stype = int); CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq)`,
		`CREATE COLLATION german (provider = libc, locale = 'C'); CREATE TEXT SEARCH CONFIGURATION plain (COPY = simple); CREATE CAST (text AS mood) WITH INOUT`,
		`DROP OPERATOR === (int, int); DROP CAST (text AS mood); DROP SCHEMA away CASCADE`,
		`TRUNCATE m1; ALTER TABLE m1 REPLICA IDENTITY FULL; INSERT INTO m1 VALUES (1, 1, 1), (1, 1, 1); DELETE FROM m1 WHERE ctid = (SELECT min(ctid) FROM m1); ALTER TABLE m1 ADD PRIMARY KEY (a)`,
	}},
}

// TestDefinitions changes the schema of a source in every way, with rows in between, and restores from a base of before
// all of it: at every point the restored schema is the source's, as pg_dump writes it, and so is every row.
func TestDefinitions(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "defined", nil).setup()
	s.exec(`CREATE SCHEMA early; CREATE TABLE early.t (id int PRIMARY KEY); INSERT INTO early.t VALUES (1);
		CREATE TABLE kept (id int PRIMARY KEY, v text); INSERT INTO kept VALUES (1, 'one'); CREATE TABLE unkeyed_base (a int); INSERT INTO unkeyed_base VALUES (1), (2), (2);
		CREATE TABLE keyless (a int, b text); ALTER TABLE keyless REPLICA IDENTITY FULL; INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (2, 'y')`)
	s.capture()
	a := s.waitArchive()
	base := s.waitBases(a, 1, 1)[0]
	type point struct {
		seq    change.Seq
		schema string
		rows   map[string]dbtest.TableDump
	}
	points := make([]point, len(definitionSteps))
	for i, step := range definitionSteps {
		for _, sql := range step.send {
			s.exec(sql)
		}
		s.exec(fmt.Sprintf(`UPDATE kept SET v = 'after %s'; UPDATE keyless SET b = b || 'z' WHERE a = 2; DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless WHERE a = 1); INSERT INTO keyless VALUES (1, 'x')`, step.name))
		points[i] = point{s.waitPast(a, s.here()).Seq, s.schema(s.db), s.dump(s.db)}
		delete(points[i].rows, `"public"."fleeting"`) // unlogged: its rows are in no log
	}
	for i := len(points) - 1; i >= 0; i-- {
		if !*long && (len(points)-1-i)%10 != 0 || testing.Short() && i < len(points)-1 {
			continue
		}
		db := fmt.Sprintf("defined_%d", i)
		if i == len(points)-1 { // also when it is killed in the middle of it
			s.killedRestore(db, 60, base.Seq, points[i].seq, "--base", base.ID)
		} else {
			s.restore(db, "--base", base.ID, "--to-seq", points[i].seq.String())
		}
		if diff := firstDifference(points[i].schema, s.schema(db)); diff != "" {
			t.Errorf("the schema after %q:\n%s", definitionSteps[i].name, diff)
		}
		got := s.dump(db)
		delete(got, `"public"."fleeting"`)
		if diff := dbtest.Diff(points[i].rows, got); diff != "" {
			t.Errorf("the rows after %q:\n%s", definitionSteps[i].name, diff)
		}
	}
}

// schema returns what pg_dump writes of a database's definitions, but for what is txreel's own.
func (s *site) schema(db string) string {
	s.t.Helper()
	out, err := exec.CommandContext(s.t.Context(), filepath.Join(s.pg.BinDir, "pg_dump"), "--schema-only", "--no-sync", "--exclude-schema=txreel", s.pg.URL(db)).Output()
	if err != nil {
		s.t.Fatalf("pg_dump: %v", err)
	}
	var kept []string
	for _, entry := range regexp.MustCompile(`(?m)^--\n-- Name: `).Split(string(out), -1) {
		head, _, _ := strings.Cut(entry, "\n")
		if contains := strings.Contains; contains(head, "EVENT TRIGGER") || contains(head, "PUBLICATION") || contains(head, "SUBSCRIPTION") {
			continue
		}
		kept = append(kept, regexp.MustCompile(`(?m)^\\(un)?restrict .*$`).ReplaceAllString(entry, ""))
	}
	var lines []string
	for line := range strings.Lines(strings.Join(kept, "-- Name: ")) {
		if line = strings.TrimSpace(line); line != "" && line != "--" && !strings.HasSuffix(line, "database dump complete") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// firstDifference shows where two texts part; "" when they do not.
func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		if i < len(w) && i < len(g) && w[i] == g[i] {
			continue
		}
		around := func(lines []string) string {
			return strings.Join(lines[max(0, min(i-6, len(lines))):min(i+4, len(lines))], "\n")
		}
		return "want:\n" + around(w) + "\ngot:\n" + around(g)
	}
	return ""
}
