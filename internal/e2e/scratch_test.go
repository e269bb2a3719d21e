package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"txreel/internal/dbtest"
)

// TestBaseFromScratch makes bases on a scratch server, behind changes of the schema, and restores from them: to their own points, and on from there.
func TestBaseFromScratch(t *testing.T) {
	t.Parallel()
	s := newSite(t, dbtest.PG(t), "scratched", nil)
	s.exec(`CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE doc (id serial PRIMARY KEY, n int, m mood, body text); ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
		CREATE TABLE loose (v text, n int); CREATE TABLE part (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k); CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
		INSERT INTO doc (n, m, body) SELECT g, 'ok', repeat(g::text, 1000) FROM generate_series(1, 300) g; INSERT INTO part SELECT g, g FROM generate_series(0, 99) g`)
	s.setup()
	s.exec(`ALTER TABLE loose REPLICA IDENTITY FULL; SELECT lo_from_bytea(4711, 'large')`)
	s.capture("--base-every", "0")
	a := s.waitArchive()
	first := s.waitBases(a, 1, 1)[0]

	const change = `INSERT INTO doc (n, m, body) SELECT g, 'sad', repeat('x', g * 10) FROM generate_series(1, 50) g;
		UPDATE doc SET n = n + 1 WHERE id % 3 = 0; UPDATE doc SET body = body || '!' WHERE id % 17 = 1; DELETE FROM doc WHERE id % 29 = 5;
		INSERT INTO loose SELECT 'twice', 1 FROM generate_series(1, 4); DELETE FROM loose WHERE ctid = (SELECT min(ctid) FROM loose); UPDATE part SET id = id + 1`
	s.exec(change)
	s.exec(`ALTER TABLE doc ADD COLUMN more text DEFAULT 'm'; ALTER TYPE mood ADD VALUE 'happy'; CREATE SCHEMA young; CREATE TABLE young.used (id int PRIMARY KEY, m mood); CREATE TABLE young.unused (id int PRIMARY KEY, d int DEFAULT 5);
		CREATE TABLE young.bag (v mood); CREATE VIEW seen AS SELECT id, more FROM doc; CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (100) TO (200)`)
	s.exec(`INSERT INTO young.used VALUES (1, 'happy'), (2, 'sad'); UPDATE doc SET m = 'happy', more = 'changed' WHERE id % 5 = 0`)
	s.exec(change)
	s.waitPast(a, s.here())
	atBase, schemaAtBase := s.dump(s.db), s.schema(s.db)

	alone := s.place // the source is not named
	alone.source = slices.DeleteFunc(slices.Clone(alone.source), func(v string) bool { return !strings.HasPrefix(v, "TXREEL_PG_") })
	if r := alone.run("base", "--from-history"); r.code != 1 || !contains(r.stderr, "take one of the source") {
		t.Errorf("without a scratch server: exit code %d\n%s", r.code, r.stderr)
	}
	scratch := []string{"base", "--from-history", "--json", "--scratch", s.pg.URL("postgres")}
	databases := func() string {
		return s.pg.MustQuery(t, "postgres", `SELECT count(*) FROM pg_database WHERE datname LIKE 'txreel_scratch_%'`)[0][0]
	}
	p := alone.start(scratch...)
	eventually(t, patience(), "the scratch database is there", func() bool { return databases() == "1" || !p.alive() })
	p.kill()
	alone.must("verify")
	eventually(t, patience(), "the killed one's sessions have ended", func() bool {
		return s.pg.MustQuery(t, "postgres", `SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'txreel_scratch_%'`)[0][0] == "0"
	})
	makeBase := func() (b struct {
		ID string `json:"id"`
	}) {
		t.Helper()
		if err := json.Unmarshal([]byte(alone.must(scratch...).stdout), &b); err != nil {
			t.Fatal(err)
		}
		if n := databases(); n != "0" {
			t.Errorf("%s scratch databases are left", n)
		}
		return b
	}
	b := makeBase()
	bases, err := a.Bases(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	made := bases[len(bases)-1]
	if made.ID != b.ID || made.From == nil || made.From.Base != first.ID || made.Server != first.Server || len(bases) != 2 {
		t.Fatalf("%d bases, the last one %+v", len(bases), made)
	}
	alone.must("verify")
	s.restore("scratched_at", "--base", b.ID, "--to-seq", made.Seq.String())
	if diff := dbtest.Diff(atBase, s.dump("scratched_at")); diff != "" {
		t.Errorf("restored to the base's own point:\n%s", diff)
	}
	if diff := firstDifference(schemaAtBase, s.schema("scratched_at")); diff != "" {
		t.Errorf("restored to the base's own point, the schema is another:\n%s", diff)
	}

	// Tables of which no row had come, others that are renamed, and more definitions.
	s.exec(`INSERT INTO young.unused VALUES (1, 1), (2, 2); INSERT INTO young.bag VALUES ('ok'), ('ok'); DELETE FROM young.bag WHERE ctid = (SELECT min(ctid) FROM young.bag); UPDATE young.used SET m = 'ok'`)
	s.exec(change)
	s.waitPast(a, s.here())
	s.restore("scratched_rows", "--base", b.ID)
	s.same("scratched_rows")
	s.restore("scratched_exact", "--base", b.ID, "--exact")
	s.same("scratched_exact")
	s.exec(`ALTER SCHEMA young RENAME TO old; ALTER TABLE old.unused RENAME TO renamed; UPDATE old.renamed SET d = 7; ALTER TABLE doc DROP COLUMN n CASCADE; INSERT INTO part SELECT g, g FROM generate_series(100, 120) g; INSERT INTO old.bag VALUES ('sad')`)
	s.waitPast(a, s.here())
	s.restore("scratched_on", "--base", b.ID)
	s.same("scratched_on")
	if diff := firstDifference(s.schema(s.db), s.schema("scratched_on")); diff != "" {
		t.Errorf("restored behind the base, the schema is another:\n%s", diff)
	}
	if was := s.value(`SELECT last_value FROM doc_id_seq`); s.in("scratched_on", `SELECT nextval('doc_id_seq') > `+was) != "t" {
		t.Errorf("the source had handed out %s, which the restored sequence does again", was)
	}
	if got := s.in("scratched_on", `SELECT lo_get(4711)`); got != s.value(`SELECT lo_get(4711)`) {
		t.Errorf("the large object is %q", got)
	}
	s.restore("scratched_part", "--base", b.ID, "--table", "young.*")
	if got := s.in("scratched_part", `SELECT string_agg(id || ':' || d, ',' ORDER BY id) FROM old.renamed`); got != "1:7,2:7" {
		t.Errorf("restored by itself, a table that had no number holds %q", got)
	}
	again := makeBase()
	s.restore("scratched_again", "--base", again.ID)
	s.same("scratched_again")
	if r := alone.must("status"); !strings.Contains(r.stdout, "made of base") {
		t.Errorf("status does not say how the base came about:\n%s", r.stdout)
	}

	s.pg.MustExec(t, "postgres", `CREATE ROLE maker LOGIN PASSWORD 'x'`)
	s.exec(`ALTER TABLE doc ADD COLUMN last int`)
	s.waitPast(a, s.here())
	for _, c := range []struct {
		url, said string
		code      int
	}{{s.pg.URLAs("maker", "x", "postgres"), "must have CREATEDB", 1}, {"postgres://127.0.0.1:1/postgres", "scratch server: connect", 7}} {
		r := alone.run("base", "--from-history", "--scratch", c.url)
		if r.code != c.code || !contains(r.stderr, c.said) || strings.Contains(r.stderr, ":x@") {
			t.Errorf("%s: exit code %d\n%s", c.url, r.code, tail(r.stderr, 5))
		}
	}
}
