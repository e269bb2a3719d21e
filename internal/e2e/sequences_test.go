package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"txreel/change"
	"txreel/internal/dbtest"
)

// TestSequences draws values that no row shows, and kills the capture in between: what a restore proves by a
// sample hands out none of them again.
func TestSequences(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "seqs", nil).setup()
	s.exec(`CREATE TABLE ticks (n int PRIMARY KEY); CREATE SEQUENCE up CACHE 5; CREATE SEQUENCE "Down By 3" INCREMENT -3;
		CREATE SEQUENCE small AS smallint; CREATE TABLE own (id bigserial PRIMARY KEY, ident int GENERATED ALWAYS AS IDENTITY)`)
	sequences := []string{"up", `"Down By 3"`, "small", "own_id_seq", "own_ident_seq"}
	capture := s.capture("--sequence-sample", "100ms")
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	type point struct {
		seq   change.Seq
		drawn []int64
	}
	var points []point
	tick := 0
	step := func() {
		tick++
		p := point{}
		for i, q := range sequences {
			v, err := strconv.ParseInt(s.value(fmt.Sprintf("SELECT v FROM (SELECT nextval('%s') v FROM generate_series(1, %d)) x ORDER BY abs(v) DESC LIMIT 1", q, 3*i+2000)), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			p.drawn = append(p.drawn, v)
		}
		s.exec(fmt.Sprintf("INSERT INTO ticks VALUES (%d)", tick))
		p.seq = s.waitPast(a, s.here()).Seq
		points = append(points, p)
	}
	for range 4 {
		step()
	}
	capture.kill()
	capture = s.capture("--sequence-sample", "100ms")
	step()
	s.exec("CREATE SEQUENCE late")
	sequences = append(sequences, "late")
	step()
	// The second sample that comes behind a transaction was begun behind it, and covers it.
	covered := func(seq change.Seq) {
		t.Helper()
		eventually(t, patience(), "two fences behind the last transaction", func() bool {
			s.exec("UPDATE ticks SET n = n WHERE n = 1")
			fences := 0
			for x, err := range a.Segments(t.Context(), 1, seq) {
				if err != nil {
					t.Fatal(err)
				}
				for i := range x.Txns {
					if e := &x.Txns[i]; e.Seq > seq && strings.HasPrefix(e.Note, "fence ") {
						fences++
					}
				}
			}
			return fences > 1
		})
	}
	covered(points[len(points)-1].seq)
	// What was set back goes on from there, and hands out none of the values that came since.
	s.exec(`CREATE SEQUENCE turned; CREATE SEQUENCE again; CREATE SEQUENCE round MAXVALUE 50 CYCLE; CREATE SEQUENCE early; CREATE TABLE filled (id serial PRIMARY KEY); INSERT INTO filled SELECT FROM generate_series(1, 500)`)
	s.exec(`SELECT nextval('turned'), nextval('again'), nextval('early') FROM generate_series(1, 3000); SELECT nextval('round') FROM generate_series(1, 70)`)
	s.waitPast(a, s.here())
	s.exec(`SELECT setval('turned', 10); ALTER SEQUENCE again RESTART WITH 20; ALTER SEQUENCE early RENAME TO renamed; TRUNCATE filled RESTART IDENTITY; INSERT INTO filled SELECT FROM generate_series(1, 3);
		SELECT nextval('turned'), nextval('again') FROM generate_series(1, 5); SELECT nextval('renamed') FROM generate_series(1, 100); SELECT nextval('round') FROM generate_series(1, 3)`)
	s.exec("INSERT INTO ticks VALUES (1000)")
	back := s.waitPast(a, s.here()).Seq
	covered(back)
	capture.kill()
	s.restore("seqs_back", "--to-seq", back.String())
	for q, since := range map[string]int64{"turned": 15, "again": 24, "renamed": 3100, "round": 23, "filled_id_seq": 3} {
		if got, _ := strconv.ParseInt(s.in("seqs_back", fmt.Sprintf("SELECT nextval('%s')", q)), 10, 64); got <= since {
			t.Errorf("sequence %s hands out %d, after %d", q, got, since)
		}
	}
	// Nothing proves how far one had come that was renamed behind the last sample: it is set ahead of what was known by its name of before.
	capture = s.capture("--sequence-sample", "0")
	s.exec(`ALTER SEQUENCE renamed RENAME TO renamed_again`)
	s.exec(`SELECT nextval('renamed_again') FROM generate_series(1, 100); INSERT INTO ticks VALUES (1001)`)
	s.waitPast(a, s.here())
	capture.kill()
	s.restore("seqs_unproven")
	if got, _ := strconv.ParseInt(s.in("seqs_unproven", "SELECT nextval('renamed_again')"), 10, 64); got <= 3200 {
		t.Errorf("the renamed sequence hands out %d, after 3200", got)
	}
	for i, p := range []point{points[1], points[3], points[len(points)-1]} {
		db := fmt.Sprintf("seqs_%d", i)
		r := s.restore(db, "--to-seq", p.seq.String())
		if !contains(r.stdout, "proven by a sample") || !contains(r.stdout, ", 0 not proven") {
			t.Errorf("restored to %s:\n%s", p.seq, r.stdout)
		}
		for j, q := range sequences[:min(len(p.drawn), len(sequences))] {
			got, _ := strconv.ParseInt(s.in(db, fmt.Sprintf("SELECT nextval('%s')", q)), 10, 64)
			if drawn := p.drawn[j]; drawn < 0 && got >= drawn || drawn > 0 && got <= drawn {
				t.Errorf("at %s sequence %s hands out %d, after %d", p.seq, q, got, drawn)
			}
		}
	}
}
