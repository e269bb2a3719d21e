package e2e

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"txreel/internal/dbtest"
)

// globalsCorpus is what a server may hold beside its databases, and what of a schema speaks of it.
const globalsCorpus = `
	CREATE ROLE "Boss" SUPERUSER LOGIN PASSWORD 'boss-password' VALID UNTIL 'infinity';
	CREATE ROLE owners NOINHERIT CREATEROLE CREATEDB; CREATE ROLE readers CONNECTION LIMIT 3; CREATE ROLE "Größe ""x"" 'y'" REPLICATION BYPASSRLS VALID UNTIL '2031-02-03 04:05:06+00';
	CREATE ROLE app LOGIN PASSWORD 'app-password'; CREATE ROLE app_ro LOGIN;
	COMMENT ON ROLE app IS 'the app''s "own" \ role'; COMMENT ON ROLE readers IS 'grüße';
	GRANT pg_read_all_data TO readers WITH ADMIN OPTION; GRANT readers TO owners WITH ADMIN OPTION; GRANT owners TO app; GRANT readers TO app_ro;
	SET ROLE owners; GRANT readers TO "Größe ""x"" 'y'"; RESET ROLE;
	ALTER ROLE app SET search_path TO "A b", '$user', public, 'it''s "x"'; ALTER ROLE app SET work_mem TO '17MB'; ALTER ROLE app SET app.jwt_secret TO 'kept-but-never-shown \ ''';
	ALTER ROLE app SET datestyle TO 'ISO, DMY'; ALTER ROLE readers SET search_path TO ''; ALTER ROLE ALL SET idle_session_timeout TO '3h';
	ALTER ROLE app IN DATABASE shared SET statement_timeout TO '5min'; ALTER ROLE postgres IN DATABASE shared SET app.jwt_secret TO 'another-never-shown';
	ALTER DATABASE shared SET default_transaction_read_only TO off; ALTER DATABASE shared SET search_path TO sales, public; ALTER DATABASE shared CONNECTION LIMIT 90;
	ALTER DATABASE shared OWNER TO owners; REVOKE TEMPORARY ON DATABASE shared FROM PUBLIC; GRANT CREATE ON DATABASE shared TO app WITH GRANT OPTION; COMMENT ON DATABASE shared IS 'all of ''it''';
	SET ROLE app; GRANT CREATE ON DATABASE shared TO app_ro; RESET ROLE;
	CREATE SCHEMA sales AUTHORIZATION app; ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA sales GRANT SELECT ON TABLES TO readers;
	SET ROLE app; CREATE TABLE sales.orders (id int PRIMARY KEY, who text); RESET ROLE;
	ALTER TABLE sales.orders ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON sales.orders TO app_ro, "Größe ""x"" 'y'" USING (who = current_user);
	CREATE FUNCTION sales.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION sales.f() OWNER TO "Boss"; REVOKE ALL ON FUNCTION sales.f() FROM PUBLIC; GRANT EXECUTE ON FUNCTION sales.f() TO readers;
	CREATE TABLE ticks (n int PRIMARY KEY)`

