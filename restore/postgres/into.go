package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"txreel/internal/rowsum"
	"txreel/restore"
	"txreel/sources/postgres/pgclient"
)

// Into restores tables into a schema of a database that others use. They are restored and verified in a database of their own
// beside it, where the server renames their schema; then they are made in the database in use, in one transaction, in which their
// content is compared once more. It is restore.Target.
type Into struct {
	*Target         // the database beside
	live    *Target // the database in use
	url     string  // of the database beside
	name    string  // that database
	schema  string
	from    string // what the schema is called in the source
}

var _ restore.Target = (*Into)(nil)

// OpenInto connects to the database in use, and to the one beside it, which it makes unless an interrupted restore has left it.
func OpenInto(ctx context.Context, url, schema string, p *restore.Plan, opts Options) (*Into, error) {
	if p.Partial == nil || len(p.Partial.Schemas) != 1 {
		return nil, errors.New("only tables of one schema can be restored into another: choose those of one")
	}
	live, err := Open(ctx, url, opts)
	if err != nil {
		return nil, err
	}
	in := &Into{live: live, schema: schema, from: p.Partial.Schemas[0]}
	sum := sha256.Sum256([]byte(strings.Join([]string{p.Archive, fmt.Sprint(p.Epoch), p.Base.ID, p.Seq.String(), p.Partial.Asked, schema, live.cfg.Database}, "\x00")))
	in.name = "txreel_into_" + hex.EncodeToString(sum[:8])
	in.url = withDatabase(url, in.name)
	if err = in.checkFree(ctx, live.control); err == nil {
		err = in.beside(ctx, opts)
	}
	if err != nil {
		live.Close()
		return nil, err
	}
	return in, nil
}

// withDatabase names another database in a target's address; the last one named counts.
func withDatabase(url, name string) string {
	switch {
	case !strings.Contains(url, "://"):
		return url + " dbname=" + name
	case strings.Contains(url, "?"):
		return url + "&dbname=" + name
	}
	return url + "?dbname=" + name
}

// checkFree refuses a schema in which there is anything.
func (in *Into) checkFree(ctx context.Context, conn *pgx.Conn) error {
	var found string
	err := conn.QueryRow(ctx, `SELECT o.name FROM pg_catalog.pg_namespace n, LATERAL (
			SELECT 'relation ' || c.relname FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid
			UNION ALL SELECT 'function ' || p.proname FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid
			UNION ALL SELECT 'type ' || t.typname FROM pg_catalog.pg_type t WHERE t.typnamespace = n.oid) o(name)
		WHERE n.nspname = $1 LIMIT 1`, in.schema).Scan(&found)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for schema %s: %w", in.schema, err)
	}
	return fmt.Errorf("%w: schema %s has %s: name a schema that is not there or is empty, or drop it. Where this restore has been through before, DROP DATABASE IF EXISTS %s removes what it may have left",
		restore.ErrNotEmpty, quote(in.schema), found, in.name)
}

