package mysql

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"txreel/capture"
	"txreel/internal/dbtest"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-p@ss/w?rd"
	good := func(source string) *Config {
		t.Helper()
		c, err := ParseURL(source)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	quoted := url.QueryEscape(secret)
	c := good("mysql://app:" + quoted + "@db.example.com/?connect-timeout=3s")
	if c.User != "app" || c.Password != secret || c.Address != "db.example.com:3306" || c.TLS != TLSVerifyIdentity || c.PublicKey || c.Timeout.Seconds() != 3 {
		t.Errorf("%+v", c)
	}
	for source, mode := range map[string]TLSMode{
		"mariadb://u@127.0.0.1:3307": TLSPreferred, "mysql://u@localhost": TLSPreferred, "mysql://u@[::1]": TLSPreferred, "mysql://u@/?socket=/run/s": TLSDisabled,
		"mysql://u@10.0.0.1": TLSVerifyIdentity, "mysql://u@10.0.0.1/?ssl-mode=REQUIRED": TLSRequired, "mysql://u@10.0.0.1/?ssl-mode=VERIFY_CA": TLSVerifyCA,
		"mysql://u@10.0.0.1/?tls=skip-verify": TLSRequired, "mysql://u@127.0.0.1/?ssl-ca=/x": TLSVerifyIdentity, "mysql://u@h/?ssl-mode=disabled": TLSDisabled,
	} {
		if c := good(source); c.TLS != mode {
			t.Errorf("%s has mode %d, want %d", source, c.TLS, mode)
		}
	}
	if !good("mysql://u@127.0.0.1").PublicKey || good("mysql://u@10.0.0.1").PublicKey || !good("mysql://u@10.0.0.1/?get-server-public-key=true").PublicKey {
		t.Error("who may send a public key")
	}
	for _, source := range []string{
		"postgres://u@h/", "mysql:u@h", "mysql://u:" + secret + "@h/", "mysql://h/", "mysql://u:" + quoted + "@/", "mysql://u:" + quoted + "@h/?ssl-mode=maybe", "mysql://u@h/?no=1",
		"mysql://u:" + quoted + "@h/?socket=/s", "mysql://u@h/?ssl-cert=/x", "mysql://u@127.0.0.1/?ssl-ca=/x&ssl-mode=required", "mysql://u@h/?connect-timeout=soon", "", "mysql://u:%zz@h",
	} {
		if _, err := ParseURL(source); err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", source, err)
		}
	}
	for source, want := range map[string]string{
		"mysql://u@h:1/d?ssl-mode=disabled": "mysql://u:s3cret-p%40ss%2Fw%3Frd@h:1/d?ssl-mode=disabled", "mysql://u:own@h/": "mysql://u:own@h/",
	} {
		got, err := WithPassword(source, secret)
		if err != nil || got != want {
			t.Errorf("%s with a password: %s, %v", source, got, err)
		}
	}
}

