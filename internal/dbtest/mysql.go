package dbtest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// MySQLOptions says how to start a MySQL or MariaDB server. The zero value is a MySQL with everything capture needs,
// in a temporary folder.
type MySQLOptions struct {
	// Flavor names a folder of .tools and so what runs: "mysql" (also when empty) or "mariadb", for either of which
	// ServersVariable may name another folder, or a version such as "mariadb-11".
	Flavor string
	// Root is the folder with the server's "bin" instead, such as an unpacked archive of the vendor. One that is not
	// absolute is below this folder or one above it.
	Root string
	// Dir is where the data folder, socket and log go; it must not exist, and stays after Close. Empty means a
	// temporary folder that Close removes. A socket path cannot be long: keep it short.
	Dir string
	// Settings are server variables that override the defaults of this package, by their names with underscores.
	// An empty value leaves a default of this package to the server's own. The log_bin that is "OFF" is none at all.
	Settings map[string]string
	// Args go to the server's command line as they are, after all else.
	Args []string
	// TLS says whether the server offers encryption.
	TLS TLSMode
	// Durable keeps syncs and the doublewrite buffer as a careful DBA would, for measurements.
	Durable bool
}

// TLSMode says whether a server offers encryption.
type TLSMode int

// The TLS modes. MySQL by itself offers TLS with a certificate nobody can check; MariaDB before 11.4 offers none.
const (
	TLSByDefault TLSMode = iota // as the server does by itself
	TLSOff
	TLSOn // with a certificate for 127.0.0.1 and localhost that CAFile vouches for
)

// MySQL is a throw-away MySQL or MariaDB server. Its methods are for one goroutine at a time, except those that take
// a database's name, Client and Log.
type MySQL struct {
	// Flavor is "mysql" or "mariadb".
	Flavor string
	// Version is the server's own, such as "9.7.4" or "10.11.18-MariaDB".
	Version string
	// Root is the folder the server's programs come from.
	Root string
	// Dir holds the data folder "data", the socket, the temporary files and the file "log".
	Dir string
	// Port is the TCP port on 127.0.0.1; it stays the same over Stop and Start.
	Port int

	settings  map[string]string
	args      []string
	temporary bool
	password  string   // root's, once set
	proc      *process // nil when stopped
}

