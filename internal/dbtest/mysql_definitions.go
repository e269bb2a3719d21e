package dbtest

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// systemDatabases are the servers' own.
func systemDatabases() []string {
	return []string{"mysql", "sys", "information_schema", "performance_schema"}
}

// ours is a condition on the column that names an object's database.
func (r *mysqlReader) ours(column string) string {
	var names []string
	for _, name := range append(systemDatabases(), r.opts.SkipDatabases...) {
		names = append(names, quoteText(name))
	}
	return column + " NOT IN (" + strings.Join(names, ", ") + ")"
}

// definitions fills in what SHOW CREATE says of all that is in databases, and returns the tables that have content.
func (r *mysqlReader) definitions(ctx context.Context) ([]mysqlTable, error) {
	rows, err := namedRows(ctx, r.conn, "SELECT SCHEMA_NAME AS name FROM information_schema.SCHEMATA WHERE "+r.ours("SCHEMA_NAME"))
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if err := r.define(ctx, "DATABASE", quoteName(row["name"])); err != nil {
			return nil, err
		}
	}
	tables, err := r.tables(ctx)
	if err != nil {
		return nil, err
	}
	for _, query := range []string{
		"SELECT ROUTINE_SCHEMA AS db, ROUTINE_NAME AS name, ROUTINE_TYPE AS kind, '' AS place FROM information_schema.ROUTINES WHERE " + r.ours("ROUTINE_SCHEMA"),
		"SELECT EVENT_SCHEMA AS db, EVENT_NAME AS name, 'EVENT' AS kind, '' AS place FROM information_schema.EVENTS WHERE " + r.ours("EVENT_SCHEMA"),
		// Of the triggers of one event the order matters, and SHOW CREATE is silent about it.
		"SELECT TRIGGER_SCHEMA AS db, TRIGGER_NAME AS name, 'TRIGGER' AS kind, CAST(ACTION_ORDER AS CHAR) AS place FROM information_schema.TRIGGERS WHERE " + r.ours("TRIGGER_SCHEMA"),
	} {
		rows, err := namedRows(ctx, r.conn, query)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			name := quoteName(row["db"]) + "." + quoteName(row["name"])
			if err := r.define(ctx, row["kind"], name); err != nil {
				return nil, err
			}
			if row["place"] != "" {
				r.dump.Definitions["TRIGGER "+name] += "\nfires as number " + row["place"]
			}
		}
	}
	return tables, nil
}

// tables defines tables, views and sequences.
func (r *mysqlReader) tables(ctx context.Context) ([]mysqlTable, error) {
	rows, err := namedRows(ctx, r.conn, "SELECT TABLE_SCHEMA AS db, TABLE_NAME AS name, TABLE_TYPE AS kind FROM information_schema.TABLES WHERE "+
		r.ours("TABLE_SCHEMA"))
	if err != nil {
		return nil, err
	}
	var tables []mysqlTable
	for _, row := range rows {
		t := mysqlTable{database: row["db"], table: row["name"], versioned: row["kind"] == "SYSTEM VERSIONED"}
		switch kind := row["kind"]; kind {
		case "VIEW", "SEQUENCE":
			err = r.define(ctx, kind, t.name())
		case "BASE TABLE", "SYSTEM VERSIONED":
			err = r.define(ctx, "TABLE", t.name())
		default:
			err = fmt.Errorf("%s is a %s, which is nothing we know", t.name(), kind)
		}
		if err != nil {
			return nil, err
		}
		if row["kind"] != "VIEW" {
			tables = append(tables, t)
		}
	}
	return tables, nil
}

// define notes what SHOW CREATE says of one object.
func (r *mysqlReader) define(ctx context.Context, kind, name string) error {
	// When a trigger was made says nothing about what it is.
	definition, err := r.show(ctx, "SHOW CREATE "+kind+" "+name, "Created")
	if err != nil {
		return err
	}
	if kind == "TABLE" && r.opts.IgnoreAutoIncrement {
		definition = regexp.MustCompile(`(?m)^(\) ENGINE=\S+) AUTO_INCREMENT=\d+`).ReplaceAllString(definition, "$1")
	}
	r.dump.Definitions[kind+" "+name] = definition
	return nil
}

// accounts notes users, roles and grants.
func (r *mysqlReader) accounts(ctx context.Context) error {
	query := "SELECT User AS user, Host AS host, 'N' AS role FROM mysql.user"
	if r.mariadb {
		query = "SELECT User AS user, Host AS host, is_role AS role FROM mysql.user"
	}
	rows, err := namedRows(ctx, r.conn, query)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if slices.Contains([]string{"root", "mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys"}, row["user"]) {
			continue
		}
		if row["role"] == "Y" {
			name := quoteName(row["user"])
			if r.dump.Definitions["ROLE "+name], err = r.show(ctx, "SHOW GRANTS FOR "+name); err != nil {
				return err
			}
			continue
		}
		name := quoteText(row["user"]) + "@" + quoteText(row["host"])
		user, err := r.show(ctx, "SHOW CREATE USER "+name)
		if err != nil {
			return err
		}
		grants, err := r.show(ctx, "SHOW GRANTS FOR "+name)
		if err != nil {
			return err
		}
		r.dump.Definitions["USER "+name] = user + "\n" + grants
	}
	return nil
}