// beside makes the database beside and connects to it.
func (in *Into) beside(ctx context.Context, opts Options) error {
	var there bool
	var encoding, collate, ctype string
	err := in.live.control.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1), pg_catalog.pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text
		FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()`, in.name).Scan(&there, &encoding, &collate, &ctype)
	if err != nil {
		return fmt.Errorf("look for database %s: %w", in.name, err)
	}
	for {
		if !there {
			err := run(ctx, in.live.control, fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 ENCODING %s LC_COLLATE %s LC_CTYPE %s", quote(in.name), literal(encoding), literal(collate), literal(ctype)))
			if err != nil {
				return fmt.Errorf("make database %s, in which the tables are restored before they go into schema %s: %w: the role must have CREATEDB", in.name, in.schema, err)
			}
		}
		if in.Target, err = Open(ctx, in.url, opts); err != nil {
			return err
		}
		if !there || in.from == in.schema {
			return nil
		}
		// One that was interrupted at its very end has renamed the schema: it begins again.
		var renamed bool
		if err := in.control.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)", in.schema).Scan(&renamed); err != nil {
			in.Target.Close()
			return fmt.Errorf("look for schema %s: %w", in.schema, err)
		}
		if !renamed {
			return nil
		}
		if err := in.dropBeside(ctx); err != nil {
			return err
		}
		there = false
	}
}

// dropBeside removes the database beside.
func (in *Into) dropBeside(ctx context.Context) error {
	in.Target.Close()
	if err := run(ctx, in.live.control, "DROP DATABASE "+quote(in.name)+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("remove database %s: %w", in.name, err)
	}
	return nil
}

// Close ends the sessions.
func (in *Into) Close() {
	in.Target.Close()
	in.live.Close()
}

// Check implements restore.Target. It makes no roles: those are everybody's.
func (in *Into) Check(ctx context.Context, j *restore.Job) (bool, error) {
	resumed, err := in.Target.Check(ctx, j)
	if err == nil && len(in.roles) > 0 {
		err = fmt.Errorf("the tables name roles that the target lacks: %s: create them, or restore without owners and grants (--no-owner)", strings.Join(in.roles, ", "))
	}
	return resumed, err
}

// Release implements restore.Target: what has been verified goes into the database in use.
func (in *Into) Release(ctx context.Context) (err error) {
	defer in.live.lost(&err)
	if err := in.rename(ctx); err != nil {
		return err
	}
	s, err := in.dump(ctx)
	if err != nil {
		return err
	}
	conn, err := in.live.connect(ctx, controlApp, nil) // whose commit waits for the disk; the script changes settings
	if err != nil {
		return err
	}
	defer hangUp(conn)
	if err := inTx(ctx, conn, func() error { return in.land(ctx, conn, s) }); err != nil {
		return fmt.Errorf("make the tables in schema %s: %w: what they need of other schemas, such as types and functions, must be there; nothing was made", in.schema, err)
	}
	return in.dropBeside(ctx)
}

// rename gives the schema its name, by the server, which knows what refers to it. Extensions stay in a schema of the name that
// theirs has in the database in use.
func (in *Into) rename(ctx context.Context) error {
	if in.from == in.schema {
		return nil
	}
	return inTx(ctx, in.control, func() error {
		if err := run(ctx, in.control, "ALTER SCHEMA "+quote(in.from)+" RENAME TO "+quote(in.schema)); err != nil {
			return fmt.Errorf("rename schema %s: %w", in.from, err)
		}
		rows, err := in.control.Query(ctx, "SELECT extname::text FROM pg_catalog.pg_extension WHERE extnamespace = $1::regnamespace", quote(in.schema))
		if err != nil {
			return fmt.Errorf("look at extensions: %w", err)
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("look at extensions: %w", err)
		}
		if len(names) > 0 {
			if err := run(ctx, in.control, "CREATE SCHEMA "+quote(in.from)); err != nil {
				return fmt.Errorf("make schema %s: %w", in.from, err)
			}
		}
		for _, n := range names {
			if err := run(ctx, in.control, "ALTER EXTENSION "+quote(n)+" SET SCHEMA "+quote(in.from)); err != nil {
				return fmt.Errorf("keep extension %s in its schema: %w", n, err)
			}
		}
		return nil
	})
}

// dump reads the schema as it is now.
func (in *Into) dump(ctx context.Context) (*script, error) {
	dir, err := os.MkdirTemp(in.opts.TempDir, "txreel-schema-")
	if err != nil {
		return nil, fmt.Errorf("make temporary folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // a leftover costs nothing but space
	version := major(in.control.PgConn())
	program := filepath.Join(filepath.Dir(in.opts.PgRestore), "pg_dump")
	if _, err := os.Stat(program); in.opts.PgRestore == "" || err != nil {
		found, err := pgclient.Find(ctx, "pg_dump", version)
		if err != nil {
			return nil, err
		}
		program = found.Path
	}
	file := filepath.Join(dir, "schema.dump")
	cmd := exec.CommandContext(ctx, program, "--format=custom", "--schema-only", "--no-password", "--schema="+quote(in.schema), "--file="+file, "--dbname="+pgclient.WithoutPassword(in.url))
	cmd.Env = append(os.Environ(), "PGAPPNAME="+controlApp, "PGOPTIONS=-c statement_timeout=0")
	if in.cfg.Password != "" {
		cmd.Env = append(cmd.Env, "PGPASSWORD="+in.cfg.Password)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("read schema %s of database %s with %s: %w: %s", in.schema, in.name, program, err, strings.TrimSpace(string(out)))
	}
	if program, err = pgRestore(ctx, in.opts.PgRestore, file, version); err != nil {
		return nil, err
	}
	s, err := readDump(ctx, program, file, in.opts.NoOwner)
	if err == nil && version < 17 { // as in readSchema
		s.preamble = strings.Replace(s.preamble, "SET transaction_timeout = 0;\n", "", 1)
	}
	return s, err
}

// land makes the schema with its rows within a transaction of the database in use.
func (in *Into) land(ctx context.Context, conn *pgx.Conn, s *script) error {
	if err := in.checkFree(ctx, conn); err != nil {
		return err
	}
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)", in.schema).Scan(&there); err != nil {
		return err
	}
	if err := run(ctx, conn, s.preamble); err != nil {
		return err
	}
	skip := make(map[int]bool) // an empty schema that is there stays what it is
	for _, e := range s.pre {
		skip[e.id] = there && (e.kind == "SCHEMA" || slices.ContainsFunc(e.deps, func(d int) bool { return skip[d] }) && (e.kind == "ACL" || e.kind == "COMMENT"))
	}
	do := func(list []*entry) error {
		for _, e := range list {
			if skip[e.id] {
				continue
			}
			if err := run(ctx, conn, e.sql); err != nil {
				return fmt.Errorf("create %s %s: %w", strings.ToLower(e.kind), e.name, err)
			}
		}
		return nil
	}
	if err := do(s.pre); err != nil {
		return err
	}
	for _, step := range []func(context.Context, *pgx.Conn) error{in.copyTables, in.copySequences} {
		if err := step(ctx, conn); err != nil {
			return err
		}
	}
	if err := do(s.post); err != nil {
		return err
	}
	return in.fill(ctx, conn)
}

// copyTables copies the rows of every table, and compares what the database in use has then.
func (in *Into) copyTables(ctx context.Context, conn *pgx.Conn) error {
	rows, err := in.control.Query(ctx, `SELECT c.relname::text, coalesce((SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
			WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''), '')
		FROM pg_catalog.pg_class c WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r' ORDER BY 1`, quote(in.schema))
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	type found struct{ Name, Columns string }
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[found])
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	for i, tab := range tables {
		what := quote(in.schema, tab.Name)
		if tab.Columns != "" { // the grammar has no empty list
			what += " (" + tab.Columns + ")"
		}
		var want, got rowsum.Lines
		g, both := errgroup.WithContext(ctx)
		r, w := io.Pipe()
		g.Go(func() error {
			_, err := in.control.PgConn().CopyTo(both, io.MultiWriter(w, &want), "COPY "+what+" TO STDOUT")
			w.CloseWithError(err)
			return err
		})
		g.Go(func() error {
			_, err := conn.PgConn().CopyFrom(both, r, "COPY "+what+" FROM STDIN")
			r.CloseWithError(err)
			return err
		})
		if err := g.Wait(); err != nil {
			return fmt.Errorf("copy table %s: %w", tab.Name, err)
		}
		if _, err := conn.PgConn().CopyTo(ctx, &got, "COPY "+what+" TO STDOUT"); err != nil {
			return fmt.Errorf("read table %s: %w", tab.Name, err)
		}
		if want.Rows != got.Rows || want.Content() != got.Content() {
			return restore.MismatchError{{Table: in.schema + "." + tab.Name, Record: "database " + in.name,
				Want: restore.Found{Rows: want.Rows, Content: want.Content()}, Found: restore.Found{Rows: got.Rows, Content: got.Content()}}}
		}
		if err := run(ctx, conn, "ANALYZE "+quote(in.schema, tab.Name)); err != nil {
			return fmt.Errorf("analyze %s: %w", tab.Name, err)
		}
		in.job.Progress(restore.PhaseVerify, int64(i+1), int64(len(tables)), "tables put in place")
	}
	return nil
}

