package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/sources/postgres/pgbase"
)

// visibleLoad are scripts of pgbench: single statements, savepoints that are released and rolled back, two-phase commits and transactions that take long;
// those with "local" pass others, which wait for the archive. Each keeps the sum of acc equal to that of its journal.
var visibleLoad = map[string]string{
	"plain": `
		\set id random(1, 3000)
		\set d random(-500, 500)
		BEGIN;
		INSERT INTO acc VALUES (:id, :d) ON CONFLICT (id) DO UPDATE SET v = acc.v + excluded.v, body = repeat(md5(cast(:d AS text)), 100);
		SAVEPOINT a;
		DELETE FROM acc WHERE id = :id % 100;
		ROLLBACK TO a;
		SAVEPOINT b;
		INSERT INTO journal VALUES (:id, :d);
		RELEASE b;
		END;`,
	"local": `
		\set id random(1, 3000)
		\set d random(-500, 500)
		BEGIN;
		SET LOCAL synchronous_commit = local;
		INSERT INTO acc VALUES (:id, :d) ON CONFLICT (id) DO UPDATE SET v = acc.v + excluded.v;
		INSERT INTO journal VALUES (:id, :d);
		END;`,
	"long": `
		\set id random(1, 3000)
		\set d random(-500, 500)
		BEGIN;
		INSERT INTO journal VALUES (:id, :d);
		SELECT pg_sleep(0.3);
		INSERT INTO acc VALUES (:id, :d) ON CONFLICT (id) DO UPDATE SET v = acc.v + excluded.v;
		END;`,
	"prepared": `
		\set id random(1, 3000)
		\set d random(-500, 500)
		BEGIN;
		INSERT INTO acc VALUES (:id, :d) ON CONFLICT (id) DO UPDATE SET v = acc.v + excluded.v;
		INSERT INTO journal VALUES (:id, :d);
		PREPARE TRANSACTION 'p:client_id';
		COMMIT PREPARED 'p:client_id';`,
	"definitions": `
		\set d random(1, 1000000000)
		SET synchronous_commit = local;
		CREATE TABLE made_:d AS SELECT g AS id, 'x' AS v FROM generate_series(1, 20) g;
		ALTER TABLE made_:d ADD COLUMN w int DEFAULT 5, ADD PRIMARY KEY (id);
		UPDATE made_:d SET w = id;
		CREATE INDEX ON made_:d (v);
		CREATE TABLE kept_:d (id int PRIMARY KEY, v text);
		INSERT INTO kept_:d VALUES (1, 'one');
		SELECT pg_sleep(1);`,
}

// TestVisibleBases takes bases again and again under load, with and without COMMIT waiting for the archive, and restores from each of them to the first
// point that it is good for and to the end, and from one to a point between: what comes of it is what comes of the first base, which a slot placed, and
// in the end what the source holds.
func TestVisibleBases(t *testing.T) {
	t.Parallel()
	for name, sync := range map[string][]string{"zero_loss": {"--sync", "--sync-timeout", "60s", "--flush-age", "20ms"}, "plain": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			visibleBases(t, name, sync)
		})
	}
}

func visibleBases(t *testing.T, name string, sync []string) {
	pg := dbtest.PG(t, "max_prepared_transactions=30", "max_connections=100", "fsync=on", "commit_delay=5000", "commit_siblings=1")
	s := newSite(t, pg, name, nil)
	s.exec(`CREATE TABLE acc (id int PRIMARY KEY, v bigint, body text); CREATE TABLE journal (id int, d int)`)
	s.setup()
	capture := s.capture(append(sync, "--base-every", "0")...)
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	if sync != nil {
		eventually(t, time.Minute, "COMMIT waits", func() bool { return capture.has(protectedNow) })
	}
	clients := map[string]string{"plain": "9", "local": "4", "long": "3", "prepared": "3", "definitions": "1"}
	var loads []*process
	for script, sql := range visibleLoad {
		file := filepath.Join(t.TempDir(), script)
		if err := os.WriteFile(file, []byte(sql), 0o600); err != nil {
			t.Fatal(err)
		}
		loads = append(loads, start(t, []string{"PGHOST=" + pg.Dir, "PGPORT=" + strconv.Itoa(pg.Port), "PGUSER=postgres"}, nil,
			pg.Client("pgbench"), "-n", "-f", file, "-c", clients[script], "-T", "600", s.db))
	}
	for range times(3, 20) {
		s.must("base")
	}
	for _, l := range loads {
		if !l.alive() {
			t.Fatalf("a load ended: %s", tail(l.stderr(), 5))
		}
		l.kill()
	}
	s.value(`SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity WHERE application_name = 'pgbench'`)
	for _, p := range pg.MustQuery(t, s.db, `SELECT gid FROM pg_prepared_xacts`) {
		s.exec(`COMMIT PREPARED '` + p[0] + `'`)
	}
	end := s.waitPast(a, s.here())
	capture.signal(terminate)
	if code := capture.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	bases := s.waitBases(a, 1, times(4, 21))
	slices.SortFunc(bases, func(x, y archive.Base) int { return cmp.Compare(x.Seq, y.Seq) })
	source := s.dump(s.db)
	for i := range bases {
		b := &bases[i]
		var e pgbase.Engine
		if err := json.Unmarshal(b.Engine, &e); err != nil || (e.Visible == nil) != (i == 0) {
			t.Errorf("base %d was told by what is visible: %+v, %v", i, e.Visible, err)
		}
		t.Logf("base %d: %s; in all %s", i, b.Place(), end.Seq)
		next := end.Seq
		if i+1 < len(bases) {
			next = bases[i+1].Upto()
		}
		for k, seq := range []string{b.Upto().String(), next.String(), end.Seq.String()} {
			if i == 0 || k == 1 && i != 1 {
				continue
			}
			from := fmt.Sprintf("b%d_%d", i, k)
			s.restore(from, "--base", b.ID, "--to-seq", seq)
			got := s.dump(from)
			want := source
			if k < 2 {
				s.restore(from+"_first", "--base", bases[0].ID, "--to-seq", seq)
				want = s.dump(from + "_first")
			}
			if diff := dbtest.Diff(want, got); diff != "" {
				t.Errorf("restored to %s from base %d, %s:\n%s", seq, i, b.Place(), diff)
			}
			if sums := s.in(from, `SELECT (SELECT coalesce(sum(v), 0) FROM acc) = (SELECT coalesce(sum(d), 0) FROM journal)`); sums != "t" {
				t.Errorf("restored to %s from base %d: the books do not balance", seq, i)
			}
		}
	}
}
