package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PostgresOptions says how to start a server. The zero value is a logical-decoding server in a temporary folder.
type PostgresOptions struct {
	// Dir is where the data folder, socket and log go; it must not exist, and stays after Close. Empty means a
	// temporary folder that Close removes. The user the server runs as must be able to enter its parents, and a
	// socket path cannot be long: keep it short.
	Dir string
	// BinDir holds initdb and postgres. Empty means those of Major.
	BinDir string
	// Major is the version wanted, such as 18. 0 means the one that ServersVariable lists, else the newest of
	// /usr/lib/postgresql/*/bin, else PATH.
	Major int
	// Settings are lines of postgresql.conf that override the defaults below.
	Settings map[string]string
	// HBA lines go before the default ones of pg_hba.conf, which ask every TCP connection for its password.
	HBA []string
	// OwnSystem gives the server a system identifier of its own; others share one.
	OwnSystem bool
	// Durable keeps fsync on, for measurements.
	Durable bool
}

// settings are what suits a test, with the caller's on top: everything capture needs, and no waiting for disks.
func (o PostgresOptions) settings() map[string]string {
	s := map[string]string{
		"wal_level":                 "logical",
		"max_wal_senders":           "20",
		"max_replication_slots":     "20",
		"max_prepared_transactions": "10",
		"shared_buffers":            "64MB",
		"fsync":                     "off",
		"timezone":                  "UTC",
		"log_line_prefix":           "%m [%p] %q%a ",
	}
	if o.Durable {
		s["fsync"] = "on"
	}
	maps.Copy(s, o.Settings)
	return s
}

// Postgres is a throw-away PostgreSQL server. Its methods are for one goroutine at a time, except URL, Conn, Exec,
// Query and Log.
type Postgres struct {
	// Dir holds the data folder "data", the socket and the file "log".
	Dir string
	// BinDir holds the server's binaries, and with luck pg_dump and pgbench; those may be of a newer version.
	BinDir string
	// Port is the TCP port on 127.0.0.1; it stays the same over Stop and Start.
	Port int
	// Version is the server's own server_version, and Major its first number.
	Version string
	Major   int

	account   account
	temporary bool
	password  string
	proc      *process // nil when stopped
}