// copySequences sets every sequence to what it is.
func (in *Into) copySequences(ctx context.Context, conn *pgx.Conn) error {
	rows, err := in.control.Query(ctx, "SELECT relname::text FROM pg_catalog.pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'S' ORDER BY 1", quote(in.schema))
	if err != nil {
		return fmt.Errorf("list sequences: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list sequences: %w", err)
	}
	for _, n := range names {
		name := quote(in.schema, n)
		at, err := in.currentState(ctx, name)
		if err != nil {
			return err
		}
		if err := run(ctx, conn, fmt.Sprintf("SELECT pg_catalog.setval(%s, %d, %t)", literal(name), at.last, at.called)); err != nil {
			return fmt.Errorf("set sequence %s: %w", n, err)
		}
	}
	return nil
}

// fill fills the materialized views that are filled in the database beside, in the order in which they were made there.
func (in *Into) fill(ctx context.Context, conn *pgx.Conn) error {
	rows, err := in.control.Query(ctx, "SELECT relname::text FROM pg_catalog.pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'm' AND relispopulated ORDER BY oid", quote(in.schema))
	if err != nil {
		return fmt.Errorf("list materialized views: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list materialized views: %w", err)
	}
	for _, n := range names {
		if err := run(ctx, conn, "REFRESH MATERIALIZED VIEW "+quote(in.schema, n)); err != nil {
			return fmt.Errorf("fill materialized view %s: %w", n, err)
		}
	}
	return nil
}
