package postgres

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/restore"
)

// withoutOurs is typesSchema without what looks like txreel's own, which the log of definitions brings.
func withoutOurs() string {
	schema := strings.Replace(typesSchema, "TYPECOLUMNS", typeColumns(), 1)
	from, to := strings.Index(schema, "CREATE SCHEMA txreel"), strings.Index(schema, "CREATE PUBLICATION theirs")
	return schema[:from] + schema[to:]
}

// mergeSchema has what only merging has trouble with: keys and values of domains that NULL is none of, keys that are equal and not the same,
// and foreign keys between tables that are merged and tables that are not.
const mergeSchema = `
CREATE EXTENSION citext;
CREATE DOMAIN must AS text NOT NULL CHECK (VALUE <> 'never'); CREATE DOMAIN must2 AS must; CREATE DOMAIN code AS char(4);
CREATE TABLE dom (k posint, c code, n int, big must2, b2 must, PRIMARY KEY (c, k)); ALTER TABLE dom ALTER big SET STORAGE EXTERNAL; ALTER TABLE dom ALTER b2 SET STORAGE EXTERNAL;
INSERT INTO dom SELECT i, 'c' || i % 3, 0, repeat('v' || i, 2000), repeat('w' || i, 2000) FROM generate_series(1, 60) i;
CREATE TABLE ci (k citext PRIMARY KEY, f float8 NOT NULL, v text); CREATE UNIQUE INDEX ci_f ON ci (f); INSERT INTO ci SELECT 'Key' || i, i, 'v' FROM generate_series(1, 60) i;
CREATE TABLE num (k numeric PRIMARY KEY, v text); INSERT INTO num SELECT i, 'v' FROM generate_series(1, 60) i;
CREATE TABLE coll (k text COLLATE "en-x-icu" PRIMARY KEY, v text COLLATE "C"); INSERT INTO coll SELECT 'Key' || i, 'v' FROM generate_series(1, 60) i;
CREATE TABLE tp (id int PRIMARY KEY); CREATE TABLE tc (id int REFERENCES tp); ALTER TABLE tc REPLICA IDENTITY FULL; INSERT INTO tp VALUES (1); INSERT INTO tc VALUES (1);
CREATE TABLE np (id int PRIMARY KEY); ALTER TABLE np REPLICA IDENTITY NOTHING; CREATE TABLE nc (id int PRIMARY KEY REFERENCES np); INSERT INTO np VALUES (1); INSERT INTO nc VALUES (1);
CREATE TABLE inc (a int, b int, v text, PRIMARY KEY (b) INCLUDE (v)); INSERT INTO inc SELECT i, i, 'v' FROM generate_series(1, 60) i;
`

// mergeSteps are carried out over and over.
var mergeSteps = []string{
	`UPDATE dom SET n = n + 1 WHERE k % 2 = 0; UPDATE dom SET k = k + 1000 WHERE k < 10; UPDATE dom SET big = big || 'x' WHERE k = 30; UPDATE dom SET c = 'd', n = -1 WHERE k % 7 = 0;
	INSERT INTO dom (k, c, n, big, b2) SELECT 5000 + coalesce(max(k), 0), 'x', 1, repeat('z', 3000), 'short' FROM dom`,
	`UPDATE ci SET k = upper(k) WHERE f < 20; UPDATE ci SET f = -f WHERE f BETWEEN 20 AND 30; UPDATE ci SET v = v || '.', k = lower(k) WHERE f > 40; DELETE FROM ci WHERE f = 45; INSERT INTO ci VALUES ('kEy45', 45, 'again')`,
	`UPDATE num SET k = k + 0.00, v = v || '.'; DELETE FROM num WHERE k = 5; INSERT INTO num VALUES (5.000, 'new'); UPDATE coll SET v = v || '.'; UPDATE coll SET k = upper(k) WHERE k < 'key3'`,
	`TRUNCATE tp, tc; INSERT INTO tp VALUES (2), (3); INSERT INTO tc VALUES (2), (3), (3); TRUNCATE np, nc; INSERT INTO np VALUES (7), (8); INSERT INTO nc VALUES (7); UPDATE tc SET id = 2; DELETE FROM tc WHERE ctid = (SELECT min(ctid) FROM tc)`,
	`UPDATE inc SET v = v || '.', a = a + 1; UPDATE inc SET b = b + 100 WHERE b < 5; BEGIN; UPDATE inc SET b = -b; UPDATE inc SET b = -b + 1; COMMIT; DELETE FROM inc WHERE b % 9 = 0`,
}

