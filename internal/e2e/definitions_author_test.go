package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"txreel/internal/dbtest"
)

// author writes statements at random, most of them about what there is.
type author struct {
	*rand.Rand
	there struct {
		Relations []relation
		Types     []userType
		Functions []string // with their arguments
		Schemas   []string
		Triggered []string // names of functions that triggers may call
	}
}

// relation is a table, view or sequence; all names are quoted as SQL wants them.
type relation struct {
	Schema, Name, Kind, Persistence, Parent string
	Columns                                 []struct{ Name, Type, Class, Made string }
	Constraints, Indexes, Triggers          []string
	Rules, Policies                         []string
	Statistics                              []string
}

func (r *relation) String() string { return r.Schema + "." + r.Name }

type userType struct {
	Name, Class string
	Labels      []string
	Attributes  []string
	Constraints []string
}

// thereSQL reads what an author needs to know.
const thereSQL = `SELECT json_build_object(
	'Relations', (SELECT coalesce(json_agg(json_build_object('Schema', quote_ident(n.nspname), 'Name', quote_ident(c.relname), 'Kind', c.relkind, 'Persistence', c.relpersistence,
		'Parent', (SELECT min(inhparent::regclass::text) FROM pg_inherits WHERE inhrelid = c.oid),
		'Columns', (SELECT json_agg(json_build_object('Name', quote_ident(attname), 'Type', format_type(atttypid, NULL), 'Class', typtype, 'Made', attgenerated::text || attidentity::text) ORDER BY attnum)
			FROM pg_attribute JOIN pg_type t ON t.oid = atttypid WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND c.relkind <> 'S'),
		'Constraints', (SELECT json_agg(quote_ident(conname) ORDER BY conname) FROM pg_constraint WHERE conrelid = c.oid AND contype <> 't'),
		'Indexes', (SELECT json_agg(quote_ident(x.relname) ORDER BY x.relname) FROM pg_index JOIN pg_class x ON x.oid = indexrelid WHERE indrelid = c.oid),
		'Triggers', (SELECT json_agg(quote_ident(tgname) ORDER BY tgname) FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal),
		'Rules', (SELECT json_agg(quote_ident(rulename) ORDER BY rulename) FROM pg_rewrite WHERE ev_class = c.oid AND rulename <> '_RETURN'),
		'Policies', (SELECT json_agg(quote_ident(polname) ORDER BY polname) FROM pg_policy WHERE polrelid = c.oid),
		'Statistics', (SELECT json_agg(quote_ident(stxnamespace::regnamespace::text) || '.' || quote_ident(stxname) ORDER BY stxname) FROM pg_statistic_ext WHERE stxrelid = c.oid)
		) ORDER BY n.nspname, c.relname), '[]') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'txreel') AND n.nspname NOT LIKE 'pg\_%'),
	'Types', (SELECT coalesce(json_agg(json_build_object('Name', quote_ident(n.nspname) || '.' || quote_ident(typname), 'Class', typtype,
		'Labels', (SELECT json_agg(quote_literal(enumlabel) ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid),
		'Attributes', (SELECT json_agg(quote_ident(attname) ORDER BY attnum) FROM pg_attribute WHERE attrelid = typrelid AND attnum > 0 AND NOT attisdropped),
		'Constraints', (SELECT json_agg(quote_ident(conname) ORDER BY conname) FROM pg_constraint WHERE contypid = t.oid)) ORDER BY n.nspname, typname), '[]')
		FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
		WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'txreel') AND n.nspname NOT LIKE 'pg\_%' AND (typtype IN ('e', 'd') OR typtype = 'c' AND (SELECT relkind FROM pg_class WHERE oid = typrelid) = 'c')),
	'Functions', (SELECT coalesce(json_agg(quote_ident(n.nspname) || '.' || quote_ident(proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')' ORDER BY n.nspname, proname, pg_get_function_identity_arguments(p.oid)), '[]')
		FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'txreel') AND prokind = 'f' AND prorettype <> 'trigger'::regtype),
	'Triggered', (SELECT coalesce(json_agg(quote_ident(n.nspname) || '.' || quote_ident(proname) ORDER BY n.nspname, proname), '[]')
		FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'txreel') AND prorettype = 'trigger'::regtype),
	'Schemas', (SELECT json_agg(quote_ident(nspname) ORDER BY nspname) FROM pg_namespace WHERE nspname NOT IN ('information_schema', 'txreel') AND nspname NOT LIKE 'pg\_%'))`

