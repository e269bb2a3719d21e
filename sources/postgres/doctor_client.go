package postgres

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	"txreel/sources"
)

var clientVersion = regexp.MustCompile(`^pg_(?:dump|restore) \(PostgreSQL\) (\d+)`)

// checkClient wants pg_dump and pg_restore, no older than the server, for the schema of a base.
func (d *doctor) checkClient(ctx context.Context) error {
	install := fmt.Sprintf("install PostgreSQL's client programs, version %d or newer (Debian: apt-get install postgresql-client)", d.major)
	dump := d.opts.PgDump
	if dump == "" {
		dump = "pg_dump"
	}
	restore := "pg_restore"
	if filepath.Base(dump) != dump {
		restore = filepath.Join(filepath.Dir(dump), restore)
	}
	bad := false
	for _, p := range []struct{ name, path string }{{"pg_dump", dump}, {"pg_restore", restore}} {
		major, err := clientMajor(ctx, p.path)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			d.add(p.name, sources.SeverityProblem, install, "%s cannot be run: %v", p.name, err)
		case major < d.major:
			d.add(p.name, sources.SeverityProblem, install, "%s %d cannot read a server of version %d", p.name, major, d.major)
		default:
			continue
		}
		bad = true
	}
	if !bad {
		d.add("pg_dump", sources.SeverityOK, "", "pg_dump and pg_restore are there and new enough")
	}
	return nil
}

// clientMajor asks a client program for its major version.
func clientMajor(ctx context.Context, path string) (int, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		var notFound *exec.Error
		if errors.As(err, &notFound) {
			err = notFound.Err
		}
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	m := clientVersion.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("%s does not say its version", path)
	}
	return strconv.Atoi(string(m[1]))
}
