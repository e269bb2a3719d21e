package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/restore"
	"txreel/sources/postgres/pgbase"
)

// small records a small history: a base, ten transactions, another base and ten more.
func small(t *testing.T, pg *dbtest.Postgres, db string) *recorder {
	t.Helper()
	createDB(t, pg, db, `CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'v' FROM generate_series(1, 100) i; CREATE TABLE b (n int);`)
	r := record(t, pg, db)
	r.perSeg = 3
	r.base()
	for range 2 {
		for i := range 10 {
			r.exec(fmt.Sprintf("UPDATE a SET v = v || %d WHERE id <= 3", i))
		}
		r.base()
	}
	return r
}

// TestPlan resolves every kind of goal against a record, and refuses what the
// record cannot prove.
func TestPlan(t *testing.T) {
	ctx := context.Background()
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	r := small(t, pg, "src")
	for range 5 {
		r.exec("UPDATE a SET v = 'w' WHERE id = 5")
	}
	tail := r.capture()
	at := func(s change.Seq) change.Txn {
		e, ok, err := r.archive.Lookup(ctx, 1, s)
		r.check(err)
		if !ok {
			t.Fatalf("no transaction %s", s)
		}
		return e.Txn
	}
	r.check(r.archive.CreateMark(ctx, archive.Mark{Name: "noon", Epoch: 1, Seq: 4}))
	plan := func(g restore.Goal) (*restore.Plan, error) { return restore.MakePlan(ctx, r.archive, Dialect{}, g) }

	for _, c := range []struct {
		goal      restore.Goal
		cut, base change.Seq
	}{
		{restore.Goal{}, tail.Seq, 20},
		{restore.Goal{Before: true}, tail.Seq - 1, 20},
		{restore.Goal{Kind: restore.AtSeq}, 0, 0},
		{restore.Goal{Kind: restore.AtSeq, Seq: 1, Before: true}, 0, 0},
		{restore.Goal{Kind: restore.AtSeq, Seq: 9}, 9, 0},
		{restore.Goal{Kind: restore.AtSeq, Seq: 10}, 10, 10},
		{restore.Goal{Kind: restore.AtSeq, Seq: 19, Epoch: 1}, 19, 10},
		{restore.Goal{Kind: restore.AtXID, Text: at(7).XID}, 7, 0},
		{restore.Goal{Kind: restore.AtXID, Text: at(7).XID, Before: true}, 6, 0},
		{restore.Goal{Kind: restore.AtPosition, Text: string(at(12).Position)}, 12, 10},
		{restore.Goal{Kind: restore.AtPosition, Text: string(at(12).Position), Before: true}, 11, 10},
		{restore.Goal{Kind: restore.AtPosition, Text: string(tail.Position)}, tail.Seq, 20},
		{restore.Goal{Kind: restore.AtTime, Time: at(8).CommitTime}, 8, 0},
		{restore.Goal{Kind: restore.AtTime, Time: at(8).CommitTime, Before: true}, 7, 0},
		{restore.Goal{Kind: restore.AtTime, Time: at(8).CommitTime - 1}, 7, 0},
		{restore.Goal{Kind: restore.AtTime, Time: tail.Latest}, tail.Seq, 20},
		{restore.Goal{Kind: restore.AtMark, Text: "noon"}, 4, 0},
		{restore.Goal{Kind: restore.AtMark, Text: "noon", Before: true}, 3, 0},
	} {
		p, err := plan(c.goal)
		if err != nil {
			t.Errorf("%s: %v", c.goal, err)
			continue
		}
		if p.Seq != c.cut || p.Base.Seq != c.base || p.Transactions != uint64(c.cut-c.base) {
			t.Errorf("%s: cut %s from base %s with %d transactions, want %s from %s", c.goal, p.Seq, p.Base.Seq, p.Transactions, c.cut, c.base)
		}
		if (p.Cut == nil) != (c.cut == 0) || p.Cut != nil && p.Cut.Seq != c.cut || (p.Next == nil) != (c.cut == tail.Seq) || p.Next != nil && p.Next.Seq != c.cut+1 {
			t.Errorf("%s: chosen %v, next %v", c.goal, p.Cut, p.Next)
		}
		if s := p.String(); !strings.Contains(s, "restores to") || !strings.Contains(s, "leaves out") {
			t.Errorf("%s prints as %s", c.goal, s)
		}
		if b, err := p.MarshalJSON(); err != nil || !strings.Contains(string(b), `"next_excluded"`) {
			t.Errorf("%s in JSON: %s %v", c.goal, b, err)
		}
	}
	for _, c := range []struct {
		goal  restore.Goal
		words string
	}{
		{restore.Goal{Kind: restore.AtSeq, Seq: tail.Seq + 1}, "--to latest"},
		{restore.Goal{Kind: restore.AtSeq, Before: true}, "nothing comes before"},
		{restore.Goal{Kind: restore.AtXID, Text: "4000000000"}, "rolled back"},
		{restore.Goal{Kind: restore.AtPosition, Text: "FFFF/0"}, "--to latest"},
		{restore.Goal{Kind: restore.AtPosition, Text: "0/1"}, "--to-seq 0000000000000000"},
		{restore.Goal{Kind: restore.AtTime, Time: tail.Latest + 1}, "--to latest"},
		{restore.Goal{Kind: restore.AtTime, Time: at(1).CommitTime - 3600e6}, "--to-seq 0000000000000000"},
		{restore.Goal{Kind: restore.AtMark, Text: "nobody"}, "no mark"},
		{restore.Goal{Epoch: 7}, "no epoch 7"},
	} {
		_, err := plan(c.goal)
		wantError(t, err, restore.ErrNotInArchive, c.words)
	}

	// A gap ends the epoch: its points stay, new ones are in the next, which has no base yet.
	r.check(r.archive.RecordGap(ctx, 1, archive.CauseGap, "test"))
	r.newEpoch(archive.CauseGap)
	_, err := plan(restore.Goal{})
	wantError(t, err, restore.ErrNotInArchive, "no base snapshot")
	p, err := plan(restore.Goal{Kind: restore.AtXID, Text: at(7).XID})
	if err != nil || p.Epoch != 1 || p.Seq != 7 {
		t.Errorf("a point before the gap: %+v, %v", p, err)
	}
	if p, err = plan(restore.Goal{Epoch: 1}); err != nil || p.Seq != tail.Seq {
		t.Errorf("the last point before the gap: %+v, %v", p, err)
	}
	r.exec("INSERT INTO b VALUES (1)")
	r.base()
	if p, err = plan(restore.Goal{}); err != nil || p.Epoch != 2 || p.Base.Epoch != 2 {
		t.Errorf("latest after the gap: %+v, %v", p, err)
	}
}

