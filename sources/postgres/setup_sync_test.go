package postgres

import (
	"fmt"
	"strings"
	"testing"

	"txreel/internal/dbtest"
	"txreel/sources"
)

// TestSetupSync gives a role what zero-loss mode takes, by what setup prints, and takes one thing after the other away
// again: a capture refuses to begin, and the doctor names the statement that mends it.
func TestSetupSync(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	if pg.Major < 15 {
		t.Skipf("PostgreSQL %d lets only superusers set synchronous_standby_names", pg.Major)
	}
	ctx := t.Context()
	conn := connectTo(t, pg.URL("postgres"))
	s := Setup{Publication: "txreel", Slot: "waits", Role: `the "keeper"`, Sync: true}
	pg.MustExec(t, "postgres", `REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC`)
	plan, err := s.Plan(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.PgConn().Exec(ctx, sources.Script(plan)+`ALTER ROLE "the ""keeper""" PASSWORD 'pw'`).ReadAll(); err != nil {
		t.Fatalf("the script does not run: %v\n%s", err, sources.Script(plan))
	}
	if again, err := s.Plan(ctx, conn); err != nil || len(again) > 0 {
		t.Errorf("a second plan: %v\n%s", err, sources.Script(again))
	}
	url := pg.URLAs(s.Role, "pw", "postgres")
	opts := DoctorOptions{Publication: s.Publication, Slot: s.Slot, Sync: true}
	begins := func() error {
		c, err := OpenCommits(ctx, url, s.Slot)
		if err == nil {
			err = c.Expose(ctx)
			c.Close()
		}
		return err
	}
	if err := begins(); err != nil {
		t.Errorf("with all that setup prints: %v", err)
	}
	expect(t, examine(t, pg, url, opts), want{"zero-loss mode", sources.SeverityOK, "leave a guard", ""})
	name := quoteIdent(s.Role)
	for _, c := range []struct{ harm, cure string }{
		{"REVOKE ALTER SYSTEM ON PARAMETER synchronous_standby_names FROM " + name, "GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO " + name},
		{"REVOKE EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() FROM " + name, "GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO " + name},
		{"REVOKE pg_monitor FROM " + name, "GRANT pg_read_all_stats TO " + name},
		{"REVOKE USAGE ON LANGUAGE plpgsql FROM " + name, "GRANT USAGE ON LANGUAGE plpgsql TO " + name},
		{"ALTER SYSTEM SET synchronous_standby_names = 'another'", "ALTER SYSTEM SET synchronous_standby_names = ''"},
	} {
		pg.MustExec(t, "postgres", c.harm)
		pg.MustExec(t, "postgres", `SELECT pg_reload_conf()`)
		names := strings.HasPrefix(c.harm, "ALTER SYSTEM")
		eventually(t, "a refusal after "+c.harm, func() bool { return begins() != nil })
		if err := begins(); err == nil || !names && !strings.Contains(err.Error(), c.cure) || names && !strings.Contains(err.Error(), "another") {
			t.Errorf("after %s: %v", c.harm, err)
		}
		expect(t, examine(t, pg, url, opts), want{"zero-loss mode", sources.SeverityProblem, "", c.cure})
		pg.MustExec(t, "postgres", c.cure)
		pg.MustExec(t, "postgres", `SELECT pg_reload_conf()`)
	}
	eventually(t, "nobody else to have the setting", func() bool { return begins() == nil })
	pg.MustExec(t, "postgres", `ALTER ROLE postgres SET synchronous_commit = 'local'`)
	expect(t, examine(t, pg, url, opts), want{"zero-loss mode", sources.SeverityWarning, "role postgres", "RESET"})
	pg.MustExec(t, "postgres", `ALTER ROLE postgres RESET synchronous_commit`)

	// A capture that is gone left COMMITs waiting: removing it lets them go, and takes back what zero-loss mode took.
	pg.MustExec(t, "postgres", `ALTER SYSTEM SET synchronous_standby_names = '"waits"'`)
	pg.MustExec(t, "postgres", `SELECT pg_reload_conf()`)
	eventually(t, "COMMITs to wait", func() bool {
		return pg.MustQuery(t, "postgres", `SELECT current_setting('synchronous_standby_names')`)[0][0] == `"waits"`
	})
	conn = connectTo(t, pg.URL("postgres")) // which has heard of it
	if err := s.Remove(ctx, conn, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "COMMITs to go", func() bool {
		return pg.MustQuery(t, "postgres", `SELECT current_setting('synchronous_standby_names')`)[0][0] == ""
	})
	if rows := pg.MustQuery(t, "postgres", fmt.Sprintf(`SELECT has_parameter_privilege(%[1]s, 'synchronous_standby_names', 'ALTER SYSTEM'), has_function_privilege(%[1]s, 'pg_reload_conf()', 'EXECUTE')`, quoteLiteral(s.Role))); fmt.Sprint(rows) != "[[f f]]" {
		t.Errorf("the role kept: %v", rows)
	}
	if plan, err := s.PlanRemove(ctx, conn); err != nil || len(plan) != 1 || plan[0].SQL != "" {
		t.Errorf("removing again: %v\n%s", err, sources.Script(plan))
	}
	if _, err := (Setup{Publication: "p", Slot: "s", Sync: true}).Plan(ctx, conn); err == nil || !strings.Contains(err.Error(), "--role") {
		t.Errorf("without a role: %v", err)
	}
}
