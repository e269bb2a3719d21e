package postgres

import (
	"context"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/restore"
)

// TestBaseAhead restores from a base that holds transactions ahead of one whose COMMIT waited for a standby: folded, replayed one by one, and from a base
// that is made of it and the record; and where the one that waited has made a table, merged behind that. What the base holds must not be done again,
// which a table without a key would show.
func TestBaseAhead(t *testing.T) {
	t.Run("rows", func(t *testing.T) { testBaseAhead(t, "") })
	t.Run("definitions", func(t *testing.T) {
		testBaseAhead(t, `CREATE TABLE made (id int PRIMARY KEY, v text); INSERT INTO made VALUES (1, 'waited');`)
	})
}

func testBaseAhead(t *testing.T, definitions string) {
	ctx := context.Background()
	pg := dbtest.PG(t)
	createDB(t, pg, "src", `CREATE TABLE a (id int PRIMARY KEY, v text, body text); ALTER TABLE a ALTER body SET STORAGE EXTERNAL; INSERT INTO a SELECT i, 'v', repeat('x', 3000) FROM generate_series(1, 200) i;
		CREATE TABLE loose (v text, n int); ALTER TABLE loose REPLICA IDENTITY FULL; INSERT INTO loose SELECT 'v', 1 FROM generate_series(1, 10);
		CREATE TABLE one (n int PRIMARY KEY); INSERT INTO one VALUES (1); CREATE TABLE two (n int PRIMARY KEY); INSERT INTO two VALUES (2)`)
	r := record(t, pg, "src")
	if definitions != "" {
		r.logDefinitions()
	}
	first := r.base()
	r.exec(`UPDATE a SET v = 'before'`)

	waitFor := func(what, sql string) {
		t.Helper()
		for until := time.Now().Add(time.Minute); pg.MustQuery(t, "src", sql)[0][0] != "t"; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("gave up waiting for %s", what)
			}
		}
	}
	standby := func(name string) {
		t.Helper()
		r.exec(`ALTER SYSTEM SET synchronous_standby_names = '` + name + `'`)
		r.exec(`SELECT pg_reload_conf()`)
		waitFor("the setting", `SELECT current_setting('synchronous_standby_names') = '`+name+`'`)
	}
	standby("nobody")
	r.check(pg.AwaitSync(ctx, "src"))
	before := r.capture().Seq
	waiter, err := pg.Conn(ctx, "src")
	r.check(err)
	defer waiter.Close(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := waiter.PgConn().Exec(ctx, `BEGIN; `+definitions+` UPDATE a SET v = 'waited' WHERE id % 10 = 1; DELETE FROM a WHERE id % 10 = 2; INSERT INTO a SELECT i, 'waited' FROM generate_series(300, 400) i;
			INSERT INTO loose SELECT 'v', 1 FROM generate_series(1, 3); INSERT INTO one VALUES (11); COMMIT`).ReadAll()
		done <- err
	}()
	waitFor("a commit that waits", `SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)
	for _, sql := range []string{
		`UPDATE a SET v = 'passed' WHERE id % 10 = 3`, `DELETE FROM a WHERE id % 10 = 4`, `INSERT INTO a SELECT i, 'passed' FROM generate_series(500, 600) i`,
		`DELETE FROM loose WHERE ctid = (SELECT min(ctid) FROM loose); INSERT INTO loose SELECT 'w', 2 FROM generate_series(1, 2)`, `TRUNCATE two; INSERT INTO two VALUES (22)`,
	} {
		r.exec(`BEGIN; SET LOCAL synchronous_commit = local; ` + sql + `; COMMIT`)
	}
	b := r.baseAt(func(b *archive.Base) {
		for s := before + 2; s <= b.Seq; s++ {
			b.Ahead = append(b.Ahead, s)
		}
		b.Seq = before
	})
	if len(b.Ahead) != 5 {
		t.Fatalf("the base holds %v ahead of %s", b.Ahead, before+1)
	}
	standby("")
	r.check(<-done)
	r.exec(`UPDATE a SET v = v || '!' WHERE id % 7 = 0; DELETE FROM loose WHERE n = 2 AND ctid = (SELECT min(ctid) FROM loose WHERE n = 2)`)
	r.exec(`INSERT INTO two VALUES (23); UPDATE a SET id = id + 10000 WHERE id % 50 = 3`)
	end := r.capture().Seq

	for _, c := range []struct {
		name string
		seq  change.Seq
	}{{"upto", b.Upto()}, {"end", end}} {
		goal := restore.Goal{Kind: restore.AtSeq, Seq: c.seq, Base: first.ID}
		url, _ := restoreTo(t, r, goal, c.name+"_first")
		want := content(t, url)
		if c.seq == end {
			want = content(t, pg.URL("src"))
		}
		for name := range want {
			if strings.HasPrefix(name, `"txreel"`) {
				delete(want, name)
			}
		}
		same := func(name, id string, replayed uint64) *restore.Report {
			t.Helper()
			goal.Base = id
			url, rep := restoreTo(t, r, goal, name)
			if d := dbtest.Diff(want, content(t, url)); d != "" || rep.Replayed != replayed {
				t.Errorf("%s: %d transactions replayed, want %d:\n%s", name, rep.Replayed, replayed, d)
			}
			return rep
		}
		left := uint64(c.seq-b.Seq) - uint64(len(b.Ahead))
		same(c.name+"_folded", b.ID, left)
		r.exact = true
		same(c.name+"_exact", b.ID, left)
		r.exact = false
		if definitions == "" {
			same(c.name+"_rolled", rollForward(t, r, c.seq, b.ID, 1).ID, 0)
			continue
		}
		r.merge = 1
		if rep := same(c.name+"_merged", b.ID, left); rep.Merged == 0 {
			t.Errorf("nothing was merged: %v", rep.Warnings)
		}
		r.merge = 0
	}
}
