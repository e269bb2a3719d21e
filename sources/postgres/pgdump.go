package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"txreel/sources/postgres/pgclient"
)

// errLocked is returned when pg_dump could not have the lock of a table.
var errLocked = errors.New("a table is locked by somebody else")

// pgDump writes the schema, as it stands in the snapshot, in pg_dump's custom
// format. It waits for a lock for lockTimeout milliseconds at most; then the error wraps errLocked. major is the server's version; a program that is given is taken as it is. Neither the command line nor an error shows the password.
func pgDump(ctx context.Context, source, program, snapshot string, major, lockTimeout int, out io.Writer) error {
	cfg, err := connConfig(source, "txreel base", false)
	if err != nil {
		return err
	}
	if program == "" {
		found, err := pgclient.Find(ctx, "pg_dump", major)
		if err != nil {
			return err
		}
		program = found.Path
	}
	cmd := exec.CommandContext(ctx, program,
		"--format=custom", "--compress=6", "--schema-only", "--no-password", "--no-subscriptions", // those hold passwords, and a restored database must receive nothing
		"--snapshot="+snapshot, "--lock-wait-timeout="+strconv.Itoa(lockTimeout),
	)
	if name := withoutPassword(source); name != "" {
		cmd.Args = append(cmd.Args, "--dbname="+name)
	}
	cmd.Env = clientEnv(cfg)
	cmd.Stdout = out
	cmd.WaitDelay = 5 * time.Second // for output that a child of its keeps open
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var exit *exec.ExitError
		switch said := strings.TrimSpace(stderr.String()); {
		case !errors.As(err, &exit):
		case strings.Contains(said, "LOCK TABLE"): // the statement that failed, which it quotes in whatever language
			return fmt.Errorf("%w: pg_dump: %s", errLocked, said)
		default:
			return fmt.Errorf("pg_dump: %s", said)
		}
		return fmt.Errorf("run %s: %w", program, err)
	}
	return nil
}

// clientEnv gives a client program the password by its environment, and the same
// output settings as our own sessions.
func clientEnv(cfg *pgconn.Config) []string {
	env := os.Environ()
	// pg_dump lifts a role's statement_timeout itself, but only in its second statement.
	options := "-c statement_timeout=0"
	for _, v := range env {
		if given, ok := strings.CutPrefix(v, "PGOPTIONS="); ok {
			options = given + " " + options
		}
	}
	env = append(env, "PGAPPNAME=txreel base", "PGTZ=UTC", "PGDATESTYLE=ISO, YMD", "PGOPTIONS="+options)
	if cfg.Password != "" {
		env = append(env, "PGPASSWORD="+cfg.Password)
	}
	return env
}

// clientOptions are the options of a source that the client programs know and may
// show on their command line. What is left out are secrets, and settings of a session,
// which our own connections take and libpq refuses.
const clientOptions = " host hostaddr port dbname user passfile channel_binding connect_timeout options " +
	"keepalives keepalives_idle keepalives_interval keepalives_count tcp_user_timeout " +
	"sslmode sslcert sslkey sslrootcert sslcrl sslcrldir sslsni sslnegotiation ssl_min_protocol_version ssl_max_protocol_version " +
	"require_auth requirepeer krbsrvname gssencmode gsslib service servicefile target_session_attrs load_balance_hosts "

func clientOption(name string) bool { return strings.Contains(clientOptions, " "+name+" ") }

// withoutPassword returns the source as libpq reads it, with nothing secret in it. It
// splits as libpq does and not as URLs are split elsewhere: a password may hold a raw #
// or ?, and ends at the first @.
func withoutPassword(source string) string {
	if scheme, rest, ok := strings.Cut(source, "://"); ok && (scheme == "postgres" || scheme == "postgresql") {
		user := ""
		if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
			user, _, _ = strings.Cut(rest[:i], ":")
			user, rest = user+"@", rest[i+1:]
		}
		address, query, _ := strings.Cut(rest, "?")
		mark := "?"
		for pair := range strings.SplitSeq(query, "&") {
			name, _, _ := strings.Cut(pair, "=")
			if name, err := url.PathUnescape(name); err == nil && clientOption(name) {
				address, mark = address+mark+pair, "&"
			}
		}
		return scheme + "://" + user + address
	}
	pair := regexp.MustCompile(`(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s\\]|\\.)*)`)
	var kept []string
	for _, m := range pair.FindAllStringSubmatch(source, -1) {
		if m[1] == "database" {
			m[1] = "dbname"
		}
		if clientOption(m[1]) {
			kept = append(kept, m[1]+"="+m[2])
		}
	}
	return strings.Join(kept, " ")
}