func TestConnectErrorsSayWhatToDo(t *testing.T) {
	const secret = "s3cret-p@ss/w?rd"
	server := shared(t, "mysql")
	for _, sql := range []string{"CREATE USER app IDENTIFIED BY '" + secret + "'", "CREATE USER locked IDENTIFIED BY '" + secret + "' ACCOUNT LOCK",
		"CREATE USER full IDENTIFIED BY '" + secret + "' WITH MAX_USER_CONNECTIONS 1", "CREATE USER encrypted IDENTIFIED BY '" + secret + "' REQUIRE SSL"} {
		server.MustExec(t, "", sql)
	}
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := dead.Addr().String()
	_ = dead.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	connect(t, server.URLAs("full", secret, ""))
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	app := "mysql://app:" + url.QueryEscape(secret) + "@"
	address := strings.SplitN(strings.SplitN(server.URL(""), "@", 2)[1], "/", 2)[0]
	for _, c := range []struct {
		name, source string
		unreachable  bool
		says         string
	}{
		{"wrong password", server.URLAs("app", "wrong-"+secret, ""), false, "MYSQL_PWD"},
		{"no such user", server.URLAs("who", secret, ""), false, "does not let user \"who\" in"},
		{"locked", server.URLAs("locked", secret, ""), false, "locked"},
		{"no such database", server.URL("none"), false, "no database \"none\""},
		{"no access", server.URLAs("app", secret, "mysql"), false, "may not use database"},
		{"too many", server.URLAs("full", secret, ""), true, "no connection free"},
		{"nobody listens", app + nobody, true, "cannot reach"},
		{"says nothing", app + mute.Addr().String() + "/?connect-timeout=200ms", true, "did not answer within 200ms"},
		{"no such host", app + "nowhere.invalid", true, "cannot find host"},
		{"TLS wanted", server.URLAs("encrypted", secret, "") + "?ssl-mode=disabled", false, "does not let user"},
		{"unknown authority", app + address + "/?ssl-mode=verify-ca", false, "ssl-ca"},
		{"no authority in the file", app + address + "/?ssl-ca=" + ca, false, "no certificate in PEM"},
		{"no file", app + address + "/?ssl-ca=" + ca + ".none", false, "no such file"},
	} {
		conn, err := Connect(t.Context(), c.source)
		if err == nil {
			conn.Close()
			t.Errorf("%s: connected", c.name)
			continue
		}
		if errors.Is(err, capture.ErrUnreachable) != c.unreachable || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v (unreachable: %v)", c.name, err, errors.Is(err, capture.ErrUnreachable))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Connect(ctx, server.URL("")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Every way to prove a password, with and without TLS.
func TestLogins(t *testing.T) {
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			server := rough(t, flavor)
			for _, sql := range map[string][]string{
				"mysql":   {"CREATE USER caching IDENTIFIED WITH caching_sha2_password BY 'secret'", "CREATE USER sha IDENTIFIED WITH sha256_password BY 'secret'", "CREATE USER blank IDENTIFIED BY ''"},
				"mariadb": {"INSTALL SONAME 'auth_ed25519'", "CREATE USER ed IDENTIFIED VIA ed25519 USING PASSWORD('secret')", "CREATE USER native IDENTIFIED VIA mysql_native_password USING PASSWORD('secret')", "CREATE USER blank"},
			}[flavor] {
				server.MustExec(t, "", sql)
			}
			users := map[string][]string{"mysql": {"caching", "sha", "blank"}, "mariadb": {"ed", "native", "blank"}}[flavor]
			ca := "&ssl-ca=" + url.QueryEscape(server.CAFile())
			for _, user := range users {
				password := "secret"
				if user == "blank" {
					password = ""
				}
				plain := server.URLAs(user, password, "")
				if user == "caching" { // before the server has cached it, and where nobody may send a key
					c, err := ParseURL(plain + "?ssl-mode=disabled")
					if err != nil {
						t.Fatal(err)
					}
					c.PublicKey = false
					if _, err := c.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "must be sent over TLS") {
						t.Errorf("a key of whoever answers: %v", err)
					}
				}
				for mode, encrypted := range map[string]bool{"?ssl-mode=disabled": false, "": true, "?ssl-mode=required": true, "?ssl-mode=verify-ca" + ca: true, "?ssl-mode=verify-identity" + ca: true} {
					conn, err := Connect(t.Context(), plain+mode)
					if err != nil {
						t.Errorf("%s%s: %v", user, mode, err)
						continue
					}
					row, err := conn.QueryRow(t.Context(), "SHOW STATUS LIKE 'Ssl_cipher'")
					if err != nil || (row[1].String() != "") != encrypted || conn.TLS != encrypted {
						t.Errorf("%s%s: cipher %q, %v", user, mode, row, err)
					}
					conn.Close()
				}
			}
			// The stream goes through TLS too.
			server.MustExec(t, "", "CREATE DATABASE d")
			tail := executed(t, server)
			server.MustExec(t, "", "CREATE TABLE d.t (v longtext)")
			server.MustExec(t, "", "INSERT INTO d.t VALUES (REPEAT('x', 1000000))")
			src := open(t, SourceOptions{URL: server.URL("") + "?ssl-mode=verify-identity" + ca, Tail: tail})
			if got := until(t, src, executed(t, server)); !src.dump.TLS || len(got) != 2 || len(joined(got[1])) < 1000000 {
				t.Errorf("%d transactions over TLS", len(got))
			}
			src.Close()
			// By a name that the certificate does not have, and from a socket.
			_, err := Connect(t.Context(), strings.Replace(server.URL(""), "127.0.0.1", "127.0.0.2", 1)+"?ssl-mode=verify-identity"+ca)
			if err == nil {
				t.Error("another name is taken for this one")
			}
			off := dbtest.MyWith(t, dbtest.MySQLOptions{Flavor: flavor, TLS: dbtest.TLSOff})
			if _, err := Connect(t.Context(), off.URL("")+"?ssl-mode=required"); err == nil || !strings.Contains(err.Error(), "offers no TLS") {
				t.Errorf("no TLS: %v", err)
			}
			connect(t, off.URL(""))
			conn := connect(t, "mysql://root:"+server.Password()+"@/?socket="+url.QueryEscape(filepath.Join(server.Dir, "s")))
			if conn.TLS {
				t.Error("TLS over a socket")
			}
		})
	}
}

// A server that asks for the password in the clear does not get it.
func TestNoPasswordInTheClear(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	got := make(chan string, 1)
	go func() { // ends with the connection
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		greeting := "\x0a8.0.99\x00\x01\x00\x00\x00abcdefgh\x00\xff\xf7\xff\x02\x00\xff\xdf\x15\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00abcdefghijkl\x00caching_sha2_password\x00"
		_, _ = conn.Write(append([]byte{byte(len(greeting)), 0, 0, 0}, greeting...))
		var b [4096]byte
		_, _ = conn.Read(b[:])
		ask := "\xfemysql_clear_password\x00"
		_, _ = conn.Write(append([]byte{byte(len(ask)), 0, 0, 2}, ask...))
		n, _ := conn.Read(b[:])
		got <- string(b[:n])
	}()
	_, err = Connect(t.Context(), "mysql://app:very-secret@"+listener.Addr().String()+"/?ssl-mode=disabled")
	if err == nil || !strings.Contains(err.Error(), "in the clear") {
		t.Errorf("asked for the password in the clear: %v", err)
	}
	if sent := <-got; strings.Contains(sent, "very-secret") {
		t.Errorf("sent %q", sent)
	}
}
