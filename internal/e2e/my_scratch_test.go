package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
)

// TestMyBaseFromScratch makes bases of the record on a scratch server, behind changes of the schema, accounts and events, and restores from
// them: to their own points, and on from there. The scratch server is used again and again, also after a killed run.
func TestMyBaseFromScratch(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			s := newMySite(t, flavor, nil)
			s.exec(`create table doc (id int auto_increment primary key, n int, b mediumblob, m enum('sad', 'ok')); create table bag (v varchar(20), n int);
				create table parent (id int primary key); create table child (id int primary key, p int, foreign key (p) references parent (id) on delete cascade);
				insert into doc (n, b, m) values (1, x'0009005c0a', 'sad'), (2, null, 'ok'), (3, repeat('z', 70000), null); insert into bag values ('twice', 1), ('twice', 1);
				insert into parent values (1), (2); insert into child values (1, 1), (2, 2);
				create user app identified by 'secret'; grant select on shop.* to app; create user stays identified by 'other'; create role readers; create user shared identified by 'ours'`)
			s.each("create event kept on schedule every 1 hour do delete from bag", "create event asleep on schedule every 1 second disable do delete from doc")
			s.capture("--base-every", "0")
			a := s.waitArchive()
			first := s.waitBases(a, 1, 1)[0]

			const change = `insert into doc (n, b, m) values (7, 'seven', 'ok'), (8, 'eight', 'sad'); update doc set n = n + 10 where id % 2 = 1; insert into bag values ('more', 2), ('more', 2);
				delete from bag where v = 'twice' limit 1; delete from doc where n = 7`
			s.exec(change)
			s.exec(`alter table doc add column more varchar(10) default 'm', modify m enum('sad', 'ok', 'happy'); create table young (id int primary key, d double); create view seen as select id, more from doc;
				create index by_n on doc (n)`)
			s.each("create procedure p() select 1", "create trigger tr before insert on young for each row set new.d = new.d * 2")
			s.exec(`insert into young values (1, 0.1), (2, 1e300); update doc set m = 'happy', more = 'changed' where id % 2 = 0; delete from parent where id = 1;
				grant insert on shop.doc to app; create user late identified by 'late'; grant readers to late`)
			s.each("create event quick on schedule every 1 second do delete from young where id = -1", "alter event asleep comment 'still'", "alter event kept disable")
			s.exec(change)
			s.waitPast(a, s.here())
			atBase := dumpOf(t, s.my)

			alone := s.place // the source is not named
			alone.source = nil
			if r := alone.run("base", "--from-history"); r.code != 2 || !contains(r.stderr, "--scratch") {
				t.Errorf("without a scratch server: exit code %d\n%s", r.code, r.stderr)
			}
			scratch := s.target()
			alone.hidden = append(alone.hidden, scratch.Password())
			scratch.MustExec(t, "", "create user shared identified by 'theirs'; create user another identified by 'theirs'")
			untouched := dumpOf(t, scratch)
			command := []string{"base", "--from-history", "--json", "--scratch", scratch.URL("")}
			there := func(name string) bool {
				return len(scratch.MustQuery(t, "", "select 1 from information_schema.schemata where schema_name = '"+name+"'")) > 0
			}
			killed := alone.start(command...)
			eventually(t, patience(), "the scratch server is being restored into", func() bool { return there("shop") || !killed.alive() })
			killed.kill()
			alone.must("verify")
			makeBase := func() (b struct {
				ID  string `json:"id"`
				Seq string `json:"seq"`
			}) {
				t.Helper()
				if err := json.Unmarshal([]byte(alone.must(command...).stdout), &b); err != nil {
					t.Fatal(err)
				}
				if diff := dbtest.DiffMySQL(untouched, dumpOf(t, scratch)); diff != "" || there("txreel_restore") {
					t.Errorf("the scratch server is not what it was:\n%s", diff)
				}
				return b
			}
			b := makeBase()
			bases, err := a.Bases(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			made := bases[max(slices.IndexFunc(bases, func(x archive.Base) bool { return x.ID == b.ID }), 0)] // both may be of one second
			if made.ID != b.ID || made.From == nil || made.From.Base != first.ID || made.Server != first.Server || len(bases) != 2 {
				t.Fatalf("%d bases, the last one %+v", len(bases), made)
			}
			alone.must("verify", "--full")
			equal(t, atBase, s.restore("--base", b.ID, "--to-seq", b.Seq))
			proven(t, s.must("restore", "--target", s.hide(s.target()).URL(""), "--base", first.ID, "--to-seq", b.Seq, "--json"), first.ID, b.ID)

			s.exec(change)
			s.exec(`alter table young rename to old, add column e int default 5; insert into old (id, d) values (3, 3); drop view seen; alter user late account lock; drop user app;
				create database other; create table other.t (id int primary key); insert into other.t values (1); insert into doc (n) values (99)`)
			s.each("alter event quick rename to quicker", change)
			s.waitPast(a, s.here())
			want := dumpOf(t, s.my)
			equal(t, want, s.restore("--base", b.ID))
			again := makeBase()
			equal(t, want, s.restore("--base", again.ID))
			equal(t, want, s.restore("--base", first.ID))
			if r := alone.must("status"); !strings.Contains(r.stdout, "made of base") {
				t.Errorf("status does not say how the base came about:\n%s", r.stdout)
			}

			s.exec(`create table last (id int primary key)`)
			s.waitPast(a, s.here())
			s.refusesScratch(&alone, scratch)
		})
	}
}

