package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"txreel/sources"
)

// planSettings changes what can be changed while the server runs, and names what cannot.
func (v *visit) planSettings() []step {
	var steps []step
	if !switchedOn(v.vars["log_bin"]) {
		steps = append(steps, step{Statement: sources.Statement{Why: "The server writes no binlog, which it only begins to at a start: " + v.set.binlogOn() + "."}})
	}
	for _, c := range []struct{ name, want, why string }{
		{"binlog_format", "ROW", "Log the rows that change, not the statements. Sessions that are open keep what they have: let the application connect anew."},
		{"binlog_row_image", "FULL", "Log whole rows, before and after, for the audit."},
		{"binlog_row_metadata", "FULL", "Log the names and types of columns with them."},
	} {
		if now, has := v.vars[c.name]; has && now != c.want {
			steps = append(steps, v.change(c.name, c.want, c.why))
		}
	}
	if v.vars["server_id"] == "0" {
		steps = append(steps, step{Statement: sources.Statement{Why: "server_id is 0, and the server refuses to send its binlog. Choose a number that no other server of this replication has: " + v.set.dynamic("server_id", "…")}})
	}
	return append(steps, v.planExpiry()...)
}

// planExpiry keeps the binlog long enough, and leaves alone what is kept for longer or for ever.
func (v *visit) planExpiry() []step {
	if v.keep >= v.MinRetention || v.keep == 0 {
		return nil
	}
	variable, want := expiryVariable(v.vars), int64(v.MinRetention/time.Second)
	why := fmt.Sprintf("Keep the binlog for %s, for as long as capture may be away. The disk needs room for it.", daysAndHours(v.MinRetention))
	switch {
	case v.set.host == onRDS || v.set.host == onAurora:
		return []step{{Statement: sources.Statement{SQL: strings.TrimSuffix(v.set.expiry(want, variable), ";"), Why: why}}}
	case variable == "expire_logs_days":
		want = (want + 86399) / 86400
	}
	return []step{v.change(variable, fmt.Sprint(want), why)}
}

// change sets a variable that takes effect at once, for good where the server can.
func (v *visit) change(name, value, why string) step {
	switch {
	case v.set.host != selfHosted:
		return step{Statement: sources.Statement{Why: why + " On " + string(v.set.host) + ": " + v.set.dynamic(name, value) + "."}}
	case v.mariadb:
		return step{Statement: sources.Statement{SQL: "SET GLOBAL " + name + " = " + value, Why: why + " For the next start also put this into my.cnf under [mysqld]: " + cnfLine(name, value)}}
	}
	return step{Statement: sources.Statement{SQL: "SET PERSIST " + name + " = " + value, Why: why}}
}

// planGTID switches GTIDs on, when that was asked for, and otherwise shows how.
func (v *visit) planGTID() []step {
	mode, enforce := v.vars["gtid_mode"], v.vars["enforce_gtid_consistency"]
	if mode == "ON" && enforce == "ON" {
		return nil
	}
	if v.set.host != selfHosted {
		return []step{{Statement: sources.Statement{Why: "Every transaction needs a GTID. On " + string(v.set.host) + ": " + v.set.byService("gtid_mode", "ON, and enforce_gtid_consistency = ON", "; step by step if it asks for that") + "."}}}
	}
	all := gtidSteps(mode, enforce)
	if !v.GTID {
		var b strings.Builder
		b.WriteString("Every transaction needs a GTID. These are the steps that switch them on while the server runs; on one that has no replicas, txreel setup --apply takes them when told to with --gtid:")
		for _, s := range all {
			b.WriteString("\n" + s.Why)
			if s.SQL != "" {
				b.WriteString("\n  " + s.SQL + ";")
			}
		}
		return []step{{Statement: sources.Statement{Why: b.String()}}}
	}
	steps := []step{{Statement: sources.Statement{Why: "Switch GTIDs on."}, run: v.noReplicas}}
	for _, s := range all {
		st := step{Statement: s}
		switch {
		case s.SQL == "" && strings.HasPrefix(s.Why, "Wait for a day"):
			st.run = v.noViolations
		case s.SQL == "":
			st.run = v.noAnonymous
		}
		steps = append(steps, st)
		if s.SQL != "" && strings.HasSuffix(s.SQL, "WARN") {
			break // the rest is for another day
		}
	}
	return steps
}

// noReplicas refuses to go on alone where others have to take each step first.
func (v *visit) noReplicas(ctx context.Context) error {
	row, err := v.conn.QueryRow(ctx, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'")
	if err != nil {
		return fmt.Errorf("look for replicas: %w", err)
	}
	if n := row[0].String(); n != "0" {
		return fmt.Errorf("%s replicas read from this server, and each of them has to take every step before it: run the printed statements by hand, without --gtid", n)
	}
	return nil
}

// noViolations looks into the error log for statements that GTIDs forbid.
func (v *visit) noViolations(ctx context.Context) error {
	if !switchedOn(v.vars["performance_schema"]) {
		return errors.New("performance_schema is OFF, so that nobody can look from here for statements that GTIDs forbid: look into the error log, then run the printed statements by hand")
	}
	r, err := v.conn.Query(ctx, "SELECT MAX(LOGGED), COUNT(*) FROM performance_schema.error_log WHERE DATA LIKE '%violates GTID consistency%' AND LOGGED > NOW() - INTERVAL 1 DAY")
	if err != nil {
		return fmt.Errorf("look for statements that GTIDs forbid: %w", err)
	}
	if n := r.Rows[0][1].String(); n != "0" {
		return fmt.Errorf("the error log of the last day has %s warnings about statements that GTIDs forbid, the last one at %s UTC: mend the application first, "+
			"or run the printed statements by hand if it is mended", n, r.Rows[0][0])
	}
	return nil
}

// anonymousPatience bounds the wait for transactions without GTIDs; one lasts as long as its session likes.
const anonymousPatience = 30 * time.Second

// noAnonymous waits until no transaction without a GTID is open.
func (v *visit) noAnonymous(ctx context.Context) error {
	limited, cancel := context.WithTimeoutCause(ctx, anonymousPatience,
		errors.New("transactions that began before GTIDs were switched on are still open: let them end, then run setup again"))
	defer cancel()
	for {
		r, err := v.conn.Query(ctx, "SHOW GLOBAL STATUS LIKE 'Ongoing_anonymous_transaction_count'")
		if err != nil {
			return fmt.Errorf("look for transactions without a GTID: %w", err)
		}
		if len(r.Rows) == 0 || r.Rows[0][1].String() == "0" {
			return nil
		}
		if err := pause(limited, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits, or returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
