package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"txreel/capture"
	"txreel/internal/dbtest"
	"txreel/sources"
)

// want is a finding a test expects: exact check and severity, and parts of detail and fix.
type want struct {
	check    string
	severity sources.Severity
	detail   string
	fix      string
}

const (
	ok      = sources.SeverityOK
	note    = sources.SeverityNote
	warning = sources.SeverityWarning
	problem = sources.SeverityProblem
)

func examine(t *testing.T, url string, opts DoctorOptions) []sources.Finding {
	t.Helper()
	findings, err := Doctor(t.Context(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

func expect(t *testing.T, findings []sources.Finding, wants ...want) {
	t.Helper()
	for _, w := range wants {
		if !slices.ContainsFunc(findings, func(f sources.Finding) bool {
			return f.Check == w.check && f.Severity == w.severity && strings.Contains(f.Detail, w.detail) && strings.Contains(f.Fix, w.fix) && (w.fix != "" || f.Fix == "")
		}) {
			t.Errorf("want %+v in:\n%s", w, show(findings))
		}
	}
}

// expectNone fails for findings as bad as severity, or worse, other than those named.
func expectNone(t *testing.T, findings []sources.Finding, severity sources.Severity, except ...string) {
	t.Helper()
	order := []sources.Severity{ok, note, warning, problem}
	for _, f := range findings {
		if slices.Index(order, f.Severity) >= slices.Index(order, severity) && !slices.Contains(except, f.Check) {
			t.Errorf("%s %s: %s (%s)", f.Severity, f.Check, f.Detail, f.Fix)
		}
	}
}

func show(findings []sources.Finding) string {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "  %-7s %s: %s [%s]\n", f.Severity, f.Check, f.Detail, f.Fix)
	}
	return b.String()
}

// mend does what the findings say, word by word: SQL through the vendor's own client, settings of my.cnf with a restart.
func mend(t *testing.T, m *dbtest.MySQL, findings []sources.Finding, except ...string) {
	t.Helper()
	restart, script := false, ""
	for _, f := range findings {
		if f.Fix == "" || slices.Contains(except, f.Check) {
			continue
		}
		if line, found := strings.CutPrefix(f.Fix, "in my.cnf under [mysqld]: "); found {
			line, _, _ = strings.Cut(line, ";")
			name, value, _ := strings.Cut(line, " = ")
			m.Configure(map[string]string{name: value})
			restart = true
			continue
		}
		if lines, found := strings.CutPrefix(f.Fix, "remove from my.cnf: "); found {
			lines, _, _ = strings.Cut(lines, ";")
			for line := range strings.SplitSeq(lines, ", ") {
				name, _, _ := strings.Cut(line, " = ")
				m.Configure(map[string]string{name: ""})
			}
			restart = true
			continue
		}
		script += f.Fix + "\n"
		// Without a line in my.cnf a restart would undo it.
		for line := range strings.Lines(f.Fix) {
			if _, cnf, found := strings.Cut(line, "-- and in my.cnf under [mysqld]: "); found {
				name, value, _ := strings.Cut(strings.TrimSpace(cnf), " = ")
				m.Configure(map[string]string{name: value})
			}
			for statement := range strings.SplitSeq(line, ";") { // the server was told to read no files, of which persisted settings are one
				if persisted, found := strings.CutPrefix(strings.TrimSpace(statement), "SET PERSIST "); found {
					name, value, _ := strings.Cut(persisted, " = ")
					m.Configure(map[string]string{name: strings.Trim(value, "'")})
				}
			}
		}
	}
	if _, err := m.Client(t.Context(), "", script); err != nil { // it names the line
		t.Errorf("the fixes do not run: %v\n%s", err, script)
	}
	if restart {
		if err := m.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// sick is what is wrong with a server from the start on.
func sick(flavor string) []string {
	settings := []string{"binlog_format=STATEMENT", "binlog_row_image=MINIMAL", "binlog_checksum=NONE", "sync_binlog=0", "innodb_flush_log_at_trx_commit=2",
		"binlog_expire_logs_seconds=3600", "net_write_timeout=30", "max_allowed_packet=1048576", "server_id=7", "binlog_ignore_db=secret", "event_scheduler=OFF"}
	if flavor == "mysql" {
		return append(settings, "binlog_row_metadata=MINIMAL", "gtid_mode=OFF", "enforce_gtid_consistency=OFF", "binlog_row_value_options=PARTIAL_JSON",
			"binlog_transaction_compression=ON", "binlog_rows_query_log_events=OFF", "innodb_native_foreign_keys=ON", "log_replica_updates=OFF", "server_id=0")
	}
	return append(settings, "binlog_row_metadata=NO_LOG", "gtid_strict_mode=OFF", "log_bin_compress=ON", "binlog_annotate_row_events=OFF", "binlog_alter_two_phase=ON", "log_slave_updates=OFF")
}

// sickSchema holds a table for every complaint about tables.
const sickSchema = `
	CREATE DATABASE shop; USE shop;
	CREATE TABLE good (n int PRIMARY KEY, k int NOT NULL UNIQUE);
	CREATE TABLE unique_key (n int NOT NULL UNIQUE);
	CREATE TABLE loose (n int, UNIQUE (n));
	CREATE TABLE counted (a int, n int NOT NULL AUTO_INCREMENT, KEY (n));
	CREATE TABLE taken (my_row_id int);
	CREATE TABLE ` + "`we``ird; DROP`" + ` (n int);
	CREATE TABLE old (n int PRIMARY KEY) ENGINE = MyISAM;
	CREATE TABLE parent (n int PRIMARY KEY);
	CREATE TABLE child (n int PRIMARY KEY, p int, CONSTRAINT loose_child FOREIGN KEY (p) REFERENCES parent (n) ON DELETE CASCADE);
	CREATE TABLE quiet (n int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES parent (n));
	CREATE TRIGGER child_gone BEFORE DELETE ON child FOR EACH ROW SET @n = 1;
	CREATE EVENT tick ON SCHEDULE EVERY 1 DAY DO SET @n = 2;`

// TestDoctorAndItsCure shows the doctor a server where almost everything is wrong, does what it says, and expects that
// it then has nothing to complain about.
func TestDoctorAndItsCure(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			m := dbtest.My(t, flavor, append(sick(flavor), "log_bin=OFF")...)
			m.MustExec(t, "", `CREATE USER 'po''or'@'%' IDENTIFIED BY 'pw'`)
			url := m.URLAs("po'or", "pw", "")

			findings := examine(t, url, DoctorOptions{AllowLock: true})
			expect(t, findings, want{"log_bin", problem, "no binlog", "in my.cnf under [mysqld]: log_bin = binlog; then restart"})
			if flavor == "mysql" { // without one it cannot even be made a replica, as below; MariaDB has no 0
				expect(t, findings, want{"server_id", problem, "server_id is 0", "SET PERSIST server_id = 1;"})
			}
			mend(t, m, slices.DeleteFunc(findings, func(f sources.Finding) bool { return f.Check != "log_bin" && f.Check != "server_id" }))

			m.MustExec(t, "", sickSchema)
			release := holdOpen(t, m)
			updates, unfollow := follow(t, m)
			findings = examine(t, url, DoctorOptions{AllowLock: true, MinRetention: 36 * time.Hour})
			expect(t, findings,
				want{"version", ok, m.Version, ""},
				want{"encryption", ok, "", ""},
				want{"log_bin", ok, "", ""},
				want{"binlog filters", warning, "without the privileges of capture", ""},
				want{"binlog_format", problem, "STATEMENT", "binlog_format = ROW;"},
				want{"binlog_row_image", warning, "MINIMAL", "binlog_row_image = FULL;"},
				want{"binlog_row_metadata", warning, "audit", "binlog_row_metadata = FULL;"},
				want{"binlog retention", warning, "3600 seconds", "binlog_expire_logs_seconds = 129600;"},
				want{"binlog_checksum", warning, "NONE", "binlog_checksum = CRC32;"},
				want{"durability", warning, "sync_binlog = 0, innodb_flush_log_at_trx_commit = 2", "sync_binlog = 1;"},
				want{"net_write_timeout", note, "30 s", "net_write_timeout = 600;"},
				want{"max_allowed_packet", note, "1048576", "max_allowed_packet = 67108864;"},
				want{"primary keys", ok, "every table has a key, of those that this user may see", ""},
			)
			if flavor == "mysql" {
				expect(t, findings,
					want{"server_id", ok, "1", ""},
					want{"gtid_mode", problem, "gtid_mode is OFF", "SET PERSIST gtid_mode = OFF_PERMISSIVE; SET PERSIST gtid_mode = ON_PERMISSIVE; SET PERSIST gtid_mode = ON;"},
					want{"binlog_row_value_options", note, "JSON", "SET PERSIST binlog_row_value_options = '';"},
					want{"binlog_transaction_compression", note, "ON", "binlog_transaction_compression = OFF;"},
					want{"binlog_rows_query_log_events", note, "OFF", "binlog_rows_query_log_events = ON;"},
					want{"capture privileges", problem, "REPLICATION SLAVE", `GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'po''or'@'%';`},
					want{"base privileges", problem, "XA_RECOVER_ADMIN (without it", `XA_RECOVER_ADMIN, BACKUP_ADMIN, RELOAD ON *.* TO 'po''or'@'%';`})
			} else {
				expect(t, findings,
					want{"gtid_strict_mode", warning, "OFF", "SET GLOBAL gtid_strict_mode = ON; -- and in my.cnf under [mysqld]: gtid_strict_mode = ON"},
					want{"log_bin_compress", note, "ON", "log_bin_compress = OFF;"},
					want{"binlog_annotate_row_events", note, "OFF", "binlog_annotate_row_events = ON;"},
					want{"binlog_alter_two_phase", note, "ON", "binlog_alter_two_phase = OFF;"},
					want{"capture privileges", problem, "REPLICATION SLAVE", `GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO 'po''or'@'%';`},
					want{"base privileges", problem, "SELECT (without it", `SLAVE MONITOR, RELOAD ON *.* TO 'po''or'@'%';`},
					want{"prepared transactions", warning, "'a','b',7", "XA ROLLBACK 'a','b',7; -- or XA COMMIT"})
			}

			// The privileges first: with them it sees the rest.
			mend(t, m, slices.DeleteFunc(slices.Clone(findings), func(f sources.Finding) bool { return !strings.HasSuffix(f.Check, "privileges") }))
			findings = examine(t, url, DoctorOptions{AllowLock: true, MinRetention: 36 * time.Hour})
			expect(t, findings,
				want{"capture privileges", ok, "po''or", ""},
				want{"base privileges", ok, "po''or", ""},
				want{"binlog filters", problem, "binlog_ignore_db = secret", "remove from my.cnf: binlog_ignore_db = secret; then restart the server"},
				want{"primary keys", warning, "4 tables have no key", "ALTER TABLE `shop`.`counted` ADD PRIMARY KEY (`n`); "},
				want{"primary keys", warning, "`shop`.`we``ird", "ADD COLUMN my_row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY INVISIBLE FIRST; -- before the first capture"},
				want{"storage engines", warning, "`shop`.`old` (MyISAM)", "ALTER TABLE `shop`.`old` ENGINE = InnoDB;"},
				want{"foreign keys and triggers", note, "`shop`.`child`.`loose_child`", ""},
				want{"events", note, "`shop`.`tick`), and event_scheduler is OFF", ""},
				want{"unlogged writes", note, "'root'@'localhost'", ""},
				want{"replica", problem, updates + " is OFF", "in my.cnf under [mysqld]: " + updates + " = ON"},
				want{"delayed replica", warning, "600 s", "without a delay"},
				want{"replica filters", warning, "Replicate_Ignore_DB = secret", "from the source itself"})
			if flavor == "mysql" {
				expect(t, findings,
					want{"cascading foreign keys", warning, "1 foreign keys", "in my.cnf under [mysqld]: innodb_native_foreign_keys = OFF"},
					want{"temporary tables", warning, "1 temporary tables", "close the sessions"},
					want{"prepared transactions", warning, "X'61',X'62',7", "XA ROLLBACK X'61',X'62',7; -- or XA COMMIT"},
					want{"sessions", warning, "sql_log_bin = OFF", "KILL "})
			} else {
				expect(t, findings, want{"cascading foreign keys", warning, "1 foreign keys", ""}, want{"sessions", note, "does not show", ""})
			}
			mend(t, m, findings, "temporary tables", "delayed replica", "replica filters")
			release()
			expect(t, examine(t, url, DoctorOptions{}), want{"replica", note, "what it has applied", ""})
			unfollow()
			findings = examine(t, url, DoctorOptions{AllowLock: true, MinRetention: 36 * time.Hour})
			if flavor == "mysql" {
				expectNone(t, findings, note, "unlogged writes", "events", "foreign keys and triggers")
				expect(t, findings, want{"cascading foreign keys", ok, "", ""}, want{"gtid_mode", ok, "", ""}, want{"sessions", ok, "", ""})
			} else {
				expectNone(t, findings, note, "unlogged writes", "events", "foreign keys and triggers", "cascading foreign keys", "sessions")
			}
			expect(t, findings, want{"primary keys", ok, "every table has a key", ""}, want{"storage engines", ok, "", ""}, want{"prepared transactions", ok, "", ""},
				want{"binlog filters", ok, "", ""}, want{"binlog retention", ok, "36 hours", ""})
			m.MustExec(t, "", "SET GLOBAL read_only = ON")
			expect(t, examine(t, url, DoctorOptions{}), want{"read_only", note, "read-only", ""})

			if err := m.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := Doctor(t.Context(), url, DoctorOptions{}); !errors.Is(err, capture.ErrUnreachable) {
				t.Errorf("no server: %v", err)
			}
		})
	}
}

