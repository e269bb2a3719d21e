package mysql

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"txreel/sources"
)

func TestJudgeVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		number  int
		mariadb bool
		want    sources.Severity
	}{
		{50744, false, problem}, {80045, false, ok}, {80300, false, warning}, {80409, false, ok}, {90000, false, ok}, {90704, false, ok}, {100000, false, warning},
		{100432, true, problem}, {100625, true, warning}, {101119, true, ok}, {110409, true, ok}, {110806, true, ok}, {120001, true, warning},
	} {
		if f := judgeVersion("x", c.number, c.mariadb); f.Severity != c.want {
			t.Errorf("%d, MariaDB %v: %+v, want %s", c.number, c.mariadb, f, c.want)
		}
	}
}

func TestParseGrants(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		lines   []string
		has     []string
		lacks   []string
		revoked string
		others  int
	}{
		{name: "MySQL, with a role", lines: []string{
			"GRANT SELECT, REPLICATION SLAVE ON *.* TO `u1`@`%`", "GRANT BACKUP_ADMIN,SHOW_ROUTINE ON *.* TO `u1`@`%`", "GRANT `r1`@`%`,`r2`@`%` TO `u1`@`%`",
			"GRANT PROXY ON ``@`` TO `root`@`localhost` WITH GRANT OPTION"},
			has: []string{"SELECT", "REPLICATION SLAVE", "BACKUP_ADMIN", "SHOW_ROUTINE"}, lacks: []string{"INSERT", "PROXY", "REPLICATION CLIENT"}},
		{name: "partial revokes", lines: []string{"GRANT SELECT, INSERT ON *.* TO `a`@`%`", "REVOKE INSERT ON `x`.* FROM `a`@`%`", "REVOKE SELECT ON `mysql`.* FROM `a`@`%`"},
			has: []string{"SELECT"}, revoked: "`mysql`"},
		{name: "MariaDB's everything", lines: []string{"GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` IDENTIFIED BY PASSWORD '*23' WITH GRANT OPTION"},
			has: []string{"SELECT", "BINLOG MONITOR"}},
		{name: "MariaDB's old name", lines: []string{"GRANT REPLICATION CLIENT ON *.* TO `a`@`%`"}, has: []string{"BINLOG MONITOR"}},
		{name: "on objects", lines: []string{"GRANT USAGE ON *.* TO `a`@`%`", "GRANT SELECT (`a ON b`, `c`), INSERT ON `d ON e`.`t` TO `a`@`%`", "GRANT EXECUTE ON PROCEDURE `d`.`p` TO `a`@`%`"},
			lacks: []string{"SELECT", "USAGE", "EXECUTE"}, others: 2},
		{name: "a role with a trap for a name", lines: []string{"GRANT `x, SELECT, y ON *.* TO z` TO `a`@`%`"}, lacks: []string{"SELECT"}},
		{name: "a trap in a name", lines: []string{"GRANT USAGE ON *.* TO `x ON *.* TO y``, SELECT ON *.* TO`@`%`", "SET DEFAULT ROLE `r` FOR `a`@`%`", "", "GRANT"}, lacks: []string{"SELECT"}},
	} {
		g := parseGrants(c.lines)
		for _, p := range c.has {
			if !g.has(p) {
				t.Errorf("%s: lacks %s", c.name, p)
			}
		}
		for _, p := range c.lacks {
			if g.has(p) {
				t.Errorf("%s: has %s", c.name, p)
			}
		}
		if got := strings.Join(g.revoked, " "); got != c.revoked || g.others != c.others {
			t.Errorf("%s: revoked %q, %d others", c.name, got, g.others)
		}
	}
}

func TestDetectPlatform(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		vars map[string]string
		host string
		want platform
	}{
		{map[string]string{"version": "9.7.4", "basedir": "/usr/"}, "db.example.com", selfHosted},
		{map[string]string{"version": "8.0.42", "basedir": "/rdsdbbin/mysql-8.0.42.R3/"}, "10.0.0.5", onRDS},
		{map[string]string{"version": "10.11.9-MariaDB-log"}, "shop.abc123.eu-central-1.rds.amazonaws.com", onRDS},
		{map[string]string{"version": "8.0.39", "aurora_version": "3.08.0"}, "10.0.0.5", onAurora},
		{map[string]string{"version": "8.0.31-google"}, "10.0.0.5", onCloudSQL},
		{map[string]string{"version": "8.4.2"}, "shop.mysql.database.azure.com", onAzureMySQL},
	} {
		if got := detectPlatform(c.vars, c.host); got != c.want {
			t.Errorf("%v at %s: %q, want %q", c.vars, c.host, got, c.want)
		}
	}
}

