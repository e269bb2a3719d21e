package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"txreel/internal/dbtest"
)

var update = flag.Bool("e2e.update", false, "rewrite the help texts in testdata with what txreel prints")

// exits runs a command and checks its exit code, which testscript itself cannot tell.
const exits = `#!/bin/sh
want=$1; shift
"$@"
got=$?
[ "$got" = "$want" ] || { echo "exit code $got, want $want" >&2; exit 1; }
exit 0
`

// TestBadInput runs the scripts in testdata: everything a user can get wrong ends with one clear sentence and the
// documented exit code, tells no secret and writes nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	gatewayDir := t.TempDir()
	gateway, err := dbtest.StartGateway(t.Context(), gatewayDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = gateway.Close() })
	s := newSite(t, pg, "input", nil).setup()
	s.exec(`CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)`)
	capture := s.capture()
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	s.must("mark", "here")
	capture.signal(terminate)
	capture.wait(time.Minute)
	for _, db := range []string{"full", "bare"} {
		if _, err := pg.CreateDB(t.Context(), db); err != nil {
			t.Fatal(err)
		}
	}
	pg.MustExec(t, "full", `CREATE TABLE theirs (id int); INSERT INTO theirs VALUES (1)`)

	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "exits"), []byte(exits), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(txreel(t), filepath.Join(bin, "txreel")); err != nil {
		t.Fatal(err)
	}
	secrets := []string{pg.Password(), gateway.SecretKey, "sesame"} // the scripts' own wrong passwords are sesame
	testscript.Run(t, testscript.Params{
		Dir: "testdata", UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			// The scripts run side by side: each has an archive and an empty database of its own.
			archive := filepath.Join(env.WorkDir, "archive")
			empty := filepath.Base(env.WorkDir)
			if _, err := pg.CreateDB(t.Context(), empty); err != nil {
				return err
			}
			if err := os.CopyFS(archive, os.DirFS(s.archive)); err != nil {
				return err
			}
			env.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			for _, v := range gateway.Env() {
				name, value, _ := strings.Cut(v, "=")
				env.Setenv(name, value)
			}
			for name, value := range map[string]string{
				"SOURCE": pg.URL("input"), "BARE": pg.URL("bare"), "EMPTY": pg.URL(empty), "EMPTY_DB": empty, "FULL": pg.URL("full"),
				"ADDR": fmt.Sprintf("127.0.0.1:%d", pg.Port), "CLOSED": freeAddr(t), "ARCHIVE": archive, "SLOT": s.slot(),
				"S3": gateway.URL, "BUCKET": gateway.ArchiveURL("input"),
			} {
				env.Setenv(name, value)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// sentence TEXT…: the last command printed one line on standard error, with these texts, and no secret.
			"sentence": func(ts *testscript.TestScript, neg bool, args []string) {
				text := ts.ReadFile("stderr")
				if strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "txreel: ") {
					ts.Fatalf("want one sentence, got:\n%s", text)
				}
				if !contains(text, args...) {
					ts.Fatalf("want %q in: %s", args, text)
				}
				for _, secret := range secrets {
					if strings.Contains(text+ts.ReadFile("stdout"), secret) {
						ts.Fatalf("a secret is in: %s", text)
					}
				}
				if strings.Contains(text, "postgres://") && !strings.Contains(text, "postgres://role@") {
					ts.Fatalf("a URL of a database is in: %s", text)
				}
			},
			// everything FILE: writes down what is in the store and on the server.
			"everything": func(ts *testscript.TestScript, neg bool, args []string) {
				var out bytes.Buffer
				for _, root := range []string{ts.Getenv("WORK") + "/archive", filepath.Join(gatewayDir, "data")} {
					err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
						if err == nil && !d.IsDir() {
							info, err := d.Info()
							ts.Check(err)
							fmt.Fprintln(&out, path, info.Size(), info.ModTime().UnixNano())
						}
						return err
					})
					ts.Check(err)
				}
				for _, db := range []string{"input", "bare", "full", ts.Getenv("EMPTY_DB")} {
					for _, row := range pg.MustQuery(t, db, `
						SELECT 'slot', slot_name::text FROM pg_replication_slots WHERE NOT temporary AND database = current_database()
						UNION ALL SELECT 'publication', pubname FROM pg_publication UNION ALL SELECT 'schema', nspname FROM pg_namespace
						WHERE nspname NOT LIKE 'pg\_%' UNION ALL SELECT 'relation', oid::regclass::text FROM pg_class WHERE oid >= 16384
						UNION ALL SELECT 'role', rolname FROM pg_roles UNION ALL SELECT 'trigger', evtname FROM pg_event_trigger ORDER BY 1, 2`) {
						fmt.Fprintln(&out, db, row)
					}
				}
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), out.Bytes(), 0o600))
			},
			// damage PATTERN AT: changes a byte of the files that match, so many from the end.
			"damage": func(ts *testscript.TestScript, neg bool, args []string) {
				files, err := filepath.Glob(ts.MkAbs(args[0]))
				ts.Check(err)
				at, err := strconv.Atoi(args[1])
				ts.Check(err)
				if len(files) == 0 {
					ts.Fatalf("no file matches %s", args[0])
				}
				for _, name := range files {
					b, err := os.ReadFile(name)
					ts.Check(err)
					b[len(b)-at] ^= 0x40
					ts.Check(os.Chmod(name, 0o600))
					ts.Check(os.WriteFile(name, b, 0o600))
				}
			},
		},
	})
}