// look reads what there is.
func (a *author) look(t *testing.T, pg *dbtest.Postgres, db string) {
	t.Helper()
	a.there.Relations, a.there.Types = nil, nil // absent keys would keep what was there
	if err := json.Unmarshal([]byte(pg.MustQuery(t, db, thereSQL)[0][0]), &a.there); err != nil {
		t.Fatal(err)
	}
}

// one is one of several, at random; "" of none.
func (a *author) one(of ...string) string {
	if len(of) == 0 {
		return ""
	}
	return of[a.IntN(len(of))]
}

// maybe is text in one of n cases.
func (a *author) maybe(n int, text string) string {
	if a.IntN(n) == 0 {
		return text
	}
	return ""
}

func (a *author) schema() string { return a.one(append(a.there.Schemas, "public", "public")...) }

// name is a new one, or one that was used before: "t" and such say what for.
func (a *author) name(prefix string) string {
	if a.IntN(12) == 0 {
		return a.one(`"Odd `+prefix+`"`, `"a ""`+prefix+`"`, `"é`+prefix+`"`, `"`+prefix+`'s"`)
	}
	return fmt.Sprintf("%s%d", prefix, a.IntN(12))
}

func (a *author) fresh(prefix string) string { return a.schema() + "." + a.name(prefix) }

