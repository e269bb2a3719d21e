package mysql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/restore"
	"txreel/sources/mysql/mybase"
)

// scratchRun restores what is on record into a scratch server, with the base's manifest changed.
func scratchRun(t *testing.T, r *recorder, target *dbtest.MySQL, change func(*mybase.Engine)) (*Scratch, error) {
	t.Helper()
	ctx := context.Background()
	s, err := OpenScratch(ctx, target.URL(""), r.archive.Identity.Archive, Options{})
	if err != nil {
		return nil, err
	}
	t.Cleanup(s.Close)
	goal, _ := s.Goal()
	p, err := r.plan(goal)
	r.check(err)
	if change != nil {
		var e mybase.Engine
		r.check(json.Unmarshal(p.Base.Engine, &e))
		change(&e)
		p.Base.Engine, err = json.Marshal(e)
		r.check(err)
	}
	_, err = restore.Run(ctx, r.archive, p, s, restore.Options{SpillDir: r.dir})
	return s, err
}

// databases lists those of a server.
func databases(t *testing.T, my *dbtest.MySQL) string {
	t.Helper()
	var names []string
	for _, r := range my.MustQuery(t, "", "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN "+systemSchemas+" ORDER BY 1") {
		names = append(names, r[0])
	}
	return strings.Join(names, " ")
}

// TestScratch restores into a scratch server, where events do not run, sees that others write there, and removes what it made and nothing else.
func TestScratch(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		ctx := context.Background()
		r := record(t, source)
		port := source.MustQuery(t, "", "SELECT @@port")[0][0]
		source.MustExec(t, "", "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY); INSERT INTO d.t VALUES (1), (2)")
		source.MustExec(t, "d", "CREATE EVENT e ON SCHEDULE EVERY 1 SECOND DO DELETE FROM d.t WHERE @@port <> "+port)
		source.MustExec(t, "d", "CREATE EVENT off ON SCHEDULE EVERY 1 SECOND DISABLE DO DELETE FROM d.t WHERE @@port <> "+port)
		r.capture()
		s, err := scratchRun(t, r, target, nil)
		r.check(err)
		time.Sleep(2500 * time.Millisecond)
		if n := target.MustQuery(t, "", "SELECT COUNT(*) FROM d.t")[0][0]; n != "2" {
			t.Errorf("%s rows in the scratch server, want 2: an event ran", n)
		}
		if e, off := s.EventState("d", "E"), s.EventState("d", "off"); e != stateEnabled || off != stateDisabled {
			t.Errorf("the events were %s and %s", e, off)
		}
		r.check(s.Alone(ctx))
		if s.Position != change.Position(r.held.String()) {
			t.Errorf("position %s, want %s", s.Position, r.held)
		}
		target.MustExec(t, "", "CREATE DATABASE intruder")
		if err := s.Alone(ctx); !errors.Is(err, restore.ErrNotEmpty) {
			t.Errorf("somebody has written: %v", err)
		}
		r.check(s.enter(ctx, phaseDiscard)) // killed there
		s.Close()
		again, err := OpenScratch(ctx, target.URL(""), r.archive.Identity.Archive, Options{})
		r.check(err)
		defer again.Close()
		if have := databases(t, target); have != "intruder" {
			t.Errorf("the scratch server has the databases %q", have)
		}
		if _, continued := again.Goal(); continued {
			t.Error("there is something to continue")
		}
	})
}

// TestScratchContinues demands that a run which was killed once all was restored, and before it was read, is continued by the next, though the record went on.
func TestScratchContinues(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		r := record(t, source)
		source.MustExec(t, "", "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY); INSERT INTO d.t VALUES (1), (2)")
		cut := r.capture().Seq
		s, err := scratchRun(t, r, target, nil)
		r.check(err)
		s.Close()
		source.MustExec(t, "", "INSERT INTO d.t VALUES (3)")
		r.capture()
		if _, err := OpenScratch(context.Background(), target.URL(""), "another", Options{}); !errors.Is(err, restore.ErrOtherRestore) {
			t.Errorf("with another archive: %v", err)
		}
		if _, err := r.restore(context.Background(), target, restore.Goal{Kind: restore.AtSeq, Seq: cut}, restore.Options{}); !errors.Is(err, restore.ErrOtherRestore) {
			t.Errorf("as another restore: %v", err)
		}
		if s, err = scratchRun(t, r, target, nil); err != nil {
			t.Fatal(err)
		}
		if goal, _ := s.Goal(); goal.Seq != cut {
			t.Errorf("it went on to %s, want %s", goal.Seq, cut)
		}
		r.check(s.Discard(context.Background()))
		if have := databases(t, target); have != "" {
			t.Errorf("the scratch server has the databases %q", have)
		}
	})
}