// TestGlobals restores roles, memberships, settings and what belongs to the database into another server, as they were at the point.
func TestGlobals(t *testing.T) {
	t.Parallel()
	pg, target := dbtest.PG(t), dbtest.PGWith(t, dbtest.PostgresOptions{OwnSystem: true})
	s := newSite(t, pg, "shared", nil)
	secrets := []string{"kept-but-never-shown", "another-never-shown", "boss-password", "app-password"}
	s.hidden = append(append(s.hidden, target.Password()), secrets...)
	s.exec(globalsCorpus)
	s.must("setup", "--apply", "--role", "recorder", "--slot", s.slot())
	if s.value("SELECT current_setting('server_version_num')::int >= 150000") == "t" {
		s.exec("GRANT SET ON PARAMETER log_min_duration_statement TO app; GRANT ALTER SYSTEM ON PARAMETER work_mem TO owners WITH GRANT OPTION")
	}
	s.exec(`ALTER ROLE recorder PASSWORD 'recording'`)
	// The capture is the least that setup makes of a role.
	capture := s.with("TXREEL_SOURCE="+pg.URLAs("recorder", "recording", "shared")).capture("--globals-every", "100ms")
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	states := func() uint64 {
		g, err := a.LastGlobals(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if g == nil {
			return 0
		}
		return g.Number
	}
	// A state that was written down is one that was on record before the next transaction.
	change := func(sql string) {
		before := states()
		s.exec(sql)
		eventually(t, patience(), "the change is on record: "+sql, func() bool { return states() > before })
	}
	eventually(t, patience(), "a first state", func() bool { return states() > 0 })
	change(`ALTER ROLE app_ro CONNECTION LIMIT 5; CREATE ROLE afterwards IN ROLE readers`)
	s.exec(`INSERT INTO ticks VALUES (1)`)
	cut := s.waitPast(a, s.here()).Seq
	wantGlobals, wantSchema := globalsOf(t, pg, "shared"), createOf(t, pg, "shared")
	change(`ALTER ROLE app_ro CONNECTION LIMIT 6; ALTER ROLE app NOLOGIN; CREATE ROLE "too late"; ALTER ROLE app RESET work_mem; ALTER DATABASE shared CONNECTION LIMIT 91`)
	s.exec(`INSERT INTO ticks VALUES (2)`)
	s.waitPast(a, s.here())

	urls := make(map[string]string)
	for _, db := range []string{"shared", "shared_again", "weak"} {
		url, err := target.CreateDB(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		urls[db] = url
	}
	plan := s.must("restore", "--dry-run", "--to-seq", cut.String(), "--globals")
	if !contains(plan.stdout, "makes role", `"Größe ""x"" 'y'"`, "setting \"app.jwt_secret\" of role \"app\"", "seen unchanged at") || contains(plan.stdout, "too late") {
		t.Errorf("the plan says\n%s", plan.stdout)
	}
	if r := s.must("restore", "--dry-run", "--to-seq", cut.String()); !contains(r.stdout, "--globals makes it as it was", "owners") {
		t.Errorf("the plan without says\n%s", r.stdout)
	}
	// Who may not make roles is told so before anything is there.
	target.MustExec(t, "weak", `CREATE ROLE weak LOGIN PASSWORD 'weak'; GRANT ALL ON DATABASE weak TO weak`)
	r := s.with("TXREEL_TARGET="+target.URLAs("weak", "weak", "weak")).run("restore", "--globals")
	if r.code == 0 || !contains(r.stderr, `"weak" may not create roles`, "CREATEROLE") {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
	target.MustExec(t, "weak", `DROP OWNED BY weak; DROP ROLE weak`)

	r = s.with("TXREEL_TARGET="+urls["shared"]).must("restore", "--to-seq", cut.String(), "--globals")
	if !contains(r.stdout, "made role", `3 of these roles had one ("Boss", "app", "recorder")`, "seen unchanged at") || contains(r.stdout, "too late") {
		t.Errorf("the report says\n%s", r.stdout)
	}
	if diff := firstDifference(wantGlobals, globalsOf(t, target, "shared")); diff != "" {
		t.Errorf("roles and settings differ:\n%s\n%s", diff, r.stdout)
	}
	if diff := firstDifference(wantSchema, createOf(t, target, "shared")); diff != "" {
		t.Errorf("pg_dump differs:\n%s\n%s", diff, r.stdout)
	}

	// Once more, to the end: what the server has stays as it is, and is named.
	r = s.with("TXREEL_TARGET="+urls["shared_again"]).must("restore", "--globals", "--json")
	if !contains(r.stdout, `"globals"`, `role \"app_ro\": connection limit`, `role \"app\": login`, `role \"too late\"`) {
		t.Errorf("the second report says\n%s", r.stdout)
	}
	if got := target.MustQuery(t, "shared_again", `SELECT (SELECT rolcanlogin FROM pg_roles WHERE rolname = 'app')::text, (SELECT count(*) FROM pg_roles WHERE rolname = 'too late')::text, datconnlimit::text, pg_get_userbyid(datdba)::text
		FROM pg_database WHERE datname = current_database()`)[0]; strings.Join(got, " ") != "true 1 91 owners" {
		t.Errorf("the second restore has %q", got)
	}
	capture.kill()
	s.must("verify", "--full")

	verifiers := []string{"SCRAM-SHA-256$", "boss-password", "app-password"}
	for _, row := range pg.MustQuery(t, "postgres", `SELECT rolpassword::text FROM pg_authid WHERE rolpassword IS NOT NULL`) {
		verifiers = append(verifiers, row[0], row[0][len(row[0])-40:])
	}
	files := 0
	err := filepath.WalkDir(s.archive, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, v := range verifiers {
			if bytes.Contains(b, []byte(v)) {
				t.Errorf("%s holds %q", path, v)
			}
		}
		return err
	})
	if err != nil || files < 5 {
		t.Errorf("%d files looked at: %v", files, err)
	}
}

// globalsOf is what the catalogs hold of a server's roles and settings and, where the server's own client programs are there, what
// pg_dumpall writes of them.
func globalsOf(t *testing.T, pg *dbtest.Postgres, db string) string {
	t.Helper()
	var all []string
	for _, query := range []string{
		`SELECT (to_jsonb(r) - 'oid' - 'rolconfig')::text || coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles r WHERE rolname !~ '^pg_' ORDER BY rolname`,
		`SELECT concat_ws(' ', roleid::regrole, member::regrole, grantor::regrole, to_jsonb(m) - 'oid' - 'roleid' - 'member' - 'grantor') FROM pg_auth_members m WHERE member >= 16384 ORDER BY 1`,
		`SELECT concat_ws(' ', setrole::regrole, (SELECT datname FROM pg_database d WHERE d.oid = setdatabase), setconfig) FROM pg_db_role_setting ORDER BY 1`,
	} {
		for _, row := range pg.MustQuery(t, db, query) {
			all = append(all, row[0])
		}
	}
	if program := pg.Client("pg_dumpall"); filepath.Dir(program) == pg.BinDir || pg.MustQuery(t, db, `SELECT current_setting('server_version_num')::int < 160000`)[0][0] == "t" {
		all = append(all, dumped(t, program, "--globals-only", "--no-role-passwords", "--no-sync", "--dbname", pg.URL(db)))
	}
	return strings.Join(all, "\n")
}

// createOf is what pg_dump writes of a database, its properties and privileges, but for what is txreel's own.
func createOf(t *testing.T, pg *dbtest.Postgres, db string) string {
	t.Helper()
	return dumped(t, pg.Client("pg_dump"), "--schema-only", "--create", "--no-sync", "--exclude-schema=txreel", "--no-publications", pg.URL(db))
}

func dumped(t *testing.T, program string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", program, err, stderr.String())
	}
	var lines []string
	for _, statement := range regexp.MustCompile(`(?m)^\\(un)?restrict .*$|^--.*$`).Split(string(out), -1) {
		for part := range strings.SplitSeq(statement, ";\n") {
			part = strings.TrimSpace(part)
			if part != "" && !strings.HasPrefix(part, "CREATE EVENT TRIGGER") && !strings.HasPrefix(part, "ALTER EVENT TRIGGER") && !strings.HasPrefix(part, "EXECUTE FUNCTION txreel") {
				lines = append(lines, strings.Split(part, "\n")...)
			}
		}
	}
	return strings.Join(lines, "\n")
}
