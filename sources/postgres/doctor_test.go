package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

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

func examine(t *testing.T, pg *dbtest.Postgres, source string, opts DoctorOptions) []sources.Finding {
	t.Helper()
	if opts.PgDump == "" {
		opts.PgDump = filepath.Join(pg.BinDir, "pg_dump") // Debian's on PATH is a slow wrapper
	}
	if opts.Publication == "" {
		opts.Publication, opts.Slot = "txreel", "txreel"
	}
	findings, err := Doctor(t.Context(), source, opts)
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

func expect(t *testing.T, findings []sources.Finding, wants ...want) {
	t.Helper()
	for _, w := range wants {
		ok := false
		for _, f := range findings {
			ok = ok || f.Check == w.check && f.Severity == w.severity && strings.Contains(f.Detail, w.detail) && strings.Contains(f.Fix, w.fix)
		}
		if !ok {
			t.Errorf("want %+v in:\n%s", w, show(findings))
		}
	}
}

// expectHealthy fails for every finding worse than a note.
func expectHealthy(t *testing.T, findings []sources.Finding) {
	t.Helper()
	for _, f := range findings {
		if f.Severity == sources.SeverityProblem || f.Severity == sources.SeverityWarning {
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

// TestDoctorAndItsCure shows the doctor a server where almost everything is wrong, does what it says, and expects
// that it then has nothing to complain about.
func TestDoctorAndItsCure(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pg := dbtest.PG(t, "wal_level=replica", "max_replication_slots=1", "max_wal_senders=1")
	pg.MustExec(t, "postgres", everyTable+`
		CREATE ROLE "po or" LOGIN PASSWORD 'pw'; CREATE SEQUENCE counter;
		ALTER TABLE keyed ENABLE ROW LEVEL SECURITY; GRANT SELECT ON keyed TO "po or";
		ALTER ROLE "po or" SET idle_in_transaction_session_timeout = '1min';
		SELECT lo_create(0), lo_create(0); CREATE MATERIALIZED VIEW mv AS SELECT 1 AS n;
		CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; CREATE FOREIGN TABLE away (n int) SERVER far`)
	before := fmt.Sprint(pg.MustQuery(t, "postgres", catalogState))
	source := pg.URLAs("po or", "pw", "postgres")

	findings := examine(t, pg, source, DoctorOptions{})
	expect(t, findings,
		want{"version", sources.SeverityOK, pg.Version, ""},
		want{"wal_level", sources.SeverityProblem, "wal_level is replica", "ALTER SYSTEM SET wal_level = 'logical'; -- then restart"},
		want{"max_replication_slots", sources.SeverityProblem, "0 of 1", "ALTER SYSTEM SET max_replication_slots = '2'"},
		want{"max_wal_senders", sources.SeverityProblem, "0 of 1", "ALTER SYSTEM SET max_wal_senders = '2'"},
		want{"max_slot_wal_keep_size", sources.SeverityWarning, "disk fills", "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf()"},
		want{"role", sources.SeverityProblem, "may not replicate", `ALTER ROLE "po or" REPLICATION;`},
		want{"role", sources.SeverityWarning, "pg_monitor", `GRANT pg_monitor TO "po or";`},
		want{"read access", sources.SeverityProblem, "and 9 more", `GRANT pg_read_all_data TO "po or";`},
		want{"row security", sources.SeverityProblem, "public.keyed", `ALTER ROLE "po or" BYPASSRLS;`},
		want{"replication connection", sources.SeverityProblem, "may not replicate", `ALTER ROLE "po or" REPLICATION;`},
		want{"publication", sources.SeverityProblem, `no publication "txreel"`, "txreel setup --apply"},
		want{"replica identity", sources.SeverityWarning, "9 tables have no key", `ALTER TABLE "we""ird"."ta ble" REPLICA IDENTITY FULL;`},
		want{"idle_in_transaction_session_timeout", sources.SeverityNote, "1min", ""},
		want{"slot", sources.SeverityOK, "does not exist yet", ""},
		want{"coverage", sources.SeverityWarning, "large objects: 2;", ""},
		want{"coverage", sources.SeverityNote, "missing: rows of unlogged tables: 1 (public.fleeting)", ""},
		want{"coverage", sources.SeverityNote, "missing: rows of foreign tables: 1 (public.away)", ""},
		want{"coverage", sources.SeverityNote, "bounded: materialized views: 1 (public.mv)", ""},
		want{"coverage", sources.SeverityNote, "bounded: sequences: 1;", ""},
		want{"encoding", sources.SeverityOK, "UTF8", ""},
		want{"old transactions", sources.SeverityOK, "5m0s", ""},
	)
	if now := fmt.Sprint(pg.MustQuery(t, "postgres", catalogState)); now != before {
		t.Error("the doctor changed the catalog")
	}

	// Do what it says, word by word; the publication by setup.
	for _, f := range findings {
		if f.Severity != sources.SeverityProblem && f.Severity != sources.SeverityWarning {
			continue
		}
		for _, word := range []string{"ALTER SYSTEM ", "ALTER ROLE ", "GRANT ", "SET lock_timeout"} {
			if strings.HasPrefix(f.Fix, word) {
				sql, _, _ := strings.Cut(f.Fix, " -- ")
				if word == "ALTER SYSTEM " { // refuses company
					sql, _, _ = strings.Cut(sql, ";")
				}
				pg.MustExec(t, "postgres", sql)
			}
		}
	}
	pg.MustExec(t, "postgres", `SELECT lo_unlink(oid) FROM pg_largeobject_metadata; SELECT pg_reload_conf()`)
	expect(t, examine(t, pg, source, DoctorOptions{}), want{"wal_level", sources.SeverityProblem, "until the server restarts", "restart the server"})
	if err := errors.Join(pg.Stop(ctx, "fast"), pg.Start(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := (Setup{Publication: "txreel", Slot: "txreel"}).Apply(ctx, connectTo(t, pg.URL("postgres")), nil); err != nil {
		t.Fatal(err)
	}
	findings = examine(t, pg, source, DoctorOptions{})
	expectHealthy(t, findings)
	expect(t, findings,
		want{"role", sources.SeverityOK, "", ""}, want{"replication connection", sources.SeverityOK, `"postgres"`, ""}, want{"output settings", sources.SeverityOK, "", ""},
		want{"publication", sources.SeverityOK, "all tables", ""}, want{"replica identity", sources.SeverityOK, "", ""}, want{"pg_dump", sources.SeverityOK, "", ""},
		want{"max_slot_wal_keep_size", sources.SeverityOK, "10240 MB", ""})
}

// TestDoctorOfOneThingAtATime breaks a healthy server in one way after another.
func TestDoctorOfOneThingAtATime(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pg := dbtest.PG(t, "max_slot_wal_keep_size=1MB")
	pg.MustExec(t, "postgres", `CREATE TABLE keyed (n int PRIMARY KEY); CREATE TABLE plain (n int)`)
	s := Setup{Publication: "txreel", Slot: "txreel", NoDefinitions: true} // whose triggers would mend some of it
	conn := connectTo(t, pg.URL("postgres"))
	if err := s.Apply(ctx, conn, nil); err != nil {
		t.Fatal(err)
	}
	pg.MustExec(t, "postgres", `SELECT pg_create_logical_replication_slot('txreel', 'pgoutput')`)
	source := pg.URL("postgres")
	findings := examine(t, pg, source, DoctorOptions{})
	expectHealthy(t, findings)
	expect(t, findings, want{"role", sources.SeverityNote, "superuser", ""}, want{"slot", sources.SeverityNote, "nobody reads", "start capture"})

	for _, c := range []struct {
		name, harm, cure string
		opts             DoctorOptions
		want             want
		since            int // the major version that can do this harm
	}{
		{name: "identity lost", harm: `ALTER TABLE plain REPLICA IDENTITY DEFAULT`, cure: `ALTER TABLE plain REPLICA IDENTITY FULL`,
			want: want{"replica identity", sources.SeverityProblem, "fail now", `ALTER TABLE "public"."plain" REPLICA IDENTITY FULL;`}},
		{name: "identity index dropped", harm: `CREATE TABLE k (n int NOT NULL); CREATE UNIQUE INDEX ki ON k (n); ALTER TABLE k REPLICA IDENTITY USING INDEX ki; DROP INDEX ki`,
			cure: `DROP TABLE k`, want: want{"replica identity", sources.SeverityProblem, `"public"."k"`, ""}},
		{name: "no deletes", harm: `ALTER PUBLICATION txreel SET (publish = 'insert, update')`,
			cure: `ALTER PUBLICATION txreel SET (publish = 'insert, update, delete, truncate')`,
			want: want{"publication", sources.SeverityProblem, "no DELETE, no TRUNCATE", `ALTER PUBLICATION "txreel" SET (publish = 'insert, update, delete, truncate', publish_via_partition_root = false`}},
		{name: "via root", harm: `ALTER PUBLICATION txreel SET (publish_via_partition_root = true)`, cure: `ALTER PUBLICATION txreel SET (publish_via_partition_root = false)`,
			want: want{"publication", sources.SeverityProblem, "root's name", ""}},
		{since: 15, name: "row filter", harm: `CREATE PUBLICATION part FOR TABLE keyed WHERE (n > 5)`, cure: `DROP PUBLICATION part`, opts: DoctorOptions{Publication: "part", Slot: "txreel"},
			want: want{"publication", sources.SeverityProblem, "1 tables with row filters", "txreel setup --remove"}},
		{since: 15, name: "column list", harm: `CREATE PUBLICATION part FOR TABLE keyed (n)`, cure: `DROP PUBLICATION part`, opts: DoctorOptions{Publication: "part", Slot: "txreel"},
			want: want{"publication", sources.SeverityProblem, "column lists", ""}},
		{since: 15, name: "whole schema", harm: `CREATE PUBLICATION part FOR TABLES IN SCHEMA public`, cure: `DROP PUBLICATION part`, opts: DoctorOptions{Publication: "part", Slot: "txreel"},
			want: want{"publication", sources.SeverityProblem, "1 whole schemas", ""}},
		{name: "nothing published", harm: `CREATE PUBLICATION part`, cure: `DROP PUBLICATION part`, opts: DoctorOptions{Publication: "part", Slot: "txreel"},
			want: want{"publication", sources.SeverityProblem, "0 tables by name", ""}},
		{name: "slot without publication", opts: DoctorOptions{Publication: "other", Slot: "txreel"},
			want: want{"slot", sources.SeverityProblem, "without its publication", `SELECT pg_drop_replication_slot('txreel');`}},
		{name: "a foreign slot", harm: `SELECT pg_create_logical_replication_slot('theirs', 'test_decoding')`, cure: `SELECT pg_drop_replication_slot('theirs')`,
			opts: DoctorOptions{Publication: "txreel", Slot: "theirs"}, want: want{"slot", sources.SeverityProblem, `"test_decoding"`, "--slot"}},
		{name: "a slot of two phases", harm: `SELECT pg_create_logical_replication_slot('two', 'pgoutput', false, true)`, cure: `SELECT pg_drop_replication_slot('two')`,
			opts: DoctorOptions{Publication: "txreel", Slot: "two"}, want: want{"slot", sources.SeverityProblem, "prepared", ""}},
		{name: "a prepared transaction", harm: `BEGIN; INSERT INTO keyed VALUES (1); PREPARE TRANSACTION 'it''s'`, cure: `ROLLBACK PREPARED 'it''s'`,
			opts: DoctorOptions{Publication: "txreel", Slot: "txreel", OldTransaction: time.Nanosecond},
			want: want{"old transactions", sources.SeverityWarning, "prepared transaction 'it''s'", "ROLLBACK PREPARED 'it''s'"}},
		{name: "no procedural language", harm: `DROP EXTENSION plpgsql`, cure: `CREATE EXTENSION plpgsql`,
			want: want{"procedural language", sources.SeverityProblem, "PL/pgSQL", "restart"}},
		{name: "no pg_dump", opts: DoctorOptions{Publication: "txreel", Slot: "txreel", PgDump: "/nowhere/pg_dump"},
			want: want{"pg_dump", sources.SeverityProblem, "cannot be run", "install"}},
		{name: "an old pg_dump", opts: DoctorOptions{Publication: "txreel", Slot: "txreel", PgDump: oldClient(t)},
			want: want{"pg_restore", sources.SeverityProblem, "pg_restore 9 cannot read a server of version", "install"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if pg.Major < c.since {
				t.Skipf("PostgreSQL %d cannot do this; %d can", pg.Major, c.since)
			}
			if c.harm != "" {
				pg.MustExec(t, "postgres", c.harm)
			}
			expect(t, examine(t, pg, source, c.opts), c.want)
			if c.cure != "" {
				pg.MustExec(t, "postgres", c.cure)
			}
		})
	}

	t.Run("a long write transaction", func(t *testing.T) {
		tx, err := conn.Begin(ctx)
		if err == nil {
			_, err = tx.Exec(ctx, `INSERT INTO public.plain VALUES (1)`)
		}
		if err != nil {
			t.Fatal(err)
		}
		findings := examine(t, pg, source, DoctorOptions{Publication: "txreel", Slot: "txreel", OldTransaction: time.Nanosecond})
		expect(t, findings, want{"old transactions", sources.SeverityWarning, "idle in transaction", fmt.Sprintf("pg_terminate_backend(%d)", conn.PgConn().PID())})
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("slot lost", func(t *testing.T) {
		pg.MustExec(t, "postgres", `CHECKPOINT`)
		for range 3 {
			pg.MustExec(t, "postgres", `INSERT INTO plain VALUES (1)`)
			pg.MustExec(t, "postgres", `SELECT pg_switch_wal()`)
		}
		pg.MustExec(t, "postgres", `CHECKPOINT`)
		expect(t, examine(t, pg, source, DoctorOptions{}), want{"slot", sources.SeverityProblem, "is lost", `pg_drop_replication_slot('txreel')`})
	})

	t.Run("another encoding", func(t *testing.T) {
		pg.MustExec(t, "postgres", `CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1'`)
		findings := examine(t, pg, pg.URL("latin"), DoctorOptions{})
		expect(t, findings, want{"encoding", sources.SeverityNote, "LATIN1", ""}, want{"output settings", sources.SeverityOK, "", ""})
	})

	t.Run("standby", func(t *testing.T) {
		pg.MustExec(t, "postgres", `COPY (SELECT) TO '`+pg.DataDir()+`/standby.signal'`)
		if err := errors.Join(pg.Stop(ctx, "fast"), pg.Start(ctx)); err != nil {
			t.Fatal(err)
		}
		expect(t, examine(t, pg, source, DoctorOptions{}), want{"standby", sources.SeverityProblem, "standby", "primary"})
	})

	if err := pg.Stop(ctx, "fast"); err != nil {
		t.Fatal(err)
	}
	if _, err := Doctor(ctx, source, DoctorOptions{Publication: "txreel", Slot: "txreel"}); !errors.Is(err, capture.ErrUnreachable) {
		t.Errorf("no server: %v", err)
	}
}

// oldClient makes a pg_dump and a pg_restore of long ago.
func oldClient(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"pg_dump", "pg_restore"} {
		script := "#!/bin/sh\necho '" + name + " (PostgreSQL) 9.6.24'\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "pg_dump")
}

func TestJudgeVersion(t *testing.T) {
	t.Parallel()
	for num, want := range map[int]sources.Severity{130021: sources.SeverityProblem, 140018: sources.SeverityWarning, 140019: sources.SeverityOK, 150013: sources.SeverityWarning, 150014: sources.SeverityOK,
		160009: sources.SeverityWarning, 160010: sources.SeverityOK, 170005: sources.SeverityWarning, 170006: sources.SeverityOK, 180000: sources.SeverityOK, 190001: sources.SeverityOK} {
		if f := judgeVersion("x", num); f.Severity != want || (f.Fix == "") != (want == sources.SeverityOK) {
			t.Errorf("%d: %+v, want %s", num, f, want)
		}
	}
}

func TestJudgePlugins(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]sources.Severity{"pgoutput": sources.SeverityOK, "pgoutput, test_decoding": sources.SeverityOK, `"test_decoding","pgoutput"`: sources.SeverityOK, "*": sources.SeverityOK,
		"": sources.SeverityProblem, "wal2json": sources.SeverityProblem, "pgoutput2": sources.SeverityProblem} {
		if f := judgePlugins(list, ""); f.Severity != want {
			t.Errorf("%q: %+v, want %s", list, f, want)
		}
	}
	if f := judgePlugins("wal2json", ""); f.Fix != "ALTER SYSTEM SET output_plugin_libraries = 'wal2json, pgoutput'; SELECT pg_reload_conf();" {
		t.Errorf("fix: %s", f.Fix)
	}
}

func TestSettingsOnManagedServices(t *testing.T) {
	t.Parallel()
	for host, want := range map[managed]string{onRDS: "rds.logical_replication = 1", onCloudSQL: "cloudsql.logical_decoding=on", onAzure: "wal_level = logical", "": "ALTER SYSTEM SET wal_level = 'logical'"} {
		if got := host.set("wal_level", "logical", true); !strings.Contains(got, want) || !strings.Contains(got, "restart") {
			t.Errorf("%q: %s", host, got)
		}
	}
}

func TestWrongPins(t *testing.T) {
	t.Parallel()
	answer := []*pgconn.Result{{Rows: [][][]byte{{[]byte("a"), []byte("1")}, {[]byte("b"), []byte("2")}, {[]byte("c"), []byte("3")}}}}
	if got := wrongPins(map[string]string{"a": "1", "c": "4", "d": "5"}, answer); fmt.Sprint(got) != `[c is "3", not "4" d is "", not "5"]` {
		t.Errorf("got %v", got)
	}
}
