package mysql

import (
	"strings"
	"testing"

	"txreel/internal/dbtest"
	"txreel/restore"
)

func TestNumbersRows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"ALTER TABLE t ADD id INT AUTO_INCREMENT PRIMARY KEY", "`t`"},
		{"/* why */ alter online ignore table if exists `a b`.`c` add column id bigint not null auto_increment first, add key (id)", "`a b`.`c`"},
		{"ALTER TABLE t AUTO_INCREMENT = 100, ADD COLUMN c INT DEFAULT 1", ""},
		{"ALTER TABLE t ADD c VARCHAR(50) COMMENT 'auto_increment', ADD INDEX (c)", ""},
		{"CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, alter_ego INT)", ""},
		{"BEGIN", ""},
	} {
		if got, ok := numbersRows([]byte(c.in)); got != c.want && ok || ok != (c.want != "") {
			t.Errorf("%s: %s, %t", c.in, got, ok)
		}
	}
}

// TestNumbered demands that a report names the tables whose rows the target has numbered by itself.
func TestNumbered(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		r := record(t, source)
		source.MustExec(t, "", "CREATE DATABASE d; USE d; CREATE TABLE keyless (v INT); INSERT INTO keyless VALUES (3), (1), (2); "+
			"ALTER TABLE keyless ADD id INT AUTO_INCREMENT PRIMARY KEY; UPDATE keyless SET v = 9 WHERE id = 2")
		r.capture()
		report := r.mustRestore(target, restore.Goal{})
		if got := strings.Join(report.Warnings, "\n"); !strings.Contains(got, "AUTO_INCREMENT column of table `keyless` (in `d`)") {
			t.Errorf("warnings %q", got)
		}
		same(t, "numbered", content(t, source), content(t, target))
	})
}

// TestLeastPrivileges restores as an account that has what the refusal asks for, and nothing else, and demands that
// the lack of any of it is refused.
func TestLeastPrivileges(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		r := record(t, source)
		live(t, r, []step{history[0], history[3], history[4], history[10], history[11], history[12], history[13]})
		p, err := r.plan(restore.Goal{})
		r.check(err)
		run := func() error {
			to, err := Open(t.Context(), target.URLAs("least", "x", ""), Options{})
			r.check(err)
			defer to.Close()
			_, err = restore.Run(t.Context(), r.archive, p, to, restore.Options{Jobs: 2, SpillDir: r.dir})
			return err
		}
		first := map[string]string{"mysql": "SYSTEM_VARIABLES_ADMIN", "mariadb": "BINLOG ADMIN"}[target.Flavor] // to log in at all
		target.MustExec(t, "", "SET sql_log_bin = 0; CREATE USER least IDENTIFIED BY 'x'; GRANT "+first+" ON *.* TO least; GRANT SELECT ON *.* TO least")
		err = run()
		if err == nil {
			t.Fatal("nothing is refused")
		}
		_, grant, ok := strings.Cut(err.Error(), "GRANT ")
		if !ok {
			t.Fatal(err)
		}
		list, _, _ := strings.Cut(grant, " ON *.*")
		target.MustExec(t, "", "SET sql_log_bin = 0; GRANT "+grant)
		for _, name := range strings.Split(list, ", ") {
			target.MustExec(t, "", "SET sql_log_bin = 0; REVOKE "+name+" ON *.* FROM least")
			if err := run(); err == nil || !strings.Contains(err.Error(), "GRANT "+name+" ON *.* TO") {
				t.Fatalf("without %s: %v", name, err)
			}
			target.MustExec(t, "", "SET sql_log_bin = 0; GRANT "+name+" ON *.* TO least")
		}
		r.check(run())
		target.MustExec(t, "", "SET sql_log_bin = 0; DROP USER least")
		same(t, "least privileges", content(t, source), content(t, target))
	})
}