// StartMySQL starts a server and waits until it answers. The caller owes it a Close. Should the calling process be
// killed, the server follows it.
func StartMySQL(ctx context.Context, opts MySQLOptions) (*MySQL, error) {
	root, flavor, err := findMySQL(opts)
	if err != nil {
		return nil, err
	}
	m := &MySQL{Flavor: flavor, Root: root, Dir: opts.Dir, args: opts.Args}
	if err = m.makeDir(); err == nil {
		err = m.create(ctx, opts)
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *MySQL) makeDir() (err error) {
	if m.Dir == "" {
		m.temporary = true
		m.Dir, err = os.MkdirTemp("", "txmy-") // short: it holds the socket
	} else {
		err = os.Mkdir(m.Dir, 0o700)
	}
	if err == nil {
		m.Dir, err = filepath.Abs(m.Dir) // the server changes to its data folder
	}
	if err == nil {
		err = os.Mkdir(m.tmp(), 0o700)
	}
	if err != nil {
		return fmt.Errorf("make server folder: %w", err)
	}
	if len(m.socket()) > maxSocketPath {
		return fmt.Errorf("make server folder: %s is too long for a socket, of which the system takes %d bytes: use a shorter one",
			m.socket(), maxSocketPath)
	}
	return nil
}

// maxSocketPath is what Linux and both servers take, without the final zero.
const maxSocketPath = 107

// create fills the data folder, starts the server on a free port and sets root's password.
func (m *MySQL) create(ctx context.Context, opts MySQLOptions) error {
	m.settings = m.defaults(opts.Durable)
	m.Configure(opts.Settings)
	from, err := mysqlTemplate(ctx, m.Flavor, m.Root, fixedArgs(m.settings))
	if err != nil {
		return err
	}
	if err := copyTree(ctx, from, m.data()); err != nil {
		return fmt.Errorf("copy template folder: %w", err)
	}
	if err := m.configureTLS(opts.TLS); err != nil {
		return err
	}
	if err := m.startOnFreePort(ctx); err != nil {
		return err
	}
	return m.welcome(ctx)
}

// welcome gives root its password, unseen by the binary log, and reads the version.
func (m *MySQL) welcome(ctx context.Context) error {
	s, err := m.Session(ctx, "")
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // what mattered has been answered
	password := rand.Text()
	err = s.Exec(ctx, "SET sql_log_bin = 0; ALTER USER root@localhost IDENTIFIED BY '"+password+"'")
	if err != nil {
		return fmt.Errorf("set root's password: %w", err)
	}
	m.password = password
	rows, err := s.Query(ctx, "SELECT version()")
	if err != nil {
		return err
	}
	m.Version = strings.TrimSuffix(rows[0][0], "-log")
	return nil
}

// startOnFreePort asks the kernel for a port and tries again when somebody else takes it first.
func (m *MySQL) startOnFreePort(ctx context.Context) error {
	var err error
	for range 5 {
		l, lerr := net.Listen("tcp", "127.0.0.1:0")
		if lerr != nil {
			return fmt.Errorf("find a free port: %w", lerr)
		}
		m.Port = l.Addr().(*net.TCPAddr).Port
		_ = l.Close() // nothing was accepted
		if err = m.Start(ctx); err == nil || !strings.Contains(m.Log(), "Address already in use") {
			return err
		}
		if err := os.Remove(m.logPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

// defaults are what suits a test: everything capture needs, little memory, and no waiting for disks.
func (m *MySQL) defaults(durable bool) map[string]string {
	s := map[string]string{
		"log_bin":                 "binlog",
		"server_id":               serverID(),
		"binlog_format":           "ROW",
		"binlog_row_image":        "FULL",
		"binlog_row_metadata":     "FULL",
		"local_infile":            "ON",
		"secure_file_priv":        "",
		"max_connections":         "200",
		"table_open_cache":        "400",
		"innodb_buffer_pool_size": "64M",
		"sync_binlog":             "1",
	}
	if m.Flavor == "mysql" {
		maps.Copy(s, map[string]string{
			"mysqlx":                   "OFF",
			"gtid_mode":                "ON",
			"enforce_gtid_consistency": "ON",
			"performance_schema":       "ON", // log_status is there
			"innodb_numa_interleave":   "OFF",
		})
		maps.Copy(s, smallSchema())
	} else {
		s["log_slave_updates"] = "ON" // as MySQL has it: a replica can become the source
	}
	if !durable {
		maps.Copy(s, map[string]string{
			"sync_binlog":                    "0",
			"innodb_flush_log_at_trx_commit": "2",
			"innodb_flush_method":            "O_DIRECT_NO_FSYNC",
			"innodb_doublewrite":             "0", // safe with O_DIRECT: SIGKILL tears no such write
			"innodb_use_native_aio":          "0", // the machine has few of these
		})
	}
	return s
}

// smallSchema keeps performance_schema from making room, at each start of a server, for what nobody here reads: a good
// part of what a start takes.
func smallSchema() map[string]string {
	small := map[string]string{"performance_schema_max_table_instances": "500", "performance_schema_max_table_handles": "500"}
	for _, size := range []string{"digests_size", "max_digest_length", "error_size", "max_program_instances",
		"events_statements_history_long_size", "events_stages_history_long_size",
		"events_transactions_history_long_size", "events_waits_history_long_size"} {
		small["performance_schema_"+size] = "0"
	}
	return small
}

// serverID is a random one, not 0 and below 2^31: two servers of one test differ.
func serverID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return strconv.FormatUint(uint64(binary.LittleEndian.Uint32(b[:])>>1|1), 10)
}

// Configure sets server variables for the next Start. An empty value leaves a variable to the server.
func (m *MySQL) Configure(settings map[string]string) {
	for name, value := range settings {
		name = strings.ReplaceAll(name, "-", "_")
		if value == "" {
			delete(m.settings, name)
			continue
		}
		m.settings[name] = value
	}
}

// URL names a database for a client that comes over TCP as root, with its password.
func (m *MySQL) URL(db string) string { return m.URLAs("root", m.password, db) }

// URLAs is URL for another user.
func (m *MySQL) URLAs(user, password, db string) string {
	u := url.URL{Scheme: m.Flavor, User: url.UserPassword(user, password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(m.Port)), Path: "/" + db}
	return u.String()
}

// Password is root's.
func (m *MySQL) Password() string { return m.password }

// Log returns what the server has logged so far.
func (m *MySQL) Log() string {
	b, err := os.ReadFile(m.logPath())
	if err != nil {
		return ""
	}
	return string(b)
}

// Close kills the server and removes its folder, if that was a temporary one; a folder that stays is left by an
// orderly stop. A second Close does nothing.
func (m *MySQL) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	var err error
	if !m.temporary {
		err = m.Stop(ctx)
	}
	err = errors.Join(err, m.Kill(ctx)) // nothing to do after a stop
	if m.temporary {
		err = errors.Join(err, os.RemoveAll(m.Dir))
	}
	return err
}

func (m *MySQL) data() string    { return filepath.Join(m.Dir, "data") }
func (m *MySQL) tmp() string     { return filepath.Join(m.Dir, "tmp") }
func (m *MySQL) socket() string  { return filepath.Join(m.Dir, "s") }
func (m *MySQL) logPath() string { return filepath.Join(m.Dir, "log") }

// DataDir is the server's data folder, where its binary logs are too.
func (m *MySQL) DataDir() string { return m.data() }

// Binlogs are the paths of the server's binary logs, oldest first. MariaDB from 11.4 on keeps an index of GTIDs beside
// each, which is none.
func (m *MySQL) Binlogs() []string {
	files, _ := filepath.Glob(filepath.Join(m.data(), "binlog."+strings.Repeat("[0-9]", 6))) // fails only on a bad pattern
	return files
}