// TestScratchRefusals demands that a server which cannot stand in for the source is refused, and left as it was or emptied of what was made.
func TestScratchRefusals(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		for _, c := range []struct {
			name, source, target, want, left string
			base                             func(*mybase.Engine)
			is                               error
		}{
			{name: "another series", base: func(e *mybase.Engine) { e.Number -= 100 }, want: "would not be its own words", is: ErrOnlySource},
			{name: "an empty database", target: "CREATE DATABASE test", want: "has a database `test`", left: "test", is: restore.ErrNotEmpty},
			{name: "another restore", target: strings.Join(bookSQL, ";") + "; INSERT INTO txreel_restore.progress VALUES (1, 'a', '1', 'b', '1', 'replay')", want: "which is not for a base", left: bookSchema, is: restore.ErrNotEmpty},
			{name: "an account of its own", source: "CREATE USER root@elsewhere IDENTIFIED BY 'x'", want: "that the source does not use", is: ErrOnlySource},
			{name: "an account by hand", source: "DELETE FROM mysql.db WHERE user = 'nobody'; CREATE USER a; DELETE FROM mysql.db; INSERT INTO mysql.db (Host, Db, User) VALUES ('h', 'd', 'a')", want: "that the source does not use", is: ErrOnlySource},
			{name: "prepared", source: "CREATE TABLE d.x (id INT PRIMARY KEY); XA START 'undecided'; INSERT INTO d.x VALUES (1); XA END 'undecided'; XA PREPARE 'undecided'", want: "1 XA transactions are prepared", is: ErrOnlySource},
			{name: "granted to everybody", target: "GRANT SELECT ON precious.* TO PUBLIC", want: "FROM PUBLIC", is: restore.ErrNotEmpty},
		} {
			if strings.HasSuffix(c.target, "TO PUBLIC") && target.Flavor == "mysql" {
				continue // which has no such role
			}
			t.Run(c.name, func(t *testing.T) {
				if strings.HasSuffix(c.target, "TO PUBLIC") {
					defer target.MustExec(t, "", "SET sql_log_bin = 0; REVOKE ALL PRIVILEGES, GRANT OPTION FROM PUBLIC; DELETE FROM mysql.global_priv WHERE User = 'PUBLIC'; FLUSH PRIVILEGES")
				}
				empty(t, source)
				empty(t, target)
				r := record(t, source)
				source.MustExec(t, "", "CREATE DATABASE d")
				if c.source != "" {
					source.MustExec(t, "", c.source)
				}
				r.capture()
				if c.target != "" {
					target.MustExec(t, "", "SET sql_log_bin = 0; "+c.target)
				}
				_, err := scratchRun(t, r, target, c.base)
				if !errors.Is(err, c.is) || !strings.Contains(fmt.Sprint(err), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				if have := databases(t, target); have != c.left {
					t.Errorf("the server has the databases %q, want %q", have, c.left)
				}
			})
		}
	})
}

// TestAboutAccounts tells statements about accounts from others.
func TestAboutAccounts(t *testing.T) {
	for note, want := range map[string]string{
		"GRANT SELECT ON *.* TO a": "GRANT", "use `d`; REVOKE ALL ON d.* FROM a": "REVOKE", "SET PASSWORD FOR a = 'x'": "SET", "SET DEFAULT ROLE r TO a": "SET",
		"CREATE USER IF NOT EXISTS a": "CREATE", "create or replace user a": "CREATE", "/* x */ DROP ROLE r": "DROP", "RENAME USER a TO b": "RENAME", "ALTER USER a ACCOUNT LOCK": "ALTER",
		"CREATE TABLE user (id int)": "", "SET @x = 1": "", "DROP TABLE role": "", "CREATE VIEW v AS SELECT 1 FROM user": "", "": "",
	} {
		if got := aboutAccounts(note); got != want {
			t.Errorf("%s: %q, want %q", note, got, want)
		}
	}
	s := &Scratch{named: make(map[string]bool)}
	if err := s.readStatement(&change.Txn{Note: "GRANT SELECT ON d.* TO `App`@`%`"}, nil); err != nil {
		t.Fatal(err)
	}
	if s.Same(&mybase.Account{User: "App", Host: "%"}) || !s.Same(&mybase.Account{User: "other", Host: "%"}) {
		t.Error("an account that a statement names may be another, and one that none names is not")
	}
}