// refusesScratch demands that servers that cannot be used are refused, and stay as they are.
func (s *mySite) refusesScratch(alone *place, scratch *dbtest.MySQL) {
	s.t.Helper()
	refused := func(url, said string, code int) {
		s.t.Helper()
		if r := alone.run("base", "--from-history", "--scratch", url); r.code != code || !contains(r.stderr, said) {
			s.t.Errorf("exit code %d, want %d and %q:\n%s", r.code, code, said, tail(r.stderr, 5))
		}
	}
	other := map[string]string{"mysql": "mariadb", "mariadb": "mysql"}[s.my.Flavor]
	refused(s.hide(dbtest.My(s.t, other)).URL(""), "neither reads the other's binary log", 1)
	refused("postgres://nobody@127.0.0.1:1/postgres", "mysql://user@host:3306", 1)
	refused(s.my.URL(""), "target is not empty", 1)
	scratch.MustExec(s.t, "", "create database mine; create table mine.t (id int primary key); insert into mine.t values (1)")
	refused(scratch.URL(""), "it has the databases mine", 1)
	if rows := scratch.MustQuery(s.t, "", "select count(*) from mine.t"); rows[0][0] != "1" {
		s.t.Error("a table of the scratch server is gone")
	}
	scratch.MustExec(s.t, "", "drop database mine")
	s.exec(`create user root@elsewhere identified by 'x'`)
	eventually(s.t, time.Minute, "what names an account of the scratch server is refused", func() bool {
		r := alone.run("base", "--from-history", "--scratch", scratch.URL(""))
		return r.code == 1 && contains(r.stderr, "that the source does not use")
	})
}

// each runs statements one by one: the server keeps what stands between two of them as part of a body.
func (s *mySite) each(statements ...string) {
	s.t.Helper()
	for _, sql := range statements {
		s.exec(sql)
	}
}

// hide keeps a server's password out of what commands print.
func (s *mySite) hide(m *dbtest.MySQL) *dbtest.MySQL {
	s.hidden = append(s.hidden, m.Password())
	return m
}

// TestMyScratchKilled kills runs at moments ever later, while the record goes on, until one gets through: the archive verifies, the base is exact, and
// the scratch server is as it was.
func TestMyScratchKilled(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			s := newMySite(t, flavor, nil)
			s.exec(`create table t (id int auto_increment primary key, v varchar(50)); create user app identified by 'secret'`)
			s.capture("--base-every", "0")
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			scratch := s.hide(s.target())
			untouched := dumpOf(t, scratch)
			write := func(n int) {
				s.exec(fmt.Sprintf("insert into t (v) values ('a'), ('b'); update t set v = concat(id, 'x'); create table n%d (id int primary key) select id from t; create user u%d; grant select on shop.t to u%d", n, n, n))
			}
			alone := s.place
			alone.source = nil
			kills, written := 0, 0
			for range 3 {
				for after := 30 * time.Millisecond; ; after += time.Duration(rand.Int64N(int64(100 * time.Millisecond))) {
					write(written)
					written++
					s.waitPast(a, s.here())
					p := alone.start("base", "--from-history", "--scratch", scratch.URL(""))
					select {
					case <-p.done:
					case <-time.After(after):
						p.kill()
					}
					if p.result(patience()).code == 0 {
						break
					}
					if kills++; kills > 200 {
						t.Fatal("the base is never made")
					}
				}
			}
			t.Logf("%d kills", kills)
			s.waitPast(a, s.here())
			alone.must("base", "--from-history", "--scratch", scratch.URL(""))
			if diff := dbtest.DiffMySQL(untouched, dumpOf(t, scratch)); diff != "" {
				t.Errorf("the scratch server is not what it was:\n%s", diff)
			}
			alone.must("verify", "--full")
			bases, err := a.Bases(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			s.overtaken(&alone, a, scratch)
			slices.SortFunc(bases, func(x, y archive.Base) int { return cmp.Compare(x.Seq, y.Seq) })
			want := dumpOf(t, s.my)
			for _, b := range bases[len(bases)-2:] {
				equal(t, want, s.restore("--base", b.ID))
			}
		})
	}
}

