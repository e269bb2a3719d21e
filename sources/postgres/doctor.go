package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"

	"txreel/sources"
)

// DoctorOptions names what a capture of this database uses or will use.
type DoctorOptions struct {
	Publication string
	Slot        string
	// Tables are those setup will publish, as in Setup; empty means all. A publication that exists knows better.
	Tables []string
	// PgDump is the path of pg_dump, with pg_restore beside it. Empty means the one a base would find.
	PgDump string
	// OldTransaction is the age from which an open write transaction is reported, because a slot waits for it. Zero
	// means five minutes.
	OldTransaction time.Duration
	// Sync also asks for what zero-loss mode takes.
	Sync bool
}

// doctor is one visit: a connection that cannot write, and what several checks need.
type doctor struct {
	source string
	opts   DoctorOptions
	conn   *pgx.Conn
	major  int
	db     string
	user   string
	role   roleFacts
	host   managed
	pub    *publicationFacts // nil when there is none
	slot   *slotFacts        // nil when there is none
	chosen []uint32          // what is or will be published; nil means all tables

	findings []sources.Finding
}

// Doctor looks whether the source can be captured, completely and without harm to it, as the role in its URL. It never
// writes to the server. An error means that it could not look; bad news are findings.
func Doctor(ctx context.Context, source string, opts DoctorOptions) ([]sources.Finding, error) {
	cfg, err := pgxConfig(source, "txreel doctor", false)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["default_transaction_read_only"] = "on"
	delete(cfg.RuntimeParams, "idle_in_transaction_session_timeout") // its value is one of our questions
	conn, err := connectPgx(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it only read
	if opts.OldTransaction == 0 {
		opts.OldTransaction = 5 * time.Minute
	}
	d := &doctor{source: source, opts: opts, conn: conn, major: majorVersion(conn.PgConn())}
	if err := d.introduce(ctx); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"version", d.checkVersion},
		{"server", d.checkServer},
		{"wal_level", d.checkWALLevel},
		{"max_replication_slots", d.checkSlotsFree},
		{"max_wal_senders", d.checkSendersFree},
		{"output_plugin_libraries", d.checkPlugin},
		{"role", d.checkRole},
		{"read access", d.checkReadAccess},
		{"replication connection", d.checkReplicationConnection},
		{"publication", d.checkPublication},
		{"replica identity", d.checkIdentities},
		{"definitions", d.checkDefinitions},
		{"slot", d.checkSlot},
		{"max_slot_wal_keep_size", d.checkKeepSize},
		{"timeouts", d.checkTimeouts},
		{"old transactions", d.checkOldTransactions},
		{"encoding", d.checkEncoding},
		{"coverage", d.checkCoverage},
		{"pg_dump", d.checkClient},
		{"zero-loss mode", d.checkSync},
	} {
		err := c.run(ctx)
		if err != nil && (ctx.Err() != nil || conn.IsClosed()) {
			return d.findings, fmt.Errorf("check %s: %w", c.name, err)
		}
		if err != nil {
			d.add(c.name, sources.SeverityWarning, "", "could not be checked: %v", err)
		}
	}
	return d.findings, nil
}

// introduce reads what the checks share.
func (d *doctor) introduce(ctx context.Context) error {
	var roles []string
	err := d.conn.QueryRow(ctx, `
		SELECT current_database()::text, current_user::text, ARRAY(SELECT rolname::text FROM pg_roles
			WHERE rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin'))`).Scan(&d.db, &d.user, &roles)
	if err != nil {
		return fmt.Errorf("look at the server: %w", err)
	}
	for _, r := range roles {
		d.host = managed(r)
	}
	if d.role, err = readRole(ctx, d.conn, d.user); err != nil {
		return err
	}
	if d.pub, err = readPublication(ctx, d.conn, d.opts.Publication); err != nil {
		return err
	}
	if d.slot, err = inspectSlot(ctx, d.conn, d.opts.Slot); err != nil {
		return err
	}
	if d.pub != nil {
		d.chosen = d.pub.oids()
		return nil
	}
	tables, err := resolveTables(ctx, d.conn, d.opts.Tables)
	d.chosen = oids(tables)
	return err
}

// oids is nil when all tables are published, and not nil, even if empty, when only some are.
func (p *publicationFacts) oids() []uint32 {
	if p.allTables {
		return nil
	}
	list := []uint32{}
	for oid := range p.tables {
		list = append(list, oid)
	}
	return list
}

// add keeps a finding; control characters in a table's name do not reach the reader's terminal by way of its detail.
func (d *doctor) add(check string, severity sources.Severity, fix, format string, args ...any) {
	detail := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, fmt.Sprintf(format, args...))
	d.findings = append(d.findings, sources.Finding{Check: check, Severity: severity, Detail: detail, Fix: fix})
}

// setting reads a server setting; ok is false where this server does not have it.
func (d *doctor) setting(ctx context.Context, name string) (value string, ok bool, err error) {
	var v *string
	if err := d.conn.QueryRow(ctx, `SELECT current_setting($1::text, true)`, name).Scan(&v); err != nil || v == nil {
		return "", false, err
	}
	return *v, true, nil
}

// managed is the role that gives a managed service away, or empty for a server of one's own.
type managed string

const (
	onRDS      managed = "rds_superuser"
	onCloudSQL managed = "cloudsqlsuperuser"
	onAzure    managed = "azure_pg_admin"
)

// set is how to change a server setting here.
func (m managed) set(name, value string, restart bool) string {
	then := ", no restart needed"
	if restart {
		then = ", then restart the instance"
	}
	switch m {
	case onRDS:
		if name == "wal_level" {
			name, value = "rds.logical_replication", "1"
		}
		return fmt.Sprintf("in the instance's parameter group set %s = %s%s", name, value, then)
	case onCloudSQL:
		if name == "wal_level" {
			name, value = "cloudsql.logical_decoding", "on"
		}
		return fmt.Sprintf("add the database flag %s=%s%s", name, value, then)
	case onAzure:
		return fmt.Sprintf("in the server parameters set %s = %s%s", name, value, then)
	}
	sql := "ALTER SYSTEM SET " + name + " = " + quoteLiteral(value) + ";"
	if restart {
		return sql + " -- then restart the server"
	}
	return sql + " SELECT pg_reload_conf();"
}

// listed joins the first names and says how many more there are.
func listed(names []string, total int) string {
	s := strings.Join(names, ", ")
	if more := total - len(names); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}
