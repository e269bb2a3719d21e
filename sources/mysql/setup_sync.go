package mysql

import (
	"context"
	"fmt"
	"strings"

	"txreel/sources"
)

// semiSync is how a server is set up for commits that wait, which goes by one of two sets of names.
type semiSync struct {
	prefix    string // of its variables
	installed bool
	plugin    string // the statement that installs it, "" where it is part of the server
	name      string // of the plugin
}

// semiSyncOf reads it from a server's variables.
func semiSyncOf(vars map[string]string, mariadb bool, number int) semiSync {
	_, modern := vars["rpl_semi_sync_source_enabled"]
	_, old := vars["rpl_semi_sync_master_enabled"]
	switch {
	case mariadb:
		return semiSync{prefix: "rpl_semi_sync_master_", installed: old}
	case !modern && (old || number < 80026):
		return semiSync{prefix: "rpl_semi_sync_master_", installed: old, name: "rpl_semi_sync_master", plugin: "INSTALL PLUGIN rpl_semi_sync_master SONAME 'semisync_master.so'"}
	}
	return semiSync{prefix: "rpl_semi_sync_source_", installed: modern, name: "rpl_semi_sync_source", plugin: "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'"}
}

// planSync has COMMIT wait for a capture, and not for longer than it may. What switches it on comes last.
func (v *visit) planSync() ([]step, error) {
	if v.Sync == 0 {
		return nil, nil
	}
	if v.set.host != selfHosted {
		return nil, fmt.Errorf("zero-loss mode works by semi-synchronous replication, which %s keeps to itself: capture without --sync", v.set.host)
	}
	var steps []step
	s := semiSyncOf(v.vars, v.mariadb, v.conn.Number)
	if !s.installed {
		steps = append(steps, step{Statement: sources.Statement{SQL: s.plugin, Why: "For zero-loss mode: the part of the server that has COMMIT wait. It stays over a restart."}})
	}
	for _, c := range []struct{ name, want, why string }{
		{"timeout", fmt.Sprint(v.Sync.Milliseconds()), fmt.Sprintf("For zero-loss mode: the server itself lets COMMITs go after %v, whatever has become of the capture.", v.Sync)},
		{"wait_point", "AFTER_SYNC", "For zero-loss mode: nobody sees a transaction before it is safe."},
		{"enabled", "ON", fmt.Sprintf("For zero-loss mode: COMMIT waits. Until a capture is there the first one waits for %v, and the others do not.", v.Sync)},
	} {
		now, has := v.vars[s.prefix+c.name]
		if has && now == c.want || !has && c.name == "wait_point" {
			continue
		}
		steps = append(steps, v.change(s.prefix+c.name, c.want, c.why))
	}
	return steps, nil
}

// planUnsync lets no COMMIT wait any more.
func (v *visit) planUnsync(ctx context.Context) ([]sources.Statement, error) {
	s := semiSyncOf(v.vars, v.mariadb, v.conn.Number)
	if v.Sync == 0 || !s.installed {
		return nil, nil
	}
	status, err := v.conn.named(ctx, "SHOW GLOBAL STATUS LIKE 'Rpl\\_semi\\_sync\\_%\\_clients'")
	if err != nil {
		return nil, err
	}
	if n := status[s.prefix+"clients"].String(); n != "0" {
		return nil, fmt.Errorf("COMMIT waits for %s semi-synchronous replicas: stop the capture first; if others are meant to be there, leave --sync out", n)
	}
	plan := []sources.Statement{{SQL: "SET GLOBAL " + s.prefix + "enabled = OFF", Why: "COMMIT waits for nobody any more."}}
	if v.mariadb {
		return append(plan, sources.Statement{Why: "Take the lines that begin with rpl_semi_sync_master_ out of my.cnf."}), nil
	}
	for _, name := range []string{"enabled", "timeout", "wait_point"} {
		plan = append(plan, sources.Statement{SQL: "RESET PERSIST IF EXISTS " + s.prefix + name, Why: "Nor after the next start."})
	}
	row, err := v.conn.QueryRow(ctx, "SELECT COUNT(*) FROM mysql.plugin WHERE name = "+quoteLiteral(s.name))
	if err != nil {
		return nil, fmt.Errorf("look at the plugins: %w", err)
	}
	if row[0].String() != "0" {
		plan = append(plan, sources.Statement{SQL: "UNINSTALL PLUGIN " + s.name, Why: "The part of the server that has COMMIT wait."})
	}
	return plan, nil
}

