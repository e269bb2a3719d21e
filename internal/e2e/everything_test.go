package e2e

import (
	"fmt"
	"strings"
	"testing"

	"txreel/change"
	"txreel/internal/dbtest"
)

// notDumped is what the comparison of schemas leaves out, or pg_dump does not write: publications, and the order in which things fire.
const notDumped = `SELECT concat_ws(E'\n',
	(SELECT string_agg(concat_ws(' ', pubname, p.prattrs, pg_get_expr(p.prqual, p.prrelid), p.prrelid::regclass), E'\n' ORDER BY pubname) FROM pg_publication LEFT JOIN pg_publication_rel p ON p.prpubid = pg_publication.oid WHERE pubname NOT LIKE 'txreel%'),
	(SELECT string_agg(concat_ws(' ', tgrelid::regclass, tgname, tgenabled, tgdeferrable, tginitdeferred), E'\n' ORDER BY tgrelid::regclass::text, tgname) FROM pg_trigger WHERE NOT tgisinternal),
	(SELECT string_agg(concat_ws(' ', conrelid::regclass, conname, condeferrable, condeferred, convalidated, pg_get_constraintdef(oid)), E'\n' ORDER BY conrelid::regclass::text, conname) FROM pg_constraint WHERE conrelid <> 0 AND conrelid::regclass::text NOT LIKE 'txreel%'))`

// eventTriggers are the user's: a base has them, and nothing tells of one that is made later.
const eventTriggers = `SELECT coalesce(string_agg(concat_ws(' ', evtname, evtevent, evtenabled, evtfoid::regproc, evttags), E'\n' ORDER BY evtname), '') FROM pg_event_trigger WHERE evtname NOT LIKE 'txreel%'`

// TestEverything restores a database that has an object of every kind and values of every type, each changed in every way
// its kind has: one where all of it stood before the base and, in the long form, one where the base has nothing and all of it was recorded.
func TestEverything(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t, "max_prepared_transactions=10")
	pg.MustExec(t, "postgres", `CREATE ROLE every_owner`)
	for _, late := range []bool{false, true} {
		if late && !*long {
			continue // TestDefinitions and TestRandomDefinitions come by most of it
		}
		name := map[bool]string{false: "everything", true: "everything_recorded"}[late]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			everything(t, newSite(t, pg, name, nil), late)
		})
	}
}

// known leaves out of a statement what came with version 15.
func known(pg *dbtest.Postgres, sql string) string {
	if pg.Major >= 15 {
		return sql
	}
	return strings.NewReplacer("NULLS NOT DISTINCT", "", "FOR TABLE stored (id, a) WHERE (id > 0)", "FOR TABLE stored", "p.prattrs, pg_get_expr(p.prqual, p.prrelid), ", "").Replace(sql)
}

func everything(t *testing.T, s *site, late bool) {
	make := func() {
		for _, sql := range []string{everyExtension, ownTypes, makeTypes("types")} {
			s.exec(sql)
		}
		for _, o := range everyObject {
			if err := s.pg.Exec(t.Context(), s.db, known(s.pg, o.sql)); err != nil {
				t.Fatalf("%s: %v", o.name, err)
			}
		}
	}
	subscribe := fmt.Sprintf(`CREATE SUBSCRIPTION %[1]s CONNECTION 'host=127.0.0.1 port=1 password=not-for-the-archive' PUBLICATION p WITH (connect = false, slot_name = NONE)`, s.db)
	if !late {
		make()
		s.exec(subscribe)
	}
	s.setup()
	s.capture()
	a := s.waitArchive()
	base := s.waitBases(a, 1, 1)[0]
	if late {
		make()
		s.exec(subscribe)
	}
	s.exec(`CREATE TABLE two_phases (id int PRIMARY KEY, v text); INSERT INTO two_phases VALUES (1, 'x')`)
	s.exec(fmt.Sprintf(`BEGIN; INSERT INTO two_phases VALUES (2, 'y'); SAVEPOINT a; INSERT INTO two_phases VALUES (3, 'z'); ROLLBACK TO a; PREPARE TRANSACTION 'kept %s'`, s.db))
	s.exec(fmt.Sprintf(`BEGIN; UPDATE two_phases SET v = 'never'; PREPARE TRANSACTION 'lost %s'`, s.db))
	type point struct {
		what   string
		seq    change.Seq
		schema string
		more   string
		rows   map[string]dbtest.TableDump
	}
	var points []point
	mark := func(what string) {
		p := point{what, s.waitPast(a, s.here()).Seq, s.schema(s.db), s.value(known(s.pg, notDumped)), s.dump(s.db)}
		delete(p.rows, `"public"."fleeting"`) // unlogged
		points = append(points, p)
	}
	mark("nothing is changed")
	if r := s.must("status"); !late && !strings.Contains(r.stdout, "subscriptions") {
		t.Errorf("status says\n%s", r.stdout)
	}
	for i, c := range changeEverything {
		if err := s.pg.Exec(t.Context(), s.db, c.sql); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if i == len(changeEverything)/2 {
			s.exec(fmt.Sprintf(`COMMIT PREPARED 'kept %s'`, s.db))
			mark(c.name)
		}
	}
	s.exec(fmt.Sprintf(`ROLLBACK PREPARED 'lost %s'`, s.db))
	s.exec(changeTypes("types"))
	mark("everything is changed")

	for i := len(points) - 1; i >= 0; i-- {
		if i < len(points)-1 && !*long && (late || i > 0) {
			continue
		}
		p := points[i]
		db := fmt.Sprintf("%s_%d", s.db, i)
		way := []string{"--base", base.ID, "--to-seq", p.seq.String()}
		if (len(points)-i)%2 == 1 {
			way = append(way, "--merge-from", "1")
		}
		s.restore(db, way...)
		if diff := firstDifference(p.schema, s.schema(db)); diff != "" {
			t.Errorf("the schema when %q:\n%s", p.what, diff)
		}
		if diff := firstDifference(p.more, s.in(db, known(s.pg, notDumped))); diff != "" {
			t.Errorf("what pg_dump does not tell when %q:\n%s", p.what, diff)
		}
		want := s.value(eventTriggers)
		if late {
			want = ""
		}
		if diff := firstDifference(want, s.in(db, eventTriggers)); diff != "" {
			t.Errorf("the event triggers when %q:\n%s", p.what, diff)
		}
		if n := s.in(db, `SELECT count(*) FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())`); n != "0" {
			t.Errorf("%s subscriptions when %q", n, p.what)
		}
		got := s.dump(db)
		delete(got, `"public"."fleeting"`)
		if diff := dbtest.Diff(p.rows, got); diff != "" {
			t.Errorf("the rows when %q:\n%s", p.what, diff)
		}
	}
}
