package mysql

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"txreel/internal/dbtest"
	"txreel/sources"
	"txreel/sources/mysql/gtid"
)

// secured is the URL of an account that must use TLS.
func secured(m *dbtest.MySQL, user, password string) string {
	return m.URLAs(user, password, "") + "?ssl-mode=verify-identity&ssl-ca=" + m.CAFile()
}

// sqlOf are the statements of a plan, without what only has a reason.
func sqlOf(plan []sources.Statement) []string {
	var list []string
	for _, s := range plan {
		if s.SQL != "" {
			list = append(list, s.SQL)
		}
	}
	return list
}

// accounts counts those of a name.
func accounts(t *testing.T, m *dbtest.MySQL, user string) string {
	t.Helper()
	return m.MustQuery(t, "mysql", "SELECT COUNT(*) FROM user WHERE User = '"+strings.ReplaceAll(user, "'", "''")+"'")[0][0]
}

func TestSetupRoundTrip(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			metadata := map[string]string{"mysql": "MINIMAL", "mariadb": "NO_LOG"}[flavor]
			m := dbtest.MyWith(t, dbtest.MySQLOptions{Flavor: flavor, TLS: dbtest.TLSOn, Settings: map[string]string{
				"binlog_format": "MIXED", "binlog_row_image": "NOBLOB", "binlog_row_metadata": metadata, "binlog_expire_logs_seconds": "3600", "general_log": "ON", "general_log_file": "general"}})
			m.MustExec(t, "", sickSchema+"CREATE VIEW v AS SELECT 1 AS n; CREATE PROCEDURE p() SELECT 1; CREATE TABLE cut (n int) PARTITION BY HASH (n) PARTITIONS 2; INSERT INTO parent VALUES (1)")
			conn := connect(t, m.URL(""))
			s := Setup{User: "tx'reel"}

			// A plan changes nothing and knows no password.
			before := m.MustQuery(t, "", "SHOW GLOBAL VARIABLES LIKE 'binlog%'")
			plan, err := s.Plan(ctx, conn)
			if err != nil {
				t.Fatal(err)
			}
			if after := m.MustQuery(t, "", "SHOW GLOBAL VARIABLES LIKE 'binlog%'"); fmt.Sprint(after) != fmt.Sprint(before) || accounts(t, m, s.User) != "0" {
				t.Errorf("planning changed the server: %v", after)
			}
			script := sources.Script(plan)
			for _, want := range []string{"REQUIRE SSL", "-- ALTER TABLE `shop`.`loose` ADD COLUMN my_row_id", "`shop`.`cut` ADD PRIMARY KEY (…)", "binlog_row_metadata = FULL", "= 259200"} {
				if !strings.Contains(script, want) {
					t.Errorf("no %s in:\n%s", want, script)
				}
			}

			// The script as the vendor's client reads it leaves only the password to do.
			printed, err := m.Client(ctx, "", script)
			if err != nil {
				t.Fatalf("the script does not run: %v\n%s", err, script)
			}
			if plan, err := s.Plan(ctx, conn); err != nil || len(sqlOf(plan)) > 0 {
				t.Errorf("a second plan: %v\n%s", err, sources.Script(plan))
			}
			if flavor == "mysql" {
				fields := strings.Split(strings.TrimSpace(printed), "\t") // user, host, password, factor
				password := strings.ReplaceAll(fields[2], `\\`, `\`)
				connect(t, secured(m, s.User, password)).Close()
			} else if _, err := Connect(ctx, secured(m, s.User, "")); err == nil {
				t.Error("the account can be used before it has a password")
			}
			if flavor == "mariadb" { // applying gives the locked account its password
				if password, err := s.Apply(ctx, conn, nil); err != nil || password == "" {
					t.Errorf("%q, %v", password, err)
				} else {
					connect(t, secured(m, s.User, password)).Close()
				}
			}
			removeAccount(t, m, conn, s)

			// Applied from the start, it does the same by itself.
			m.MustExec(t, "", "SET GLOBAL binlog_format = MIXED, binlog_row_image = NOBLOB, binlog_expire_logs_seconds = 3600")
			conn = connect(t, m.URL(""))
			var reported []sources.Statement
			password, err := s.Apply(ctx, conn, func(st sources.Statement, err error) { reported = append(reported, st) })
			if err != nil || password == "" {
				t.Fatalf("%q, %v", password, err)
			}
			if again, err := s.Apply(ctx, conn, nil); err != nil || again != "" {
				t.Errorf("applying again: %q, %v", again, err)
			}
			if got := m.MustQuery(t, "", "SELECT @@GLOBAL.binlog_format, @@GLOBAL.binlog_row_image, @@GLOBAL.binlog_row_metadata, @@GLOBAL.binlog_expire_logs_seconds"); fmt.Sprint(got) != "[[ROW FULL FULL 259200]]" {
				t.Errorf("settings: %v", got)
			}
			nowhere(t, m, password, sources.Script(reported))

			// It has what it needs, and nothing more.
			url := secured(m, s.User, password)
			findings := examine(t, url, DoctorOptions{})
			expect(t, findings, want{"capture privileges", ok, "tx''reel", ""}, want{"base privileges", ok, "", ""}, want{"encryption", ok, "is encrypted", ""},
				want{"binlog_format", ok, "", ""}, want{"binlog_row_image", ok, "", ""}, want{"binlog_row_metadata", ok, "", ""}, want{"binlog retention", ok, "3 days", ""})
			if flavor == "mariadb" {
				expect(t, findings, want{"lasting settings", warning, "binlog_format was set while the server ran: unless my.cnf says so too, it is MIXED again", "in my.cnf under [mysqld]: binlog_format = ROW"})
			}
			for _, try := range []func(*testing.T, *Conn){mayCapture, mayRead, mayNotWrite} {
				own := connect(t, url)
				try(t, own)
				own.Close()
			}
			if _, err := Connect(ctx, m.URLAs(s.User, password, "")+"?ssl-mode=disabled"); err == nil {
				t.Error("it may log in without TLS")
			}
			removeAccount(t, m, conn, s)
			if err := s.Remove(ctx, conn, nil); err != nil {
				t.Errorf("removing nothing: %v", err)
			}

			captureOnly(t, m, conn)
			refusals(t, m, conn)
		})
	}
}

// removeAccount removes it, but not while it is logged in.
func removeAccount(t *testing.T, m *dbtest.MySQL, conn *Conn, s Setup) {
	t.Helper()
	var refused error
	eventually(t, "the account's sessions to end", func() bool {
		refused = s.Remove(t.Context(), conn, nil)
		return refused == nil || !strings.Contains(refused.Error(), "is logged in")
	})
	if refused != nil || accounts(t, m, s.User) != "0" {
		t.Fatalf("%v, %s accounts", refused, accounts(t, m, s.User))
	}
}

// nowhere looks for a password where it must not be.
func nowhere(t *testing.T, m *dbtest.MySQL, password string, shown string) {
	t.Helper()
	files := m.Binlogs()
	if len(files) == 0 {
		t.Fatal("no binlog files")
	}
	if m.Flavor == "mysql" { // which hides it there; MariaDB hides nothing
		files = append(files, filepath.Join(m.DataDir(), "general"))
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), password) {
			t.Errorf("%s holds the password", name)
		}
	}
	if strings.Contains(shown, password) || !strings.Contains(shown, "'…'") {
		t.Errorf("what is shown:\n%s", shown)
	}
}

// mayCapture does what capture does, up to the first event.
func mayCapture(t *testing.T, conn *Conn) {
	t.Helper()
	for _, sql := range []string{"SET @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32'", "SET @mariadb_slave_capability = 4"} {
		if err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	body := binary.LittleEndian.AppendUint32(nil, 4)
	body = binary.LittleEndian.AppendUint16(body, 1) // end at the end
	body = binary.LittleEndian.AppendUint32(body, 4242)
	const comBinlogDump = 0x12
	if err := conn.wire.command(comBinlogDump, body); err != nil {
		t.Fatal(err)
	}
	answer, err := conn.wire.packet()
	if err == nil && answer[0] == tagErr {
		err = parseError(answer)
	}
	if err != nil {
		t.Errorf("the binlog is not sent: %v", err)
	}
}

// mayRead does what a base does.
func mayRead(t *testing.T, conn *Conn) {
	t.Helper()
	queries := []string{"SELECT * FROM shop.parent", "SHOW CREATE TABLE shop.child", "SHOW CREATE VIEW shop.v", "SHOW CREATE TRIGGER shop.child_gone", "SHOW CREATE EVENT shop.tick",
		"SHOW CREATE PROCEDURE shop.p", "SHOW CREATE USER root@localhost", "SHOW GRANTS FOR root@localhost", "XA RECOVER", "SHOW BINARY LOGS",
		"SELECT COUNT FROM information_schema.INNODB_METRICS WHERE NAME = 'trx_rseg_history_len'", "START TRANSACTION WITH CONSISTENT SNAPSHOT", "SELECT User FROM mysql.user"}
	if conn.Flavor == gtid.MySQL {
		queries = append(queries, "SHOW BINARY LOG STATUS", "SELECT LOCAL FROM performance_schema.log_status", "LOCK INSTANCE FOR BACKUP", "SHOW REPLICA STATUS")
	} else {
		queries = append(queries, "SHOW MASTER STATUS", "SHOW STATUS LIKE 'Binlog_snapshot_%'", "SELECT @@gtid_binlog_pos", "SHOW ALL SLAVES STATUS")
	}
	for _, sql := range queries {
		r, err := conn.Query(t.Context(), sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
		} else if strings.HasSuffix(sql, "PROCEDURE shop.p") && r.Value(0, "Create Procedure").Null() || strings.HasPrefix(sql, "SELECT") && len(r.Rows) == 0 {
			t.Errorf("%s: what it asks for is hidden", sql)
		}
	}
}

// mayNotWrite tries what the account has no business with.
func mayNotWrite(t *testing.T, conn *Conn) {
	t.Helper()
	for _, sql := range []string{"INSERT INTO shop.parent VALUES (9)", "UPDATE shop.parent SET n = 8", "DELETE FROM shop.parent", "TRUNCATE shop.parent", "DROP TABLE shop.parent",
		"CREATE TABLE shop.mine (n int)", "CREATE DATABASE mine", "ALTER TABLE shop.parent ADD m int", "CREATE INDEX i ON shop.parent (n)", "CREATE VIEW shop.w AS SELECT 1", "CREATE PROCEDURE shop.q() SELECT 1",
		"CALL shop.p()", "CREATE USER mine", "GRANT SELECT ON *.* TO root@localhost", "SET GLOBAL binlog_format = STATEMENT", "SET sql_log_bin = 0", "SET SESSION binlog_format = STATEMENT",
		"FLUSH TABLES WITH READ LOCK", "LOCK TABLES shop.parent WRITE", "PURGE BINARY LOGS BEFORE NOW()", "SELECT 1 INTO OUTFILE '/tmp/txreel-must-not-exist'", "SHUTDOWN",
		"SET PASSWORD FOR root@localhost = 'x'", "UPDATE mysql.user SET User = 'x'"} {
		err := conn.Exec(t.Context(), sql)
		var refused *ServerError
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v, want a refusal", sql, err)
			continue
		}
		switch refused.Code {
		case 1044, 1045, 1142, 1227, 1370, 1290, 1410:
		default:
			t.Errorf("%s: %v, want a refusal for want of privileges", sql, err)
		}
	}
}

// captureOnly sets up the smallest account, with a password of our own and without TLS.
func captureOnly(t *testing.T, m *dbtest.MySQL, conn *Conn) {
	t.Helper()
	s := Setup{User: "watch", Host: "127.0.0.1", CaptureOnly: true, Password: `it's "a\b" longer one 7`}
	m.MustExec(t, "", "CREATE USER watch@localhost IDENTIFIED BY 'another'") // another account of that name is none of its business
	var reported []sources.Statement
	made, err := s.Apply(t.Context(), conn, func(st sources.Statement, err error) { reported = append(reported, st) })
	if err != nil || made != "" {
		t.Fatalf("%q, %v", made, err)
	}
	if script := sources.Script(reported); strings.Contains(script, "longer one") || strings.Contains(script, "REQUIRE SSL") {
		t.Errorf("what is shown:\n%s", script)
	}
	nowhere(t, m, "longer one", sources.Script(reported))
	m.MustExec(t, "", "DROP USER watch@localhost")
	// With name resolution 127.0.0.1 is localhost to the server, so the account moves there.
	m.MustExec(t, "", "RENAME USER watch@'127.0.0.1' TO watch@localhost")
	own := connect(t, m.URLAs("watch", s.Password, "")+"?ssl-mode=disabled")
	if err := own.Exec(t.Context(), "SELECT * FROM shop.parent"); err == nil {
		t.Error("it may read tables")
	}
	if err := own.Exec(t.Context(), "SHOW BINARY LOGS"); err != nil {
		t.Error(err)
	}
	mayCapture(t, own)
	own.Close()
	s.Host = "localhost"
	removeAccount(t, m, conn, s)
}

// refusals tries what setup must not do.
func refusals(t *testing.T, m *dbtest.MySQL, conn *Conn) {
	t.Helper()
	ctx := t.Context()
	for _, c := range []struct {
		name, prepare string
		setup         Setup
		want          string
	}{
		{"itself", "", Setup{User: "root", Host: "localhost"}, "is the one that runs this"},
		{"an administrator", "CREATE USER boss@'%'; GRANT SELECT, INSERT ON *.* TO boss@'%'", Setup{User: "boss"}, "INSERT"},
		{"another's account", "CREATE USER app@'%'; GRANT SELECT ON shop.* TO app@'%'", Setup{User: "app"}, "1 grants on databases or tables"},
	} {
		if c.prepare != "" {
			m.MustExec(t, "", c.prepare)
		}
		if err := c.setup.Remove(ctx, conn, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if accounts(t, m, c.setup.User) == "0" {
			t.Errorf("%s: it is gone", c.name)
		}
	}
	// Equipping an account that is there: what is missing is added, its password stays.
	m.MustExec(t, "", "CREATE USER half@'%' IDENTIFIED BY 'pw'; GRANT REPLICATION SLAVE ON *.* TO half@'%'")
	plan, err := Setup{User: "half"}.Plan(ctx, conn)
	if list := sqlOf(plan); err != nil || len(list) != 2 || list[0] != "ALTER USER 'half'@'%' REQUIRE SSL" || strings.Contains(list[1], "REPLICATION SLAVE,") {
		t.Errorf("%v\n%s", err, sources.Script(plan))
	}
	if made, err := (Setup{User: "half"}).Apply(ctx, conn, nil); err != nil || made != "" {
		t.Errorf("%q, %v", made, err)
	}
	held := connect(t, secured(m, "half", "pw"))
	if err := (Setup{User: "half"}).Remove(ctx, conn, nil); err == nil || !strings.Contains(err.Error(), "logged in with 1 sessions") {
		t.Errorf("%v", err)
	}
	// Whoever may not grant is told what to do.
	_, err = Setup{User: "third"}.Apply(ctx, held, nil)
	if err == nil || !strings.Contains(err.Error(), "run setup as an administrator") {
		t.Errorf("%v", err)
	}
	held.Close()
}

func TestSetupRefusesNames(t *testing.T) {
	t.Parallel()
	for _, s := range []Setup{{User: strings.Repeat("ä", 33)}, {User: "a\x00"}, {User: "a\xff"}, {User: "a", Host: strings.Repeat("h", 256)}} {
		if _, err := s.Plan(t.Context(), nil); err == nil {
			t.Errorf("%q was taken", s.User)
		}
	}
}

func TestSetupWantsTLSFromTheServer(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, m *dbtest.MySQL) {
		conn := connect(t, m.URL(""))
		_, err := Setup{User: "x"}.Plan(t.Context(), conn)
		if offers := m.Flavor == "mysql"; (err == nil) != offers || !offers && !strings.Contains(err.Error(), "offers no TLS") {
			t.Errorf("TLS %v: %v", offers, err)
		}
		for _, s := range []Setup{{User: "x", NoTLS: true}, {User: "x", Host: "localhost"}, {User: "x", Host: "::1"}} {
			plan, err := s.Plan(t.Context(), conn)
			if err != nil || strings.Contains(sources.Script(plan), "REQUIRE SSL") {
				t.Errorf("%+v: %v\n%s", s, err, sources.Script(plan))
			}
		}
	})
}

func TestParseCreateUser(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]bool{
		"CREATE USER `a`@`%` REQUIRE SSL ACCOUNT LOCK":                 {true, true},
		"CREATE USER `a`@`%` IDENTIFIED BY PASSWORD '*23' REQUIRE SSL": {true, false},
		"CREATE USER `a`@`%`":                                              {false, false},
		"CREATE USER ` REQUIRE SSL ACCOUNT LOCK\\`@`%`":                    {false, false},
		"CREATE USER `a`@`%` REQUIRE SUBJECT '/CN=x' PASSWORD EXPIRE":      {true, false},
		"CREATE USER `a`@`%` COMMENT 'it\\'s' REQUIRE NONE ACCOUNT UNLOCK": {false, false},
		"CREATE USER `a`@`%` IDENTIFIED WITH 'caching_sha2_password' AS '$A$00A$\\'(X\\\\' REQUIRE SSL PASSWORD EXPIRE DEFAULT ACCOUNT UNLOCK PASSWORD REQUIRE CURRENT DEFAULT": {true, false},
		"CREATE USER `a`@`%` IDENTIFIED WITH 'caching_sha2_password' AS '\"\\' REQUIRE SSL' REQUIRE NONE PASSWORD EXPIRE DEFAULT ACCOUNT LOCK":                                  {false, true},
	} {
		if tls, locked := parseCreateUser(text); tls != want[0] || locked != want[1] {
			t.Errorf("%s: TLS %v, locked %v", text, tls, locked)
		}
	}
}