// StartPostgres starts a server and waits until it answers. The caller owes it a Close. Should the calling process
// be killed, the server follows it.
func StartPostgres(ctx context.Context, opts PostgresOptions) (*Postgres, error) {
	binDir, err := findPostgres(opts.BinDir, opts.Major)
	if err != nil {
		return nil, err
	}
	a, err := serverAccount()
	if err != nil {
		return nil, err
	}
	p := &Postgres{Dir: opts.Dir, BinDir: binDir, account: a, password: rand.Text()}
	if err = p.makeDir(); err == nil {
		err = p.create(ctx, opts)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Postgres) makeDir() (err error) {
	if p.Dir == "" {
		p.temporary = true
		p.Dir, err = os.MkdirTemp("", "txpg-") // short: it holds the socket
	} else {
		err = os.Mkdir(p.Dir, 0o700)
	}
	if err == nil {
		err = p.account.own(p.Dir)
	}
	if err != nil {
		return fmt.Errorf("make server folder: %w", err)
	}
	return nil
}

// initialise makes the data folder.
func (p *Postgres) initialise(ctx context.Context, own bool) error {
	if own {
		return initDB(ctx, filepath.Join(p.BinDir, "initdb"), p.data(), p.account)
	}
	from, err := template(ctx, p.BinDir, p.account)
	if err != nil {
		return err
	}
	if err := copyTree(ctx, from, p.data()); err != nil {
		return fmt.Errorf("copy template folder: %w", err)
	}
	return nil
}

// create fills the data folder, starts the server on a free port and sets the password.
func (p *Postgres) create(ctx context.Context, opts PostgresOptions) error {
	if err := p.initialise(ctx, opts.OwnSystem); err != nil {
		return err
	}
	if err := p.Configure(opts.settings()); err != nil {
		return err
	}
	if err := p.writeHBA(opts.HBA); err != nil {
		return err
	}
	if err := p.startOnFreePort(ctx); err != nil {
		return err
	}
	if err := p.Exec(ctx, "postgres", "ALTER ROLE postgres PASSWORD '"+p.password+"'"); err != nil {
		return err
	}
	rows, err := p.Query(ctx, "postgres", "SELECT current_setting('server_version'), current_setting('server_version_num')")
	if err != nil {
		return err
	}
	num, err := strconv.Atoi(rows[0][1])
	if err != nil {
		return fmt.Errorf("read server version: %w", err)
	}
	p.Version, p.Major = rows[0][0], num/10000
	return nil
}

// startOnFreePort asks the kernel for a port and tries again when somebody else takes it first.
func (p *Postgres) startOnFreePort(ctx context.Context) error {
	var err error
	for range 5 {
		l, lerr := net.Listen("tcp", "127.0.0.1:0")
		if lerr != nil {
			return fmt.Errorf("find a free port: %w", lerr)
		}
		p.Port = l.Addr().(*net.TCPAddr).Port
		_ = l.Close() // nothing was accepted
		if err = p.Start(ctx); err == nil || !strings.Contains(p.Log(), "Address already in use") {
			return err
		}
		if err := os.Remove(p.logPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

// Configure appends lines to postgresql.conf, where the last of a name wins. They take effect at the next Start or
// Reload.
func (p *Postgres) Configure(settings map[string]string) error {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	f, err := os.OpenFile(filepath.Join(p.data(), "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("configure server: %w", err)
	}
	_, err = f.WriteString(b.String())
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("configure server: %w", err)
	}
	return nil
}

// Reload makes the running server read postgresql.conf and pg_hba.conf again.
func (p *Postgres) Reload(ctx context.Context) error {
	return p.Exec(ctx, "postgres", "SELECT pg_reload_conf()")
}

func (p *Postgres) writeHBA(lines []string) error {
	// Our own way in comes first: the socket, whose folder only the server's user can enter.
	lines = append(append([]string{"local all postgres trust"}, lines...),
		"local all all scram-sha-256",
		"host all all 127.0.0.1/32 scram-sha-256",
		"host replication all 127.0.0.1/32 scram-sha-256")
	err := os.WriteFile(filepath.Join(p.data(), "pg_hba.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
	if err != nil {
		return fmt.Errorf("configure server: %w", err)
	}
	return nil
}

// URL names a database for a client that comes over TCP as the superuser, with its password.
func (p *Postgres) URL(db string) string { return p.URLAs("postgres", p.password, db) }

// URLAs is URL for another role.
func (p *Postgres) URLAs(role, password, db string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Port)), Path: "/" + db, RawQuery: "sslmode=disable"}
	return u.String()
}

// Client is the path of a client program, such as pg_dump: the one beside the server, which is no older than it, else
// that of Debian's newest server.
func (p *Postgres) Client(name string) string {
	if beside := filepath.Join(p.BinDir, name); isFile(beside) {
		return beside
	}
	return filepath.Join(newestDebian(), name)
}

// Password is the superuser's.
func (p *Postgres) Password() string { return p.password }

// Log returns what the server has logged so far.
func (p *Postgres) Log() string {
	b, err := os.ReadFile(p.logPath())
	if err != nil {
		return ""
	}
	return string(b)
}

// Close stops the server at once and removes its folder, if that was a temporary one. A second Close does nothing.
func (p *Postgres) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := p.Stop(ctx, "immediate")
	if err != nil {
		killCtx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		err = errors.Join(err, p.Kill(killCtx))
	}
	if p.temporary {
		err = errors.Join(err, os.RemoveAll(p.Dir))
	}
	return err
}

func (p *Postgres) data() string    { return filepath.Join(p.Dir, "data") }
func (p *Postgres) logPath() string { return filepath.Join(p.Dir, "log") }

// DataDir is the server's data folder.
func (p *Postgres) DataDir() string { return p.data() }
