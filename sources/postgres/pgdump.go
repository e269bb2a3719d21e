package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
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
	if name := pgclient.WithoutPassword(source); name != "" {
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
