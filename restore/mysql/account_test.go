package mysql

import (
	"strings"
	"testing"

	"txreel/internal/dbtest"
	"txreel/restore"
)

// TestOwnAccount replays histories that change or remove the account which the restore uses. EVENT objects are
// settled, rows counted and settings put back behind that.
func TestOwnAccount(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		for _, change := range []string{
			"ALTER USER me@localhost IDENTIFIED BY 'changed' ACCOUNT LOCK",
			"REVOKE ALL PRIVILEGES, GRANT OPTION FROM me@localhost",
			"DROP USER me@localhost",
		} {
			t.Run(strings.Join(strings.Fields(change)[:2], " "), func(t *testing.T) {
				empty(t, source)
				empty(t, target)
				const account = "CREATE USER me@localhost IDENTIFIED BY 'mine'; GRANT ALL ON *.* TO me@localhost WITH GRANT OPTION"
				source.MustExec(t, "", "SET sql_log_bin = 0; "+account)
				r := record(t, source)
				source.MustExec(t, "", "CREATE DATABASE d; CREATE TABLE d.t (i INT PRIMARY KEY); INSERT INTO d.t VALUES (1); "+
					"CREATE EVENT d.e ON SCHEDULE EVERY 1 DAY DO SELECT 1; "+change+"; INSERT INTO d.t VALUES (2); CREATE EVENT d.f ON SCHEDULE EVERY 1 DAY DO SELECT 1")
				r.capture()
				target.MustExec(t, "", account)
				own := target.MustQuery(t, "", "SELECT @@GLOBAL.server_id")[0][0]
				p, err := r.plan(restore.Goal{})
				r.check(err)
				to, err := Open(t.Context(), target.URLAs("me", "mine", ""), Options{})
				r.check(err)
				report, err := restore.Run(t.Context(), r.archive, p, to, restore.Options{Jobs: 2, SpillDir: r.dir})
				to.Close()
				if err != nil && target.Flavor == "mysql" && !strings.HasPrefix(change, "ALTER") {
					// Dynamic privileges are gone at once: that is said, and another account ends it.
					if !strings.Contains(err.Error(), "me@localhost") || !strings.Contains(err.Error(), "with another account") {
						t.Errorf("%v", err)
					}
					r.mustRestore(target, restore.Goal{})
				} else {
					r.check(err)
					if got := strings.Join(report.Warnings, "\n"); !strings.Contains(got, "has changed the account me@localhost") {
						t.Errorf("warnings %q", got)
					}
				}
				if got := target.MustQuery(t, "", "SELECT COUNT(*), (SELECT COUNT(*) FROM information_schema.events WHERE status = 'ENABLED') FROM d.t")[0]; got[0] != "2" || got[1] != "2" {
					t.Errorf("rows and enabled events: %v", got)
				}
				if now := target.MustQuery(t, "", "SELECT @@GLOBAL.server_id")[0][0]; now != own {
					t.Errorf("server_id %s, was %s", now, own)
				}
			})
		}
	})
}