func TestSettingsOnServices(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		host                   platform
		mariadb                bool
		dynamic, expiry, logOn string
	}{
		{selfHosted, false, "SET PERSIST binlog_format = ROW;", "SET PERSIST binlog_expire_logs_seconds = 259200;", "in my.cnf under [mysqld]: log_bin = binlog; then restart the server"},
		{selfHosted, true, "SET GLOBAL binlog_format = ROW; -- and in my.cnf under [mysqld]: binlog_format = ROW", "SET GLOBAL binlog_expire_logs_seconds = 259200; -- and in my.cnf", "my.cnf"},
		{onRDS, false, "DB parameter group set binlog_format = ROW", "CALL mysql.rds_set_configuration('binlog retention hours', 72);", "automated backups"},
		{onAurora, false, "DB cluster parameter group set binlog_format = ROW", "CALL mysql.rds_set_configuration('binlog retention hours', 72);", "reboot the writer"},
		{onCloudSQL, false, "database flag binlog_format=ROW", "binlog_expire_logs_seconds=259200", "--enable-bin-log"},
		{onAzureMySQL, false, "server parameters set binlog_format = ROW", "binlog_expire_logs_seconds = 259200", "log_bin"},
	} {
		s := setter{c.host, c.mariadb}
		for got, want := range map[string]string{s.dynamic("binlog_format", "ROW"): c.dynamic, s.expiry(259200, "binlog_expire_logs_seconds"): c.expiry, s.binlogOn(): c.logOn} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q", c.host, got, want)
			}
		}
	}
}

func TestExpiryVariable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		seconds, days, want string
	}{
		{"2592000", "", "binlog_expire_logs_seconds"},
		{"2592000", "0", "binlog_expire_logs_seconds"},
		{"0", "0.000000", "binlog_expire_logs_seconds"},
		{"43200", "0.500000", "binlog_expire_logs_seconds"},
		{"0", "10", "expire_logs_days"},
		{"", "7", "expire_logs_days"},
	} {
		vars := map[string]string{"binlog_expire_logs_seconds": c.seconds, "expire_logs_days": c.days}
		if c.seconds == "" {
			delete(vars, "binlog_expire_logs_seconds")
		}
		if got := expiryVariable(vars); got != c.want {
			t.Errorf("%s s, %s d: %s", c.seconds, c.days, got)
		}
	}
}

func TestGTIDSteps(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ mode, enforce, want string }{
		{"OFF", "OFF", "enforce_gtid_consistency = WARN, -, enforce_gtid_consistency = ON, gtid_mode = OFF_PERMISSIVE, gtid_mode = ON_PERMISSIVE, -, gtid_mode = ON"},
		{"OFF", "WARN", "-, enforce_gtid_consistency = ON, gtid_mode = OFF_PERMISSIVE, gtid_mode = ON_PERMISSIVE, -, gtid_mode = ON"},
		{"OFF_PERMISSIVE", "ON", "gtid_mode = ON_PERMISSIVE, -, gtid_mode = ON"},
		{"ON_PERMISSIVE", "ON", "-, gtid_mode = ON"},
		{"ON", "ON", ""},
	} {
		var got []string
		for _, s := range gtidSteps(c.mode, c.enforce) {
			text := strings.TrimPrefix(s.SQL, "SET PERSIST ")
			if text == "" {
				text = "-"
			}
			got = append(got, text)
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s, %s: %s", c.mode, c.enforce, s)
		}
	}
}