// TestMerge restores what happens to everything behind a change of definitions: merged, and replayed one by one.
func TestMerge(t *testing.T) {
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	createDB(t, pg, "src", withoutOurs())
	pg.MustExec(t, "src", mergeSchema)
	r := record(t, pg, "src")
	r.logDefinitions()
	r.exec("CREATE TABLE txreel.own (id int PRIMARY KEY)")
	r.exec(insertTypes("types") + insertTypes("types_nokey") + insertTypes("types_full") + everythingBefore)
	first := r.base()
	points := map[change.Seq]map[string]dbtest.TableDump{}
	note := func() {
		seq := r.capture().Seq
		points[seq] = content(t, pg.URL("src"))
		maps.DeleteFunc(points[seq], func(name string, _ dbtest.TableDump) bool { return strings.HasPrefix(name, `"txreel"`) })
	}
	r.exec(`CREATE TABLE added (id int PRIMARY KEY, v text)`)
	for i, step := range everythingSteps {
		if strings.Contains(step, "txreel.") {
			continue
		}
		r.exec(step)
		r.exec(mergeSteps[i%len(mergeSteps)])
		r.exec(fmt.Sprintf("INSERT INTO added VALUES (%d, 'x'); UPDATE added SET v = 'y' WHERE id = %d", i, i-1))
		if i == 14 || i == len(everythingSteps)-1 {
			note()
			r.exec(`ALTER TABLE added RENAME COLUMN v TO w; ALTER TABLE added RENAME COLUMN w TO v`)
		}
	}
	r.exec(`ALTER TABLE added RENAME TO renamed; UPDATE renamed SET id = id + 1000, v = 'z' WHERE id % 2 = 0; DELETE FROM renamed WHERE id < 5`)
	note()
	for n, seq := range slices.Sorted(maps.Keys(points)) {
		for _, merge := range []uint64{1, 1 << 60} {
			r.merge = merge
			url, rep := restoreTo(t, r, restore.Goal{Kind: restore.AtSeq, Seq: seq, Base: first.ID}, fmt.Sprintf("dst%d_%d", n, merge%2))
			if (rep.Merged > 0) != (merge == 1) {
				t.Errorf("merging from %d changes on, %d transactions were merged: %v", merge, rep.Merged, rep.Warnings)
			}
			t.Log(rep.Merged, rep.Replayed, rep.Warnings)
			if d := dbtest.Diff(points[seq], content(t, url)); d != "" {
				t.Errorf("restored to %s, merging from %d changes on:\n%s", seq, merge, d)
			}
		}
	}
}

// TestMergeKilled kills restores that merge, with room for all keys and with little. Tables grow meanwhile: what is merged twice does not add up.
func TestMergeKilled(t *testing.T) {
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	createDB(t, pg, "src", `
		CREATE TABLE a (id int PRIMARY KEY, v text, n int GENERATED ALWAYS AS IDENTITY); CREATE INDEX ON a (v);
		CREATE TABLE b (k int, v text); ALTER TABLE b REPLICA IDENTITY FULL;
		CREATE TABLE c (id serial PRIMARY KEY, a int REFERENCES a, v text UNIQUE);
		INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 5000) i;
		INSERT INTO b SELECT i % 100, 'v' FROM generate_series(1, 1000) i;
		INSERT INTO c (a, v) SELECT i, 'c' || i FROM generate_series(1, 2000) i`)
	r := record(t, pg, "src")
	r.logDefinitions()
	r.perSeg, r.pieces = 300, 6
	first := r.base()
	for i, definition := range []string{`ALTER TABLE a ADD COLUMN late int DEFAULT 5`, `ALTER TABLE a RENAME TO anew; ALTER TABLE anew RENAME TO a; ALTER TABLE b ADD COLUMN w int`} {
		r.exec(definition)
		r.exec(fmt.Sprintf(`DO $$BEGIN FOR i IN %d..%d LOOP
			UPDATE a SET v = v || 'x' WHERE id = 1 + i * 7 %% 5000;
			UPDATE b SET v = 'w' || i WHERE ctid = (SELECT ctid FROM b WHERE k = i %% 100 LIMIT 1);
			INSERT INTO c (a, v) VALUES (1 + i %% 5000, 'd' || i);
			DELETE FROM c WHERE id = i AND i %% 2 = 0;
			COMMIT;
		END LOOP; END$$`, i*1000+1, i*1000+1000))
	}
	r.exec(`DO $$BEGIN FOR i IN 1..1000 LOOP UPDATE a SET late = i WHERE id = 1 + i % 50; COMMIT; END LOOP; END$$`)
	seq := r.capture().Seq
	want := content(t, pg.URL("src"))
	maps.DeleteFunc(want, func(name string, _ dbtest.TableDump) bool { return strings.HasPrefix(name, `"txreel"`) })
	for name, memory := range map[string]int64{"merged": 0, "merged_often": 150 << 10} {
		url, err := pg.CreateDB(t.Context(), name)
		r.check(err)
		killed(t, childJob{Archive: r.dir, URL: url, Seq: seq, PgRestore: r.pg.Client("pg_restore"), Memory: memory, Merge: 1})
		if d := dbtest.Diff(want, content(t, url)); d != "" {
			t.Errorf("%s from base %s: %s", name, first.ID, d)
		}
	}
}