// TestDefinitionChange refuses a span over ALTER TABLE, and names the exact points
// on both sides of it.
func TestDefinitionChange(t *testing.T) {
	ctx := context.Background()
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	r := small(t, pg, "src")
	r.exec("UPDATE a SET v = 'x' WHERE id = 1")
	r.exec("ALTER TABLE a ADD COLUMN more int")
	r.exec("UPDATE a SET more = 1 WHERE id = 1")
	r.exec("CREATE TABLE fresh (id int PRIMARY KEY)")
	r.exec("INSERT INTO fresh VALUES (1)")
	tail := r.capture()
	changed := tail.Seq - 1
	if pg.Major < 15 { // which sends an empty transaction for the CREATE TABLE between the two
		changed--
	}
	_, err := restore.MakePlan(ctx, r.archive, Dialect{}, restore.Goal{})
	wantError(t, err, restore.ErrDefinitionChanged, "public.a", "--to-seq "+(changed-1).String(), "none after it")
	p, err := restore.MakePlan(ctx, r.archive, Dialect{}, restore.Goal{Kind: restore.AtSeq, Seq: changed - 1})
	if err != nil || p.Seq != changed-1 {
		t.Errorf("the point before the change: %v", err)
	}
	r.exec("INSERT INTO fresh VALUES (2)")
	next := r.base()
	r.exec("INSERT INTO fresh VALUES (3)")
	r.capture()
	_, err = restore.MakePlan(ctx, r.archive, Dialect{}, restore.Goal{Kind: restore.AtSeq, Seq: changed})
	wantError(t, err, restore.ErrDefinitionChanged, "--to-seq "+(changed-1).String(), "--to-seq "+next.Seq.String())
	if p, err = restore.MakePlan(ctx, r.archive, Dialect{}, restore.Goal{}); err != nil || p.Base.ID != next.ID {
		t.Errorf("behind the next base: %v", err)
	}
}