// TestNativeHash compares with what MariaDB's PASSWORD() returns.
func TestNativeHash(t *testing.T) {
	t.Parallel()
	conn := connect(t, shared(t, "mariadb").URL(""))
	for _, password := range []string{"x", "it's ä", newPassword()} {
		row, err := conn.QueryRow(t.Context(), "SELECT PASSWORD("+quoteLiteral(password)+")")
		if err != nil || row[0].String() != nativeHash(password) {
			t.Errorf("%v: %s, want %s", err, nativeHash(password), row[0])
		}
	}
	if a, b := newPassword(), newPassword(); a == b || len(a) < 24 {
		t.Errorf("%s and %s", a, b)
	}
}

// TestSetupSwitchesGTIDsOn goes the whole way from OFF, and stops wherever going on would hurt.
func TestSetupSwitchesGTIDsOn(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	m := dbtest.My(t, "mysql", "gtid_mode=OFF", "enforce_gtid_consistency=OFF")
	m.MustExec(t, "", "CREATE DATABASE shop; CREATE TABLE shop.a (n int PRIMARY KEY); CREATE TABLE shop.b (n int PRIMARY KEY) ENGINE = MyISAM")
	conn := connect(t, m.URL(""))
	mode := func() string {
		row := m.MustQuery(t, "", "SELECT @@GLOBAL.gtid_mode, @@GLOBAL.enforce_gtid_consistency")[0]
		return row[0] + " " + row[1]
	}
	plan, err := Setup{}.Plan(ctx, conn)
	if err != nil || len(sqlOf(plan)) > 0 || !strings.Contains(sources.Script(plan), "--   SET PERSIST gtid_mode = ON;") {
		t.Errorf("%v\n%s", err, sources.Script(plan))
	}
	if _, err := (Setup{}).Apply(ctx, conn, nil); err != nil || mode() != "OFF OFF" {
		t.Errorf("not asked to: %s, %v", mode(), err)
	}

	// A replica reads from it.
	reader := connect(t, m.URL(""))
	if err := reader.Exec(ctx, "SET @source_binlog_checksum = 'CRC32', @master_binlog_checksum = 'CRC32'"); err != nil {
		t.Fatal(err)
	}
	body := append(binary.LittleEndian.AppendUint32(nil, 4), 0, 0, 7, 7, 0, 0)
	if err := reader.wire.command(0x12, body); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.wire.packet(); err != nil {
		t.Fatal(err)
	}
	s := Setup{GTID: true}
	if _, err := s.Apply(ctx, conn, nil); err == nil || !strings.Contains(err.Error(), "1 replicas") || mode() != "OFF OFF" {
		t.Errorf("with a replica: %s, %v", mode(), err)
	}
	m.MustExec(t, "", fmt.Sprintf("KILL %d", reader.ID))
	reader.Close()
	eventually(t, "the replica to be gone", func() bool {
		return m.MustQuery(t, "", "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'")[0][0] == "0"
	})

	// The first run asks for warnings and no more.
	if _, err := s.Apply(ctx, conn, nil); err != nil || mode() != "OFF WARN" {
		t.Fatalf("the first run: %s, %v", mode(), err)
	}
	// The second goes the whole way, as soon as an old transaction has ended.
	old, err := m.Session(ctx, "shop")
	if err == nil {
		err = old.Exec(ctx, "SET gtid_next = 'ANONYMOUS'; BEGIN; INSERT INTO a VALUES (1)")
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.Apply(ctx, conn, nil)
		done <- err
	}()
	eventually(t, "the last step but one", func() bool { return mode() == "ON_PERMISSIVE ON" })
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := old.Exec(ctx, "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || mode() != "ON ON" {
		t.Fatalf("the second run: %s, %v", mode(), err)
	}
	_ = old.Close()
	if plan, err := s.Plan(ctx, conn); err != nil || strings.Contains(sources.Script(plan), "gtid") {
		t.Errorf("%v\n%s", err, sources.Script(plan))
	}

	// Statements that GTIDs forbid stop it where they would begin to fail.
	for _, sql := range []string{"SET GLOBAL gtid_mode = ON_PERMISSIVE", "SET GLOBAL gtid_mode = OFF_PERMISSIVE", "SET GLOBAL gtid_mode = OFF", "SET GLOBAL enforce_gtid_consistency = WARN",
		"BEGIN; INSERT INTO shop.a VALUES (2); INSERT INTO shop.b VALUES (2); COMMIT"} {
		m.MustExec(t, "", sql)
	}
	if _, err := s.Apply(ctx, conn, nil); err == nil || !strings.Contains(err.Error(), "1 warnings") || mode() != "OFF WARN" {
		t.Errorf("after a statement that GTIDs forbid: %s, %v", mode(), err)
	}
}
