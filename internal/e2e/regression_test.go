package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/sources/postgres/lsn"
)

// TestRegressions does to a database what other tools for PostgreSQL are known to have lost or to have told wrong, and
// expects it back, or named as missing. docs/regressions.md has the list.
func TestRegressions(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "regress", nil)
	s.exec(`CREATE TABLE toast (id int PRIMARY KEY, n int, big text); ALTER TABLE toast ALTER big SET STORAGE EXTERNAL; INSERT INTO toast VALUES (1, 0, repeat('x', 9000));
		CREATE TABLE made (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED); INSERT INTO made VALUES (1, 1);
		CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY REFERENCES parent); INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1);
		CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10); CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (20);
		INSERT INTO parts VALUES (1), (11); CREATE UNLOGGED TABLE fleeting (id int); CREATE TABLE large (id int PRIMARY KEY, v text); SELECT lo_from_bytea(0, 'x');
		CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', connect_timeout '1'); CREATE USER MAPPING FOR postgres SERVER far OPTIONS (password 'x');
		CREATE TABLE halves (id int, v text) PARTITION BY LIST (id); CREATE TABLE near PARTITION OF halves FOR VALUES IN (1, 2); CREATE FOREIGN TABLE away PARTITION OF halves FOR VALUES IN (3) SERVER far;
		INSERT INTO halves VALUES (1, 'here')`)
	s.setup()
	capture := s.capture()
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	for _, sql := range []string{
		`BEGIN; INSERT INTO toast VALUES (2, 0, repeat('y', 9000)); UPDATE toast SET n = 1 WHERE id = 2; COMMIT`,
		`UPDATE toast SET n = 7 WHERE id = 1`,
		`UPDATE made SET a = 5; INSERT INTO made VALUES (2, 2)`,
		`TRUNCATE parent CASCADE`, `INSERT INTO parent VALUES (9)`,
		`TRUNCATE parts`, `INSERT INTO parts VALUES (2), (12)`, `TRUNCATE low`,
		`INSERT INTO fleeting VALUES (1)`, `INSERT INTO halves VALUES (2, 'here too')`,
		`INSERT INTO large VALUES (1, repeat('x', 50 << 20))`,
	} {
		s.exec(sql)
	}
	end := s.here()
	moment := time.Now()
	s.waitPast(a, end)
	for _, part := range []struct {
		name string
		test func(*site)
	}{
		{"values at an idle moment", func(s *site) { s.idleMoment(a, moment) }},
		{"points of another kind", func(s *site) { s.otherPoints(end) }},
		{"gap stays", func(s *site) { s.gapStays(a, capture) }},
		{"older slot", func(s *site) { s.olderSlot(a) }},
	} {
		t.Run(part.name, func(t *testing.T) {
			of := *s
			of.t = t
			part.test(&of)
		})
	}
}

// idleMoment restores a database in which nothing has happened since to a moment behind its last commit: everything is there
// but what no log has, which the report names.
func (s *site) idleMoment(a *archive.Archive, moment time.Time) {
	s.t.Helper()
	eventually(s.t, patience(), "the record has passed the moment", func() bool {
		tail, err := a.Tail(s.t.Context(), 1)
		return err == nil && int64(tail.Latest) > moment.UnixMicro()
	})
	r := s.restore("regress_again", "--to-time", moment.UTC().Format(time.RFC3339Nano))
	want, got := s.dump(s.db), s.dump("regress_again")
	if rows := got[`"public"."fleeting"`].Rows; rows != 0 {
		s.t.Errorf("%d rows of a table that is not logged", rows)
	}
	delete(want, `"public"."fleeting"`)
	delete(got, `"public"."fleeting"`)
	if diff := dbtest.Diff(want, got); diff != "" {
		s.t.Errorf("the restored database differs:\n%s", diff)
	}
	for _, missing := range []string{"rows of unlogged tables: 1 (", "large objects: 1;", "rows of foreign tables: 1 ("} {
		if !strings.Contains(r.stdout, missing) {
			s.t.Errorf("the report does not say %q:\n%s", missing, r.stdout)
		}
	}
}

// otherPoints expects that one kind of point is not taken for another.
func (s *site) otherPoints(end lsn.LSN) {
	s.t.Helper()
	xid := s.value(`SELECT pg_current_xact_id()`)
	for _, point := range [][2]string{{"--to-position", xid}, {"--to-txn", end.String()}, {"--to-seq", end.String()}} {
		if r := s.run("restore", "--dry-run", point[0], point[1]); r.code != 2 {
			s.t.Errorf("%s %s: exit code %d, want 2:\n%s%s", point[0], point[1], r.code, r.stdout, r.stderr)
		}
	}
}

// gapStays sets the source up anew from nothing, and expects that this does not take the gap off the record.
func (s *site) gapStays(a *archive.Archive, capture *process) {
	s.t.Helper()
	capture.kill()
	s.must("setup", "--remove", "--slot", s.slot())
	s.exec(`INSERT INTO parent VALUES (10)`)
	if r := s.capture().result(time.Minute); r.code != 3 {
		s.t.Fatalf("exit code %d, want 3:\n%s", r.code, tail(r.stderr, 5))
	}
	file := filepath.Join(s.archive, "epochs", "00000001", "gap.json")
	was, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	s.must("setup", "--apply", "--slot", s.slot())
	next := s.capture("--new-epoch")
	s.waitBases(a, 2, 1)
	next.kill()
	if now, err := os.ReadFile(file); err != nil || string(now) != string(was) {
		s.t.Errorf("the gap on record is %s, %v; it was %s", now, err, was)
	}
	for _, command := range []string{"log", "status"} {
		if r := s.must(command); !contains(r.stdout, "GAP", "does not exist") {
			s.t.Errorf("%s does not show the gap:\n%s", command, r.stdout)
		}
	}
	if r := s.run("audit", "export"); r.code != 3 {
		s.t.Errorf("an export over the gap: exit code %d, want 3", r.code)
	}
}

// olderSlot puts a slot that stands before the end of the record in the place of the capture's own: nothing is skipped and
// nothing comes twice.
func (s *site) olderSlot(a *archive.Archive) {
	s.t.Helper()
	s.exec(`SELECT pg_copy_logical_replication_slot('` + s.slot() + `', 'older')`)
	first := s.capture()
	s.exec(`INSERT INTO parent VALUES (100)`)
	s.waitPast(a, s.here())
	first.kill()
	s.exec(`SELECT pg_drop_replication_slot('` + s.slot() + `')`)
	s.exec(`SELECT pg_copy_logical_replication_slot('older', '` + s.slot() + `'), pg_drop_replication_slot('older')`)
	s.exec(`INSERT INTO parent VALUES (101)`)
	second := s.capture()
	s.exec(`INSERT INTO parent VALUES (102)`)
	s.waitPast(a, s.here())
	second.kill()
	var ids []string
	for _, txn := range readRecord(s.t, a, 2) {
		for _, row := range txn.rows["public.parent"] {
			ids = append(ids, row.new[0])
		}
	}
	if want := []string{"100", "101", "102"}; !slices.Equal(ids, want) {
		s.t.Errorf("the record has the rows %q, want %q", ids, want)
	}
	if epochs, err := a.Epochs(s.t.Context()); err != nil || len(epochs) != 2 {
		s.t.Errorf("epochs %+v, %v", epochs, err)
	}
}
