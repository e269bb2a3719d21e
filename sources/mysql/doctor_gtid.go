package mysql

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"txreel/change"
	"txreel/sources"
	"txreel/sources/mysql/gtid"
)

func (d *doctor) checkGTID(ctx context.Context) error {
	if d.mariadb {
		d.checkStrict()
		return nil
	}
	const check = "gtid_mode"
	mode, enforce := d.vars[check], d.vars["enforce_gtid_consistency"]
	if mode == "ON" && enforce == "ON" {
		d.add(check, sources.SeverityOK, "", "every transaction has a GTID")
		return d.checkTags(ctx)
	}
	fix := d.set.byService(check, "ON, and enforce_gtid_consistency = ON", "; step by step if it asks for that")
	if d.set.host == selfHosted {
		var sql []string
		for _, s := range gtidSteps(mode, enforce) {
			if s.SQL != "" {
				sql = append(sql, s.SQL+";")
			}
		}
		fix = strings.Join(sql, " ") + " -- one after the other and on every replica too; `txreel setup` says what to wait for in between"
	}
	d.add(check, sources.SeverityProblem, fix, "gtid_mode is %s and enforce_gtid_consistency is %s: without GTIDs on every transaction nothing proves that the record has no holes", mode, enforce)
	return nil
}

// gtidSteps are the statements that switch GTIDs on while the server runs (Reference Manual, Enabling GTID Transactions
// Online), from the state it is in. Those without SQL are waits.
func gtidSteps(mode, enforce string) []sources.Statement {
	var steps []sources.Statement
	if enforce != "ON" {
		if enforce != "WARN" {
			steps = append(steps, sources.Statement{SQL: "SET PERSIST enforce_gtid_consistency = WARN",
				Why: "Do each of these steps on every server of the replication, replicas first, before the next. First let statements that GTIDs forbid be logged as warnings."})
		}
		steps = append(steps,
			sources.Statement{Why: "Wait for a day of ordinary work and look into the error log: each warning about GTID consistency is a statement that will fail from the next step on. Mend the application first."},
			sources.Statement{SQL: "SET PERSIST enforce_gtid_consistency = ON", Why: "From here on such statements fail."})
	}
	for _, next := range []struct{ mode, why string }{
		{"OFF_PERMISSIVE", "New transactions still have no GTID, and replicas take both kinds. Every server must be here before the next step."},
		{"ON_PERMISSIVE", "New transactions have a GTID. Every server must be here before the next step."},
	} {
		if mode == "ON" || mode == next.mode || mode == "ON_PERMISSIVE" {
			continue
		}
		steps = append(steps, sources.Statement{SQL: "SET PERSIST gtid_mode = " + next.mode, Why: next.why})
	}
	if mode != "ON" {
		steps = append(steps,
			sources.Statement{Why: "Wait until SHOW STATUS LIKE 'Ongoing_anonymous_transaction_count' is 0 on every server, and until every replica has applied what was logged up to then."},
			sources.Statement{SQL: "SET PERSIST gtid_mode = ON", Why: "Every transaction has a GTID. Capture can begin."})
	}
	return steps
}

// checkStrict wants MariaDB to keep the order of sequence numbers, on which the proof of completeness rests.
func (d *doctor) checkStrict() {
	const name = "gtid_strict_mode"
	if !d.on(name) {
		d.add(name, sources.SeverityWarning, d.set.dynamic(name, "ON"), "gtid_strict_mode is OFF: a sequence number can be used twice after a failover. Capture then stops at a gap, because it cannot tell the two transactions apart")
	} else {
		d.add(name, sources.SeverityOK, "", "sequence numbers of GTIDs only grow")
	}
	if held, err := gtid.Parse(gtid.MariaDB, d.vars["gtid_binlog_pos"]); err == nil && len(held.Domains()) > 1 {
		d.add("gtid_domain_id", sources.SeverityNote, "", "the binlog has %d domains (%s): each has its own order, and a restore to a GTID means that of the binlog", len(held.Domains()), held)
	}
}

// checkTags says where GTIDs have tags, which older servers do not know.
func (d *doctor) checkTags(ctx context.Context) error {
	row, err := d.conn.QueryRow(ctx, "SELECT @@GLOBAL.gtid_executed")
	if err != nil {
		return err
	}
	for part := range strings.SplitSeq(row[0].String(), ":") {
		if c := strings.TrimSpace(part); c != "" && !strings.ContainsAny(c, "-,") && (c[0] == '_' || c[0] >= 'a' && c[0] <= 'z' && len(c) <= 32) {
			d.add("tagged GTIDs", sources.SeverityNote, "", "the server has transactions with tagged GTIDs (%s): a restore needs MySQL 8.3 or newer", c)
			return nil
		}
	}
	return nil
}

