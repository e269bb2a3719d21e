package postgres

import (
	"context"
	"fmt"
	"testing"

	"txreel/internal/dbtest"
	"txreel/restore"
)

// BenchmarkRestore measures the base load and the replay of pgbench-like updates, in
// rows per second. Its own server shares the machine.
func BenchmarkRestore(b *testing.B) {
	ctx := context.Background()
	pg := dbtest.PG(b, "shared_buffers=256MB", "max_wal_size=4GB")
	createDB(b, pg, "src", `
		CREATE TABLE accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
		CREATE TABLE tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
		CREATE TABLE branches (bid int PRIMARY KEY, bbalance int, filler char(88));
		CREATE TABLE history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
		CREATE TABLE plain (id bigint, v text, n numeric, ts timestamptz);
		INSERT INTO accounts SELECT i, 1, 0, '' FROM generate_series(1, 500000) i;
		INSERT INTO tellers SELECT i, 1, 0, '' FROM generate_series(1, 100) i;
		INSERT INTO branches SELECT i, 0, '' FROM generate_series(1, 10) i;
		INSERT INTO plain SELECT i, md5(i::text), i / 7.0, now() FROM generate_series(1, 500000) i;`)
	r := record(b, pg, "src")
	r.perSeg = 5000
	r.base()
	const txns = 50000
	r.exec(fmt.Sprintf(`DO $$BEGIN FOR i IN 1..%d LOOP
		UPDATE accounts SET abalance = abalance + 1 WHERE aid = 1 + (i * 7919) %% 500000;
		UPDATE tellers SET tbalance = tbalance + 1 WHERE tid = 1 + i %% 100;
		UPDATE branches SET bbalance = bbalance + 1 WHERE bid = 1 + i %% 10;
		INSERT INTO history VALUES (i %% 100, i %% 10, i, 1, now());
		COMMIT;
	END LOOP; END$$`, txns))
	r.capture()
	p, err := restore.MakePlan(ctx, r.archive, Dialect{}, restore.Goal{})
	if err != nil {
		b.Fatal(err)
	}
	for n := 0; b.Loop(); n++ {
		name := fmt.Sprintf("dst%d", n)
		url, err := pg.CreateDB(ctx, name)
		if err != nil {
			b.Fatal(err)
		}
		rep, err := runPlan(ctx, r, p, url, false)
		if err != nil {
			b.Fatal(err)
		}
		for _, ph := range rep.Phases {
			switch ph.Phase {
			case restore.PhaseBase:
				b.ReportMetric(float64(p.BaseRows)/ph.Seconds, "base-rows/s")
			case restore.PhaseReplay:
				b.ReportMetric(float64(p.Rows)/ph.Seconds, "replayed-rows/s")
			}
			b.Logf("%s %.2f s", ph.Phase, ph.Seconds)
		}
		pg.MustExec(b, "postgres", "DROP DATABASE "+name)
	}
}

// BenchmarkKeyless measures updates of a table that has no key and nothing but text.
func BenchmarkKeyless(b *testing.B) {
	ctx := context.Background()
	pg := dbtest.PG(b)
	createDB(b, pg, "src", `CREATE TABLE k (a text, b text); ALTER TABLE k REPLICA IDENTITY FULL;
		INSERT INTO k SELECT 'row ' || i, 'v' FROM generate_series(1, 200000) i;`)
	r := record(b, pg, "src")
	r.base()
	r.exec("UPDATE k SET b = 'w' WHERE a LIKE '%7'; DELETE FROM k WHERE a LIKE '%3'")
	r.capture()
	p, err := restore.MakePlan(ctx, r.archive, Dialect{}, restore.Goal{})
	if err != nil {
		b.Fatal(err)
	}
	for n := 0; b.Loop(); n++ {
		name := fmt.Sprintf("dst%d", n)
		url, err := pg.CreateDB(ctx, name)
		if err != nil {
			b.Fatal(err)
		}
		rep, err := runPlan(ctx, r, p, url, false)
		if err != nil {
			b.Fatal(err)
		}
		for _, ph := range rep.Phases {
			if ph.Phase == restore.PhaseReplay {
				b.ReportMetric(float64(p.Rows)/ph.Seconds, "replayed-rows/s")
			}
			b.Logf("%s %.2f s", ph.Phase, ph.Seconds)
		}
	}
}
