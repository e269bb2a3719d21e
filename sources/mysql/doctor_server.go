package mysql

import (
	"context"
	"fmt"
	"strings"

	"txreel/sources"
)

func (d *doctor) checkVersion(context.Context) error {
	d.findings = append(d.findings, judgeVersion(d.conn.Version, d.conn.Number, d.mariadb))
	return nil
}

// judgeVersion knows the versions that txreel is made for: MySQL 8.0, 8.4 and 9.x, MariaDB 10.11 and 11.x.
func judgeVersion(version string, number int, mariadb bool) sources.Finding {
	name, series := "MySQL", number/100
	known := series == 800 || series == 804 || series >= 900 && series < 1000
	oldest, old := "8.0", number < 80000
	if mariadb {
		name = "MariaDB"
		known = series == 1011 || series >= 1100 && series < 1200
		oldest, old = "10.11", number < 100500
	}
	f := sources.Finding{Check: "version", Severity: sources.SeverityOK, Detail: printable(name + " " + version)}
	switch {
	case old:
		f.Severity, f.Fix = sources.SeverityProblem, "upgrade to "+name+" "+oldest+" or newer"
		f.Detail += " is too old: its binlog lacks what a complete record needs"
	case !known:
		f.Severity = sources.SeverityWarning
		f.Detail += " is not one of the versions txreel knows (MySQL 8.0, 8.4 and 9.x, MariaDB 10.11 and 11.x): " +
			"restore to it and compare before you rely on it"
	}
	return f
}

// checkPlatform says where the server seems to run, since other statements apply there.
func (d *doctor) checkPlatform(context.Context) error {
	const check = "platform"
	host := strings.ToLower(d.conn.cfg.Host)
	if strings.Contains(host, ".cluster-ro-") || d.set.host == onAurora && d.on("innodb_read_only") {
		d.add(check, sources.SeverityProblem, "use the cluster's writer endpoint, without -ro-, in the source", "the source is a reader of an Aurora cluster: only the writer has the binlog")
	}
	if d.set.host != selfHosted {
		d.add(check, sources.SeverityNote, "", "this seems to be %s: statements for it come from its documentation and have not been run by txreel's tests, which use servers of their own", d.set.host)
	}
	return nil
}

// checkEncryption looks at this connection, since the dump takes the same way.
func (d *doctor) checkEncryption(context.Context) error {
	const check = "encryption"
	local := d.conn.cfg.loopback()
	atRest := d.on("binlog_encryption") || d.on("encrypt_binlog")
	switch {
	case d.conn.TLS && d.conn.cfg.TLS < TLSVerifyCA && !local:
		d.add(check, sources.SeverityWarning, "add ssl-mode=verify-identity to the source, and ssl-ca=FILE if the authority is your own",
			"the connection is encrypted, and nobody has looked whether it leads to the right server")
	case d.conn.TLS || local:
		d.add(check, sources.SeverityOK, "", "%s", map[bool]string{true: "the connection is encrypted", false: "the connection is not encrypted and stays on this machine"}[d.conn.TLS])
	case atRest:
		d.add(check, sources.SeverityProblem, d.tlsFix(), "the binlog is encrypted on the server's disk and crosses the network in the clear: the server decrypts it for whoever may replicate")
	default:
		d.add(check, sources.SeverityWarning, d.tlsFix(), "every change crosses the network in the clear, accounts and their password hashes included")
	}
	return nil
}

func (d *doctor) tlsFix() string {
	fix := "add ssl-mode=verify-identity to the source"
	if d.mariadb && !switchedOn(d.vars["have_ssl"]) || !d.mariadb && d.vars["tls_version"] == "" {
		fix = "in my.cnf under [mysqld]: ssl_ca, ssl_cert and ssl_key; restart the server, and " + fix
	}
	return fix
}

// checkServerID wants one: without, the server serves no replica.
func (d *doctor) checkServerID(context.Context) error {
	const name = "server_id"
	if id, ok := d.number(name); ok && id == 0 {
		d.add(name, sources.SeverityProblem, d.set.dynamic(name, "1"), "server_id is 0: the server refuses to send its binlog. Choose a number that no other server of this replication has")
		return nil
	}
	d.add(name, sources.SeverityOK, "", "server_id is %s", d.vars[name])
	return nil
}

