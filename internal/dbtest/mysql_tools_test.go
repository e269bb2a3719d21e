package dbtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOnOneServer has what can share a server of each vendor.
func TestOnOneServer(t *testing.T) {
	overFlavors(t, func(t *testing.T, flavor string) {
		m := My(t, flavor)
		t.Run("vendor's tools", func(t *testing.T) { testTools(t, m) })
		t.Run("sysbench", func(t *testing.T) { testSysbench(t, m) })
		t.Run("dump", func(t *testing.T) { testDumpMySQL(t, m) })
	})
}

func testTools(t *testing.T, m *MySQL) {
	ctx := t.Context()
	m.MustExec(t, "", "CREATE DATABASE d")
	file := filepath.Join(t.TempDir(), "rows")
	if err := os.WriteFile(file, []byte("1\tone\n2\t\\N\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := m.Client(ctx, "d", `
			CREATE TABLE t (n int primary key, s text);
			DELIMITER //
			CREATE PROCEDURE twice(n int) BEGIN SELECT n; SELECT 2 * n; END //
			DELIMITER ;
			CALL twice(21);
			LOAD DATA LOCAL INFILE '`+file+`' INTO TABLE t;
			SELECT * FROM t ORDER BY n;
			SELECT 'tab\there', CAST(1e16 AS DOUBLE);`)
	if want := "21\n42\n1\tone\n2\tNULL\ntab\\there\t1e16\n"; err != nil || out != want {
		t.Fatalf("client: %v, printed %q, want %q", err, out, want)
	}
	if _, err := m.Client(ctx, "d", "SELECT nothing"); err == nil || !strings.Contains(err.Error(), "Unknown column") {
		t.Errorf("a client's error: %v", err)
	}
	out, err = m.Tool(ctx, "mysqlbinlog", "--read-from-remote-server", "--verify-binlog-checksum", "-vv", "binlog.000001")
	if err != nil || !strings.Contains(out, "CREATE TABLE t (n int primary key") || !strings.Contains(out, "### INSERT INTO `d`.`t`") {
		t.Errorf("mysqlbinlog: %v, printed %s", err, out)
	}
	if out, err = m.Tool(ctx, "mysqldump", "--routines", "d"); err != nil || !strings.Contains(out, "(1,'one')") {
		t.Errorf("mysqldump: %v, printed %s", err, out)
	}
}

// TestReplicas has a replica follow a primary, take its place, and the old primary follow the new one.
func TestReplicas(t *testing.T) {
	overFlavors(t, func(t *testing.T, flavor string) {
		ctx := t.Context()
		a := My(t, flavor)
		a.MustExec(t, "", "CREATE DATABASE d; CREATE TABLE d.t (n int primary key); INSERT INTO d.t VALUES (1)")
		b := MyReplica(t, a)
		if err := b.CatchUp(ctx, a); err != nil {
			t.Fatal(err)
		}
		identity := "SELECT @@server_id, @@server_uuid"
		if flavor == "mariadb" {
			identity = "SELECT @@server_id"
		}
		ours, theirs := a.MustQuery(t, "", identity)[0], b.MustQuery(t, "", identity)[0]
		for i := range ours {
			if ours[i] == theirs[i] {
				t.Errorf("both servers are %s", ours[i])
			}
		}
		a.MustExec(t, "", "INSERT INTO d.t VALUES (2)")
		if err := b.CatchUp(ctx, a); err != nil {
			t.Fatal(err)
		}
		if err := b.Promote(ctx); err != nil {
			t.Fatal(err)
		}
		if status, err := b.ReplicaStatus(ctx); err != nil || len(status) != 0 {
			t.Errorf("still a replica: %v, %v", status, err)
		}
		b.MustExec(t, "", "INSERT INTO d.t VALUES (3)")
		if err := a.Follow(ctx, b); err != nil {
			t.Fatal(err)
		}
		if err := a.CatchUp(ctx, b); err != nil {
			t.Fatal(err)
		}
		if got := a.MustQuery(t, "", "SELECT group_concat(n ORDER BY n) FROM d.t"); got[0][0] != "1,2,3" {
			t.Errorf("the old primary holds %s", got[0][0])
		}
		// What stops a replica is said.
		a.MustExec(t, "", "SET sql_log_bin = 0; INSERT INTO d.t VALUES (4)")
		b.MustExec(t, "", "INSERT INTO d.t VALUES (4)")
		if err := a.CatchUp(ctx, b); err == nil || !strings.Contains(err.Error(), "Duplicate entry '4'") {
			t.Errorf("a conflict: %v", err)
		}
	})
}

func testSysbench(t *testing.T, m *MySQL) {
	ctx := t.Context()
	m.MustExec(t, "", "CREATE DATABASE sb")
	small := []string{"--tables=2", "--table-size=100", "--threads=2"}
	if _, err := Sysbench(ctx, m, "sb", "oltp_read_write", append(small, "prepare")...); err != nil {
		t.Fatal(err)
	}
	out, err := Sysbench(ctx, m, "sb", "oltp_read_write", append(small, "--events=20", "run")...)
	if err != nil || !strings.Contains(out, "total number of events:              20") {
		t.Fatalf("%v, printed %s", err, out)
	}
	load, err := StartSysbench(m, "sb", "oltp_write_only", append(small, "--time=0", "run")...)
	if err != nil {
		t.Fatal(err)
	}
	before := m.MustQuery(t, "sb", "SELECT sum(crc32(c)) FROM sbtest1")
	err = poll(ctx, "the load to write", func() (bool, error) {
		now, err := m.Query(ctx, "sb", "SELECT sum(crc32(c)) FROM sbtest1")
		return err == nil && now[0][0] != before[0][0], err
	})
	out, stopErr := load.Stop()
	if err != nil || stopErr != nil {
		t.Fatalf("%v, %v, printed %s", err, stopErr, out)
	}
	if _, err := Sysbench(ctx, m, "nowhere", "oltp_read_write", "run"); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a database that is not there: %v", err)
	}
}