// TestDoctorOfWhatNoTestServerIs gives checks the variables of servers that cannot be had here.
func TestDoctorOfWhatNoTestServerIs(t *testing.T) {
	t.Parallel()
	look := func(vars map[string]string, mariadb bool, host string, check func(*doctor) error) []sources.Finding {
		t.Helper()
		d := &doctor{conn: &Conn{cfg: &Config{Host: host, Network: "tcp", TLS: TLSDisabled}}, mariadb: mariadb, vars: vars, grants: parseGrants(nil)}
		d.set = setter{detectPlatform(vars, host), mariadb}
		if err := check(d); err != nil {
			t.Fatal(err)
		}
		return d.findings
	}
	expect(t, look(map[string]string{"log_bin": "ON", "binlog_storage_engine": "innodb"}, true, "db", func(d *doctor) error { return d.checkLogBin(t.Context()) }),
		want{"log_bin", problem, "inside InnoDB", "binlog_storage_engine"})
	expect(t, look(nil, false, "shop.cluster-ro-abc.eu-central-1.rds.amazonaws.com", func(d *doctor) error { return d.checkPlatform(t.Context()) }),
		want{"platform", problem, "reader of an Aurora cluster", "writer endpoint"}, want{"platform", note, "Amazon RDS", ""})
	expect(t, look(map[string]string{"aurora_version": "3.08", "innodb_read_only": "ON"}, false, "10.0.0.5", func(d *doctor) error { return d.checkPlatform(t.Context()) }),
		want{"platform", problem, "reader of an Aurora cluster", "writer endpoint"})
	expect(t, look(map[string]string{"wsrep_on": "ON", "wsrep_provider": "/usr/lib/galera/libgalera_smm.so"}, true, "db", func(d *doctor) error { return d.checkCluster(t.Context()) }),
		want{"cluster", warning, "Galera", ""})
	if f := look(map[string]string{"wsrep_on": "ON", "wsrep_provider": "none"}, true, "db", func(d *doctor) error { return d.checkCluster(t.Context()) }); len(f) > 0 {
		t.Errorf("no cluster: %v", f)
	}
	clear := func(d *doctor) error { return d.checkEncryption(t.Context()) }
	expect(t, look(map[string]string{"tls_version": "TLSv1.3"}, false, "db", clear), want{"encryption", warning, "in the clear", "add ssl-mode=verify-identity to the source"})
	expect(t, look(map[string]string{"have_ssl": "DISABLED", "encrypt_binlog": "ON"}, true, "db", clear), want{"encryption", problem, "decrypts it", "ssl_key; restart the server, and add ssl-mode"})
	expect(t, look(map[string]string{"gtid_strict_mode": "ON", "gtid_binlog_pos": "0-1-5,3-1-7"}, true, "db", func(d *doctor) error { return d.checkGTID(t.Context()) }),
		want{"gtid_domain_id", note, "2 domains", ""})
	expect(t, look(map[string]string{"lower_case_table_names": "1", "server_uuid": "u"}, false, "db", func(d *doctor) error { return d.checkIdentity(t.Context()) }),
		want{"lower_case_table_names", note, "is 1", ""}, want{"identity", ok, "server_uuid u", ""})
	for _, c := range []struct {
		bytes   int
		mariadb bool
		want    want
	}{
		{64 << 10, false, want{"length of the GTID set", ok, "64 KiB", ""}},
		{64<<10 + 1, false, want{"length of the GTID set", note, "every segment", "SET GTID_NEXT"}},
		{512<<10 + 1, true, want{"length of the GTID set", warning, "capture stops when", "DELETE_DOMAIN_ID"}},
		{1<<20 + 1, false, want{"length of the GTID set", problem, "capture stops", "RESET BINARY LOGS AND GTIDS"}},
	} {
		expect(t, look(nil, c.mariadb, "db", func(d *doctor) error { d.judgeSetSize(c.bytes); return nil }), c.want)
	}
	for _, c := range []struct {
		host   string
		health Health
		want   want
	}{
		{"db", Health{}, want{"binlog retention", note, "never removed", "binlog_expire_logs_seconds = 604800;"}},
		{"db", Health{SizeLimit: 1 << 30}, want{"max_binlog_total_size", warning, "1.0 GiB", "max_binlog_total_size = 0;"}},
		{"db", Health{ExpireAfter: 71 * time.Hour}, want{"binlog retention", warning, "2 days", "= 259200;"}},
		{"db", Health{ExpireAfter: 72 * time.Hour}, want{"binlog retention", ok, "3 days", ""}},
		{"x.mysql.database.azure.com", Health{}, want{"binlog retention", warning, "nothing says", "binlog_expire_logs_seconds"}},
		{"x.eu-west-1.rds.amazonaws.com", Health{AtOnce: true}, want{"binlog retention", problem, "as soon as", "CALL mysql.rds_set_configuration('binlog retention hours', 72);"}},
	} {
		vars := map[string]string{"binlog_expire_logs_seconds": "0", "max_binlog_total_size": "0"}
		expect(t, look(vars, false, c.host, func(d *doctor) error {
			d.opts.MinRetention = defaultRetention
			d.judgeRetention(&c.health)
			return nil
		}), c.want)
	}
}

func TestNamesStayHarmless(t *testing.T) {
	t.Parallel()
	d := &doctor{}
	d.add("x", note, "", "table %s", "a\x1b[2Jb\nc")
	if got := d.findings[0].Detail; got != "table a\uFFFD[2Jb\uFFFDc" {
		t.Errorf("%q", got)
	}
	if user, host := splitAccount("a@b@%"); user != "a@b" || host != "%" {
		t.Errorf("%q at %q", user, host)
	}
	if got := xid("0x6162", Value("1"), Value("7")); got != "X'61',X'62',7" {
		t.Error(got)
	}
	for k, want := range map[keylessTable]string{
		{schema: "s", name: "t"}:                    "my_row_id",
		{schema: "s", name: "t", taken: true}:       "txreel_row_id",
		{schema: "s", name: "t", counter: "n"}:      "ALTER TABLE `s`.`t` ADD PRIMARY KEY (`n`)",
		{schema: "s", name: "t", partitioned: true}: "",
		{schema: "s", name: "t\x1b[2J"}:             "",
	} {
		if got := k.fix(); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%+v: %s", k, got)
		}
	}
	many := slices.Repeat([]string{"A;"}, fixesShown+2)
	if got := statements(many, "why"); strings.Count(got, "A;") != fixesShown || !strings.HasSuffix(got, " -- and 2 more -- why") {
		t.Error(got)
	}
	if got := listed(slices.Repeat([]string{"t"}, namesShown+3)); !strings.HasSuffix(got, " and 3 more") {
		t.Error(fmt.Sprint(got))
	}
}
