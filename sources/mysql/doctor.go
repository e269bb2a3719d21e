package mysql

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"txreel/sources"
	"txreel/sources/mysql/gtid"
)

// DoctorOptions says what a capture of this server uses or will use.
type DoctorOptions struct {
	// CaptureOnly says that the URL's user only captures, and that bases are taken by another.
	CaptureOnly bool
	// AllowLock says that bases may lock for a moment, as with --allow-lock.
	AllowLock bool
	// MinRetention is how long the server should keep its binlog. Zero means three days.
	MinRetention time.Duration
	// Sync also asks for what zero-loss mode takes, with COMMITs that wait for so long at most.
	Sync time.Duration
}

const (
	defaultRetention = 3 * 24 * time.Hour
	// doctorPatience bounds each of the doctor's statements: on a server with very many tables some look at every one.
	doctorPatience = 30 * time.Second
)

// doctor is one visit: a session that cannot write, and what several checks need.
type doctor struct {
	opts    DoctorOptions
	conn    *Conn
	mariadb bool
	vars    map[string]string // global variables
	set     setter
	account string // of the session, quoted as in SQL
	grants  *grants

	findings []sources.Finding
}

// Doctor looks whether the source can be captured, completely and without harm to it, as the user in its URL. It never
// writes to the server. An error means that it could not look; bad news are findings.
func Doctor(ctx context.Context, url string, opts DoctorOptions) ([]sources.Finding, error) {
	conn, err := Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if opts.MinRetention == 0 {
		opts.MinRetention = defaultRetention
	}
	d := &doctor{opts: opts, conn: conn, mariadb: conn.Flavor == gtid.MariaDB}
	if err := d.introduce(ctx); err != nil {
		return nil, fmt.Errorf("look at the server: %w", err)
	}
	for _, c := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"version", d.checkVersion},
		{"platform", d.checkPlatform},
		{"encryption", d.checkEncryption},
		{"log_bin", d.checkLogBin},
		{"binlog filters", d.checkFilters},
		{"server_id", d.checkServerID},
		{"binlog_format", d.checkFormat},
		{"binlog_row_image", d.checkRowImage},
		{"binlog_row_metadata", d.checkMetadata},
		{"gtid", d.checkGTID},
		{"length of the GTID set", d.checkSetSize},
		{"retention", d.checkRetention},
		{"binlog_checksum", d.checkChecksum},
		{"durability", d.checkDurability},
		{"limits", d.checkLimits},
		{"lasting settings", d.checkLasting},
		{"binlog contents", d.checkContents},
		{"capture privileges", d.checkCapturePrivileges},
		{"base privileges", d.checkBasePrivileges},
		{"sessions", d.checkSessions},
		{"temporary tables", d.checkTemporaryTables},
		{"unlogged writes", d.checkUnlogged},
		{"keys", d.checkKeys},
		{"tables read in one piece", d.checkUncut},
		{"storage engines", d.checkEngines},
		{"cascades", d.checkCascades},
		{"events", d.checkEvents},
		{"prepared transactions", d.checkPrepared},
		{"replica", d.checkReplica},
		{"read_only", d.checkReadOnly},
		{"cluster", d.checkCluster},
		{"identity", d.checkIdentity},
		{"zero-loss mode", d.checkSync},
	} {
		err := c.run(ctx)
		if err != nil && (ctx.Err() != nil || conn.Closed()) {
			return d.findings, fmt.Errorf("check %s: %w", c.name, err)
		}
		if err != nil {
			d.add(c.name, sources.SeverityWarning, "", "could not be checked: %v", err)
		}
	}
	return d.findings, nil
}

// introduce makes the session harmless and reads what the checks share.
func (d *doctor) introduce(ctx context.Context) error {
	limit := fmt.Sprintf("max_execution_time = %d", doctorPatience.Milliseconds())
	if d.mariadb {
		limit = fmt.Sprintf("max_statement_time = %d", int(doctorPatience.Seconds()))
	}
	for _, sql := range []string{"SET SESSION TRANSACTION READ ONLY", "SET SESSION " + limit} {
		if err := d.conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	var err error
	if d.vars, err = readVariables(ctx, d.conn); err != nil {
		return err
	}
	d.set = setter{host: detectPlatform(d.vars, d.conn.cfg.Host), mariadb: d.mariadb}
	row, err := d.conn.QueryRow(ctx, "SELECT CURRENT_USER()")
	if err != nil {
		return err
	}
	d.account = quoteAccount(splitAccount(row[0].String()))
	d.grants, err = readGrants(ctx, d.conn, "")
	return err
}

// readVariables reads the server's global variables, named in lower case.
func readVariables(ctx context.Context, conn *Conn) (map[string]string, error) {
	r, err := conn.Query(ctx, "SHOW GLOBAL VARIABLES")
	if err != nil {
		return nil, err
	}
	vars := make(map[string]string, len(r.Rows))
	for _, row := range r.Rows {
		vars[strings.ToLower(row[0].String())] = row[1].String()
	}
	return vars, nil
}

// on reports whether a variable is switched on.
func (d *doctor) on(name string) bool { return switchedOn(d.vars[name]) }

func switchedOn(value string) bool {
	return strings.EqualFold(value, "ON") || value == "1" || strings.EqualFold(value, "YES")
}

// number reads a variable; ok is false where this server does not have it.
func (d *doctor) number(name string) (n int64, ok bool) {
	f, err := strconv.ParseFloat(d.vars[name], 64) // MariaDB's expire_logs_days has a fraction
	return int64(f), err == nil
}

// add keeps a finding; control characters in a table's name do not reach the reader's terminal by way of it.
func (d *doctor) add(check string, severity sources.Severity, fix, format string, args ...any) {
	d.findings = append(d.findings, sources.Finding{Check: check, Severity: severity, Detail: printable(fmt.Sprintf(format, args...)), Fix: fix})
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// typable reports whether a name can stand in a statement that is shown: what looks different from what it is must not
// be copied, and control characters can do more than that.
func typable(name string) bool { return printable(name) == name }

// namesShown and fixesShown bound a finding about many tables; setup prints all of them.
const (
	namesShown = 10
	fixesShown = 20
)

// listed joins the first names and says how many more there are.
func listed(names []string) string {
	shown := names[:min(len(names), namesShown)]
	s := strings.Join(shown, ", ")
	if more := len(names) - len(shown); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}

// statements joins the first statements of a fix.
func statements(list []string, why string) string {
	if len(list) == 0 {
		return ""
	}
	s := strings.Join(list[:min(len(list), fixesShown)], " ")
	if more := len(list) - fixesShown; more > 0 {
		s += fmt.Sprintf(" -- and %d more", more)
	}
	if why != "" {
		s += " -- " + why
	}
	return s
}
