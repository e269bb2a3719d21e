package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// MySQLDump is all that two equal servers have in common.
type MySQLDump struct {
	// Tables hold the content of every table, by quoted name.
	Tables map[string]TableDump
	// Checksums are what CHECKSUM TABLE says of the same tables: the server's own opinion.
	Checksums map[string]string
	// Definitions hold what SHOW CREATE says of every object, by kind and quoted name, and the grants of accounts.
	Definitions map[string]string
}

// MySQLDumpOptions says what to leave out. The zero value leaves out what the server itself made.
type MySQLDumpOptions struct {
	// Databases to leave out, such as one that holds a tool's own state.
	SkipDatabases []string
	// IgnoreAutoIncrement takes AUTO_INCREMENT=… out of table definitions.
	IgnoreAutoIncrement bool
	// IgnoreAccounts leaves out users, roles and grants.
	IgnoreAccounts bool
}

// DumpMySQL reads the content of every table and the definition of every object of a server, as one who may read all:
// databases, tables, views, sequences, routines, packages, triggers, events, users, roles and grants, except the
// system's own and root. Table content is read in one snapshot and whatever the order of its rows: invisible and
// generated columns too, floats to the last bit, text as the bytes that are stored, and the history of
// system-versioned tables. The URL's database does not matter.
func DumpMySQL(ctx context.Context, rawURL string, opts MySQLDumpOptions) (MySQLDump, error) {
	d := MySQLDump{Tables: map[string]TableDump{}, Checksums: map[string]string{}, Definitions: map[string]string{}}
	pool, err := openURL(rawURL)
	if err != nil {
		return d, fmt.Errorf("dump server: %w", err)
	}
	defer func() { _ = pool.Close() }() // it only read
	conn, err := pool.Conn(ctx)
	if err != nil {
		return d, fmt.Errorf("dump server: %w", err)
	}
	defer func() { _ = conn.Close() }() // it only read
	r := &mysqlReader{conn: conn, opts: opts, dump: &d}
	if err := r.read(ctx); err != nil {
		return d, fmt.Errorf("dump server: %w", err)
	}
	return d, nil
}

// openURL opens a pool for a URL as MySQL.URL makes them.
func openURL(rawURL string) (*sql.DB, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("the URL of the server does not parse") // the cause would quote its password
	}
	if u.Scheme != "mysql" && u.Scheme != "mariadb" {
		return nil, fmt.Errorf("a URL that begins %s:// is none of MySQL or MariaDB", u.Scheme)
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr = u.User.Username(), "tcp", u.Host
	cfg.Passwd, _ = u.User.Password()
	cfg.MultiStatements, cfg.MaxAllowedPacket = true, 1<<30
	cfg.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// mysqlReader fills a dump through one connection.
type mysqlReader struct {
	conn    *sql.Conn
	opts    MySQLDumpOptions
	mariadb bool
	dump    *MySQLDump
}

func (r *mysqlReader) read(ctx context.Context) error {
	var version string
	if err := r.conn.QueryRowContext(ctx, "SELECT version()").Scan(&version); err != nil {
		return err
	}
	r.mariadb = strings.Contains(version, "MariaDB")
	// Pinned like PostgreSQL's output settings: what is stored, whatever the server's defaults are.
	pin := "SET NAMES utf8mb4; SET SESSION time_zone = '+00:00', character_set_results = NULL, sql_mode = '', sql_quote_show_create = 1"
	if r.mariadb {
		pin += ", max_statement_time = 0"
	} else {
		pin += ", max_execution_time = 0, print_identified_with_as_hex = ON, show_create_table_verbosity = OFF" +
			", show_gipk_in_create_table_and_information_schema = ON"
	}
	if _, err := r.conn.ExecContext(ctx, pin+"; START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"); err != nil {
		return fmt.Errorf("prepare session: %w", err)
	}
	tables, err := r.definitions(ctx)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if err := r.table(ctx, t); err != nil {
			return fmt.Errorf("table %s: %w", t.name(), err)
		}
	}
	if r.opts.IgnoreAccounts {
		return nil
	}
	return r.accounts(ctx)
}

// DiffMySQL says in words how b differs from a. It returns the empty string when nothing differs.
func DiffMySQL(a, b MySQLDump) string {
	var out strings.Builder
	out.WriteString(Diff(a.Tables, b.Tables))
	for _, name := range slices.Sorted(maps.Keys(a.Checksums)) {
		if other, ok := b.Checksums[name]; ok && other != a.Checksums[name] {
			fmt.Fprintf(&out, "%s: CHECKSUM TABLE says %s, then %s\n", name, a.Checksums[name], other)
		}
	}
	names := maps.Clone(a.Definitions)
	maps.Copy(names, b.Definitions)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		da, inA := a.Definitions[name]
		db, inB := b.Definitions[name]
		switch {
		case !inA:
			fmt.Fprintf(&out, "%s: only in the second\n", name)
		case !inB:
			fmt.Fprintf(&out, "%s: only in the first\n", name)
		case da != db:
			fmt.Fprintf(&out, "%s is defined otherwise:\n", name)
			diffRows(&out, lines(da), lines(db))
		}
	}
	return out.String()
}

// lines makes a definition a table of its lines, for diffRows.
func lines(definition string) TableDump {
	sample := strings.Split(strings.TrimSuffix(definition, "\n"), "\n")
	slices.Sort(sample)
	return TableDump{Rows: int64(len(sample)), Sample: sample}
}