// relation is one of those kinds; nil when there is none.
func (a *author) relation(kinds string) *relation {
	var all []*relation
	for i := range a.there.Relations {
		if r := &a.there.Relations[i]; strings.Contains(kinds, r.Kind) {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[a.IntN(len(all))]
}

// column is one of a relation's.
func (a *author) column(r *relation) string {
	if len(r.Columns) == 0 {
		return "c0"
	}
	return r.Columns[a.IntN(len(r.Columns))].Name
}

// userType is one of a class; "" when there is none.
func (a *author) userType(class string) (found userType) {
	n := 0
	for _, t := range a.there.Types {
		if t.Class == class {
			if n++; a.IntN(n) == 0 {
				found = t
			}
		}
	}
	return found
}

func (a *author) typ() string {
	if a.IntN(5) == 0 {
		if t := a.userType(a.one("e", "d", "c")); t.Name != "" {
			return t.Name + a.maybe(5, "[]")
		}
	}
	return a.one("int", "int", "int", "bigint", "text", "text", "text", "varchar(20)", "numeric(10,2)", "boolean", "date", "jsonb", "uuid", "int[]", "bytea", "float8", "timestamptz", "char(3)", "interval", "int4range")
}

// literal is a value of a type.
func (a *author) literal(typ, class string) string {
	if a.IntN(12) == 0 {
		return "NULL"
	}
	n := a.IntN(40)
	if class == "e" {
		for _, t := range a.there.Types {
			if strings.HasSuffix(t.Name, "."+typ) || t.Name == typ {
				return a.one(append(t.Labels, "NULL")...)
			}
		}
	}
	switch {
	case strings.HasSuffix(typ, "[]"):
		return a.one("'{}'", "NULL", "'{NULL}'")
	case class == "d" || strings.Contains(typ, "int") && typ != "interval" && typ != "int4range", typ == "double precision", typ == "numeric":
		return fmt.Sprint(n)
	}
	switch typ {
	case "boolean":
		return a.one("true", "false")
	case "date":
		return fmt.Sprintf("'2024-01-%02d'", 1+n%28)
	case "timestamp with time zone":
		return fmt.Sprintf("'2024-01-%02d 12:00+00'", 1+n%28)
	case "jsonb":
		return fmt.Sprintf(`'{"a": %d}'`, n)
	case "uuid":
		return fmt.Sprintf("'00000000-0000-0000-0000-0000000000%02d'", n)
	case "bytea":
		return fmt.Sprintf(`'\x%02d'`, n)
	case "interval":
		return fmt.Sprintf("'%d hours'", n)
	case "int4range":
		return fmt.Sprintf("'[%d,%d)'", n, n+5)
	case "text", "character varying":
		if a.IntN(30) == 0 {
			return "repeat('long ', 2000)"
		}
		return a.one(fmt.Sprintf("'v%d'", n), "''", "'it''s'", `'back\slash'`)
	case "character":
		return fmt.Sprintf("'%d'", n)
	}
	return "NULL"
}

// client is what a client sends: one string after another, in one session.
func (a *author) client() []string {
	var send []string
	if a.IntN(8) == 0 {
		send = append(send, a.one(`SET search_path = `+a.schema()+`, public`, `SET search_path = "$user", public`, `SET ROLE `+a.one(authorRoles...), `SET standard_conforming_strings = off`, `SET datestyle = 'German'`, `SET default_toast_compression = 'pglz'`))
	}
	statements := func(n int) (s []string) {
		for range n {
			s = append(s, a.statement())
		}
		return s
	}
	some := func() []string { return statements(2 + a.IntN(4)) }
	switch a.IntN(12) {
	case 0, 1, 2: // a transaction, with savepoints
		send = append(send, "BEGIN")
		for _, s := range some() {
			send = append(send, "SAVEPOINT s", s)
			if a.IntN(6) == 0 {
				send = append(send, "ROLLBACK TO s")
			}
		}
		return append(send, a.one("COMMIT", "COMMIT", "COMMIT", "ROLLBACK"))
	case 3: // several in one string
		return append(send, strings.Join(some(), ";\n"))
	case 4:
		return append(send, "BEGIN; "+strings.Join(some(), ";\n")+a.one("; COMMIT", "; COMMIT", "; ROLLBACK"))
	case 5:
		return append(send, "DO $do$ BEGIN\n"+strings.Join(some(), ";\n")+";\nEND $do$")
	case 6: // some of it fails, and is taken back
		var b strings.Builder
		for _, s := range some() {
			b.WriteString("BEGIN " + s + "; EXCEPTION WHEN OTHERS THEN NULL; END;\n")
		}
		return append(send, "DO $do$ BEGIN\n"+b.String()+"END $do$")
	case 7:
		return append(send, "DO $do$ BEGIN\nEXECUTE $x$"+a.statement()+"$x$; EXECUTE $x$"+a.statement()+"; "+a.statement()+"$x$;\nEND $do$")
	case 8:
		name := a.fresh("f")
		return append(send, "CREATE OR REPLACE FUNCTION "+name+"(int) RETURNS void LANGUAGE plpgsql AS $f$ BEGIN\n"+strings.Join(statements(2), ";\n")+"; EXECUTE $x$"+a.statement()+"$x$; END $f$", "SELECT "+name+"(1)", a.maybe(3, "DROP FUNCTION "+name+"(int)"))
	case 9:
		name := a.fresh("f")
		return append(send, "SET check_function_bodies = off", "CREATE OR REPLACE FUNCTION "+name+"() RETURNS void LANGUAGE sql AS $f$ "+strings.Join(statements(3), ";\n")+" $f$", "SELECT "+name+"()")
	}
	return append(send, statements(1+a.IntN(3))...)
}

var authorRoles = []string{"author_1", "author_2", `"Author 3"`}

// statement is one, about something.
func (a *author) statement() string {
	for {
		if s := a.try(); s != "" {
			return s
		}
	}
}

func (a *author) try() string {
	switch a.IntN(20) {
	case 0, 1:
		return a.makeTable()
	case 2, 3, 4, 5, 6:
		return a.alterTable()
	case 7, 8, 9, 10, 11:
		return a.changeRows()
	case 12:
		return a.index()
	case 13:
		return a.viewOrFunction()
	case 14:
		return a.triggerOrPolicy()
	case 15:
		return a.typeOrDomain()
	case 16:
		return a.sequence()
	case 17:
		return a.rights()
	case 18:
		return a.comment()
	}
	return a.drop()
}
