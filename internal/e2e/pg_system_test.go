package e2e

import (
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
)

// TestAnotherCluster points a capture at another cluster with a database of the same name: a mistake, as long as nobody
// says that it is an upgrade. Then it is a new epoch of the same archive.
func TestAnotherCluster(t *testing.T) {
	t.Parallel()
	before := newSite(t, dbtest.PG(t), "moved", nil).setup()
	before.exec(`CREATE TABLE t (id serial PRIMARY KEY, v text); INSERT INTO t (v) VALUES ('old')`)
	first := before.capture()
	a := before.waitArchive()
	before.waitBases(a, 1, 1)
	before.exec(`INSERT INTO t (v) VALUES ('recorded')`)
	before.waitPast(a, before.here())
	first.kill()

	after := newSite(t, dbtest.PGWith(t, dbtest.PostgresOptions{OwnSystem: true}), "moved", nil).setup()
	after.archive = before.archive
	after.exec(`CREATE TABLE t (id serial PRIMARY KEY, v text); INSERT INTO t (v) VALUES ('moved')`)
	system := after.value(`SELECT system_identifier::text FROM pg_control_system()`)
	for _, args := range [][]string{nil, {"--new-epoch"}, {"--new-epoch", "--accept-system", system + "0"}} {
		r := after.capture(args...).result(time.Minute)
		if r.code != 1 {
			t.Fatalf("%q: exit code %d, want 1:\n%s", args, r.code, r.stderr)
		}
		r.sentence(t, "another database", "--new-epoch --accept-system "+system)
	}
	if gap, err := a.Gap(t.Context(), 1); err != nil || gap != nil {
		t.Fatalf("a mistake is on record as a gap: %+v, %v", gap, err)
	}

	next := after.capture("--new-epoch", "--accept-system", system)
	after.waitBases(a, 2, 1)
	if gap, err := a.Gap(t.Context(), 1); err != nil || gap == nil || gap.Cause != archive.CauseDiverged {
		t.Errorf("gap on record: %+v, %v", gap, err)
	}
	next.kill()
	again := after.capture() // it is the archive's cluster now
	after.exec(`INSERT INTO t (v) VALUES ('at last')`)
	after.waitPast(a, after.here())
	after.must("base")
	again.kill()
	after.restore("moved_again")
	after.same("moved_again")

	r := before.capture().result(time.Minute) // and the old one is not
	if gap, err := a.Gap(t.Context(), 2); r.code != 1 || err != nil || gap != nil {
		t.Errorf("the old cluster: exit code %d, want 1; gap on record: %+v, %v:\n%s", r.code, gap, err, r.stderr)
	}
	before.restore("moved_back", "--epoch", "1")
	before.same("moved_back")
}