// longSet is from where on the length of a GTID set counts: the last position of every segment is one.
const longSet = 64 << 10

// checkSetSize looks at the length of the set that positions are made of.
func (d *doctor) checkSetSize(ctx context.Context) error {
	executed, err := d.conn.executed(ctx)
	if err != nil {
		return err
	}
	d.judgeSetSize(len(executed.String()))
	return nil
}

func (d *doctor) judgeSetSize(bytes int) {
	const check = "length of the GTID set"
	fix := "fill the gaps that the set has behind servers that are gone, one by one: SET GTID_NEXT = 'UUID:NUMBER'; BEGIN; COMMIT; SET GTID_NEXT = 'AUTOMATIC'; " +
		"-- or, when all replicas can be set up anew, RESET BINARY LOGS AND GTIDS, and capture with --new-epoch"
	name := "gtid_executed"
	if d.mariadb {
		fix, name = "FLUSH BINARY LOGS DELETE_DOMAIN_ID = (…); -- with the domains that no server uses any more, then capture with --new-epoch", "gtid_binlog_pos"
	}
	switch size := humanize.IBytes(uint64(bytes)); {
	case bytes > change.MaxPosition:
		d.add(check, sources.SeverityProblem, fix, "%s has %s, and a position on record at most %s: capture stops", name, size, humanize.IBytes(change.MaxPosition))
	case bytes > change.MaxPosition/2:
		d.add(check, sources.SeverityWarning, fix, "%s has %s, and a position on record at most %s: capture stops when it has grown to that", name, size, humanize.IBytes(change.MaxPosition))
	case bytes > longSet:
		d.add(check, sources.SeverityNote, fix, "%s has %s, which every segment repeats: on a busy server one a second", name, size)
	default:
		d.add(check, sources.SeverityOK, "", "%s has %s", name, size)
	}
}

// checkRetention compares how long the binlog is kept with how long capture may be away.
func (d *doctor) checkRetention(ctx context.Context) error {
	var h Health
	if err := d.conn.readExpiry(ctx, &h); err != nil {
		return err
	}
	d.judgeRetention(&h)
	return nil
}

func (d *doctor) judgeRetention(h *Health) {
	const check = "binlog retention"
	variable := expiryVariable(d.vars)
	want := int64(d.opts.MinRetention / time.Second)
	fix := d.set.expiry(want, variable)
	switch {
	case h.AtOnce:
		d.add(check, sources.SeverityProblem, fix, "the service removes binlog files as soon as it does not need them itself: a short stop of capture is a gap")
	case h.ExpireAfter == 0 && d.set.host != selfHosted:
		d.add(check, sources.SeverityWarning, fix, "nothing says for how long the service keeps binlog files")
	case h.ExpireAfter == 0:
		d.add(check, sources.SeverityNote, d.set.expiry(7*86400, variable), "binlog files are never removed by age: capture cannot be outrun, but the server's disk fills unless somebody else removes them")
	case h.ExpireAfter < d.opts.MinRetention:
		d.add(check, sources.SeverityWarning, fix, "binlog files are kept for %s: a capture that is away for longer loses the continuity of the record, and a new epoch begins", daysAndHours(h.ExpireAfter))
	default:
		d.add(check, sources.SeverityOK, "", "binlog files are kept for %s: capture may be away that long", daysAndHours(h.ExpireAfter))
	}
	if h.SizeLimit > 0 {
		name := "max_binlog_total_size"
		if _, has := d.vars[name]; !has {
			name = "binlog_space_limit"
		}
		d.add(name, sources.SeverityWarning, d.set.dynamic(name, "0"), "the server removes binlog files beyond %s in all, however young they are: a burst of writes while capture is away can outrun it", humanize.IBytes(uint64(h.SizeLimit)))
	}
}

// expiryVariable is the variable that bounds the age of binlog files on this server. MySQL 8.0 has two, and refuses to set
// one while the other is in use.
func expiryVariable(vars map[string]string) string {
	const seconds, days = "binlog_expire_logs_seconds", "expire_logs_days"
	s, has := vars[seconds]
	if d := strings.TrimRight(vars[days], ".0"); !has || s == "0" && d != "" {
		return days
	}
	return seconds
}

func daysAndHours(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}
