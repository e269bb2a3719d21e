package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"txreel/archive"
	"txreel/sources/mysql/mybase"
)

// systemSchemas are the servers' own databases. txreel_restore is what a restore notes in
// its target; an instance that was restored and goes on as a source may still have it.
const systemSchemas = "('mysql', 'information_schema', 'performance_schema', 'sys', 'ndbinfo', 'txreel_restore')"

// readDefinitions reads what is not rows, while the readers hold the snapshot. What
// changes definitions is held back meanwhile, or FinishBase finds it in the record.
func (b *baseRun) readDefinitions(ctx context.Context) error {
	if err := b.readObjects(ctx); err != nil {
		return err
	}
	if !b.held {
		set, err := b.control.executed(ctx)
		if err != nil {
			return err
		}
		b.engine.DefinedUntil = set.String()
	}
	if !b.BlockDDL {
		return b.unlockInstance(ctx)
	}
	return nil
}

// readObjects reads all definitions.
func (b *baseRun) readObjects(ctx context.Context) error {
	// What stored programs are written in stays as it is.
	if err := b.control.Exec(ctx, "SET SESSION character_set_results = NULL"); err != nil {
		return wrapSQL("prepare a session of the base", err)
	}
	for _, read := range []func(context.Context) error{b.readDatabases, b.readTables, b.readViews, b.readRoutines, b.readTriggers, b.readEvents, b.readAccounts} {
		if err := read(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *baseRun) readDatabases(ctx context.Context) error {
	r, err := b.control.Query(ctx, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN "+systemSchemas+" ORDER BY SCHEMA_NAME")
	if err != nil {
		return wrapSQL("list the databases", err)
	}
	for _, row := range r.Rows {
		name := row[0].String()
		create, err := b.control.QueryRow(ctx, "SHOW CREATE DATABASE "+mybase.Quote(name))
		if err != nil {
			return wrapSQL("read the definition of database "+name, err)
		}
		b.schema.Databases = append(b.schema.Databases, mybase.Database{Name: name, SQL: create[1].String()})
	}
	return nil
}

// show reads the statement that makes an object, and the settings it belongs to.
func (b *baseRun) show(ctx context.Context, kind, schema, name string) (d mybase.Definition, ok bool, err error) {
	d = mybase.Definition{Kind: kind, Schema: schema, Name: name}
	r, err := b.control.Query(ctx, "SHOW CREATE "+strings.ToUpper(kind)+" "+mybase.Quote(schema, name))
	if err == nil && len(r.Rows) == 0 {
		err = ErrNoRows
	}
	if err != nil {
		return d, false, wrapSQL("read the definition of "+kind+" "+mybase.Quote(schema, name), err)
	}
	var text Value
	for i, c := range r.Columns {
		v := r.Rows[0][i]
		switch column := strings.ToLower(c.Name); {
		case strings.HasPrefix(column, "create ") || column == "sql original statement":
			text = v
		case column == "sql_mode":
			mode := v.String()
			d.Mode = &mode
		case column == "character_set_client":
			d.Client = v.String()
		case column == "collation_connection":
			d.Connection = v.String()
		case column == "database collation":
			d.Database = v.String()
		case column == "time_zone":
			d.Zone = v.String()
		}
	}
	d.SQL = mybase.Text(text)
	return d, !text.Null(), nil
}

// hidden puts on record that a definition cannot be read (Invariant 9).
func (b *baseRun) hidden(d *mybase.Definition) {
	b.cover(archive.Missing, d.Kind+" "+mybase.Quote(d.Schema, d.Name), "its definition cannot be read: GRANT SELECT ON *.* TO "+b.access.user+", and, for routines, GRANT SHOW_ROUTINE (MariaDB: SHOW CREATE ROUTINE) ON *.* TO "+b.access.user)
}

func (b *baseRun) cover(class, what, detail string) {
	b.coverage = append(b.coverage, archive.Coverage{Class: class, What: what, Detail: detail})
}

func (b *baseRun) readViews(ctx context.Context) error {
	r, err := b.control.Query(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'VIEW' AND TABLE_SCHEMA NOT IN "+systemSchemas+" ORDER BY 1, 2")
	if err != nil {
		return wrapSQL("list the views", err)
	}
	for _, row := range r.Rows {
		d, ok, err := b.show(ctx, "view", row[0].String(), row[1].String())
		if err != nil {
			return err
		}
		if !ok {
			b.hidden(&d)
			continue
		}
		switch err := b.control.Exec(ctx, "SELECT 1 FROM "+mybase.Quote(d.Schema, d.Name)+" LIMIT 0"); {
		case isCode(err, 1356, 1146, 1054, 1449, 1305):
			d.Broken = true
			b.cover(archive.Bounded, "view "+mybase.Quote(d.Schema, d.Name), "it does not work in the source ("+err.Error()+"); a restore tries to make it and may not be able to")
		case err != nil && !isServer(err):
			return err
		}
		b.schema.Views = append(b.schema.Views, d)
	}
	return nil
}

func (b *baseRun) readRoutines(ctx context.Context) error {
	r, err := b.control.Query(ctx, "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA NOT IN "+systemSchemas+
		" ORDER BY ROUTINE_TYPE = 'PACKAGE' DESC, 1, 2, 3")
	if err != nil {
		return wrapSQL("list the routines", err)
	}
	for _, row := range r.Rows {
		d, ok, err := b.show(ctx, strings.ToLower(row[2].String()), row[0].String(), row[1].String())
		if err != nil && !denied(err) && !isCode(err, 1305) {
			return err
		}
		if !ok {
			b.hidden(&d)
			continue
		}
		b.schema.Routines = append(b.schema.Routines, d)
	}
	return nil
}

func (b *baseRun) readTriggers(ctx context.Context) error {
	r, err := b.control.Query(ctx, "SELECT TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA NOT IN "+systemSchemas+
		" ORDER BY 1, 3, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER")
	if err != nil {
		return wrapSQL("list the triggers", err)
	}
	for _, row := range r.Rows {
		d, ok, err := b.show(ctx, "trigger", row[0].String(), row[1].String())
		if err != nil {
			return err
		}
		if !ok {
			b.hidden(&d)
			continue
		}
		d.Table = row[2].String()
		b.schema.Triggers = append(b.schema.Triggers, d)
	}
	return nil
}

func (b *baseRun) readEvents(ctx context.Context) error {
	r, err := b.control.Query(ctx, "SELECT EVENT_SCHEMA, EVENT_NAME, STATUS, UNIX_TIMESTAMP(LAST_ALTERED) FROM information_schema.EVENTS WHERE EVENT_SCHEMA NOT IN "+systemSchemas+" ORDER BY 1, 2")
	if err != nil {
		return wrapSQL("list the events", err)
	}
	b.engine.Events = []mybase.EventState{}
	for _, row := range r.Rows {
		d, ok, err := b.show(ctx, "event", row[0].String(), row[1].String())
		if err != nil {
			return err
		}
		if !ok {
			b.hidden(&d)
			continue
		}
		if d.Altered, err = row[3].Int(); err != nil {
			return fmt.Errorf("event %s: when it was altered: %w", mybase.Quote(d.Schema, d.Name), err)
		}
		b.engine.Events = append(b.engine.Events, mybase.EventState{Schema: d.Schema, Name: d.Name, Status: strings.ReplaceAll(row[2].String(), " ", "_")})
		b.schema.Events = append(b.schema.Events, d)
	}
	return nil
}

// readAccounts reads users and roles with the hashes of their passwords, and what they
// were granted.
func (b *baseRun) readAccounts(ctx context.Context) error {
	c := b.control
	sql := "SELECT User, Host, 'N' FROM mysql.user WHERE User NOT IN ('mysql.sys', 'mysql.session', 'mysql.infoschema') ORDER BY 1, 2"
	if c.mariaDB() {
		sql = "SELECT User, Host, is_role FROM mysql.user WHERE User <> 'mariadb.sys' ORDER BY is_role DESC, 1, 2"
	}
	r, err := c.Query(ctx, sql)
	if denied(err) {
		b.noAccounts(err)
		return nil
	}
	if err != nil {
		return wrapSQL("list the accounts", err)
	}
	for _, row := range r.Rows {
		a := mybase.Account{User: row[0].String(), Host: row[1].String(), Role: row[2].String() == "Y"}
		name := quoteLiteral(a.User) + "@" + quoteLiteral(a.Host)
		if a.Role {
			name, a.Host = mybase.Quote(a.User), ""
		}
		public := a.Role && strings.EqualFold(a.User, "PUBLIC")
		switch {
		case public:
			name = "PUBLIC"
		case a.Role:
			a.Create = "CREATE ROLE " + name
		default:
			create, err := c.QueryRow(ctx, "SHOW CREATE USER "+name)
			if denied(err) {
				b.noAccounts(err)
				return nil
			}
			if err != nil {
				return wrapSQL("read account "+name, err)
			}
			a.Create = create[0].String()
		}
		grants, err := c.Query(ctx, "SHOW GRANTS FOR "+name)
		if denied(err) {
			b.noAccounts(err)
			return nil
		}
		if err != nil && !isCode(err, 1141) {
			return wrapSQL("read the privileges of "+name, err)
		}
		if err == nil {
			for _, g := range grants.Rows {
				a.Grants = append(a.Grants, g[0].String())
			}
		}
		b.accounts.Accounts = append(b.accounts.Accounts, a)
	}
	return nil
}

func (b *baseRun) noAccounts(err error) {
	b.accounts = mybase.Accounts{Missing: err.Error()}
	b.cover(archive.Missing, "users, roles and privileges", "they cannot be read ("+err.Error()+"): GRANT SELECT ON mysql.* TO "+b.access.user)
}

// columnsOf finds the columns of a table in a listing of all.
func columnsOf(all map[string][]mybase.Column, schema, name string) []mybase.Column {
	return slices.Clone(all[schema+"\x00"+name])
}
