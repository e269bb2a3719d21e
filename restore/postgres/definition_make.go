package postgres

import (
	"encoding/json"
	"fmt"
	"strings"

	"txreel/sources/postgres/ddl"
)

// described is the part of a relation's description that a table is made from.
type described struct {
	Is struct {
		Persistence string   `json:"persistence"`
		Method      string   `json:"method"`
		Options     []string `json:"options"`
		Columns     []struct {
			Name      string `json:"name"`
			Type      string `json:"type"`
			Collation string `json:"collation"`
		} `json:"columns"`
	} `json:"is"`
}

// tableSQL makes a table from its description, as CREATE TABLE AS makes it: columns, and no constraints.
func tableSQL(o *ddl.Object) (string, error) {
	var s described
	if err := json.Unmarshal(o.State, &s); err != nil || len(o.Names) != 2 {
		return "", fmt.Errorf("the log of definitions does not describe %s %s as a table", o.Kind, o.Identity)
	}
	var columns []string
	for _, c := range s.Is.Columns {
		column := quote(c.Name) + " " + c.Type
		if c.Collation != "" {
			column += " COLLATE " + c.Collation
		}
		columns = append(columns, column)
	}
	sql := "CREATE TABLE "
	if s.Is.Persistence == "u" {
		sql = "CREATE UNLOGGED TABLE "
	}
	sql += quote(o.Names...) + " (" + strings.Join(columns, ", ") + ")"
	if s.Is.Method != "" {
		sql += " USING " + quote(s.Is.Method)
	}
	if len(s.Is.Options) > 0 {
		sql += " WITH (" + strings.Join(s.Is.Options, ", ") + ")"
	}
	return sql, nil
}

// dropSQL drops what a command named, and all that went with it.
func dropSQL(dropped []ddl.Object) string {
	var b strings.Builder
	for i := range dropped {
		o := &dropped[i]
		if !o.Original || strings.HasSuffix(o.Type, "of access method") { // an extension's own, or what ALTER OPERATOR FAMILY tells
			continue
		}
		kind := strings.ToUpper(o.Type)
		switch o.Type {
		case "foreign-data wrapper":
			kind = "FOREIGN DATA WRAPPER"
		case "statistics object":
			kind = "STATISTICS"
		}
		name := o.Identity
		switch o.Type {
		case "trigger", "rule", "policy": // the parts of the address are the table and the name
			last := len(o.Names) - 1
			name = quote(o.Names[last]) + " ON " + quote(o.Names[:last]...)
		}
		fmt.Fprintf(&b, "DROP %s IF EXISTS %s CASCADE;\n", kind, name)
	}
	return b.String()
}
