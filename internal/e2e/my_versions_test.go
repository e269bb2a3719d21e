package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"txreel/internal/dbtest"
)

// TestMyAcrossVersions restores what an older server of the series that `make test` runs has recorded into the version
// under test, and demands that the way back is refused before anything is written.
func TestMyAcrossVersions(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			older := dbtest.MyWith(t, dbtest.MySQLOptions{Flavor: flavor, Root: filepath.Join(".tools", flavor)})
			newer := dbtest.My(t, flavor)
			if older.Version == newer.Version {
				t.Skip("one version alone is under test; make test-matrix tests two")
			}

			s := mySiteOn(t, older, nil)
			capture := s.capture()
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			s.script("restore/mysql", "corpus", "corpus-"+flavor)
			s.must("base") // half of it comes from files, half from the log
			s.exec(`create table t (id int primary key, v varchar(20) collate utf8mb4_general_ci) engine=InnoDB default charset=utf8mb4 collate=utf8mb4_general_ci;
				insert into t values (1, 'one'), (2, 'two'); update t set v = 'three' where id = 2; delete from c.parent where id = 1;
				create view w as select id from t; create procedure p() select 1`)
			s.waitPast(a, s.here())
			capture.kill()
			s.must("verify", "--full")
			want, got := dumpOf(t, older), dumpOf(t, s.restoreInto(newer))
			// Versions print definitions each in its own way.
			want.Definitions, got.Definitions = names(want), names(got)
			if diff := dbtest.DiffMySQL(want, got); diff != "" {
				t.Errorf("%s restored into %s differs:\n%s", older.Version, newer.Version, diff)
			}

			back := mySiteOn(t, dbtest.My(t, flavor), nil)
			capture = back.capture()
			a = back.waitArchive()
			back.waitBases(a, 1, 1)
			capture.signal(terminate)
			if code := capture.wait(time.Minute); code != 0 {
				t.Errorf("capture ended with %d", code)
			}
			target := dbtest.MyWith(t, dbtest.MySQLOptions{Flavor: flavor, Root: filepath.Join(".tools", flavor)})
			back.hidden = append(back.hidden, target.Password())
			before := executed(t, target)
			r := back.run("restore", "--target", target.URL(""))
			if r.code != 1 || !strings.Contains(r.stderr, "restore into the same series") {
				t.Errorf("%s into %s: exit code %d\n%s", newer.Version, older.Version, r.code, tail(r.stderr, 5))
			}
			databases := target.MustQuery(t, "", "select schema_name from information_schema.schemata where schema_name in ('shop', 'txreel')")
			if !executed(t, target).Equal(before) || len(databases) > 0 {
				t.Errorf("it wrote: %s, databases %v", executed(t, target), databases)
			}
		})
	}
}

// names are the definitions of a dump without their texts.
func names(d dbtest.MySQLDump) map[string]string {
	out := make(map[string]string, len(d.Definitions))
	for name := range d.Definitions {
		out[name] = ""
	}
	return out
}
