package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"txreel/sources"
)

// Setup is what a source database needs before its first capture: a publication whose tables can all be updated and
// deleted from, and a role to read with. The replication slot is not made here: it is born with the first base, after
// the publication, because a slot that remembers a time without its publication can never be read.
type Setup struct {
	// Publication is the name of the publication, at most 58 bytes.
	Publication string
	// Slot is the name of the capture's slot; Remove drops it.
	Slot string
	// Role is the role capture will log in as. Empty means that roles are not touched.
	Role string
	// NoDefinitions leaves out the log of definitions, which takes a role that may make event triggers.
	NoDefinitions bool
	// Sync also gives it what zero-loss mode takes.
	Sync bool
	// Tables are the tables to record, each with its schema and quoted as in SQL: public.orders, "My"."Table".
	// Empty means all tables, also future ones, which takes a superuser to set up.
	Tables []string
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// undoSuffix names the second publication, see undo.
const undoSuffix = "_undo"

func (s Setup) validate() error {
	switch {
	case s.Publication == "" || len(s.Publication) > 63-len(undoSuffix):
		return fmt.Errorf("publication name %q: want 1 to %d bytes", s.Publication, 63-len(undoSuffix))
	case !slotName.MatchString(s.Slot):
		return fmt.Errorf("slot name %q: want 1 to 63 lower-case letters, digits and underscores", s.Slot)
	case len(s.Role) > 63:
		return fmt.Errorf("role name %q: want at most 63 bytes", s.Role)
	case strings.ContainsRune(s.Publication+s.Role, 0):
		return errors.New("a name holds a zero byte")
	}
	return nil
}

// Plan says what is missing, as statements in the order to run them; nothing when the database is ready. It changes
// nothing. Running the statements, and planning again, gives nothing.
func (s Setup) Plan(ctx context.Context, conn *pgx.Conn) ([]sources.Statement, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	tables, err := resolveTables(ctx, conn, s.Tables)
	if err != nil {
		return nil, err
	}
	pub, err := readPublication(ctx, conn, s.Publication)
	if err != nil {
		return nil, err
	}
	if pub == nil {
		slot, err := inspectSlot(ctx, conn, s.Slot)
		if err != nil {
			return nil, err
		}
		// Slots belong to the server, publications to a database: a slot of another
		// database is none of this one's business.
		if slot != nil && slot.database == conn.Config().Database {
			return nil, fmt.Errorf("slot %q exists but publication %q does not: the server could never read that slot's past; "+
				"run `txreel setup --remove`, then set up again and capture with --new-epoch", s.Slot, s.Publication)
		}
	}
	var plan []sources.Statement
	for _, part := range []func() ([]sources.Statement, error){
		func() ([]sources.Statement, error) { return s.planRole(ctx, conn) },
		func() ([]sources.Statement, error) { return s.planSync(ctx, conn) },
		func() ([]sources.Statement, error) { return s.planIdentities(ctx, conn, tables) },
		func() ([]sources.Statement, error) { return s.planDefinitions(ctx, conn) },
		func() ([]sources.Statement, error) { return s.planPublication(ctx, conn, pub, tables) },
	} {
		more, err := part()
		if err != nil {
			return nil, err
		}
		plan = append(plan, more...)
	}
	return plan, nil
}

// generatedSince is the major version from which on a publication decides about generated columns: without the stored
// ones, nobody can update a table whose identity has one, as every FULL has that the table has.
const generatedSince = 18

// publicationOptions publishes everything, as the tables that hold the rows: with the partition root's name a
// TRUNCATE of one partition would vanish.
func publicationOptions(major int) string {
	options := "publish = 'insert, update, delete, truncate', publish_via_partition_root = false"
	if major >= generatedSince {
		options += ", publish_generated_columns = stored"
	}
	return options
}

func (s Setup) planPublication(ctx context.Context, conn *pgx.Conn, pub *publicationFacts, tables []tableName) ([]sources.Statement, error) {
	name, options := quoteIdent(s.Publication), publicationOptions(majorVersion(conn.PgConn()))
	if len(tables) > 0 {
		l, err := readDefinitionLog(ctx, conn)
		if err != nil {
			return nil, err
		}
		if l.there() || l.may && !s.NoDefinitions {
			log, err := logTable(ctx, conn)
			if err != nil {
				return nil, err
			}
			tables = append(slices.Clone(tables), log)
		}
	}
	if pub == nil {
		sql := "CREATE PUBLICATION " + name + " FOR ALL TABLES"
		why := "Publish all tables, also future ones. It comes after the identity fixes, so that no UPDATE or DELETE fails for want " +
			"of an identity, and before the slot, which could not be read otherwise. Only a superuser can."
		if len(tables) > 0 {
			sql = "CREATE PUBLICATION " + name + " FOR TABLE " + joinTables(tables)
			why = "Publish the chosen tables, after their identity fixes and before the slot. Tables created later are not recorded."
		}
		return []sources.Statement{{SQL: sql + " WITH (" + options + ")", Why: why}}, nil
	}
	if pub.allTables != (len(tables) == 0) || pub.schemas > 0 || pub.filtered > 0 {
		return nil, fmt.Errorf("publication %q exists and is not what setup would make (%s): choose another name with --publication, "+
			"or drop it with txreel setup --remove --apply", s.Publication, pub.describe())
	}
	var plan []sources.Statement
	var missing []tableName
	for _, t := range tables {
		if !pub.tables[t.oid] {
			missing = append(missing, t)
		}
	}
	if len(missing) > 0 {
		plan = append(plan, sources.Statement{SQL: "ALTER PUBLICATION " + name + " ADD TABLE " + joinTables(missing),
			Why: "Publish the tables that are not yet. If capture runs already, take a new base afterwards: what happened to them before is not in the record."})
	}
	switch {
	case pub.complete():
	case pub.publishesAll():
		plan = append(plan, sources.Statement{SQL: "ALTER PUBLICATION " + name + " SET (publish_generated_columns = stored)",
			Why: "Without the stored generated columns, UPDATE and DELETE fail on every table whose replica identity has one. Capture, if it runs, takes a new base."})
	default:
		plan = append(plan, sources.Statement{SQL: "ALTER PUBLICATION " + name + " SET (" + options + ")",
			Why: "Publish every kind of change (" + pub.describe() + "). If capture runs already, start a new epoch afterwards: the record so far lacks some."})
	}
	return plan, nil
}

func joinTables(tables []tableName) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.quoted()
	}
	return strings.Join(names, ", ")
}
