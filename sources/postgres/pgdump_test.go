package postgres

import (
	"bytes"
	"context"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"txreel/internal/dbtest"
	"txreel/sources/postgres/pgclient"
)

func TestWithoutPassword(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"postgres://u:s3cr@h:5433/db?sslmode=disable":              "postgres://u@h:5433/db?sslmode=disable",
		"postgresql://u@h/db?password=s3cr&application_name=a%20b": "postgresql://u@h/db",
		"postgres://u:s3%40cr%2F@h/db":                             "postgres://u@h/db",
		"postgres:///db?host=%2Ftmp%2Fx&user=u&password=s3cr":      "postgres:///db?host=%2Ftmp%2Fx&user=u",
		"postgres://u:s3cr@h1:1,h2:2/db":                           "postgres://u@h1:1,h2:2/db",
		"postgres://u:s3cr#x?y=z@h/db?sslmode=require":             "postgres://u@h/db?sslmode=require",
		"postgres://u:s3cr?sslmode=a@h":                            "postgres://u@h",
		"postgres://:s3cr@/db":                                     "postgres://@/db",
		"postgres://u@h/db?%70assword=s3cr&sslmode=require":        "postgres://u@h/db?sslmode=require",
		"postgres://h":                    "postgres://h",
		"database=db user=u":              "dbname=db user=u",
		"postgres://u:s3cr@[::1]:5432/db": "postgres://u@[::1]:5432/db",
		"postgres://u:s3cr@h/db?replication=database&sslpassword=s3cr":        "postgres://u@h/db",
		"postgres://u:s3cr@h/db?search_path=x&connect_timeout=3&timezone=UTC": "postgres://u@h/db?connect_timeout=3",
		"host=h password=s3cr dbname=db":                                      "host=h dbname=db",
		"host = h password = s3cr dbname = db":                                "host=h dbname=db",
		"host=h password='s3cr et' dbname=db":                                 "host=h dbname=db",
		`host=h password='s3cr\' dbname=x' dbname=db`:                         "host=h dbname=db",
		`host=h password=s3cr\ x dbname='my db'`:                              "host=h dbname='my db'",
		"host=h password=s3cr=s3cr dbname=db":                                 "host=h dbname=db",
		"password=s3cr\thost=h\nuser='u''":                                    "",
		"host=h sslpassword=s3cr replication=database user=u timezone=UTC":    "host=h user=u",
		"": "",
	} {
		got := pgclient.WithoutPassword(in)
		if strings.Contains(got, "s3") {
			t.Errorf("%q shows the secret: %q", in, got)
		}
		if want != "" && got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestPgDumpSeesNoPassword puts a program in pg_dump's place that writes down its
// arguments, and then lets the real one connect as each kind of source says.
func TestPgDumpSeesNoPassword(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	const secret = "s3cr et'\\@/?&=%"
	pg := dbtest.PG(t)
	pg.MustExec(t, "postgres", `CREATE ROLE app LOGIN PASSWORD 's3cr et''\@/?&=%'; GRANT pg_read_all_data TO app; CREATE TABLE t (n int)`)
	conn := connectTo(t, pg.URL("postgres"))
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	var snapshot string
	if err := tx.QueryRow(ctx, "select pg_export_snapshot()").Scan(&snapshot); err != nil {
		t.Fatal(err)
	}
	pgURL := pg.URLAs("app", secret, "postgres")
	u, err := url.Parse(pgURL)
	if err != nil {
		t.Fatal(err)
	}
	quoted := `'s3cr et\'\\@/?&=%'`
	args := filepath.Join(t.TempDir(), "args")
	spy := filepath.Join(t.TempDir(), "pg_dump")
	if err := os.WriteFile(spy, []byte("#!/bin/sh\nprintf '%s\\n' \"$@\" > '"+args+"'\ntr '\\0' '\\n' < /proc/$$/cmdline >> '"+args+"'\nexec "+filepath.Join(pg.BinDir, "pg_dump")+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, source := range map[string]string{
		"URL":            pgURL,
		"URL, query":     "postgres://app@127.0.0.1:" + u.Port() + "/postgres?sslmode=disable&timezone=Asia%2FTokyo&password=" + strings.ReplaceAll(url.QueryEscape(secret), "+", "%20"),
		"key=value":      "host=127.0.0.1 port=" + u.Port() + " user=app dbname=postgres sslmode=disable password=" + quoted,
		"spaces":         "password = " + quoted + " host = 127.0.0.1 port = " + u.Port() + " user = app dbname = postgres sslmode = disable",
		"search_path":    "host=127.0.0.1 port=" + u.Port() + " user=app dbname=postgres search_path=x password=" + quoted,
		"several hosts":  strings.Replace(pgURL, "127.0.0.1:"+u.Port(), "127.0.0.1:"+u.Port()+",127.0.0.1:"+u.Port(), 1),
		"raw password":   "postgres://app:" + strings.NewReplacer("%", "%25", "@", "%40", "/", "%2F", " ", "%20").Replace(secret) + "@127.0.0.1:" + u.Port() + "/postgres?sslmode=disable",
		"wrong password": pg.URLAs("app", secret+"x", "postgres"),
	} {
		var out bytes.Buffer
		err := pgDump(ctx, source, spy, snapshot, pg.Major, 1000, &out)
		if name == "wrong password" {
			if err == nil || strings.Contains(err.Error(), "s3cr") || !strings.Contains(err.Error(), "password authentication failed") {
				t.Errorf("%s: %v", name, err)
			}
		} else if err != nil || !bytes.HasPrefix(out.Bytes(), []byte("PGDMP")) {
			t.Errorf("%s: %v, %d bytes", name, err, out.Len())
		}
		seen, err := os.ReadFile(args)
		if err != nil || strings.Contains(string(seen), "s3cr") || !strings.Contains(string(seen), "--snapshot="+snapshot) {
			t.Errorf("%s: arguments %q, %v", name, seen, err)
		}
	}
	// A program that is not there, and one that is told to stop.
	if err := pgDump(ctx, pgURL, filepath.Join(t.TempDir(), "none"), snapshot, pg.Major, 1000, &bytes.Buffer{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
	slow := filepath.Join(t.TempDir(), "slow")
	if err := os.WriteFile(slow, []byte("#!/bin/sh\ntouch '"+slow+".on'\nexec "+findIn(t, "sleep")+" 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	stop, cancel := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- pgDump(stop, pgURL, slow, snapshot, pg.Major, 1000, &bytes.Buffer{}) }()
	eventually(t, "the program to start", func() bool { _, err := os.Stat(slow + ".on"); return err == nil })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

func findIn(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