// overtaken kills a run, takes a base of the source, and demands that the next run comes to the end of the record, behind that.
func (s *mySite) overtaken(alone *place, a *archive.Archive, scratch *dbtest.MySQL) {
	s.t.Helper()
	command := []string{"base", "--from-history", "--json", "--scratch", scratch.URL("")}
	s.exec("insert into t (v) values ('before')")
	s.waitPast(a, s.here())
	p := alone.start(command...)
	eventually(s.t, patience(), "the scratch server is being restored into", func() bool {
		return !p.alive() || len(scratch.MustQuery(s.t, "", "select 1 from information_schema.schemata where schema_name = 'shop'")) > 0
	})
	p.kill()
	var live, made struct {
		ID  string `json:"id"`
		Seq string `json:"seq"`
	}
	s.exec("insert into t (v) values ('meanwhile')")
	s.waitPast(a, s.here())
	s.must("base", "--json").decode(s.t, &live)
	s.exec("delete from t where v = 'before'")
	s.waitPast(a, s.here())
	alone.must(command...).decode(s.t, &made)
	if made.Seq <= live.Seq {
		s.t.Errorf("the base %s stands at %s, and one of the source at %s", made.ID, made.Seq, live.Seq)
	}
	s.exec("insert into t (v) values ('after')")
	s.waitPast(a, s.here())
	equal(s.t, dumpOf(s.t, s.my), s.restore("--base", made.ID))
	s.exec("delete from t where v = 'after'")
	s.waitPast(a, s.here())
}

// TestMyCaptureFromScratch lets a capture make its bases on a scratch server.
func TestMyCaptureFromScratch(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			s := newMySite(t, flavor, nil)
			s.exec(`create table t (id int auto_increment primary key, v varchar(50))`)
			if r := s.run("capture", "--base-from", "history"); r.code != 2 || !contains(r.stderr, "--base-scratch") {
				t.Errorf("without a scratch server: exit code %d\n%s", r.code, tail(r.stderr, 5))
			}
			scratch := s.hide(s.target())
			// What a restore asks for is enough.
			scratch.MustExec(t, "", "create user maker identified by 'its password'; grant select, insert, update, delete, create, drop, alter, index, references, trigger, event, create view, show view, "+
				"create routine, alter routine, create user, reload, process on *.* to maker; grant "+map[string]string{
				"mysql":   "replication client, replication_slave_admin, system_variables_admin, xa_recover_admin, role_admin, system_user, set_any_definer",
				"mariadb": "super, replication master admin, replication slave admin, binlog admin, slave monitor, set user",
			}[flavor]+" on *.* to maker")
			s.capture("--base-every", "1s", "--base-from", "history", "--base-scratch", scratch.URLAs("maker", "its password", ""))
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			eventually(t, 2*time.Minute, "the capture makes a base of the record", func() bool {
				s.exec(`insert into t (v) values ('more'); alter table t comment 'changed'`)
				bases, err := a.Bases(t.Context(), 1)
				return err == nil && slices.ContainsFunc(bases, func(b archive.Base) bool { return b.From != nil })
			})
			s.exec(`alter table t add column n int default 7; insert into t (v) values ('last')`)
			s.waitPast(a, s.here())
			equal(t, dumpOf(t, s.my), s.restore())
		})
	}
}

// TestMyScratchCorpus makes bases on a scratch server of statements of every kind, values of every type and objects of every sort, that only the record
// has and then that a base made so has, and restores from them.
func TestMyScratchCorpus(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			settings := []string{"local_infile=ON", "event_scheduler=OFF"}
			s := newMySite(t, flavor, nil, settings...)
			s.capture("--base-every", "0")
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			scratch := s.hide(s.target(settings...))
			untouched := dumpOf(t, scratch)
			makeBase := func() (b struct {
				ID string `json:"id"`
			}) {
				t.Helper()
				s.waitPast(a, s.here())
				s.must("base", "--from-history", "--json", "--scratch", scratch.URL("")).decode(t, &b)
				after := dumpOf(t, scratch)
				if public := "ROLE `PUBLIC`"; after.Definitions[public] == "" { // nothing removes it once something was granted to it
					delete(after.Definitions, public)
				}
				if diff := dbtest.DiffMySQL(untouched, after); diff != "" {
					t.Errorf("the scratch server is not what it was:\n%s", diff)
				}
				return b
			}
			s.script("restore/mysql", "corpus", "corpus-"+flavor)
			half := makeBase()
			equal(t, dumpOf(t, s.my), s.restoreInto(s.target(settings...), "--base", half.ID))
			s.my.MustExec(t, "c", `update numbers set n = 1 where id = 2; update texts set lt = 'changed' where id < 4; delete from parent where id = 1;
				insert into myisam values (3, 'c'); alter table keyless add column later int default 5; rename table words to w2, compact to words, w2 to compact;
				insert into counter (a) values (3); alter event e_on disable; alter event `+"`e ON COMPLETION PRESERVE off`"+` enable`)
			s.waitPast(a, s.here())
			want := dumpOf(t, s.my)
			equal(t, want, s.restoreInto(s.target(settings...), "--base", half.ID))
			equal(t, want, s.restoreInto(s.target(settings...), "--base", makeBase().ID))
			s.must("verify", "--full")
		})
	}
}
