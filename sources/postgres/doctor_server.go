package postgres

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"txreel/sources"
)

// minorFloors are the first minor releases in which logical decoding neither loses changes when DDL runs beside open
// transactions nor eats the memory for it.
func minorFloor(major int) (minor int, known bool) {
	switch major {
	case 14:
		return 19, true
	case 15:
		return 14, true
	case 16:
		return 10, true
	case 17:
		return 6, true
	}
	return 0, false
}

func (d *doctor) checkVersion(ctx context.Context) error {
	var version string
	var num int
	err := d.conn.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('server_version_num')::int`).Scan(&version, &num)
	if err == nil {
		d.findings = append(d.findings, judgeVersion(version, num))
	}
	return err
}

func judgeVersion(version string, num int) sources.Finding {
	f := sources.Finding{Check: "version", Severity: sources.SeverityOK, Detail: "PostgreSQL " + version}
	major, minor := num/10000, num%10000
	floor, known := minorFloor(major)
	switch {
	case major < 14:
		f.Severity, f.Fix = sources.SeverityProblem, "upgrade to PostgreSQL 14 or newer"
		f.Detail += " is older than 14, the oldest that can be captured"
	case known && minor < floor:
		f.Severity, f.Fix = sources.SeverityWarning, fmt.Sprintf("install the newest minor release of PostgreSQL %d and restart the server", major)
		f.Detail += fmt.Sprintf(" loses changes when DDL runs beside open transactions, which %d.%d mended", major, floor)
	}
	return f
}

// checkServer wants a primary whose files match its running processes.
func (d *doctor) checkServer(ctx context.Context) error {
	var standby bool
	if err := d.conn.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&standby); err != nil {
		return err
	}
	if standby {
		d.add("standby", sources.SeverityProblem, "point the source at the primary", "this server is a standby; capture reads from the primary")
	}
	// A package upgraded under a running server shows when it loads a library anew.
	if _, err := d.conn.Exec(ctx, `DO $$BEGIN END$$`); err != nil && !d.conn.IsClosed() {
		d.add("procedural language", sources.SeverityProblem, "restart the server",
			"the server cannot run an empty PL/pgSQL block (%v): its package was probably upgraded while it ran", err)
	}
	return nil
}

func (d *doctor) checkWALLevel(ctx context.Context) error {
	level, pending, err := d.settingWithPending(ctx, "wal_level")
	switch {
	case err != nil:
		return err
	case level == "logical":
		d.add("wal_level", sources.SeverityOK, "", "wal_level is logical")
	case pending:
		d.add("wal_level", sources.SeverityProblem, "restart the server", "wal_level is %s until the server restarts: changes cannot be decoded", level)
	default:
		d.add("wal_level", sources.SeverityProblem, d.host.set("wal_level", "logical", true), "wal_level is %s: changes cannot be decoded", level)
	}
	return nil
}

// settingWithPending also tells whether the configuration file holds another value that waits for a restart.
func (d *doctor) settingWithPending(ctx context.Context, name string) (value string, pending bool, err error) {
	err = d.conn.QueryRow(ctx, `SELECT setting, pending_restart FROM pg_settings WHERE name = $1::text`, name).Scan(&value, &pending)
	return value, pending, err
}

// checkSlotsFree wants room for the permanent slot and, for a moment during a base, another.
func (d *doctor) checkSlotsFree(ctx context.Context) error {
	need := 2
	if d.slot != nil {
		need--
	}
	return d.checkFree(ctx, "max_replication_slots", "replication slots", `SELECT count(*) FROM pg_replication_slots`, need)
}

// checkSendersFree wants the stream's sender and a base's.
func (d *doctor) checkSendersFree(ctx context.Context) error {
	need := 2
	if d.slot != nil && d.slot.user != "" {
		need--
	}
	return d.checkFree(ctx, "max_wal_senders", "WAL senders", `SELECT count(*) FROM pg_stat_replication`, need)
}

func (d *doctor) checkFree(ctx context.Context, name, things, count string, need int) error {
	value, _, err := d.settingWithPending(ctx, name)
	if err != nil {
		return err
	}
	limit, err := strconv.Atoi(value)
	if err != nil {
		return err
	}
	var used int
	if err := d.conn.QueryRow(ctx, count).Scan(&used); err != nil {
		return err
	}
	if free := limit - used; free < need {
		d.add(name, sources.SeverityProblem, d.host.set(name, strconv.Itoa(used+need), true),
			"%d of %d %s are in use and capture needs %d more: one for good and one for a moment during a base", used, limit, things, need)
		return nil
	}
	d.add(name, sources.SeverityOK, "", "%d of %d %s are in use", used, limit, things)
	return nil
}

// checkPlugin looks at the list of output plugins that newer minor releases allow.
func (d *doctor) checkPlugin(ctx context.Context) error {
	value, ok, err := d.setting(ctx, "output_plugin_libraries")
	if err == nil && ok {
		d.findings = append(d.findings, judgePlugins(value, d.host))
	}
	return err
}

func judgePlugins(list string, host managed) sources.Finding {
	const name = "output_plugin_libraries"
	var plugins []string
	for _, p := range strings.Split(list, ",") {
		if p = strings.Trim(strings.TrimSpace(p), `"'`); p != "" {
			plugins = append(plugins, p)
		}
	}
	if slices.Contains(plugins, "pgoutput") || slices.Contains(plugins, "*") {
		return sources.Finding{Check: name, Severity: sources.SeverityOK, Detail: "the output plugin pgoutput is allowed"}
	}
	return sources.Finding{Check: name, Severity: sources.SeverityProblem, Fix: host.set(name, strings.Join(append(plugins, "pgoutput"), ", "), false),
		Detail: fmt.Sprintf("%s is %q, which leaves out pgoutput, the plugin capture reads through", name, list)}
}

