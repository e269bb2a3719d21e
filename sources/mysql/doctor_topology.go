package mysql

import (
	"context"
	"fmt"
	"strings"

	"txreel/sources"
)

// checkPrepared looks for XA transactions that are prepared and undecided: a base waits for their end, because its
// snapshot would lack rows whose fate is decided behind it.
func (d *doctor) checkPrepared(ctx context.Context) error {
	const check = "prepared transactions"
	ask := "XA RECOVER CONVERT XID"
	switch {
	case d.mariadb:
		ask = "XA RECOVER FORMAT='SQL'"
	case !d.grants.has("XA_RECOVER_ADMIN"):
		return nil // told by the base's privileges
	}
	r, err := d.conn.Query(ctx, ask)
	if err != nil {
		return err
	}
	if len(r.Rows) == 0 {
		d.add(check, sources.SeverityOK, "", "no XA transaction is prepared and undecided")
		return nil
	}
	var ids, fixes []string
	for i := range r.Rows {
		id := r.Value(i, "data").String()
		if !d.mariadb {
			id = xid(id, r.Value(i, "gtrid_length"), r.Value(i, "formatID"))
		}
		ids = append(ids, id)
		if typable(id) {
			fixes = append(fixes, "XA ROLLBACK "+id+";")
		}
	}
	d.add(check, sources.SeverityWarning, statements(fixes, "or XA COMMIT; ask the application's transaction manager first"),
		"%d XA transactions are prepared and undecided: %s. They hold locks, and no base can be taken before their end", len(ids), listed(ids))
	return nil
}

// xid writes an id that XA RECOVER CONVERT XID shows in one piece, 0x and hexadecimal digits, as XA statements want it.
func xid(data string, first, format Value) string {
	data = strings.TrimPrefix(data, "0x")
	n, err := first.Int()
	if cut := int(n) * 2; err == nil && cut >= 0 && cut <= len(data) {
		return fmt.Sprintf("X'%s',X'%s',%s", data[:cut], data[cut:], format)
	}
	return "X'" + data + "'"
}

// checkReplica looks whether the server repeats another one's changes, and logs them.
func (d *doctor) checkReplica(ctx context.Context) error {
	const check = "replica"
	ask := "SHOW REPLICA STATUS"
	switch {
	case d.mariadb && !d.grants.has("SLAVE MONITOR"):
		return nil // told by the base's privileges
	case d.mariadb:
		ask = "SHOW ALL SLAVES STATUS"
	case !d.grants.has("REPLICATION CLIENT"):
		return nil
	case d.conn.Number < 80022:
		ask = "SHOW SLAVE STATUS"
	}
	r, err := d.conn.Query(ctx, ask)
	if err != nil || len(r.Rows) == 0 {
		return err
	}
	updates := "log_replica_updates"
	if _, has := d.vars[updates]; !has {
		updates = "log_slave_updates"
	}
	if !d.on(updates) {
		d.add(check, sources.SeverityProblem, d.set.static(updates, "ON"), "this server is a replica and does not log what it repeats (%s is OFF): its binlog is missing the source's changes", updates)
	} else {
		d.add(check, sources.SeverityNote, "", "this server is a replica: what is captured is what it has applied, with the source's GTIDs, so that the source or another replica can be captured on")
	}
	for i := range r.Rows {
		if delay := r.Value(i, "SQL_Delay").String(); delay != "" && delay != "0" {
			d.add("delayed replica", sources.SeverityWarning, "capture from a server without a delay", "this replica applies changes %s s late: the record is that much older than it looks", delay)
		}
		var filters []string
		for _, name := range []string{"Replicate_Do_DB", "Replicate_Ignore_DB", "Replicate_Do_Table", "Replicate_Ignore_Table",
			"Replicate_Wild_Do_Table", "Replicate_Wild_Ignore_Table", "Replicate_Rewrite_DB"} {
			if v := r.Value(i, name).String(); v != "" {
				filters = append(filters, name+" = "+v)
			}
		}
		if len(filters) > 0 {
			d.add("replica filters", sources.SeverityWarning, "capture from the source itself", "this replica leaves out changes of its source (%s): so does the record", strings.Join(filters, ", "))
		}
	}
	return nil
}

func (d *doctor) checkReadOnly(context.Context) error {
	if d.on("read_only") || d.on("super_read_only") {
		d.add("read_only", sources.SeverityNote, "", "the server is read-only: `txreel mark` and `txreel setup --apply` need a server that takes writes")
	}
	return nil
}

// checkCluster names the kinds of replication under which txreel has not been tried.
func (d *doctor) checkCluster(ctx context.Context) error {
	const check = "cluster"
	if provider := d.vars["wsrep_provider"]; d.on("wsrep_on") && provider != "" && provider != "none" {
		d.add(check, sources.SeverityWarning, "", "this server belongs to a Galera cluster, with which txreel has not been tested: every node numbers transactions by itself unless wsrep_gtid_mode is ON. "+
			"Capture from one node, and restore and compare before you rely on it")
	}
	if d.mariadb || !d.on("performance_schema") || !d.grants.has("SELECT") {
		return nil
	}
	row, err := d.conn.QueryRow(ctx, "SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE MEMBER_STATE <> 'OFFLINE'")
	if err != nil {
		return err
	}
	if n := row[0].String(); n != "0" {
		d.add(check, sources.SeverityWarning, "", "this server is one of %s members of a replication group, with which txreel has not been tested: restore and compare before you rely on it", n)
	}
	return nil
}
