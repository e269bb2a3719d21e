package postgres

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/restore"
	"txreel/sink/dir"
)

// childEnv tells the test binary that it is a restore to be killed.
const childEnv = "TXREEL_TEST_RESTORE"

type childJob struct {
	Archive, URL, PgRestore string
	Seq                     change.Seq
	Exact                   bool
	Memory                  int64
	Merge                   uint64
	Tables                  []string // patterns; none for everything
}

// TestRestoreChild is the process that TestKill kills; by itself it does nothing.
func TestRestoreChild(t *testing.T) {
	text := os.Getenv(childEnv)
	if text == "" {
		return
	}
	ctx := context.Background()
	var job childJob
	fail := func(err error) {
		if err != nil {
			fmt.Println("ERROR", err)
			os.Exit(1)
		}
	}
	fail(json.Unmarshal([]byte(text), &job))
	store, err := dir.Open(job.Archive)
	fail(err)
	a, err := archive.Open(ctx, store)
	fail(err)
	var choose restore.Chooser
	if len(job.Tables) > 0 {
		choose = Chooser(a, selection(job.Tables, nil), Options{PgRestore: job.PgRestore})
	}
	p, err := restore.MakePartialPlan(ctx, a, Dialect{}, restore.Goal{Kind: restore.AtSeq, Seq: job.Seq}, choose)
	fail(err)
	target, err := Open(ctx, job.URL, Options{PgRestore: job.PgRestore, Exact: job.Exact, Memory: job.Memory, MergeFrom: job.Merge})
	fail(err)
	_, err = restore.Run(ctx, a, p, target, restore.Options{Jobs: 2, Progress: func(ph restore.Phase, done, total int64, unit string) {
		fmt.Println("AT", ph, done, total)
	}})
	fail(err)
	target.Close()
	fmt.Println("DONE")
	os.Exit(0)
}

// TestKill kills a restore at random moments, again and again, until one comes
// through, and compares what it made.
func TestKill(t *testing.T) {
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	createDB(t, pg, "src", `
		CREATE TABLE a (id int PRIMARY KEY, v text, n int GENERATED ALWAYS AS IDENTITY); CREATE INDEX ON a (v);
		CREATE TABLE b (k int, v text); ALTER TABLE b REPLICA IDENTITY FULL;
		CREATE TABLE c (id serial PRIMARY KEY, a int REFERENCES a, v text UNIQUE);
		INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 5000) i;
		INSERT INTO b SELECT i % 100, 'v' FROM generate_series(1, 1000) i;
		INSERT INTO c (a, v) SELECT i, 'c' || i FROM generate_series(1, 2000) i;
		CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM c;`)
	r := record(t, pg, "src")
	r.perSeg, r.pieces = 300, 6
	r.base()
	r.exec(`DO $$BEGIN FOR i IN 1..3000 LOOP
		UPDATE a SET v = v || 'x' WHERE id = 1 + i * 7 % 5000;
		UPDATE b SET v = 'w' || i WHERE ctid = (SELECT ctid FROM b WHERE k = i % 100 LIMIT 1);
		INSERT INTO c (a, v) VALUES (1 + i % 5000, 'd' || i);
		DELETE FROM c WHERE id = i;
		COMMIT;
	END LOOP; END$$`)
	seq := r.capture().Seq
	for name, job := range map[string]childJob{"exact": {Exact: true}, "folded": {}, "folded_often": {Memory: 150 << 10}} {
		url, err := pg.CreateDB(context.Background(), name)
		r.check(err)
		job.Archive, job.URL, job.Seq, job.PgRestore = r.dir, url, seq, r.pg.Client("pg_restore")
		killed(t, job)
		if d := dbtest.Diff(content(t, pg.URL("src")), content(t, url)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		compareCatalogs(t, pg, "src", name)
		for _, seq := range []string{"c_id_seq", "a_n_seq"} {
			// Without a sample they are set ahead, and once, however often the restore began again.
			got, want := pg.MustQuery(t, name, "SELECT last_value FROM "+seq)[0][0], pg.MustQuery(t, "src", "SELECT last_value + 1000 FROM "+seq)[0][0]
			if got != want {
				t.Errorf("%s: sequence %s stands at %s, want %s", name, seq, got, want)
			}
		}
	}
}

// killed carries out a restore that is killed again and again.
func killed(t *testing.T, j childJob) {
	t.Helper()
	job, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	kills, phases := 0, map[string]int{}
	for {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRestoreChild$")
		cmd.Env = append(os.Environ(), childEnv+"="+string(job))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines, at := rand.IntN(10+2*kills), "check"
		done, late := false, false
		for s := bufio.NewScanner(out); s.Scan(); {
			var phase string
			var n, total int
			if c, _ := fmt.Sscanf(s.Text(), "AT %s %d %d", &phase, &n, &total); c == 3 {
				at = phase
				if lines--; lines < 0 && kills < 12 {
					_ = cmd.Process.Kill() // it may be through already
					late = true            // perhaps: it may be through before the signal reaches it, and nobody reads on
					break
				}
			} else if s.Text() == "DONE" {
				done = true
			} else {
				t.Log(s.Text())
			}
		}
		err = cmd.Wait()
		if done || late && cmd.ProcessState.ExitCode() == 0 {
			break
		}
		if cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("the restore after %d kills: %v", kills, err)
		}
		kills++
		phases[at]++
	}
	t.Logf("killed %d times: %v", kills, phases)
	if kills < 3 {
		t.Errorf("killed only %d times", kills)
	}
}

