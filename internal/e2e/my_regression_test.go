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
)

// lostElsewhere is what other readers of a binlog are known to have lost, or to have told wrong: SQL, and what the export
// says of it. docs/regressions.md has the list.
var lostElsewhere = []struct {
	name, sql string
	want      []string // all in one line
	never     string   // in no line
}{
	{name: "statement format", sql: "set session binlog_format = 'STATEMENT'; insert into wide values (3, 'by statement', null); update wide set b = 'afterwards' where id = 3",
		want: []string{`"op":"statement"`, "insert into wide values (3, 'by statement', null)"}},
	{name: "minimal image", sql: "set session binlog_row_image = 'MINIMAL'; update wide set a = 'minimal' where id = 1; delete from wide where id = 2",
		want: []string{`"op":"update"`, `"a":"minimal"`, `"after_not_logged":["id","b"]`, `"before":"key only"`}, never: `"b":null`},
	{name: "truncate", sql: "truncate cleared; insert into cleared values (7)", want: []string{`"op":"statement"`, "truncate cleared"}},
	{name: "truncate partition", sql: "alter table parts truncate partition low", want: []string{`"op":"statement"`, "truncate partition low"}},
	{name: "several schemas", sql: "drop table shop.gone, other.gone", want: []string{`"op":"statement"`, "other`.`gone"}},
	{name: "renamed in a ring", sql: "rename table shop.one to other.ring, other.two to shop.one, other.ring to other.two; insert into shop.one values (20, 2); insert into other.two values (10, 1)",
		want: []string{`"schema":"shop","table":"one"`, `"@1":"20"`}, never: `"a":"20"`},
	{name: "large value", sql: "insert into large values (1, repeat('x', 50 << 20))",
		want: []string{`"table":"large"`, `"op":"insert"`, strings.Repeat("eHh4", 48<<20/3)}},
}

// TestMyRegressions does to a server what others have lost, and expects it in the export, in the log and in a restored
// server. The log names no columns here: what is said of them comes from the base, as long as that is true.
func TestMyRegressions(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			names := map[string]string{"mysql": "MINIMAL", "mariadb": "NO_LOG"}[flavor]
			s := newMySite(t, flavor, nil, "max_allowed_packet=1G", "binlog_row_metadata="+names)
			s.exec(`create database other; create table wide (id int primary key, a varchar(40), b varchar(40)); insert into wide values (1, 'a', 'b'), (2, 'a', 'b');
				create table one (a int primary key, n int); insert into one values (1, 1); create table other.two (b int primary key, n int); insert into other.two values (2, 2);
				create table cleared (id int primary key); insert into cleared values (1), (2); create table gone (id int); create table other.gone (id int); create table large (id int primary key, v longblob);
				create table parts (id int primary key) partition by range (id) (partition low values less than (10), partition high values less than (20)); insert into parts values (1), (11)`)
			capture := s.capture()
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			s.must("mark", "before")
			for _, c := range lostElsewhere {
				s.exec(c.sql)
			}
			s.waitPast(a, s.here())

			file := filepath.Join(t.TempDir(), "export")
			s.must("audit", "export", "-o", file)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(string(text), "\n")
			for _, c := range lostElsewhere {
				t.Run(c.name, func(t *testing.T) {
					if !slices.ContainsFunc(lines, func(line string) bool { return contains(line, c.want...) }) {
						t.Errorf("no line of the export has all of %.200q:\n%.20000s", c.want, text)
					}
					if c.never != "" && strings.Contains(string(text), c.never) {
						t.Errorf("the export says %q", c.never)
					}
				})
			}
			if r := s.must("log", "--op", "truncate"); !contains(r.stdout, "shop.cleared", "truncate") {
				t.Errorf("the log of what was emptied:\n%s", r.stdout)
			}
			t.Run("idle moment", func(t *testing.T) { s.in(t).idleMoment(a, time.Now()) })
			capture.kill()
			t.Run("restored is another", func(t *testing.T) { s.in(t).restoredIsAnother(a) })
		})
	}
}

// in returns the site for a part of the test.
func (s *mySite) in(t *testing.T) *mySite {
	part := *s
	part.t = t
	return &part
}

// idleMoment restores a server in which nothing has happened since to a moment behind its last commit. The target has done
// things of its own, under the numbers that the record uses.
func (s *mySite) idleMoment(a *archive.Archive, moment time.Time) {
	s.t.Helper()
	eventually(s.t, patience(), "the record has passed the moment", func() bool {
		tail, err := a.Tail(s.t.Context(), 1)
		return err == nil && int64(tail.Latest) > moment.Add(time.Second).UnixMicro()
	})
	target := s.target("max_allowed_packet=1G")
	target.MustExec(s.t, "", strings.Repeat("create user passing identified by 'x'; grant select on *.* to passing; drop user passing; ", 20))
	s.restoreInto(target, "--to-time", moment.UTC().Format(time.RFC3339Nano))
	equal(s.t, dumpOf(s.t, s.my), target)
}

// restoredIsAnother restores to a point before the end of the record, goes on with what was restored, and expects that the
// record does not.
func (s *mySite) restoredIsAnother(a *archive.Archive) {
	s.t.Helper()
	early := s.restore("--to-mark", "before")
	early.MustExec(s.t, "shop", "insert into wide values (50, 'another history', '')")
	was, err := a.Tail(s.t.Context(), 1)
	if err != nil {
		s.t.Fatal(err)
	}
	r := s.run("capture", "--source", early.URL(""))
	r.sentence(s.t, "gap in the record", "--new-epoch")
	if now, err := a.Tail(s.t.Context(), 1); r.code != 3 || err != nil || now != was {
		s.t.Errorf("a capture of a restored server: exit code %d, the record ends with %+v, %v; it ended with %+v", r.code, now, err, was)
	}
}
