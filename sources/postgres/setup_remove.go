package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"txreel/sources"
)

// PlanRemove says how to undo a setup: let no COMMIT wait, drop the slot, then the publication, then put the replica identities back that
// setup changed. It changes nothing. It refuses while somebody reads the slot.
func (s Setup) PlanRemove(ctx context.Context, conn *pgx.Conn) ([]sources.Statement, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	slot, err := inspectSlot(ctx, conn, s.Slot)
	if err != nil {
		return nil, err
	}
	if slot != nil {
		if err := s.mayDrop(ctx, conn, slot); err != nil {
			return nil, err
		}
	}
	plan, err := s.planUnsync(ctx, conn)
	if err != nil {
		return nil, err
	}
	if slot != nil {
		plan = append(plan, sources.Statement{SQL: "SELECT pg_catalog.pg_drop_replication_slot(" + quoteLiteral(s.Slot) + ")",
			Why: "The server stops keeping WAL for us. What was not captured until now never will be."})
	}
	gone, err := s.planNoDefinitions(ctx, conn)
	if err != nil {
		return nil, err
	}
	plan = append(plan, gone...)
	pub, err := readPublication(ctx, conn, s.Publication)
	if err != nil {
		return nil, err
	}
	if pub != nil {
		plan = append(plan, sources.Statement{SQL: "DROP PUBLICATION " + quoteIdent(s.Publication),
			Why: "Before the identities go, so that no UPDATE or DELETE fails."})
	}
	if gone, err = s.planNoLog(ctx, conn); err != nil {
		return nil, err
	}
	plan = append(plan, gone...)
	record, err := readUndo(ctx, conn, s.undoName())
	if err != nil {
		return nil, err
	}
	if record != nil {
		back, err := s.planUndo(ctx, conn, record)
		if err != nil {
			return nil, err
		}
		plan = append(append(plan, back...), sources.Statement{SQL: "DROP PUBLICATION " + quoteIdent(s.undoName()),
			Why: "The record of what setup changed, no longer needed."})
	}
	if s.Role != "" {
		plan = append(plan, sources.Statement{Why: "Role " + quoteIdent(s.Role) + " stays: other captures may use it. DROP ROLE removes it."})
	}
	return plan, nil
}

// mayDrop refuses a slot that is in use or was never ours.
func (s Setup) mayDrop(ctx context.Context, conn *pgx.Conn, slot *slotFacts) error {
	var db string
	if err := conn.QueryRow(ctx, `SELECT current_database()::text`).Scan(&db); err != nil {
		return fmt.Errorf("look at the database: %w", err)
	}
	switch {
	case slot.user != "":
		return fmt.Errorf("slot %q is in use by %s: stop that capture first", s.Slot, slot.user)
	case slot.plugin != "pgoutput" || slot.database != db:
		return fmt.Errorf("slot %q (plugin %q, database %q) is not a capture's slot of database %q: it stays", s.Slot, slot.plugin, slot.database, db)
	}
	return nil
}

// planUndo puts back each identity that is still as setup made it and that no other publication needs.
func (s Setup) planUndo(ctx context.Context, conn *pgx.Conn, record *undo) ([]sources.Statement, error) {
	var plan []sources.Statement
	for _, e := range record.entries {
		name := quoteIdent(e.schema, e.name)
		sql := "ALTER TABLE " + name + " REPLICA IDENTITY DEFAULT"
		why := "As it was before setup."
		if e.was != 'd' {
			sql = "ALTER TABLE " + name + " REPLICA IDENTITY NOTHING"
		}
		identity, needed, index, err := s.identityNow(ctx, conn, e)
		switch {
		case e.was == 'i' && index:
			sql = "ALTER TABLE " + name + " REPLICA IDENTITY USING INDEX " + quoteIdent(e.index)
		case e.was == 'i':
			why = "Before setup its identity was an index that has been dropped, which is the same as NOTHING."
		}
		switch {
		case err != nil:
			return nil, err
		case identity == "":
			plan = append(plan, sources.Statement{Why: "Table " + name + " is gone or has another name: nothing to put back."})
		case identity != "f":
			plan = append(plan, sources.Statement{Why: "The identity of table " + name + " was changed since setup: it stays as it is."})
		case needed != "":
			plan = append(plan, sources.Statement{Why: "Table " + name + " keeps REPLICA IDENTITY FULL, because publication " + quoteIdent(needed) +
				" needs it. Later: " + sql})
		default:
			if len(plan) == 0 || plan[0] != boundLocks() {
				plan = append([]sources.Statement{boundLocks()}, plan...)
			}
			plan = append(plan, sources.Statement{SQL: sql, Why: why})
		}
	}
	return plan, nil
}

// identityNow returns a table's relreplident, empty if there is no such table, a publication other than ours
// under which its UPDATEs or DELETEs would fail without an identity, and whether the index is there that was its identity before.
func (s Setup) identityNow(ctx context.Context, conn *pgx.Conn, e undoEntry) (identity, neededBy string, index bool, err error) {
	bySchema := ""
	if majorVersion(conn.PgConn()) >= 15 {
		bySchema = `OR EXISTS (SELECT FROM pg_publication_namespace s JOIN pg_class x ON x.relnamespace = s.pnnspid
			WHERE s.pnpubid = p.oid AND (x.oid = c.oid OR x.oid IN (SELECT pg_partition_ancestors(c.oid))))`
	}
	err = conn.QueryRow(ctx, `
		SELECT c.relreplident::text, COALESCE((SELECT min(p.pubname::text) FROM pg_publication p
			WHERE p.pubname <> $3::text AND (p.pubupdate OR p.pubdelete) AND (p.puballtables OR EXISTS (SELECT FROM pg_publication_rel r
				WHERE r.prpubid = p.oid AND (r.prrelid = c.oid OR r.prrelid IN (SELECT pg_partition_ancestors(c.oid)))) `+bySchema+`)), ''),
			EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND x.relname = $4::text)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1::text AND c.relname = $2::text AND c.relkind = 'r'`, e.schema, e.name, s.Publication, e.index).Scan(&identity, &neededBy, &index)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", false, nil
	}
	if err != nil {
		return "", "", false, fmt.Errorf("look at table %s: %w", quoteIdent(e.schema, e.name), err)
	}
	return identity, neededBy, index, nil
}

// Remove runs what PlanRemove says, reporting as Apply does, and then asks the server whether slot and publications are
// gone: it returns nil only if they are.
func (s Setup) Remove(ctx context.Context, conn *pgx.Conn, report func(sources.Statement, error)) error {
	plan, err := s.PlanRemove(ctx, conn)
	if err != nil {
		return err
	}
	if err := execute(ctx, conn, plan, report); err != nil {
		return err
	}
	var slots, publications int
	err = conn.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1::text),
		       (SELECT count(*) FROM pg_publication WHERE pubname IN ($2::text, $3::text))`,
		s.Slot, s.Publication, s.undoName()).Scan(&slots, &publications)
	if err != nil {
		return fmt.Errorf("check that nothing is left: %w", err)
	}
	if slots+publications > 0 {
		return fmt.Errorf("%d slots and %d publications are still there: somebody made them again; run setup --remove again", slots, publications)
	}
	return nil
}