// holdOpen leaves sessions behind that the doctor shall find: one that logs nothing, one with a temporary table, and a
// prepared transaction without one.
func holdOpen(t *testing.T, m *dbtest.MySQL) (release func()) {
	t.Helper()
	var open []*dbtest.Session
	for _, sql := range []string{
		"SET sql_log_bin = 0",
		"CREATE TEMPORARY TABLE shop.fleeting (n int)",
		"XA START 'a','b',7; INSERT INTO shop.good VALUES (1, 1); XA END 'a','b',7; XA PREPARE 'a','b',7",
	} {
		s, err := m.Session(t.Context(), "")
		if err == nil {
			err = s.Exec(t.Context(), sql)
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(sql, "XA") { // it stays when its session is gone, and only then others may end it
			_ = s.Close()
			continue
		}
		open = append(open, s)
	}
	return func() {
		for _, s := range open {
			_ = s.Close() // some have been killed
		}
	}
}

// follow makes the server a replica of nobody, late and choosy, and unfollow undoes it.
func follow(t *testing.T, m *dbtest.MySQL) (updates string, unfollow func()) {
	t.Helper()
	updates, begin, end := "log_replica_updates", "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=1, SOURCE_DELAY=600; CHANGE REPLICATION FILTER REPLICATE_IGNORE_DB = (secret)", "STOP REPLICA; RESET REPLICA ALL"
	if m.Flavor == "mariadb" {
		updates, begin, end = "log_slave_updates", "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=1, MASTER_DELAY=600; SET GLOBAL replicate_ignore_db='secret'", "STOP SLAVE; RESET SLAVE ALL"
	}
	m.MustExec(t, "", begin)
	return updates, func() { m.MustExec(t, "", end) }
}

// TestDoctorFindsUncutTables looks for tables of any size that a base cannot cut.
func TestDoctorFindsUncutTables(t *testing.T) {
	onBoth(t, func(t *testing.T, m *dbtest.MySQL) {
		m.MustExec(t, "", "CREATE DATABASE pieces; USE pieces; CREATE TABLE a (n bigint unsigned, m int, PRIMARY KEY (n, m)); CREATE TABLE b (n char(3) PRIMARY KEY); "+
			"CREATE TABLE c (n int, k int NOT NULL UNIQUE); CREATE TABLE d (n int PRIMARY KEY) ENGINE = MyISAM; CREATE TABLE e (n int, v char(3), PRIMARY KEY (v, n))")
		d := &doctor{conn: connect(t, m.URL(""))}
		found, err := d.uncut(t.Context(), 0)
		found = slices.DeleteFunc(found, func(name string) bool { return !strings.HasPrefix(name, "`pieces`") })
		if want := []string{"`pieces`.`b`", "`pieces`.`c`", "`pieces`.`e`"}; err != nil || !slices.Equal(found, want) {
			t.Errorf("%v, %v", found, err)
		}
		m.MustExec(t, "", "DROP DATABASE pieces")
		d.grants = parseGrants(nil)
		if err := d.checkUncut(t.Context()); err != nil || len(d.findings) > 0 {
			t.Errorf("%v, %v", d.findings, err)
		}
	})
}

// TestDoctorWritesNothing compares the server before and after.
func TestDoctorWritesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, m *dbtest.MySQL) {
		conn := connect(t, m.URL(""))
		before, err := readVariables(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		findings := examine(t, m.URL(""), DoctorOptions{CaptureOnly: true})
		expect(t, findings, want{"base privileges", note, "only captures", ""}, want{"capture privileges", ok, "'root'@", ""})
		after, err := readVariables(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range before {
			if after[name] != value && !strings.HasPrefix(name, "gtid_") && name != "timestamp" && !strings.Contains(name, "rand") {
				t.Errorf("%s was %q and is %q", name, value, after[name])
			}
		}
		d := &doctor{conn: conn, mariadb: m.Flavor == "mariadb"}
		if err := d.introduce(t.Context()); err != nil {
			t.Fatal(err)
		}
		var refused *ServerError
		if err := conn.Exec(t.Context(), "CREATE DATABASE doctors_own"); !errors.As(err, &refused) || refused.Code != 1792 {
			t.Errorf("the doctor's session can write: %v", err)
		}
	})
}

// TestDoctorEndsWithItsContext cancels it halfway.
func TestDoctorEndsWithItsContext(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, m *dbtest.MySQL) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Doctor(ctx, m.URL(""), DoctorOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}