// TestRefusals checks that what must not be restored, or not there, is refused before
// anything is written.
func TestRefusals(t *testing.T) {
	ctx := context.Background()
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	r := small(t, pg, "src")
	p, err := restore.MakePlan(ctx, r.archive, Dialect{}, restore.Goal{Kind: restore.AtSeq, Seq: 15})
	r.check(err)
	objects := func(db string) string {
		return fmt.Sprint(pg.MustQuery(t, db, "SELECT relnamespace::regnamespace, relname FROM pg_class WHERE oid >= 16384 ORDER BY 1, 2"))
	}
	refuse := func(db string, p *restore.Plan, is error, words ...string) {
		t.Helper()
		before := objects(db)
		_, err := runPlan(ctx, r, p, pg.URL(db), false)
		wantError(t, err, is, words...)
		if after := objects(db); after != before {
			t.Errorf("a refused restore changed %s: %s, before %s", db, after, before)
		}
	}
	createDB(t, pg, "full", "")
	for name, sql := range map[string]string{
		"table": "CREATE TABLE mine ()", "view": "CREATE VIEW mine AS SELECT 1", "function": "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"type": "CREATE TYPE mine AS ENUM ()", "sequence": "CREATE SEQUENCE mine", "schema": "CREATE SCHEMA mine",
	} {
		pg.MustExec(t, "full", sql)
		refuse("full", p, restore.ErrNotEmpty, "it has "+name+" ", "mine", "--force")
		pg.MustExec(t, "full", "DROP "+name+" mine")
	}
	refuse("src", p, restore.ErrNotEmpty, "recorded database itself")
	_, err = runPlan(ctx, r, p, pg.URL("src"), true)
	wantError(t, err, restore.ErrNotEmpty, "recorded database itself")

	pg.MustExec(t, "postgres", "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1'")
	refuse("latin", p, nil, "encoding LATIN1", "ENCODING 'UTF8'")

	createDB(t, pg, "empty", "")
	newer := *p
	base := *p.Base
	var engine pgbase.Engine
	r.check(json.Unmarshal(base.Engine, &engine))
	engine.ServerVersion = 990001
	base.Engine = r.marshal(engine)
	newer.Base = &base
	refuse("empty", &newer, nil, "same or a newer major version")

	// An interrupted restore to another point.
	createDB(t, pg, "half", bookSQL+"INSERT INTO txreel_restore.progress VALUES ('"+p.Archive+"', '1', 'base', '0000000000000007', '', '{}')")
	refuse("half", p, restore.ErrOtherRestore, "--to-seq 0000000000000007")

	if _, err := Open(ctx, pg.URL("nowhere"), Options{}); err == nil || !strings.Contains(err.Error(), "CREATE DATABASE") || strings.Contains(err.Error(), pg.Password()) {
		t.Errorf("a database that does not exist: %v", err)
	}
	if _, err := Open(ctx, pg.URLAs("postgres", "wrong-secret", "empty"), Options{}); err == nil || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("a wrong password: %v", err)
	}
	_, err = Open(ctx, "postgres://u:hidden@127.0.0.1:1/db", Options{})
	wantError(t, err, restore.ErrUnreachable, "127.0.0.1:1")
	if strings.Contains(err.Error(), "hidden") {
		t.Errorf("the error shows the password: %v", err)
	}

	t.Run("missing segment", func(t *testing.T) {
		key := filepath.Join(r.dir, archive.SegmentKey(1, 14))
		r.check(os.Rename(key, key+".away"))
		defer func() { r.check(os.Rename(key+".away", key)) }()
		_, err := restore.MakePlan(ctx, r.archive, Dialect{}, restore.Goal{Kind: restore.AtSeq, Seq: 15})
		wantError(t, err, archive.ErrCorrupt)
	})
	chunk := filepath.Join(r.dir, p.Base.Key(p.Base.Tables[0].Chunks[0].Name))
	t.Run("missing chunk", func(t *testing.T) {
		r.check(os.Rename(chunk, chunk+".away"))
		defer func() { r.check(os.Rename(chunk+".away", chunk)) }()
		_, err := restore.MakePlan(ctx, r.archive, Dialect{}, restore.Goal{Kind: restore.AtSeq, Seq: 15})
		wantError(t, err, archive.ErrCorrupt, p.Base.Tables[0].Chunks[0].Name, "missing")
	})
	t.Run("damaged chunk", func(t *testing.T) {
		good, err := os.ReadFile(chunk)
		r.check(err)
		r.check(os.Chmod(chunk, 0o600))
		for _, at := range []int{5, len(good) - 1} {
			bad := append([]byte(nil), good...)
			bad[at] ^= 0x10
			r.check(os.WriteFile(chunk, bad, 0o600))
			name := fmt.Sprintf("damaged%d", at)
			createDB(t, pg, name, "")
			_, err = runPlan(ctx, r, p, pg.URL(name), false)
			wantError(t, err, archive.ErrCorrupt, p.Base.Tables[0].Chunks[0].Name)
		}
		r.check(os.WriteFile(chunk, good, 0o600))
		// What was begun goes on once the chunk is whole again.
		_, err = runPlan(ctx, r, p, pg.URL("damaged5"), false)
		r.check(err)
	})
}