// checkKeepSize wants a bound on the WAL a slot may keep, or the disk fills while nobody captures.
func (d *doctor) checkKeepSize(ctx context.Context) error {
	const name = "max_slot_wal_keep_size"
	value, _, err := d.settingWithPending(ctx, name)
	if err != nil {
		return err
	}
	if value == "-1" {
		d.add(name, sources.SeverityWarning, d.host.set(name, "10GB", false), "a slot keeps WAL without limit: if capture stops, the server's disk fills "+
			"until it stops too. Choose what the volume can spare; beyond it the slot is lost and a new epoch begins")
		return nil
	}
	d.add(name, sources.SeverityOK, "", "a slot keeps at most %s MB of WAL; beyond that it is lost and a new epoch begins", value)
	return nil
}

func (d *doctor) checkTimeouts(ctx context.Context) error {
	const idle, slots = "idle_in_transaction_session_timeout", "idle_replication_slot_timeout"
	value, _, err := d.setting(ctx, idle)
	if err != nil {
		return err
	}
	if value != "0" {
		d.add(idle, sources.SeverityNote, "", "%s is %s for this role; txreel switches it off in its own sessions, where it would end the snapshot of a base", idle, value)
	}
	value, ok, err := d.setting(ctx, slots)
	if err == nil && ok && value != "0" {
		d.add(slots, sources.SeverityWarning, d.host.set(slots, "0", false), "%s is %s: a capture that is away for longer loses its slot, and with it the record's continuity", slots, value)
	}
	return err
}

func (d *doctor) checkEncoding(context.Context) error {
	switch enc := d.conn.PgConn().ParameterStatus("server_encoding"); enc {
	case "UTF8":
		d.add("encoding", sources.SeverityOK, "", "the database's encoding is UTF8")
	case "SQL_ASCII":
		d.add("encoding", sources.SeverityNote, "", "the database's encoding is SQL_ASCII: text is recorded byte for byte, and a restore needs a SQL_ASCII database")
	default:
		d.add("encoding", sources.SeverityNote, "", "the database's encoding is %s: text is recorded in it, and a restore needs a database of the same encoding", enc)
	}
	return nil
}
