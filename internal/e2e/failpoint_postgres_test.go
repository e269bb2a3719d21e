package e2e

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/internal/failpoint"
)

// failPG is a PostgreSQL, on which captures are ended at every point in the short form too.
type failPG struct {
	*site
	work    *ledger
	targets *dbtest.Postgres
	made    int // databases on it
}

func newFailPG(t *testing.T) failEngine {
	t.Helper()
	e := &failPG{site: newSite(t, dbtest.PG(t), "points", nil), targets: dbtest.PG(t)}
	e.exec(`
		CREATE TABLE ledger (client int, n int, part int, note text, PRIMARY KEY (client, n, part));
		CREATE TABLE a (id int PRIMARY KEY, v text, n int GENERATED ALWAYS AS IDENTITY); CREATE INDEX ON a (v);
		CREATE TABLE b (k int, v text); ALTER TABLE b REPLICA IDENTITY FULL;
		CREATE TABLE c (id serial PRIMARY KEY, a int REFERENCES a, v text UNIQUE);
		INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 5000) i;
		INSERT INTO b SELECT i % 100, 'v' FROM generate_series(1, 1000) i;
		INSERT INTO c (a, v) SELECT i, 'c' || i FROM generate_series(1, 2000) i;
		CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM c`)
	e.setup()
	return e
}

func (e *failPG) where() *place  { return &e.place }
func (e *failPG) source() server { return e.pg }

func (e *failPG) has(p failpoint.Point) bool { return !slices.Contains(ofMySQL, p) }

// ofPostgres are the points that no other engine comes to.
var ofPostgres = []failpoint.Point{
	failpoint.SlotCreating, failpoint.SlotCreated, failpoint.ChoiceCreating, failpoint.ChoiceCreated, failpoint.GapCreating, failpoint.GapCreated,
	failpoint.RestoreSchemaMade, failpoint.RestoreFoldFilling, failpoint.RestoreFoldFilled, failpoint.RestoreFoldDone, failpoint.RestoreMerging, failpoint.RestoreMerged, failpoint.RestoreBatchCommitting, failpoint.RestoreBatchCommitted,
	failpoint.RestoreObjectMade, failpoint.RestoreObjectCommitted, failpoint.RestoreSequences,
}

func (e *failPG) kills(i int, p failpoint.Point) (process, server bool) {
	// A restore whose target was killed there makes the schema over another session before it notices, and the next
	// point is not reached any more.
	early := p == failpoint.RestoreEndCheck || p == failpoint.RestoreBeginBase
	if *long {
		return true, !early
	}
	own := slices.Contains(ofPostgres, p)
	server = i%6 == 5 && !own && !early
	if strings.HasPrefix(string(p), "restore-") { // the other engines come to all that is not its own
		return own || i%2 == 0, server
	}
	return true, server
}

func (e *failPG) begun(a *archive.Archive) {
	e.t.Helper()
	e.passed(a)
	e.work = startLedger(e.site, 2)
}

func (e *failPG) between() {
	e.t.Helper()
	e.checkSlot()
}

func (e *failPG) passed(a *archive.Archive) {
	e.t.Helper()
	e.waitPast(a, e.here())
}

func (e *failPG) settle() {
	e.t.Helper()
	e.work.end(e.t)
	e.exec(`REFRESH MATERIALIZED VIEW m`) // up to here a restore folds; it replays what is behind
	e.exec(`DO $$BEGIN FOR i IN 1..1000 LOOP
		UPDATE a SET v = v || 'x' WHERE id = 1 + i * 7 % 5000;
		UPDATE b SET v = 'w' || i WHERE ctid = (SELECT ctid FROM b WHERE k = i % 100 LIMIT 1);
		INSERT INTO c (a, v) VALUES (1 + i % 5000, 'd' || i);
		DELETE FROM c WHERE id = i AND i % 2 = 0;
		COMMIT;
	END LOOP; END$$`)
	e.exec(`REFRESH MATERIALIZED VIEW m`)
}

func (e *failPG) check(a *archive.Archive) {
	e.t.Helper()
	e.work.check(e.t, readRecord(e.t, a, 1))
}

func (e *failPG) gap() {
	e.t.Helper()
	e.exec(`SELECT pg_drop_replication_slot('` + e.slot() + `')`)
	e.exec(`INSERT INTO b VALUES (1, 'nobody reads that')`)
}

// standing is what stands on the tables, and what a restore keeps for itself.
const standing = `SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
	UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
	UNION ALL SELECT attname || ' ' || attidentity::text FROM pg_attribute WHERE attrelid = 'a'::regclass AND attnum > 0
	UNION ALL SELECT nspname FROM pg_namespace WHERE nspname = 'txreel_restore' ORDER BY 1`

func (e *failPG) target(t *testing.T) *failTarget {
	t.Helper()
	e.made++
	db := fmt.Sprintf("target_%d", e.made)
	url, err := e.targets.CreateDB(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return &failTarget{server: e.targets, url: url, secret: e.targets.Password(), equal: func() {
		t.Helper()
		restored, err := dbtest.Dump(t.Context(), url, "txreel")
		if err != nil {
			t.Fatal(err)
		}
		if diff := dbtest.Diff(e.dump(e.db), restored); diff != "" {
			t.Errorf("the restored database differs from the source:\n%s", diff)
		}
		want, got := e.pg.MustQuery(t, e.db, standing), e.targets.MustQuery(t, db, standing)
		if !reflect.DeepEqual(want, got) {
			t.Errorf("on the restored tables stand\n%q\nwant\n%q", got, want)
		}
	}}
}
