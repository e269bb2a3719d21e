package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"

	"txreel/sources"
)

const setupFix = "txreel setup --apply"

func (d *doctor) checkPublication(context.Context) error {
	const check = "publication"
	name := quoteIdent(d.opts.Publication)
	p := d.pub
	switch {
	case p == nil:
		d.add(check, sources.SeverityProblem, setupFix, "there is no publication %s: run txreel setup to see what it would do", name)
	case p.filtered > 0 || p.schemas > 0 || !p.allTables && len(p.tables) == 0:
		d.add(check, sources.SeverityProblem, "txreel setup --remove --apply, then "+setupFix, "publication %s leaves out changes or is not one of setup's (%s)", name, p.describe())
	case p.publishesAll() && p.noGenerated:
		d.add(check, sources.SeverityProblem, setupFix, "publication %s leaves out generated columns: the application's UPDATEs and DELETEs fail on every table whose replica identity has one", name)
	case !p.complete():
		d.add(check, sources.SeverityProblem, "ALTER PUBLICATION "+name+" SET ("+publicationOptions(d.major)+"); -- then start a new epoch",
			"publication %s leaves out changes (%s)", name, p.describe())
	default:
		d.add(check, sources.SeverityOK, "", "publication %s publishes every change of %s", name, p.describe())
	}
	return nil
}

// checkIdentities names the tables whose UPDATEs and DELETEs fail because of us, or would.
func (d *doctor) checkIdentities(ctx context.Context) error {
	const check = "replica identity"
	keyless, err := keylessTables(ctx, d.conn, d.chosen)
	if err != nil {
		return err
	}
	if len(keyless) == 0 {
		d.add(check, sources.SeverityOK, "", "every table has an identity for its UPDATEs and DELETEs")
		return nil
	}
	published := d.pub != nil && (d.pub.update || d.pub.delete)
	var names, fixes []string
	for _, k := range keyless {
		switch {
		case k.generated != "" && published:
			d.add(check, sources.SeverityProblem, setupFix, "table %s %s: a restore stops where it does not say which row was updated or deleted", k.quoted(), k.untold())
		case k.generated != "":
			d.add(check, sources.SeverityWarning, setupFix, "table %s %s: txreel setup gives it REPLICA IDENTITY FULL", k.quoted(), k.untold())
		case k.virtual == "":
			fixes = append(fixes, "ALTER TABLE "+k.quoted()+" REPLICA IDENTITY FULL;")
			names = append(names, k.quoted())
		case published:
			d.add(check, sources.SeverityProblem, setupFix, "the application's UPDATEs and DELETEs on table %s fail now: %s", k.quoted(), k.unpublishable())
		default:
			d.add(check, sources.SeverityWarning, setupFix, "publishing table %s would make the application's UPDATEs and DELETEs on it fail: %s", k.quoted(), k.unpublishable())
		}
	}
	if len(names) == 0 {
		return nil
	}
	fix := "SET lock_timeout = '2s'; " + strings.Join(fixes, " ")
	count, listing := len(names), listed(names[:min(len(names), 10)], len(names))
	if published {
		d.add(check, sources.SeverityProblem, fix, "%d published tables have no key, so the application's UPDATEs and DELETEs on them fail now: %s", count, listing)
		return nil
	}
	d.add(check, sources.SeverityWarning, fix, "%d tables have no key; publishing them as they are would make the application's UPDATEs and DELETEs on them fail: %s. "+
		"txreel setup mends them first, and remembers to undo it", count, listing)
	return nil
}

func (d *doctor) checkSlot(context.Context) error {
	const check = "slot"
	name, s := d.opts.Slot, d.slot
	drop := "SELECT pg_drop_replication_slot(" + quoteLiteral(name) + ");"
	switch {
	case s == nil:
		d.add(check, sources.SeverityOK, "", "slot %s does not exist yet; the first capture creates it", name)
	case s.plugin != "pgoutput" || s.database != d.db:
		d.add(check, sources.SeverityProblem, "choose another name with --slot", "slot %s belongs to plugin %q and database %q, not to a capture of this database", name, s.plugin, s.database)
	case d.pub == nil:
		d.add(check, sources.SeverityProblem, drop+" -- then txreel setup --apply, and a new epoch", "slot %s exists without its publication: the server cannot read what it kept", name)
	case s.walStatus == "lost":
		d.add(check, sources.SeverityProblem, drop+" -- then start a new epoch", "slot %s is lost (%s): the server removed WAL that capture had not read", name, orUnknown(s.lostWhy))
	case s.walStatus == "unreserved":
		d.add(check, sources.SeverityWarning, "start capture now", "slot %s has passed its limit of WAL and may be lost at the next checkpoint; %s are kept for it", name, humanize.IBytes(uint64(max(s.retained, 0))))
	case s.twoPhase:
		d.add(check, sources.SeverityProblem, drop+" -- then start a new epoch", "slot %s decodes prepared transactions before they commit, which capture does not expect", name)
	case s.user != "":
		d.add(check, sources.SeverityOK, "", "slot %s is read by %s; the server keeps %s of WAL for it", name, s.user, humanize.IBytes(uint64(max(s.retained, 0))))
	default:
		d.add(check, sources.SeverityNote, "start capture, or txreel setup --remove --apply", "nobody reads slot %s; the server keeps %s of WAL for it, and more with every write",
			name, humanize.IBytes(uint64(max(s.retained, 0))))
	}
	return nil
}

func orUnknown(s string) string {
	if s == "" {
		return "max_slot_wal_keep_size"
	}
	return s
}

// checkOldTransactions names open write transactions, anywhere on the server: creating a slot waits for each.
func (d *doctor) checkOldTransactions(ctx context.Context) error {
	type old struct{ what, age, fix string }
	rows, err := d.conn.Query(ctx, `
		SELECT format('prepared transaction %L of %I in database %I', gid, owner, database), date_trunc('second', now() - prepared)::text,
		       format('in database %I: ROLLBACK PREPARED %L; -- or COMMIT PREPARED', database, gid)
		FROM pg_prepared_xacts WHERE prepared < now() - make_interval(secs => $1::float8)
		UNION ALL
		SELECT format('process %s of %I in database %I (%s)', pid, usename, datname, state), date_trunc('second', now() - xact_start)::text,
		       format('SELECT pg_terminate_backend(%s); -- rolls its transaction back', pid)
		FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND xact_start < now() - make_interval(secs => $1::float8)
		LIMIT 20`, d.opts.OldTransaction.Seconds())
	if err != nil {
		return err
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (old, error) {
		var o old
		err := row.Scan(&o.what, &o.age, &o.fix)
		return o, err
	})
	if err != nil {
		return err
	}
	for _, o := range found {
		d.add("old transactions", sources.SeverityWarning, o.fix, "%s is open for %s: the creation of a slot waits for its end, and WAL is kept meanwhile", o.what, o.age)
	}
	if len(found) == 0 {
		d.add("old transactions", sources.SeverityOK, "", "no write transaction is older than %v", fmt.Sprint(d.opts.OldTransaction))
	}
	return nil
}
