package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"txreel/archive"
	"txreel/internal/failpoint"
	"txreel/sources/postgres/pgbase"
)

// readSchema fetches the base's schema and takes it apart.
func (t *Target) readSchema(ctx context.Context) (err error) {
	if t.schema, err = t.schemaOf(ctx, t.job.Plan.Base, t.engine.ServerVersion/10000); err != nil {
		return err
	}
	if also := t.schema.leaveOut(t.engine.Publications); len(also) > 0 {
		t.warn("left out, since they need txreel's own schema: %s", strings.Join(also, ", "))
	}
	if err := t.narrow(); err != nil {
		return err
	}
	if major(t.control.PgConn()) < 17 { // pg_restore 17 sets what older servers do not know
		t.schema.preamble = strings.Replace(t.schema.preamble, "SET transaction_timeout = 0;\n", "", 1)
	}
	return nil
}

// schemaOf fetches the schema of a base, of a server of some major version.
func (t *Target) schemaOf(ctx context.Context, b *archive.Base, version int) (*script, error) {
	i := slices.IndexFunc(b.Objects, func(o archive.BaseObject) bool { return o.Name == pgbase.SchemaObject })
	if i < 0 {
		return nil, fmt.Errorf("%w: base %s: %w", archive.ErrCorrupt, b.ID, errNoDump)
	}
	dir, err := os.MkdirTemp(t.opts.TempDir, "txreel-schema-")
	if err != nil {
		return nil, fmt.Errorf("make temporary folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // a leftover costs nothing but space
	dump := filepath.Join(dir, "schema.dump")
	if err := t.fetch(ctx, b, &b.Objects[i], dump); err != nil {
		return nil, err
	}
	program, err := pgRestore(ctx, t.opts.PgRestore, dump, version)
	if err != nil {
		return nil, err
	}
	return readDump(ctx, program, dump, t.opts.NoOwner)
}

// fetch writes an object of a base to a file and checks it.
func (t *Target) fetch(ctx context.Context, b *archive.Base, o *archive.BaseObject, path string) error {
	key := b.Key(o.Name)
	body, _, err := t.job.Archive.Store.Open(ctx, key, 0, -1)
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	defer body.Close()
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("keep %s: %w", key, err)
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), body)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != o.SHA256 {
		return fmt.Errorf("%w: %s has SHA-256 %s, the manifest says %s", archive.ErrCorrupt, key, got, o.SHA256)
	}
	return nil
}

// createSchema makes everything that stands before data, and the book of this
// restore, in one transaction: a target has both or neither.
func (t *Target) createSchema(ctx context.Context) error {
	conn, err := t.worker(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn) // the script changes settings
	rows := make(map[string]int64, len(t.tables))
	for i := range t.tables {
		rows[t.tables[i].name()] = t.tables[i].Rows
	}
	counts, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	return inTx(ctx, conn, func() error {
		if err := t.makeRoles(ctx, conn); err != nil {
			return err
		}
		for _, r := range t.roles {
			if err := run(ctx, conn, "CREATE ROLE "+quote(r)+" NOLOGIN"); err != nil {
				return fmt.Errorf("create role %s: %w", r, err)
			}
			t.warn("role %s was missing and has been created without login, password or memberships%s", r, t.insteadOf())
		}
		if err := run(ctx, conn, t.schema.preamble); err != nil {
			return fmt.Errorf("begin the schema: %w", err)
		}
		for _, e := range t.schema.pre {
			if err := run(ctx, conn, e.sql); err != nil {
				return fmt.Errorf("create %s %s: %w", strings.ToLower(e.kind), e.name, err)
			}
		}
		if err := t.emptyMembers(ctx, conn); err != nil {
			return err
		}
		if err := run(ctx, conn, bookSQL); err != nil {
			return fmt.Errorf("create schema %s: %w", bookSchema, err)
		}
		plan := t.plan()
		_, err := conn.Exec(ctx, "INSERT INTO txreel_restore.progress VALUES ($1, $2, $3, $4, $5, $6, $7)",
			plan[0], plan[1], plan[2], plan[3], plan[4], t.job.Plan.Base.Seq.String(), string(counts))
		if err != nil {
			return fmt.Errorf("note the restore's plan: %w", err)
		}
		if err := t.beginFold(ctx, conn); err != nil {
			return err
		}
		for _, name := range t.aside {
			if _, err := conn.Exec(ctx, "INSERT INTO txreel_restore.aside VALUES ($1::regclass)", name); err != nil {
				return fmt.Errorf("note that table %s has no rows: %w", name, err)
			}
		}
		err = openIdentities(ctx, conn)
		failpoint.Hit(failpoint.RestoreSchemaMade)
		return err
	})
}

// emptyMembers removes the rows that extensions brought along with their tables:
// the base has those tables' rows as they were.
func (t *Target) emptyMembers(ctx context.Context, conn *pgx.Conn) error {
	var names []string
	for i := range t.tables {
		if t.tables[i].Member {
			names = append(names, t.tables[i].quoted())
		}
	}
	if len(names) == 0 {
		return nil
	}
	if err := run(ctx, conn, "TRUNCATE ONLY "+strings.Join(names, ", ONLY ")); err != nil {
		return fmt.Errorf("empty the tables of extensions: %w", err)
	}
	return nil
}

// openIdentities makes GENERATED ALWAYS columns BY DEFAULT while changes are
// replayed: an UPDATE must not name them otherwise. Those of partitions follow their
// parent.
func openIdentities(ctx context.Context, conn *pgx.Conn) error {
	err := run(ctx, conn, `
		INSERT INTO txreel_restore.identities
		SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), quote_ident(a.attname)
		FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE a.attidentity = 'a' AND NOT a.attisdropped AND NOT c.relispartition AND c.relkind IN ('r', 'p');
		DO $$DECLARE i record; BEGIN
			FOR i IN SELECT * FROM txreel_restore.identities LOOP
				EXECUTE 'ALTER TABLE ' || i.tab || ' ALTER COLUMN ' || i.col || ' SET GENERATED BY DEFAULT';
			END LOOP;
		END$$`)
	if err != nil {
		return fmt.Errorf("open identity columns: %w", err)
	}
	return nil
}

// closeIdentities undoes openIdentities.
func closeIdentities(ctx context.Context, conn *pgx.Conn) error {
	err := run(ctx, conn, `
		DO $$DECLARE i record; BEGIN
			FOR i IN DELETE FROM txreel_restore.identities RETURNING * LOOP
				EXECUTE 'ALTER TABLE ' || i.tab || ' ALTER COLUMN ' || i.col || ' SET GENERATED ALWAYS';
			END LOOP;
		END$$`)
	if err != nil {
		return fmt.Errorf("close identity columns: %w", err)
	}
	return nil
}
