package mysql

import (
	"slices"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
)

// TestBaseAtANewFile takes bases of a MariaDB whose log went on to a new file while the COMMIT that filled the one before waits for a
// replica: it is in the log and in no view. The base waits for it.
func TestBaseAtANewFile(t *testing.T) {
	t.Parallel()
	my := dbtest.MyWith(t, dbtest.MySQLOptions{Flavor: "mariadb"})
	my.MustExec(t, "", "CREATE DATABASE late; CREATE TABLE late.t (n INT PRIMARY KEY, pad TEXT); INSERT INTO late.t VALUES (1, ''); "+
		"CREATE USER blind IDENTIFIED BY 'pw'; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, BINLOG MONITOR ON *.* TO blind; "+
		"SET GLOBAL max_binlog_size = 4096, rpl_semi_sync_master_wait_point = AFTER_SYNC, rpl_semi_sync_master_timeout = 600000, rpl_semi_sync_master_enabled = ON")
	a := baseArchive(t, my)
	inserted := make(chan error, 1)
	s, err := my.Session(t.Context(), "late")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go func() { inserted <- s.Exec(t.Context(), "INSERT INTO t VALUES (2, REPEAT('x', 8000))") }() // more than a file may hold
	eventually(t, "the COMMIT to wait", func() bool {
		return my.MustQuery(t, "", "SHOW STATUS LIKE 'Rpl_semi_sync_master_wait_sessions'")[0][1] == "1"
	})
	for _, c := range []struct{ url, want string }{
		{my.URL(""), "see whether they wait for a semi-synchronous replica"},
		{my.URLAs("blind", "pw", ""), "GRANT PROCESS ON *.* TO 'blind'@'%'"},
	} {
		_, err := TakeBase(t.Context(), a, 1, BaseOptions{URL: c.url, Wait: 200 * time.Millisecond})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}

	type outcome struct {
		base *archive.Base
		err  error
	}
	taken := make(chan outcome, 1)
	go func() {
		b, err := TakeBase(t.Context(), a, 1, BaseOptions{URL: my.URL(""), Wait: time.Minute})
		taken <- outcome{b, err}
	}()
	my.MustExec(t, "", "SET GLOBAL max_binlog_size = 4096, rpl_semi_sync_master_enabled = OFF") // lets it go
	if err := <-inserted; err != nil {
		t.Fatal(err)
	}
	o := <-taken
	if o.err != nil {
		t.Fatal(o.err)
	}
	i := slices.IndexFunc(o.base.Tables, func(x archive.BaseTable) bool { return x.Schema == "late" })
	if at := my.MustQuery(t, "", "SELECT @@gtid_binlog_pos")[0][0]; o.base.Tables[i].Rows != 2 || string(o.base.Position) != at {
		t.Errorf("%d rows at %s, want 2 at %s", o.base.Tables[i].Rows, o.base.Position, at)
	}
}