// checkSync looks for what zero-loss mode takes, if it is asked for.
func (d *doctor) checkSync(ctx context.Context) error {
	const check = "zero-loss mode"
	if d.opts.Sync == 0 {
		return nil
	}
	s := semiSyncOf(d.vars, d.mariadb, d.conn.Number)
	switch {
	case d.set.host != selfHosted:
		d.add(check, sources.SeverityProblem, "", "%s keeps semi-synchronous replication to itself: capture without --sync", d.set.host)
		return nil
	case !s.installed:
		d.add(check, sources.SeverityProblem, s.plugin+"; SET PERSIST "+s.prefix+"enabled = ON;", "the server has no semi-synchronous replication, which zero-loss mode works by")
		return nil
	}
	before := len(d.findings)
	limit := d.opts.Sync.Milliseconds()
	if !d.on(s.prefix + "enabled") {
		d.add(check, sources.SeverityProblem, d.set.dynamic(s.prefix+"enabled", "ON"), "%senabled is OFF: COMMIT waits for nobody", s.prefix)
	}
	if n, ok := d.number(s.prefix + "timeout"); !ok || n > limit {
		d.add(check, sources.SeverityProblem, d.set.dynamic(s.prefix+"timeout", fmt.Sprint(limit)), "%stimeout is %d: COMMIT would wait for longer than --sync-timeout, %v", s.prefix, n, d.opts.Sync)
	}
	if p := d.vars[s.prefix+"wait_point"]; p != "AFTER_SYNC" {
		d.add(check, sources.SeverityProblem, d.set.dynamic(s.prefix+"wait_point", "AFTER_SYNC"), "%swait_point is %s: others could see a transaction before it is safe", s.prefix, p)
	}
	if err := d.checkOthers(ctx, check, s); err != nil {
		return err
	}
	if len(d.findings) == before {
		d.add(check, sources.SeverityOK, "", "COMMIT waits for a capture, and never for longer than %s ms", d.vars[s.prefix+"timeout"])
	}
	return nil
}

// checkOthers looks for replicas whose word would count for the capture's.
func (d *doctor) checkOthers(ctx context.Context, check string, s semiSync) error {
	status, err := d.conn.named(ctx, "SHOW GLOBAL STATUS LIKE 'Rpl\\_semi\\_sync\\_%\\_clients'")
	if err != nil {
		return err
	}
	clients, err := status[s.prefix+"clients"].Int()
	if err != nil || clients == 0 {
		return err
	}
	count, needed := "", int64(1) // on MariaDB, always
	for _, name := range []string{"rpl_semi_sync_source_wait_for_replica_count", "rpl_semi_sync_master_wait_for_slave_count"} {
		if n, ok := d.number(name); ok {
			count, needed = name, n
		}
	}
	switch {
	case clients <= needed:
		d.add(check, sources.SeverityNote, "", "semi-synchronous replicas are connected: %d. If the capture is none of them, COMMIT will wait for any %d of all, and not for the capture", clients, needed)
	case count == "":
		d.add(check, sources.SeverityProblem, "on each of the others: SET GLOBAL rpl_semi_sync_slave_enabled = OFF; STOP SLAVE IO_THREAD; START SLAVE IO_THREAD;",
			"semi-synchronous replicas are connected: %d. COMMIT waits for any of them, and not for the capture", clients)
	default:
		d.add(check, sources.SeverityProblem, strings.TrimSuffix(d.set.dynamic(count, fmt.Sprint(clients)), ";")+"; -- then COMMIT waits for all of them",
			"semi-synchronous replicas are connected: %d. COMMIT waits for any %d of them, and not for the capture", clients, needed)
	}
	return nil
}
