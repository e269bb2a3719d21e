package mysql

import (
	"context"
	"fmt"
	"strings"

	"txreel/archive"
	"txreel/sources/mysql/mybase"
)

// describe stores the definitions and fills in what the manifest says besides tables.
func (b *baseRun) describe(ctx context.Context) error {
	set, err := b.control.executed(ctx)
	if err != nil {
		return err
	}
	b.engine.ReadUntil = set.String()
	if b.engine.DefinedUntil == "" {
		b.engine.DefinedUntil = string(b.base.Position)
	}
	b.coverTables()
	if err := b.readMissing(ctx); err != nil {
		return err
	}
	if err := b.putDefinitions(ctx); err != nil {
		return err
	}
	b.base.Server, b.base.Coverage = b.control.Version, b.coverage
	b.base.Engine, err = marshal(&b.engine)
	return err
}

// putDefinitions stores what is not rows.
func (b *baseRun) putDefinitions(ctx context.Context) error {
	if err := b.putJSON(ctx, mybase.SchemaObject, &b.schema); err != nil {
		return err
	}
	return b.putJSON(ctx, mybase.AccountsObject, &b.accounts)
}

// coverTables says what of the server the base and the record behind it hold, and how
// exactly (Invariant 9).
func (b *baseRun) coverTables() {
	e := &b.engine
	rule := map[mybase.Rule]string{
		mybase.RuleLogStatus:   "performance_schema.log_status before, and the same place in the log after all sessions had their view",
		mybase.RuleGTIDBracket: "the same place in the log and the same gtid_executed before and after all sessions had their view, compared with the record",
		mybase.RuleAligned:     "all sessions' views stand at the same place in the log",
		mybase.RuleReadLock:    "FLUSH TABLES WITH READ LOCK while the sessions took their views",
		mybase.RuleRestored:    "a server into which the record was restored",
	}[e.Rule]
	b.cover(archive.Exact, "rows of InnoDB tables", fmt.Sprintf("as of GTID set %s, %s:%d: %s", b.base.Position, e.File, e.Offset, rule))
	var others, versioned, elsewhere []string
	json := false
	for _, t := range b.tables {
		if t.elsewhere {
			elsewhere = append(elsewhere, t.quoted()+" ("+t.Engine+")")
		} else if !t.Transactional {
			others = append(others, t.quoted()+" ("+t.Engine+")")
		}
		if t.Versioned {
			versioned = append(versioned, t.quoted())
		}
		for i := range t.Columns {
			json = json || !b.control.mariaDB() && strings.EqualFold(t.Columns[i].Type, "json")
		}
	}
	if len(others) > 0 {
		b.cover(archive.Bounded, "rows of tables without transactions", "they are as of the moment they were read, a little after the snapshot; a change in between is replayed on top of itself, and a restore may refuse it: "+some(others))
	}
	if len(elsewhere) > 0 {
		b.cover(archive.Missing, "rows of tables that only show others", "the base has their definitions: "+some(elsewhere))
	}
	if len(versioned) > 0 {
		b.cover(archive.Exact, "system-versioned tables", "with their history: "+some(versioned))
	}
	if json {
		b.cover(archive.Bounded, "types inside JSON", "the base holds JSON as text, as mysqldump does: a DECIMAL that a statement put into a document comes back as a DOUBLE, a date or binary value as a string; what is written later is exact")
	}
	if len(b.schema.Sequences) > 0 {
		b.cover(archive.Bounded, "sequences", "as of the moment they were read, a little after the snapshot: never behind, and what they had cached is skipped")
	}
	b.cover(archive.Bounded, "next AUTO_INCREMENT values", "as of the moment they were read, a little after the snapshot: never behind")
	b.cover(archive.Bounded, "states of events", "recorded with the base; ALTER EVENT in the record changes them, the scheduler's own runs do not")
	b.cover(archive.Missing, "changes made with sql_log_bin = 0", "the server does not log them: they are in a base that is taken later, and in no point before it")
	if b.control.mariaDB() || b.control.Number < 90600 {
		b.cover(archive.Bounded, "rows changed by cascading foreign keys", "they are not in the log of this version; a restore's server changes them again by itself, exactly; an export of changes does not show them")
	}
	b.cover(archive.Missing, "the server's own databases", "mysql, sys and performance_schema besides accounts: time zone tables, plugins, loadable functions, servers (CREATE SERVER), settings, statistics")
}

// some lists names, not too many of them.
func some(names []string) string {
	const most = 10
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// readMissing names objects that exist and are not in the base.
func (b *baseRun) readMissing(ctx context.Context) error {
	looks := []struct{ what, sql, detail string }{
		{"loadable functions", "SELECT name FROM mysql.func", "install their libraries and CREATE FUNCTION … SONAME on the target"},
		{"servers of federated tables", "SELECT Server_name FROM mysql.servers", "CREATE SERVER on the target"},
	}
	if !b.control.mariaDB() {
		looks = append(looks, []struct{ what, sql, detail string }{
			{"general tablespaces", "SELECT DISTINCT TABLESPACE_NAME FROM information_schema.FILES WHERE FILE_TYPE = 'TABLESPACE' AND FILE_NAME NOT LIKE '%/%/%' AND TABLESPACE_NAME NOT IN ('mysql', 'sys') AND TABLESPACE_NAME NOT LIKE '%/%' AND TABLESPACE_NAME NOT LIKE 'innodb\\_%'",
				"CREATE TABLESPACE on the target before restoring, or its tables are refused"},
			{"libraries of stored programs", "SELECT LIBRARY_NAME FROM information_schema.LIBRARIES WHERE LIBRARY_SCHEMA NOT IN " + systemSchemas, "CREATE LIBRARY on the target"},
			{"resource groups", "SELECT RESOURCE_GROUP_NAME FROM information_schema.RESOURCE_GROUPS WHERE RESOURCE_GROUP_NAME NOT IN ('USR_default', 'SYS_default', 'SYS_internal')", "CREATE RESOURCE GROUP on the target"},
		}...)
	}
	for _, l := range looks {
		r, err := b.control.Query(ctx, l.sql)
		if isServer(err) { // not there in this version, or not to be seen
			continue
		}
		if err != nil {
			return wrapSQL("look for "+l.what, err)
		}
		var names []string
		for _, row := range r.Rows {
			names = append(names, row[0].String())
		}
		if len(names) > 0 {
			b.cover(archive.Missing, l.what, some(names)+": "+l.detail)
		}
	}
	return nil
}
