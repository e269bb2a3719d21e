package mysql

import (
	"context"
	"fmt"
	"strings"

	"txreel/sources"
)

// usersTables is the condition that picks the users' tables t of information_schema.TABLES.
const usersTables = `t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')
	AND t.TABLE_SCHEMA NOT IN ` + systemSchemas

// keylessTable is a table none of whose keys tells its rows apart.
type keylessTable struct {
	schema, name string
	partitioned  bool
	counter      string // its AUTO_INCREMENT column, of which a table can have one, or empty
	taken        bool   // it has a column my_row_id already
}

func (k keylessTable) quoted() string { return quoteIdent(k.schema, k.name) }

// fix is the statement that gives the table a key, empty where that takes a choice or cannot be shown.
func (k keylessTable) fix() string {
	switch {
	case k.partitioned, !typable(k.schema + k.name + k.counter):
		return ""
	case k.counter != "":
		return "ALTER TABLE " + k.quoted() + " ADD PRIMARY KEY (" + quoteIdent(k.counter) + ")"
	case k.taken:
		return "ALTER TABLE " + k.quoted() + " ADD COLUMN txreel_row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY INVISIBLE FIRST"
	}
	return "ALTER TABLE " + k.quoted() + " ADD COLUMN my_row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY INVISIBLE FIRST"
}

// numbering is what whoever adds such a column has to know: rows are numbered in the order the server meets them, which
// is not the same everywhere.
const numbering = "before the first capture, or with a base taken at once afterwards: a replay may number the rows otherwise, and later changes would meet the wrong ones"

// keylessTables finds the tables that have neither a primary key nor a unique one without NULLs.
func keylessTables(ctx context.Context, conn *Conn) ([]keylessTable, error) {
	r, err := conn.Query(ctx, `
		SELECT t.TABLE_SCHEMA, t.TABLE_NAME, COALESCE(t.CREATE_OPTIONS, '') LIKE '%partitioned%',
		       (SELECT MAX(c.COLUMN_NAME) FROM information_schema.COLUMNS c
		        WHERE c.TABLE_SCHEMA = t.TABLE_SCHEMA AND c.TABLE_NAME = t.TABLE_NAME AND c.EXTRA LIKE '%auto_increment%'),
		       EXISTS (SELECT 1 FROM information_schema.COLUMNS c
		        WHERE c.TABLE_SCHEMA = t.TABLE_SCHEMA AND c.TABLE_NAME = t.TABLE_NAME AND c.COLUMN_NAME = 'my_row_id')
		FROM information_schema.TABLES t LEFT JOIN (
			SELECT DISTINCT k.TABLE_SCHEMA, k.TABLE_NAME FROM (
				SELECT s.TABLE_SCHEMA, s.TABLE_NAME, s.INDEX_NAME FROM information_schema.STATISTICS s WHERE s.NON_UNIQUE = 0
				GROUP BY s.TABLE_SCHEMA, s.TABLE_NAME, s.INDEX_NAME HAVING SUM(s.NULLABLE = 'YES') = 0) k) keyed
		     ON keyed.TABLE_SCHEMA = t.TABLE_SCHEMA AND keyed.TABLE_NAME = t.TABLE_NAME
		WHERE `+usersTables+` AND keyed.TABLE_NAME IS NULL ORDER BY t.TABLE_SCHEMA, t.TABLE_NAME`)
	if err != nil {
		return nil, fmt.Errorf("look for tables without a key: %w", err)
	}
	var found []keylessTable
	for _, row := range r.Rows {
		found = append(found, keylessTable{schema: row[0].String(), name: row[1].String(), partitioned: row[2].String() == "1",
			counter: row[3].String(), taken: row[4].String() == "1"})
	}
	return found, nil
}

