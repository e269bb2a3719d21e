package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"txreel/capture"
	"txreel/internal/dbtest"
)

func TestConnectErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	const secret = "s3cret-p@ss/w?rd"
	pg := dbtest.PGWith(t, dbtest.PostgresOptions{HBA: []string{"host all banned 127.0.0.1/32 reject", "host all cert 127.0.0.1/32 trust"}})
	pg.MustExec(t, "postgres", `CREATE DATABASE closed`)
	pg.MustExec(t, "postgres", `
		CREATE ROLE app LOGIN PASSWORD '`+secret+`'; CREATE ROLE banned LOGIN; CREATE ROLE full LOGIN PASSWORD '`+secret+`' CONNECTION LIMIT 0;
		CREATE ROLE "no login" NOLOGIN PASSWORD '`+secret+`'; REVOKE CONNECT ON DATABASE closed FROM public`)
	app := pg.URLAs("app", secret, "postgres")
	with := func(u string, change func(*url.URL)) string {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		change(parsed)
		return parsed.String()
	}

	// A port nobody listens on, and one that accepts and says nothing.
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	deadAddr := dead.Addr().String()
	_ = dead.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()

	for _, c := range []struct {
		name, source string
		replication  bool
		unreachable  bool
		want         []string
	}{
		{name: "right password", source: app},
		{name: "wrong password", source: pg.URLAs("app", secret+"x", "postgres"), want: []string{"password", `"app"`, "PGPASSWORD"}},
		{name: "no such database", source: pg.URLAs("app", secret, "nope"), want: []string{`no database "nope"`}},
		{name: "no login", source: pg.URLAs("no login", secret, "postgres"), want: []string{`"no login"`, "not permitted to log in"}},
		{name: "pg_hba.conf", source: pg.URLAs("banned", secret, "postgres"), want: []string{"pg_hba.conf", "hostssl", "pg_reload_conf"}},
		{name: "no CONNECT", source: pg.URLAs("app", secret, "closed"), want: []string{`GRANT CONNECT ON DATABASE "closed" TO "app"`}},
		{name: "no REPLICATION", source: app, replication: true, want: []string{`ALTER ROLE "app" REPLICATION`}},
		{name: "no connection free", source: pg.URLAs("full", secret, "postgres"), unreachable: true, want: []string{"no connection free"}},
		{name: "nobody listens", source: with(app, func(u *url.URL) { u.Host = deadAddr }), unreachable: true,
			want: []string{deadAddr, "connection refused", "check host and port"}},
		{name: "no answer", source: with(app, func(u *url.URL) { u.Host = mute.Addr().String(); u.RawQuery += "&connect_timeout=1" }),
			unreachable: true, want: []string{"did not answer within 1s"}},
		{name: "no such host", source: with(app, func(u *url.URL) { u.Host = "nowhere.invalid:5432" }), unreachable: true,
			want: []string{`cannot find host "nowhere.invalid"`}},
		{name: "no TLS", source: with(app, func(u *url.URL) { u.RawQuery = "sslmode=require" }), want: []string{"offers no TLS", "sslmode"}},
		{name: "TLS preferred, wrong password", source: with(pg.URLAs("app", "x", "postgres"), func(u *url.URL) { u.RawQuery = "sslmode=prefer" }),
			want: []string{"does not accept this password"}},
		{name: "unknown setting", source: with(app, func(u *url.URL) { u.RawQuery += "&frobnicate=1" }), want: []string{"frobnicate"}},
		{name: "bad sslmode", source: with(app, func(u *url.URL) { u.RawQuery = "sslmode=maybe" }), want: []string{"verify-full"}},
		{name: "no root certificate", source: with(app, func(u *url.URL) { u.RawQuery = "sslmode=verify-full&sslrootcert=/nowhere/" + secret }),
			want: []string{"sslrootcert", "no such file"}},
		{name: "unescaped password", source: "postgres://app:" + secret + "@localhost:5432/db", want: []string{"percent-encode"}},
		{name: "not a source", source: "app:" + secret + "@localhost", want: []string{"neither a URL"}},
		{name: "mysql", source: "mysql://app:" + secret + "@localhost/db", want: []string{"neither a URL"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := tryConnect(ctx, c.source, c.replication)
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatal("connected")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("want %q in: %v", want, err)
				}
			}
			if got := errors.Is(err, capture.ErrUnreachable); got != c.unreachable {
				t.Errorf("unreachable %v, want %v: %v", got, c.unreachable, err)
			}
			if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "\n") {
				t.Errorf("shows a secret, or is more than a sentence: %v", err)
			}
			var ce *pgconn.ConnectError
			if errors.As(err, &ce) {
				t.Error("carries the configuration, which holds the password")
			}
		})
	}

	t.Run("cancelled", func(t *testing.T) {
		gone, cancel := context.WithCancel(ctx)
		cancel()
		err := tryConnect(gone, app, false)
		if !errors.Is(err, context.Canceled) || errors.Is(err, capture.ErrUnreachable) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("shutting down", func(t *testing.T) {
		conn, err := Connect(ctx, app) // a smart shutdown waits for it
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithCancel(ctx)
		cancel()
		if err := pg.Stop(short, "smart"); err == nil {
			t.Fatal("stopped with a session open")
		}
		for err = nil; err == nil; err = tryConnect(ctx, app, false) { // until the signal has arrived
			if ctx.Err() != nil {
				t.Fatal(ctx.Err())
			}
		}
		if !errors.Is(err, capture.ErrUnreachable) || !strings.Contains(err.Error(), "shutting down") {
			t.Errorf("got %v", err)
		}
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

func tryConnect(ctx context.Context, source string, replication bool) error {
	cfg, err := connConfig(source, "txreel test", replication)
	if err != nil {
		return err
	}
	conn, err := dial(ctx, cfg)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func TestConnectOverTLSNobodyTrusts(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"elsewhere"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	// Written over files the server's user owns already, since the server insists on that.
	pg.MustExec(t, "postgres", `COPY (SELECT) TO '`+pg.DataDir()+`/server.key'; COPY (SELECT) TO '`+pg.DataDir()+`/server.crt'`)
	for name, block := range map[string]*pem.Block{"server.key": {Type: "PRIVATE KEY", Bytes: keyDER}, "server.crt": {Type: "CERTIFICATE", Bytes: der}} {
		path := filepath.Join(pg.DataDir(), name)
		if err := errors.Join(os.WriteFile(path, pem.EncodeToMemory(block), 0o600), os.Chmod(path, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(pg.Configure(map[string]string{"ssl": "on"}), pg.Stop(t.Context(), "fast"), pg.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	source := strings.Replace(pg.URL("postgres"), "sslmode=disable", "sslmode=verify-full", 1)
	err = tryConnect(t.Context(), source, false)
	if err == nil || errors.Is(err, capture.ErrUnreachable) || !strings.Contains(err.Error(), "sslrootcert") {
		t.Errorf("got %v", err)
	}
	if err := tryConnect(t.Context(), strings.Replace(source, "verify-full", "require", 1), true); err != nil {
		t.Error(err)
	}
}

// TestSettingsArePinned has a role and a database that would change every value's text.
func TestSettingsArePinned(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pg := dbtest.PG(t, "idle_session_timeout=3min")
	pg.MustExec(t, "postgres", `CREATE DATABASE hostile TEMPLATE template0 ENCODING 'SQL_ASCII'`)
	pg.MustExec(t, "postgres", `
		ALTER DATABASE hostile SET timezone = 'Asia/Kolkata'; ALTER DATABASE hostile SET search_path = 'public';
		ALTER ROLE postgres SET datestyle = 'German'; ALTER ROLE postgres SET extra_float_digits = -3;
		ALTER ROLE postgres SET bytea_output = 'escape'; ALTER ROLE postgres SET intervalstyle = 'iso_8601';
		ALTER ROLE postgres SET statement_timeout = '5min'; ALTER ROLE postgres SET idle_in_transaction_session_timeout = '5min';
		ALTER ROLE postgres SET client_encoding = 'LATIN1'; ALTER ROLE postgres SET row_security = on;
		ALTER ROLE postgres SET standard_conforming_strings = off`)
	for _, replication := range []bool{false, true} {
		// The user's own wishes do not matter either.
		cfg, err := connConfig(pg.URL("hostile")+"&datestyle=SQL&options=-c%20timezone%3DAsia/Tokyo&client_encoding=LATIN2", "txreel test", replication)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := dial(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		want := pinnedSettings()
		want["client_encoding"] = "SQL_ASCII"
		want["application_name"] = "txreel test"
		for name, value := range want {
			res, err := conn.Exec(ctx, "SHOW "+name).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			if got := string(res[0].Rows[0][0]); got != value {
				t.Errorf("replication %v: %s is %q, want %q", replication, name, got, value)
			}
		}
		// Bytes that are no text in any encoding pass as they are.
		res, err := conn.Exec(ctx, "SELECT E'\\xff\\xfe', 0.1::float8 + 0.2::float8").ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if got := string(res[0].Rows[0][0]) + " " + string(res[0].Rows[0][1]); got != "\xff\xfe 0.30000000000000004" {
			t.Errorf("replication %v: got %q", replication, got)
		}
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

func TestQuoteLiteral(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "''", "a'b": "'a''b'", `a\'b`: `E'a\\''b'`} {
		if got := quoteLiteral(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
