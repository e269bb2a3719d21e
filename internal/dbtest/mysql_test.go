package dbtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// overFlavors runs a test on both vendors' servers at once.
func overFlavors(t *testing.T, test func(t *testing.T, flavor string)) {
	t.Parallel()
	for _, flavor := range Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			test(t, flavor)
		})
	}
}

// dial asks one thing over TCP.
func dial(t *testing.T, m *MySQL, password, tlsConfig, query string) (string, error) {
	t.Helper()
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.TLSConfig = "root", password, "tcp", "127.0.0.1:"+strconv.Itoa(m.Port), tlsConfig
	cfg.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer func() { _ = db.Close() }()
	var name, answer string
	err = db.QueryRowContext(t.Context(), query).Scan(&name, &answer)
	return answer, err
}

func TestMySQLLife(t *testing.T) {
	overFlavors(t, func(t *testing.T, flavor string) {
		ctx := t.Context()
		m := My(t, flavor, "binlog-row-image=MINIMAL", "max_connections=")
		got := m.MustQuery(t, "", "SELECT @@binlog_row_image, @@log_bin, @@binlog_row_metadata, @@max_connections, NULL; SELECT 'more'")
		if want := []string{"MINIMAL", "1", "FULL", "151", Null}; strings.Join(got[0], " ") != strings.Join(want, " ") || got[1][0] != "more" {
			t.Fatalf("settings: %q, want %q", got, want)
		}
		if m.Flavor != flavor || strings.Contains(m.Version, "MariaDB") != (flavor == "mariadb") || m.Version[0] < '1' || m.Version[0] > '9' {
			t.Errorf("a %s of version %s", m.Flavor, m.Version)
		}
		// The binary log is empty: our own statements are not in it.
		if flavor == "mysql" {
			if got := m.MustQuery(t, "", "SELECT @@gtid_executed, @@gtid_mode"); got[0][0] != "" || got[0][1] != "ON" {
				t.Errorf("a new server has executed %q", got)
			}
		} else if got := m.MustQuery(t, "", "SELECT @@gtid_binlog_pos"); got[0][0] != "" {
			t.Errorf("a new server has executed %q", got)
		}

		// TCP wants the password.
		if _, err := dial(t, m, m.Password(), "", "SELECT 1, 2"); err != nil {
			t.Fatal(err)
		}
		var refusal *mysql.MySQLError
		if _, err := dial(t, m, "wrong", "", "SELECT 1, 2"); !errors.As(err, &refusal) || refusal.Number != 1045 {
			t.Fatalf("wrong password: %v", err)
		}

		// Data outlives every way to stop, and the port stays.
		url, err := m.CreateDB(ctx, "it`s")
		if err != nil {
			t.Fatal(err)
		}
		m.MustExec(t, "it`s", "CREATE TABLE t (n int) ENGINE=InnoDB")
		for i, again := range []func() error{
			func() error { return m.Restart(ctx) },
			func() error { return errors.Join(m.Kill(ctx), m.Start(ctx)) },
		} {
			m.MustExec(t, "it`s", "INSERT INTO t VALUES (1)")
			pid := m.PID()
			if err := again(); err != nil {
				t.Fatal(err)
			}
			if alive(pid) || !alive(m.PID()) {
				t.Fatal("the old server runs, or the new one does not")
			}
			if got := m.MustQuery(t, "it`s", "SELECT count(*) FROM t"); got[0][0] != strconv.Itoa(i+1) {
				t.Fatalf("after stop %d: %s rows", i, got[0][0])
			}
		}
		if m.URL("it`s") != url {
			t.Error("the URL changed")
		}

		// A paused server answers nobody, and goes on.
		if err := m.Pause(); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if _, err := m.Query(short, "", "SELECT 1"); err == nil {
			t.Error("a paused server answers")
		}
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		m.MustQuery(t, "", "SELECT 1")

		if err := errors.Join(m.Close(), m.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(m.Dir); !os.IsNotExist(err) {
			t.Errorf("folder left behind: %v", err)
		}
	})
}

func TestMySQLWithoutWhatCaptureNeeds(t *testing.T) {
	overFlavors(t, func(t *testing.T, flavor string) {
		opts := MySQLOptions{Flavor: flavor, TLS: TLSOn, Durable: true, Args: []string{"--max-user-connections=77"},
			Settings: map[string]string{"log_bin": "OFF", "lower_case_table_names": "1"}}
		if flavor == "mysql" {
			opts.Settings["gtid_mode"] = "OFF"
		}
		m := MyWith(t, opts)
		got := m.MustQuery(t, "", "SELECT @@log_bin, @@sync_binlog, @@innodb_flush_log_at_trx_commit, @@innodb_doublewrite, "+
			"@@lower_case_table_names, @@max_user_connections")
		if want := "0 1 1 1 1 77"; strings.ReplaceAll(strings.Join(got[0], " "), "ON", "1") != want {
			t.Errorf("settings: %v, want %s", got[0], want)
		}
		if flavor == "mysql" {
			if got := m.MustQuery(t, "", "SELECT @@gtid_mode"); got[0][0] != "OFF" {
				t.Errorf("gtid_mode is %s", got[0][0])
			}
		}
		pem, err := os.ReadFile(m.CAFile())
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		name := "dbtest-" + flavor
		if err := mysql.RegisterTLSConfig(name, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}); err != nil {
			t.Fatal(err)
		}
		defer mysql.DeregisterTLSConfig(name)
		if cipher, err := dial(t, m, m.Password(), name, "SHOW STATUS LIKE 'Ssl_cipher'"); err != nil || cipher == "" {
			t.Errorf("TLS with our authority: cipher %q, %v", cipher, err)
		}
		if err := mysql.RegisterTLSConfig(name, &tls.Config{ServerName: "127.0.0.1"}); err != nil {
			t.Fatal(err)
		}
		var unknown x509.UnknownAuthorityError
		if _, err := dial(t, m, m.Password(), name, "SELECT 1, 2"); !errors.As(err, &unknown) {
			t.Errorf("TLS without our authority: %v", err)
		}
		// The mode is part of the command line: another start, another mode.
		m.Configure(map[string]string{"ssl_ca": "", "ssl_cert": "", "ssl_key": ""})
		if err := errors.Join(m.configureTLS(TLSOff), m.Kill(t.Context()), m.Start(t.Context())); err != nil {
			t.Fatal(err)
		}
		if _, err := dial(t, m, m.Password(), "skip-verify", "SELECT 1, 2"); !errors.Is(err, mysql.ErrNoTLS) {
			t.Errorf("TLS although off: %v", err)
		}
		if _, err := dial(t, m, m.Password(), "", "SELECT 1, 2"); err != nil {
			t.Errorf("no TLS: %v", err)
		}
	})
}

func TestBadMySQLSaysWhy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		opts MySQLOptions
		want string
	}{
		{"a setting", MySQLOptions{Flavor: "mariadb", Settings: map[string]string{"binlog_format": "plenty"}}, "binlog"},
		{"a vendor", MySQLOptions{Flavor: "oracle"}, "neither mysql nor mariadb"},
		{"no programs", MySQLOptions{Flavor: "mariadb-99"}, "run scripts/setup mariadb-99"},
		{"no programs here", MySQLOptions{Root: "/nowhere", Flavor: "mariadb"}, "no mariadbd in /nowhere/bin"},
		{"no MySQL here", MySQLOptions{Root: "/nowhere"}, "no mysqld in /nowhere/bin"},
		{"a long path", MySQLOptions{Flavor: "mariadb", Dir: t.TempDir() + "/" + strings.Repeat("x", 90)}, "use a shorter one"},
	} {
		if m, err := StartMySQL(t.Context(), c.opts); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
			if err == nil {
				_ = m.Close()
			}
		}
	}
}
