package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/change"
	"txreel/internal/dbtest"
)

// TestRandomDefinitions lets an author send thousands of statements at random, of all that a database knows, to a source and
// to a twin of it that no txreel was ever set up for: in both each of them ends alike, and at the end both are the same. At
// random points a restore from a base of before it all is the source as it was, as pg_dump writes it and in every row; also when the
// restore was killed in the middle of it.
func TestRandomDefinitions(t *testing.T) {
	t.Parallel()
	seed := *tortureSeed
	if seed == 0 {
		if seed = 1; *long { // what everybody waits for does not depend on luck
			seed = rand.Uint64()
		}
	}
	t.Logf("-e2e.seed %d", seed)
	a := &author{Rand: rand.New(rand.NewPCG(seed, 7))}
	pg := dbtest.PG(t)
	pg.MustExec(t, "postgres", "CREATE ROLE author_1; CREATE ROLE author_2; CREATE ROLE \"Author 3\"")
	s := newSite(t, pg, "random", nil).setup()
	if _, err := pg.CreateDB(t.Context(), "twin"); err != nil {
		t.Fatal(err)
	}
	sessions := []*pgx.Conn{session(t, pg, "random"), session(t, pg, "twin")}
	for _, conn := range sessions {
		if err := send(t.Context(), conn, "CREATE TABLE public.trail (a text, b text); GRANT ALL ON SCHEMA public TO author_1, author_2"); err != "" {
			t.Fatal(err)
		}
	}
	s.capture()
	archived := s.waitArchive()
	base := s.waitBases(archived, 1, 1)[0]

	const long = 50
	points, statements := make([]randomPoint, 0, long), 0
	var good int
	each := times(60, 80)
	for range times(2, long) {
		for until := statements + each; statements < until; {
			a.look(t, pg, "random")
			for _, sql := range a.client() {
				if sql == "" {
					continue
				}
				statements++
				ours, theirs := send(t.Context(), sessions[0], sql), send(t.Context(), sessions[1], sql)
				if sqlState(ours) != sqlState(theirs) {
					t.Fatalf("with txreel set up %q, without %q: %s", ours, theirs, sql)
				}
				if ours == "" {
					good++
				} else if sessions[0].PgConn().TxStatus() == 'E' && send(t.Context(), sessions[0], "ROLLBACK TO s")+send(t.Context(), sessions[1], "ROLLBACK TO s") != "" {
					break
				}
			}
			for _, conn := range sessions {
				for _, sql := range []string{"ROLLBACK", "DISCARD ALL", sessionSettings} {
					if err := send(t.Context(), conn, sql); err != "" {
						t.Fatal(err)
					}
				}
			}
		}
		points = append(points, randomPoint{s.waitPast(archived, s.here()).Seq, s.schema(s.db), s.logged(s.db)})
	}
	t.Logf("%d of %d statements did something", good, statements)
	noIdentity := regexp.MustCompile(`(?m)^ALTER TABLE ONLY .* REPLICA IDENTITY .*\n`)
	ours, theirs := noIdentity.ReplaceAllString(s.schema(s.db), ""), noIdentity.ReplaceAllString(s.schema("twin"), "")
	if diff := firstDifference(theirs, ours); diff != "" {
		t.Errorf("with txreel set up the schema is another:\n%s", diff)
	}
	if diff := dbtest.Diff(s.dump("twin"), s.dump(s.db)); diff != "" {
		t.Errorf("with txreel set up the rows are others:\n%s", diff)
	}

	last := points[len(points)-1]
	ways := [][]string{{"--base", base.ID}, {"--base", base.ID, "--merge-from", "1"}}
	s.killedRestore("random_killed", a.IntN(90)+5, base.Seq, last.seq, ways[a.IntN(2)]...)
	s.matches("random_killed", last)
	for i, p := range points[:len(points)-1] {
		db := fmt.Sprintf("random_%d", i)
		s.restore(db, append(slices.Clone(ways[i%2]), "--to-seq", p.seq.String())...)
		s.matches(db, p)
		pg.MustExec(t, "postgres", "DROP DATABASE "+db)
	}
}

// randomPoint is what the source was at a transaction.
type randomPoint struct {
	seq    change.Seq
	schema string
	rows   map[string]dbtest.TableDump
}

func (s *site) matches(db string, p randomPoint) {
	s.t.Helper()
	if diff := firstDifference(p.schema, s.schema(db)); diff != "" {
		s.t.Errorf("the schema at %s:\n%s", p.seq, diff)
	}
	if diff := dbtest.Diff(p.rows, s.logged(db)); diff != "" {
		s.t.Errorf("the rows at %s:\n%s", p.seq, diff)
	}
}

// logged dumps a database but for tables that are in no log.
func (s *site) logged(db string) map[string]dbtest.TableDump {
	s.t.Helper()
	d := s.dump(db)
	for _, row := range s.pg.MustQuery(s.t, db, `SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relpersistence = 'u'`) {
		delete(d, pgx.Identifier(row).Sanitize())
	}
	return d
}

// killedRestore restores into a new database, and is killed when it has come so far, in hundredths of its way; then it is
// run again.
func (s *site) killedRestore(db string, at int, from, to change.Seq, args ...string) {
	s.t.Helper()
	target, err := s.pg.CreateDB(s.t.Context(), db)
	if err != nil {
		s.t.Fatal(err)
	}
	with := s.with("TXREEL_TARGET=" + target)
	p := with.start(append([]string{"restore", "--to-seq", to.String()}, args...)...)
	enough := from + (to-from)*change.Seq(at)/100
	eventually(s.t, patience(), "the restore gets on", func() bool {
		rows, err := s.pg.Query(s.t.Context(), db, "SELECT seq FROM txreel_restore.progress")
		return !p.alive() || err == nil && len(rows) == 1 && rows[0][0] >= enough.String() // hexadecimal, all of one length
	})
	if p.alive() {
		p.kill()
		with.must(append([]string{"restore", "--to-seq", to.String()}, args...)...)
		return
	}
	if code := p.wait(patience()); code != 0 {
		s.t.Fatalf("%s ended with %d:\n%s", p, code, tail(p.stderr(), 10))
	}
	s.t.Error("the restore had ended before it could be killed")
}

const sessionSettings = "SET application_name = 'random definitions'; SET lock_timeout = '30s'"

// session opens one that lasts.
func session(t *testing.T, pg *dbtest.Postgres, db string) *pgx.Conn {
	t.Helper()
	conn, err := pg.Conn(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) }) // the server goes with it
	if err := send(t.Context(), conn, sessionSettings); err != "" {
		t.Fatal(err)
	}
	return conn
}

// sqlState is the SQLSTATE of what send returns: the message may name the database.
func sqlState(refused string) string {
	code, _, _ := strings.Cut(refused, " ")
	return code
}

// send sends a string as one message, and returns the SQLSTATE and message that it ends with; "" when it is carried out.
func send(ctx context.Context, conn *pgx.Conn, sql string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := conn.PgConn().Exec(ctx, sql).Close()
	var refused *pgconn.PgError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &refused):
		return refused.Code + " " + strings.Join(strings.Fields(refused.Message), " ")
	}
	return err.Error()
}