// meddler does something to the target before a method runs.
type meddler struct {
	*Target
	beforeFinish, beforeVerify func()
}

func (m meddler) Finish(ctx context.Context) error {
	if m.beforeFinish != nil {
		m.beforeFinish()
	}
	return m.Target.Finish(ctx)
}

func (m meddler) Verify(ctx context.Context) (*restore.Verification, error) {
	if m.beforeVerify != nil {
		m.beforeVerify()
	}
	return m.Target.Verify(ctx)
}

// TestDoubt checks that a target that is not what the record says is never called
// restored.
func TestDoubt(t *testing.T) {
	ctx := context.Background()
	pg := dbtest.PG(t, "log_min_error_statement=panic")
	createDB(t, pg, "src", `CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'v' FROM generate_series(1, 10) i;
		CREATE TABLE c (id int PRIMARY KEY, a int REFERENCES a); INSERT INTO c VALUES (1, 1);`)
	r := record(t, pg, "src")
	r.base()
	r.exec("UPDATE a SET v = 'w' WHERE id = 9")
	r.exec("UPDATE a SET v = 'w' WHERE id = 1")
	r.exec("INSERT INTO a VALUES (11, 'x')")
	r.capture()
	p, err := restore.MakePlan(ctx, r.archive, Dialect{}, restore.Goal{})
	r.check(err)
	try := func(name string, p *restore.Plan, before func(m *meddler)) *restore.PartialError {
		t.Helper()
		createDB(t, pg, name, "")
		target, err := Open(ctx, pg.URL(name), Options{PgRestore: pg.Client("pg_restore")})
		r.check(err)
		defer target.Close()
		m := meddler{Target: target}
		if before != nil {
			before(&m)
		}
		_, err = restore.Run(ctx, r.archive, p, m, restore.Options{})
		var partial *restore.PartialError
		if !errors.As(err, &partial) {
			t.Fatalf("%s: error %v is no PartialError", name, err)
		}
		return partial
	}

	// A base that lacks rows: the second change finds nothing to change.
	short, base := *p, *p.Base
	base.Tables = append([]archive.BaseTable(nil), base.Tables...)
	base.Tables[0].Rows -= base.Tables[0].Chunks[0].Rows
	base.Tables[0].Chunks = base.Tables[0].Chunks[1:]
	short.Base = &base
	partial := try("short", &short, nil)
	wantError(t, partial, nil, "public.a", `"id" = 1`, "changed 0 rows")
	if partial.Applied != p.Base.Seq || partial.Failed != p.Base.Seq+2 || partial.Phase != restore.PhaseReplay {
		t.Errorf("stopped at %+v", partial)
	}
	if rows := pg.MustQuery(t, "short", "SELECT count(*) FROM a WHERE v <> 'v'"); rows[0][0] != "0" {
		t.Error("a change was committed although one beside it failed")
	}

	partial = try("orphan", p, func(m *meddler) {
		m.beforeFinish = func() { pg.MustExec(t, "orphan", "DELETE FROM a WHERE id = 1") }
	})
	wantError(t, partial, nil, "c_a_fkey", "violates foreign key")
	if partial.Phase != restore.PhaseFinish || partial.Applied != p.Seq {
		t.Errorf("stopped at %+v", partial)
	}
	partial = try("extra", p, func(m *meddler) {
		m.beforeVerify = func() { pg.MustExec(t, "extra", "INSERT INTO a VALUES (99, 'mine')") }
	})
	wantError(t, partial, nil, "public.a", "12 rows", "(base and changes) are 11 rows, the target has 12 rows")
	partial = try("moved", p, func(m *meddler) {
		m.beforeVerify = func() { pg.MustExec(t, "moved", "UPDATE txreel_restore.progress SET seq = '01'") }
	})
	wantError(t, partial, nil, "holds transaction 0000000000000001")
}