// TestTargetLost kills the target in the middle of a restore, early, later and at its end: the error says that it is away, and the same
// restore continues when it is back.
func TestTargetLost(t *testing.T) {
	pg := dbtest.PG(t)
	createDB(t, pg, "src", `CREATE TABLE a (id int PRIMARY KEY, v text); CREATE INDEX ON a (v); INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 2000) i`)
	r := record(t, pg, "src")
	r.perSeg = 20
	r.base()
	r.exec(`DO $$BEGIN FOR i IN 1..200 LOOP UPDATE a SET v = v || 'x' WHERE id = i; COMMIT; END LOOP; END$$`)
	p, err := restore.MakePlan(t.Context(), r.archive, Dialect{}, restore.Goal{Kind: restore.AtSeq, Seq: r.capture().Seq})
	r.check(err)
	to := dbtest.PG(t)
	for name, lost := range map[string]map[restore.Phase]bool{
		"folded": {restore.PhaseBase: false, restore.PhaseVerify: false},
		"exact":  {restore.PhaseBase: false, restore.PhaseReplay: false, restore.PhaseVerify: false},
	} {
		loseTarget(t, r, p, to, name, lost)
	}
}

// loseTarget restores and kills the target once in each of some phases.
func loseTarget(t *testing.T, r *recorder, p *restore.Plan, to *dbtest.Postgres, name string, lost map[restore.Phase]bool) {
	t.Helper()
	url, err := to.CreateDB(t.Context(), name)
	r.check(err)
	once := func() error {
		target, err := Open(t.Context(), url, Options{PgRestore: r.pg.Client("pg_restore"), Exact: name == "exact"})
		r.check(err)
		defer target.Close()
		_, err = restore.Run(t.Context(), r.archive, p, target, restore.Options{Jobs: 2, Progress: func(ph restore.Phase, _, _ int64, _ string) {
			if done, asked := lost[ph]; asked && !done {
				lost[ph] = true
				r.check(to.Kill(t.Context()))
			}
		}})
		return err
	}
	for range lost {
		err := once()
		var partial *restore.PartialError
		if !errors.Is(err, restore.ErrUnreachable) || !errors.As(err, &partial) {
			t.Errorf("the target was killed: %v", err)
		}
		r.check(to.Start(t.Context()))
	}
	r.check(once())
	if d := dbtest.Diff(content(t, r.pg.URL("src")), content(t, url)); d != "" {
		t.Errorf("%s: %s", name, d)
	}
}