func (d *doctor) checkKeys(ctx context.Context) error {
	const check = "primary keys"
	keyless, err := keylessTables(ctx, d.conn)
	if err != nil {
		return err
	}
	if len(keyless) == 0 {
		d.add(check, sources.SeverityOK, "", "every table has a key%s", d.visibleOnly())
		return nil
	}
	var names, fixes []string
	for _, k := range keyless {
		names = append(names, k.quoted())
		if sql := k.fix(); sql != "" {
			fixes = append(fixes, sql+";")
		}
	}
	fix := "add a PRIMARY KEY, which in a partitioned table must hold the partitioning columns"
	if len(fixes) > 0 {
		fix = statements(fixes, numbering)
	}
	future := ""
	if _, has := d.vars["sql_generate_invisible_primary_key"]; has && !d.on("sql_generate_invisible_primary_key") {
		future = ". With sql_generate_invisible_primary_key = ON, tables made from now on get one by themselves"
	}
	d.add(check, sources.SeverityWarning, fix, "%d tables have no key that tells their rows apart: %s. A replay reads the whole table for every row that was updated or deleted%s", len(keyless), listed(names), future)
	return nil
}

// visibleOnly warns that information_schema shows an account what it may see.
func (d *doctor) visibleOnly() string {
	if d.grants.has("SELECT") {
		return ""
	}
	return ", of those that this user may see"
}

// tables lists the users' tables that meet a condition.
func (d *doctor) tables(ctx context.Context, condition string) ([][2]string, error) {
	r, err := d.conn.Query(ctx, `SELECT t.TABLE_SCHEMA, t.TABLE_NAME, COALESCE(t.ENGINE, '?') FROM information_schema.TABLES t
		WHERE `+usersTables+` AND `+condition+` ORDER BY t.TABLE_SCHEMA, t.TABLE_NAME`)
	if err != nil {
		return nil, err
	}
	var found [][2]string
	for _, row := range r.Rows {
		found = append(found, [2]string{quoteIdent(row[0].String(), row[1].String()), row[2].String()})
	}
	return found, nil
}

func (d *doctor) checkEngines(ctx context.Context) error {
	const check = "storage engines"
	found, err := d.tables(ctx, `COALESCE(t.ENGINE, '?') <> 'InnoDB'`)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		d.add(check, sources.SeverityOK, "", "every table is kept by InnoDB%s", d.visibleOnly())
		return nil
	}
	var names, fixes []string
	for _, t := range found {
		names = append(names, t[0]+" ("+t[1]+")")
		if typable(t[0]) {
			fixes = append(fixes, "ALTER TABLE "+t[0]+" ENGINE = InnoDB;")
		}
	}
	d.add(check, sources.SeverityWarning, statements(fixes, ""), "%d tables are not kept by InnoDB: %s. They have no snapshots, so a base reads them as they are while others write, "+
		"and their changes stay when a transaction rolls back", len(found), listed(names))
	return nil
}

// uncutLimit is from where on a table that is read in one piece keeps others waiting.
const uncutLimit = 1 << 30

// checkUncut names large tables that a base cannot read in parts (see baseTable.ranges).
func (d *doctor) checkUncut(ctx context.Context) error {
	found, err := d.uncut(ctx, uncutLimit)
	if err != nil || len(found) == 0 {
		return err
	}
	d.add("tables read in one piece", sources.SeverityWarning, "", "%d large tables have no primary key that begins with a whole number: %s. A base reads each of them in one piece; "+
		"an ALTER TABLE that comes meanwhile waits for some seconds, and everybody who wants the table waits behind it. Then the base gives way and starts over, which it does twice: take bases when no such statement comes", len(found), listed(found))
	return nil
}

