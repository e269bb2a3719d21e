package postgres

import (
	"context"
	"fmt"
	"path/filepath"

	"txreel/sources"
	"txreel/sources/postgres/pgclient"
)

// checkClient wants pg_dump and pg_restore for the schema of a base: the one no older than the server, the other no older
// than the one.
func (d *doctor) checkClient(ctx context.Context) error {
	need, bad := d.major, false
	for _, name := range []string{"pg_dump", "pg_restore"} {
		p, err := d.client(ctx, name, need)
		switch install := fmt.Sprintf("install PostgreSQL's client programs, version %d or newer (Debian: apt-get install postgresql-client)", need); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case p.Path == "":
			d.add(name, sources.SeverityProblem, install, "%s cannot be run: %v", name, err)
		case p.Major < d.major:
			d.add(name, sources.SeverityProblem, install, "%s %d cannot read a server of version %d", p.Path, p.Major, d.major)
		case p.Major < need:
			d.add(name, sources.SeverityProblem, install, "%s %d cannot read what pg_dump %d writes", p.Path, p.Major, need)
		default:
			need = max(need, p.Major)
			continue
		}
		bad = true
	}
	if !bad {
		d.add("pg_dump", sources.SeverityOK, "", "pg_dump and pg_restore are there and new enough")
	}
	return nil
}

// client finds the program that a base or a restore will run: beside the pg_dump that is named, if one is.
func (d *doctor) client(ctx context.Context, name string, need int) (pgclient.Program, error) {
	if d.opts.PgDump == "" {
		return pgclient.Find(ctx, name, need)
	}
	path := d.opts.PgDump
	if name != "pg_dump" {
		if path = name; filepath.Base(d.opts.PgDump) != d.opts.PgDump {
			path = filepath.Join(filepath.Dir(d.opts.PgDump), name)
		}
	}
	return pgclient.At(ctx, path)
}
