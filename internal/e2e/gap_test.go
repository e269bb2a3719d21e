package e2e

import (
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
)

// TestGap takes from the capture what it has not read yet, in every way a server allows. Each time it ends with exit
// code 3 and puts the gap on record; each time --new-epoch goes on behind it, with a base.
func TestGap(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	for _, c := range []struct {
		name, db string
		stopped  bool   // the capture does not run while it happens
		happens  string // SQL, SLOT is the slot
		says     string
		lazy     bool // whoever goes on does not do as the sentence says, and need not
	}{
		{name: "slot dropped", db: "dropped", stopped: true,
			happens: `SELECT pg_drop_replication_slot('SLOT')`,
			says:    "does not exist"},
		{name: "slot dropped under the capture", db: "shot",
			happens: `DO $$
				BEGIN
					LOOP
						PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'SLOT' AND active;
						BEGIN
							PERFORM pg_drop_replication_slot('SLOT');
							RETURN;
						EXCEPTION WHEN object_in_use THEN NULL;
						END;
					END LOOP;
				END $$`,
			says: "does not exist"},
		{name: "slot advanced", db: "advanced", stopped: true,
			happens: `INSERT INTO t VALUES (100); COMMIT; SELECT pg_replication_slot_advance('SLOT', pg_current_wal_insert_lsn())`,
			says:    "advanced or created anew"},
		{name: "slot created anew", db: "anew", stopped: true,
			happens: `SELECT pg_drop_replication_slot('SLOT'); INSERT INTO t VALUES (100); COMMIT;
				SELECT pg_create_logical_replication_slot('SLOT', 'pgoutput')`,
			says: "advanced or created anew"},
		{name: "publication created anew", db: "republished", stopped: true,
			happens: `DROP PUBLICATION txreel; COMMIT; INSERT INTO t VALUES (100); COMMIT; CREATE PUBLICATION txreel FOR ALL TABLES`,
			says:    "publication", lazy: true},
		{name: "publication dropped under the capture", db: "unpublished",
			happens: `DROP PUBLICATION txreel; COMMIT; INSERT INTO t VALUES (100)`,
			says:    "publication"},
		{name: "publication created anew under the capture", db: "swapped",
			happens: `DROP PUBLICATION txreel; CREATE PUBLICATION txreel FOR ALL TABLES`,
			says:    "publication"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, pg, c.db, nil).setup()
			s.exec(`CREATE TABLE t (id int PRIMARY KEY)`)
			first := s.capture()
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			s.exec(`INSERT INTO t VALUES (1)`)
			s.waitPast(a, s.here())
			if c.stopped {
				first.kill()
			}
			s.exec(strings.ReplaceAll(c.happens, "SLOT", s.slot()))
			if c.stopped {
				first = s.capture()
			}
			r := first.result(time.Minute)
			if r.code != 3 {
				t.Fatalf("exit code %d, want 3:\n%s", r.code, tail(r.stderr, 5))
			}
			r.sentence(t, "gap in the record", c.says, "--new-epoch")
			s.checkGap(a, c.says)

			// It stays that way until somebody decides; until then the gap grows.
			s.exec(`INSERT INTO t VALUES (101)`)
			inside := s.here()
			again := s.run("capture")
			if again.code != 3 {
				t.Fatalf("started again: exit code %d, want 3", again.code)
			}
			again.sentence(t, "gap in the record", c.says)

			for _, args := range [][]string{{"base"}, {"mark", "inside"}} { // nobody would ever record what they wait for
				if r := s.run(args...); r.code != 3 {
					t.Errorf("%s inside the gap: exit code %d, want 3:\n%s", args[0], r.code, r.stderr)
				}
			}

			if contains(r.stderr, "setup --remove") && !c.lazy { // do as the sentence says
				s.must("setup", "--remove")
				s.must("setup", "--apply")
			}
			next := s.capture("--new-epoch")
			s.waitBases(a, 2, 1)
			s.exec(`INSERT INTO t VALUES (200)`)
			s.waitPast(a, s.here())
			next.signal(terminate)
			if code := next.wait(time.Minute); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			found := false
			for _, txn := range readRecord(t, a, 2) {
				for _, row := range txn.rows["public.t"] {
					found = found || row.new[0] == "200"
				}
			}
			if !found {
				t.Error("epoch 2 does not hold what was written in it")
			}
			// Without the flag it goes on in epoch 2.
			last := s.capture()
			s.exec(`INSERT INTO t VALUES (300)`)
			s.waitPast(a, s.here())
			last.kill()

			// What lies inside the gap cannot be had, what lies behind it can.
			r = s.run("restore", "--dry-run", "--to-position", inside.String())
			if r.code != 6 {
				t.Errorf("restore into the gap: exit code %d, want 6\n%s%s", r.code, r.stdout, r.stderr)
			}
			r.sentence(t, "is not in the archive")
			s.restore(c.db + "_again")
			s.same(c.db + "_again")
			if epochs, err := a.Epochs(t.Context()); err != nil || len(epochs) != 2 || epochs[1].Cause != archive.CauseGap {
				t.Errorf("epochs %+v: %v", epochs, err)
			}
		})
	}
}

// checkGap checks that the gap of epoch 1 is on record and that status tells of it.
func (s *site) checkGap(a *archive.Archive, says string) {
	s.t.Helper()
	gap, err := a.Gap(s.t.Context(), 1)
	if err != nil || gap == nil {
		s.t.Fatalf("gap %+v: %v", gap, err)
	}
	tail, err := a.Tail(s.t.Context(), 1)
	if err != nil || gap.Tail != tail {
		s.t.Errorf("the gap begins behind %+v, the epoch ends with %+v: %v", gap.Tail, tail, err)
	}
	var status struct {
		Epochs []struct {
			Gap *struct {
				Detail string `json:"detail"`
			} `json:"gap"`
		} `json:"epochs"`
	}
	s.must("status", "--json").decode(s.t, &status)
	if len(status.Epochs) != 1 || status.Epochs[0].Gap == nil || !contains(status.Epochs[0].Gap.Detail, says) {
		s.t.Errorf("status says %+v", status)
	}
	if r := s.must("status"); !contains(r.stdout, "GAP", says) {
		s.t.Errorf("status says:\n%s", r.stdout)
	}
}

// TestGapAnswered starts a capture with --new-epoch on a gap that nobody has found yet: it puts it on record and goes
// on behind it in the same run.
func TestGapAnswered(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "answered", nil).setup()
	s.exec(`CREATE TABLE t (id int PRIMARY KEY)`)
	first := s.capture("--new-epoch") // which does nothing while there is no gap
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	first.kill()
	s.exec(`INSERT INTO t VALUES (100)`)
	s.exec(`SELECT pg_drop_replication_slot('` + s.slot() + `')`)

	second := s.capture("--new-epoch")
	s.waitBases(a, 2, 1)
	if gap, err := a.Gap(t.Context(), 1); err != nil || gap == nil || !strings.Contains(gap.Detail, "does not exist") {
		t.Errorf("gap on record: %+v, %v", gap, err)
	}
	s.exec(`INSERT INTO t VALUES (200)`)
	s.waitPast(a, s.here())
	s.restore("answered_again")
	s.same("answered_again")
	second.signal(terminate)
	if code := second.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
