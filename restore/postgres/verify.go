package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"txreel/restore"
)

// Verify implements restore.Target.
func (t *Target) Verify(ctx context.Context) (_ *restore.Verification, err error) {
	defer t.lost(&err)
	seq, want, err := t.state(ctx)
	if err != nil {
		return nil, err
	}
	if seq != t.job.Plan.Seq {
		return nil, fmt.Errorf("the target holds transaction %s, the plan ends at %s", seq, t.job.Plan.Seq)
	}
	tables, err := t.compareTables(ctx, want)
	if err != nil {
		return nil, err
	}
	if err := t.findUnsound(ctx); err != nil {
		return nil, err
	}
	if err := t.compareSchemas(ctx); err != nil {
		return nil, err
	}
	if len(t.job.Plan.Definitions) > 0 {
		if err := t.warnInexact(ctx); err != nil {
			return nil, err
		}
		if major(t.control.PgConn()) != t.engine.ServerVersion/10000 {
			t.warn("what the schema became was not compared with the source's, after each of %d transactions that change it: another major version describes it in other words", len(t.job.Plan.Definitions))
		}
	} else if err := t.compareExtensions(ctx); err != nil {
		return nil, err
	}
	if err := t.compareCollation(ctx); err != nil {
		return nil, err
	}
	made, err := t.makeSettings(ctx) // the last of all: our own sessions begin with them too
	if err != nil {
		return nil, err
	}
	_, merged, err := t.readMerged(ctx)
	if err != nil {
		return nil, err
	}
	return &restore.Verification{Tables: tables, Sequences: t.sequences, Globals: made, Folded: t.folded, Merged: merged, Warnings: t.warnings}, nil
}

// findUnsound warns of constraints and indexes that do not hold for every row. The
// source may have had them so.
func (t *Target) findUnsound(ctx context.Context) error {
	rows, err := t.control.Query(ctx, `
		SELECT 'constraint ' || quote_ident(conname) || ' of ' || conrelid::regclass::text || ' is NOT VALID, as in the source'
		FROM pg_catalog.pg_constraint WHERE NOT convalidated
		UNION ALL
		SELECT 'index ' || indexrelid::regclass::text || ' is not valid: a partition lacks its part, as in the source'
		FROM pg_catalog.pg_index WHERE NOT indisvalid
		ORDER BY 1`)
	if err != nil {
		return fmt.Errorf("look at constraints: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look at constraints: %w", err)
	}
	t.warnings = append(t.warnings, found...)
	return nil
}

// compareCollation warns of a server whose operating system, or ICU, sorts text in another way than the source's did, by the versions
// that both give for the database's own locale. Indexes are right all the same: they were built here.
func (t *Target) compareCollation(ctx context.Context) error {
	if t.engine.Globals == nil || t.engine.Globals.Database.CollationVersion == "" {
		return nil // C, or before PostgreSQL 15
	}
	was := &t.engine.Globals.Database
	var provider, locale, version string
	err := t.control.QueryRow(ctx, `SELECT coalesce(d ->> 'datlocprovider', ''), coalesce(d ->> 'datlocale', d ->> 'daticulocale', d ->> 'datcollate'), coalesce(d ->> 'datcollversion', '')
		FROM (SELECT pg_catalog.to_jsonb(x) FROM pg_catalog.pg_database x WHERE x.datname = pg_catalog.current_database()) y(d)`).Scan(&provider, &locale, &version)
	if err != nil {
		return fmt.Errorf("look at the database's collation: %w", err)
	}
	if version != "" && version != was.CollationVersion && provider == was.Provider && (locale == was.Collate || locale == was.Locale) {
		t.warn("text is sorted by version %s of the locale %s, and by version %s in the source: ORDER BY, and what partitions and constraints make of the order, may differ", version, locale, was.CollationVersion)
	}
	return nil
}

func (t *Target) compareExtensions(ctx context.Context) error {
	for _, e := range t.engine.Extensions {
		var version string
		err := t.control.QueryRow(ctx, "SELECT coalesce((SELECT extversion FROM pg_catalog.pg_extension WHERE extname = $1), '')", e.Name).Scan(&version)
		if err != nil {
			return fmt.Errorf("look at extensions: %w", err)
		}
		switch version {
		case e.Version:
		case "":
			t.warn("extension %s %s of the source is not in the target", e.Name, e.Version)
		default:
			t.warn("extension %s has version %s, in the source it had %s", e.Name, version, e.Version)
		}
	}
	return nil
}