func (d *doctor) uncut(ctx context.Context, bytes int64) ([]string, error) {
	found, err := d.tables(ctx, fmt.Sprintf(`t.ENGINE = 'InnoDB' AND t.DATA_LENGTH >= %d AND (t.TABLE_TYPE = 'SYSTEM VERSIONED' OR NOT EXISTS (
		SELECT 1 FROM information_schema.STATISTICS s JOIN information_schema.COLUMNS c
		ON c.TABLE_SCHEMA = s.TABLE_SCHEMA AND c.TABLE_NAME = s.TABLE_NAME AND c.COLUMN_NAME = s.COLUMN_NAME
		WHERE s.TABLE_SCHEMA = t.TABLE_SCHEMA AND s.TABLE_NAME = t.TABLE_NAME AND s.INDEX_NAME = 'PRIMARY' AND s.SEQ_IN_INDEX = 1 AND c.DATA_TYPE LIKE '%%int'))`, bytes))
	var names []string
	for _, t := range found {
		names = append(names, t[0])
	}
	return names, err
}

// checkCascades names foreign keys whose effects on other tables the binlog does not show.
func (d *doctor) checkCascades(ctx context.Context) error {
	const check = "cascading foreign keys"
	native := d.mariadb || d.conn.Number < 90600 || d.on("innodb_native_foreign_keys")
	r, err := d.conn.Query(ctx, `
		SELECT c.CONSTRAINT_SCHEMA, c.TABLE_NAME, c.CONSTRAINT_NAME, EXISTS (
			SELECT 1 FROM information_schema.TRIGGERS g WHERE g.EVENT_OBJECT_SCHEMA = c.CONSTRAINT_SCHEMA AND g.EVENT_OBJECT_TABLE = c.TABLE_NAME
			AND g.EVENT_MANIPULATION IN ('UPDATE', 'DELETE'))
		FROM information_schema.REFERENTIAL_CONSTRAINTS c
		WHERE c.UPDATE_RULE IN ('CASCADE', 'SET NULL') OR c.DELETE_RULE IN ('CASCADE', 'SET NULL') ORDER BY 1, 2, 3`)
	if err != nil {
		return err
	}
	var names, triggered []string
	for _, row := range r.Rows {
		name := quoteIdent(row[0].String(), row[1].String()) + "." + quoteIdent(row[2].String())
		names = append(names, name)
		if row[3].String() == "1" {
			triggered = append(triggered, name)
		}
	}
	switch {
	case len(names) == 0 || !native:
		d.add(check, sources.SeverityOK, "", "no change by a foreign key is missing from the binlog%s", d.visibleOnly())
	case d.mariadb || d.conn.Number < 90600:
		fix := ""
		if !d.mariadb {
			fix = "upgrade to MySQL 9.6 or newer, which logs them"
		}
		d.add(check, sources.SeverityWarning, fix, "%d foreign keys change or delete rows of other tables, and those changes are not in the binlog: %s. A restore repeats them and is exact; an audit does not show them", len(names), listed(names))
	default:
		d.add(check, sources.SeverityWarning, d.set.static("innodb_native_foreign_keys", "OFF"), "%d foreign keys change or delete rows of other tables, and with innodb_native_foreign_keys = ON those changes are not in the binlog: %s. "+
			"A restore repeats them and is exact; an audit does not show them", len(names), listed(names))
	}
	if len(triggered) > 0 {
		fires := "do not fire"
		if d.on("enable_cascade_triggers") {
			fires = "fire, with enable_cascade_triggers = ON,"
		}
		d.add("foreign keys and triggers", sources.SeverityNote, "", "the tables of %s have triggers, which %s for rows that the foreign key changes; a restore does the same only while its target is set alike", listed(triggered), fires)
	}
	return nil
}

// checkEvents says what becomes of events, which act by themselves.
func (d *doctor) checkEvents(ctx context.Context) error {
	r, err := d.conn.Query(ctx, "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS ORDER BY 1, 2")
	if err != nil || len(r.Rows) == 0 {
		return err
	}
	var names []string
	for _, row := range r.Rows {
		names = append(names, quoteIdent(row[0].String(), row[1].String()))
	}
	d.add("events", sources.SeverityNote, "", "%d events (%s), and event_scheduler is %s: what they do is recorded; in a restore they stay switched off until it is finished", len(names), listed(names), strings.ToUpper(d.vars["event_scheduler"]))
	return nil
}
