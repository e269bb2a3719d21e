package postgres

import (
	"context"
	"strings"

	"txreel/sources"
)

// checkSync looks for what zero-loss mode takes, if it is asked for.
func (d *doctor) checkSync(ctx context.Context) error {
	const check = "zero-loss mode"
	if !d.opts.Sync {
		return nil
	}
	f, err := readSync(ctx, d.conn, d.user, d.opts.Slot)
	if err != nil {
		return err
	}
	before := len(d.findings)
	if why := f.refused(d.opts.Slot); why != "" {
		fix := ""
		if f.host == "" {
			fix = d.host.set("synchronous_standby_names", "", false)
		}
		d.add(check, sources.SeverityProblem, fix, "%s", why)
	}
	for _, l := range f.lacks(d.user) {
		fix := ""
		if l.fix != "" {
			fix = l.fix + ";"
		}
		d.add(check, sources.SeverityProblem, fix, "%s", l.what)
	}
	if f.others > 0 {
		d.add(check, sources.SeverityProblem, "choose another name with --slot", "%d standbys are connected under the name %s already, by which the server would know the capture: their word would count for its", f.others, d.opts.Slot)
	}
	if err := d.checkWaiting(ctx, check); err != nil {
		return err
	}
	if len(d.findings) == before {
		d.add(check, sources.SeverityOK, "", "role %s may have COMMIT wait, on its own, and leave a guard in the server", quoteIdent(d.user))
	}
	return nil
}

// checkWaiting names those whose COMMITs would not wait, by what is set for them: a session may set it for itself, too.
func (d *doctor) checkWaiting(ctx context.Context, check string) error {
	var whole string
	var some []string
	err := d.conn.QueryRow(ctx, `
		SELECT COALESCE((SELECT setting FROM pg_catalog.pg_file_settings WHERE name = 'synchronous_commit' AND applied ORDER BY seqno DESC LIMIT 1), 'on')`).Scan(&whole)
	if err != nil {
		whole = "on" // only superusers see the file
	}
	if whole == "off" || whole == "local" {
		d.add(check, sources.SeverityProblem, d.host.set("synchronous_commit", "on", false), "synchronous_commit is %s: no COMMIT waits", whole)
	}
	err = d.conn.QueryRow(ctx, `
		SELECT COALESCE(array_agg(trim(format('%s %s', 'database ' || quote_ident(d.datname), 'role ' || quote_ident(r.rolname)))), '{}')
		FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
		WHERE s.setconfig && ARRAY['synchronous_commit=off', 'synchronous_commit=local']`).Scan(&some)
	if err == nil && len(some) > 0 {
		d.add(check, sources.SeverityWarning, "ALTER ROLE … RESET synchronous_commit;", "COMMIT does not wait for %s, where synchronous_commit is off or local, and nobody can tell these transactions apart", strings.Join(some, ", "))
	}
	return err
}