func (d *doctor) checkDurability(context.Context) error {
	const check = "durability"
	var fixes, values []string
	for _, name := range []string{"sync_binlog", "innodb_flush_log_at_trx_commit"} {
		if d.vars[name] != "1" {
			values = append(values, name+" = "+d.vars[name])
			fixes = append(fixes, d.set.dynamic(name, "1"))
		}
	}
	if len(values) == 0 {
		d.add(check, sources.SeverityOK, "", "a commit is on the server's disk before it is answered")
		return nil
	}
	d.add(check, sources.SeverityWarning, strings.Join(fixes, "\n"), "%s: after a crash of its machine the server can lack transactions that the archive holds. "+
		"Its history then is another one, and a new epoch begins", strings.Join(values, ", "))
	return nil
}

// checkLasting looks for settings that a restart undoes: MariaDB has no SET PERSIST. MySQL does not tell them apart.
func (d *doctor) checkLasting(ctx context.Context) error {
	const check = "lasting settings"
	if !d.mariadb || d.set.host != selfHosted {
		return nil
	}
	r, err := d.conn.Query(ctx, `SELECT LOWER(VARIABLE_NAME), GLOBAL_VALUE, DEFAULT_VALUE FROM information_schema.SYSTEM_VARIABLES
		WHERE GLOBAL_VALUE_ORIGIN = 'SQL' AND GLOBAL_VALUE <> DEFAULT_VALUE AND VARIABLE_NAME IN ('binlog_format', 'binlog_row_image', 'binlog_row_metadata',
			'binlog_checksum', 'binlog_expire_logs_seconds', 'gtid_strict_mode', 'gtid_domain_id', 'server_id', 'sync_binlog', 'innodb_flush_log_at_trx_commit')
		ORDER BY 1`)
	if err != nil {
		return err
	}
	for _, row := range r.Rows {
		d.add(check, sources.SeverityWarning, "in my.cnf under [mysqld]: "+cnfLine(row[0].String(), row[1].String()), "%s was set while the server ran: unless my.cnf says so too, it is %s again after the next start", row[0], row[2])
	}
	if len(r.Rows) == 0 {
		d.add(check, sources.SeverityOK, "", "what matters here was not changed since the server's start")
	}
	return nil
}

// minPacket is MySQL's own default, and more than most rows.
const minPacket = 64 << 20

func (d *doctor) checkLimits(context.Context) error {
	const timeout, packet = "net_write_timeout", "max_allowed_packet"
	if n, ok := d.number(timeout); ok && n < 600 {
		d.add(timeout, sources.SeverityNote, d.set.dynamic(timeout, "600"), "%s is %d s; txreel asks for 600 in its own sessions, other tools that read slowly are cut off", timeout, n)
	} else {
		d.add(timeout, sources.SeverityOK, "", "%s is %d s", timeout, n)
	}
	if n, ok := d.number(packet); ok && n < minPacket {
		d.add(packet, sources.SeverityNote, d.set.dynamic(packet, fmt.Sprint(minPacket)), "%s is %d bytes: functions that make a longer value give NULL, and a restore's target needs at least as much", packet, n)
	} else {
		d.add(packet, sources.SeverityOK, "", "%s is %d bytes; a restore's target needs at least as much", packet, n)
	}
	return nil
}

// checkIdentity says what a restore's target and a restart of capture compare with.
func (d *doctor) checkIdentity(context.Context) error {
	id := "server_uuid " + d.vars["server_uuid"]
	if d.mariadb {
		id = "server_id " + d.vars["server_id"] + ", gtid_domain_id " + d.vars["gtid_domain_id"]
	}
	if lower := d.vars["lower_case_table_names"]; lower != "0" {
		d.add("lower_case_table_names", sources.SeverityNote, "", "lower_case_table_names is %s: a restore's target needs the same, and it is chosen when a server is initialised", lower)
	}
	d.add("identity", sources.SeverityOK, "", "%s", id)
	return nil
}
