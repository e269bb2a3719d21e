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
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// pgDump writes the schema, as it stands in the snapshot, in pg_dump's custom
// format. Neither the command line nor an error shows the password.
func pgDump(ctx context.Context, source, program, snapshot string, lockTimeout int, out io.Writer) error {
	cfg, err := connConfig(source, "txreel base", false)
	if err != nil {
		return err
	}
	if program == "" {
		if program, err = findClient("pg_dump"); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, program,
		"--format=custom", "--compress=6", "--schema-only", "--no-password",
		"--snapshot="+snapshot, "--lock-wait-timeout="+strconv.Itoa(lockTimeout),
	)
	if name := withoutPassword(source); name != "" {
		cmd.Args = append(cmd.Args, "--dbname="+name)
	}
	cmd.Env = clientEnv(cfg)
	cmd.Stdout = out
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("pg_dump: %s", strings.TrimSpace(stderr.String()))
		}
		return fmt.Errorf("run %s: %w", program, err)
	}
	return nil
}

// clientEnv gives a client program the password by its environment, and the same
// output settings as our own sessions.
func clientEnv(cfg *pgconn.Config) []string {
	// pg_dump lifts a role's statement_timeout itself, but only in its second statement.
	options := strings.TrimSpace(os.Getenv("PGOPTIONS") + " -c statement_timeout=0")
	env := append(os.Environ(), "PGAPPNAME=txreel base", "PGTZ=UTC", "PGDATESTYLE=ISO, YMD", "PGOPTIONS="+options)
	if cfg.Password != "" {
		env = append(env, "PGPASSWORD="+cfg.Password)
	}
	return env
}

// withoutPassword returns the source as libpq reads it, with nothing secret in
// it.
func withoutPassword(source string) string {
	if u, err := url.Parse(source); err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		if u.User != nil {
			u.User = url.User(u.User.Username())
		}
		q := u.Query()
		q.Del("password")
		q.Del("replication")
		u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
		return u.String()
	}
	pair := regexp.MustCompile(`(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s\\]|\\.)*)`)
	var kept []string
	for _, m := range pair.FindAllStringSubmatch(source, -1) {
		if m[1] != "password" {
			kept = append(kept, m[1]+"="+m[2])
		}
	}
	return strings.Join(kept, " ")
}

// findClient returns the newest of PostgreSQL's client programs of that name, on
// the path or where Debian keeps them.
func findClient(name string) (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	slices.SortFunc(found, func(a, b string) int { return folderMajor(a) - folderMajor(b) })
	if len(found) > 0 {
		return found[len(found)-1], nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is not installed here: install PostgreSQL's client programs (postgresql-client), of the server's major version or newer", name)
	}
	return path, nil
}

// folderMajor reads the version out of /usr/lib/postgresql/15/bin/pg_dump.
func folderMajor(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}
