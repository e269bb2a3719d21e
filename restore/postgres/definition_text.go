package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/wasilibs/go-pgquery/parser"

	"txreel/sources/postgres/ddl"
)

// attempt is a statement that may be what a command was.
type attempt struct {
	sql   string
	roles []string // that it speaks of
	// skip means that the target does without it.
	skip, subscription bool
	// plain means that its role has no more rights than the target has given it.
	plain bool
	// otherwise means that backslashes in its strings are what the settings say that they are not.
	otherwise bool

	text  string // what it is a statement of
	index int
	tree  node
}

// taken notes where in its text the next command is to be looked for first.
func (a *attempt) taken(d *definer) {
	if a.text != "" {
		d.next[a.text] = a.index + 1
	}
}

// node is a piece of a parse tree, in the words of PostgreSQL's parsenodes.h.
type node map[string]any

// statement is one of a text's.
type statement struct {
	Stmt     node `json:"stmt"`
	Location int  `json:"stmt_location"`
	Length   int  `json:"stmt_len"` // 0 for all the rest
}

// parse takes a text apart, by PostgreSQL's own grammar.
func parse(text string) ([]statement, error) {
	tree, err := parser.ParseToJSON(text)
	if err != nil {
		return nil, err
	}
	var parsed struct{ Stmts []statement }
	if err := json.Unmarshal([]byte(tree), &parsed); err != nil {
		return nil, err
	}
	for i := range parsed.Stmts {
		s := &parsed.Stmts[i]
		if s.Length == 0 {
			s.Length = len(text) - s.Location
		}
		if s.Location < 0 || s.Length < 0 || s.Location+s.Length > len(text) || len(s.Stmt) != 1 {
			return nil, fmt.Errorf("the parser cuts a text of %d bytes at %d to %d", len(text), s.Location, s.Location+s.Length)
		}
	}
	return parsed.Stmts, nil
}

// readyGrammar takes the seconds that the first text costs.
func readyGrammar() {
	_, _ = parse("SELECT 1") // it is the next text that fails
}

// kind returns the name of a node and its content.
func (n node) kind() (string, node) {
	for k, v := range n {
		content, _ := v.(map[string]any)
		return k, content
	}
	return "", nil
}

// walk shows every node below n, with its name.
func (n node) walk(see func(name string, n node)) {
	for name, v := range n {
		switch v := v.(type) {
		case map[string]any:
			see(name, v)
			node(v).walk(see)
		case []any:
			for _, item := range v {
				if m, ok := item.(map[string]any); ok {
					node(m).walk(see)
				}
			}
		}
	}
}

// strings shows every string in n.
func (n node) strings(see func(string)) {
	for _, v := range n {
		switch v := v.(type) {
		case string:
			see(v)
		case map[string]any:
			node(v).strings(see)
		case []any:
			for _, item := range v {
				if m, ok := item.(map[string]any); ok {
					node(m).strings(see)
				}
			}
		}
	}
}

// text returns a string of the node; "" when it has none of that name.
func (n node) text(name string) string {
	s, _ := n[name].(string)
	return s
}

// last returns the last part of a qualified name.
func (n node) last(name string) string {
	parts, _ := n[name].([]any)
	if len(parts) == 0 {
		return ""
	}
	part, _ := parts[len(parts)-1].(map[string]any)
	s, _ := part["String"].(map[string]any)
	return node(s).text("sval")
}

// attempts returns the statements that the command may have been, likely ones first.
func (d *definer) attempts(ctx context.Context, e *ddl.Entry) ([]attempt, error) {
	texts, function, number := e.Texts()
	if function != "" {
		rows, err := d.r.conn.Query(ctx, "SELECT prosrc FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE proname = $1 AND lanname = 'sql'", function)
		if err != nil {
			return nil, fmt.Errorf("look for function %s: %w", function, err)
		}
		if texts, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return nil, fmt.Errorf("look for function %s: %w", function, err)
		}
	}
	var all []attempt
	for _, text := range texts {
		stmts, err := parse(text)
		if err != nil {
			continue // what is behind one quote too many, or newer than the grammar
		}
		var of []attempt
		for i := range stmts {
			if function != "" && i != number-1 {
				continue
			}
			a, fits := newAttempt(text, &stmts[i], e.Tag)
			if _, alters := a.tree["AlterTableStmt"]; fits && (!alters || a.foreign(e, d.drops) == 0) { // what it alters it names
				a.index = i
				of = append(of, a)
			}
		}
		// Commands come in the order of their statements, from where the last one was.
		first := slices.IndexFunc(of, func(a attempt) bool { return a.index >= d.next[text] })
		all = append(append(all, of[max(first, 0):]...), of[:max(first, 0)]...)
	}
	slices.SortStableFunc(all, func(a, b attempt) int { return cmp.Compare(a.foreign(e, d.drops), b.foreign(e, d.drops)) })
	return all, nil
}

// foreign is 1 for a statement that names none of the objects which the command touched, and 0 for others. Functions of one name have the
// same place in a context, and what is done to another object the comparison with the source's catalog does not show.
func (a *attempt) foreign(e *ddl.Entry, drops []ddl.Object) int {
	named := make(map[string]bool)
	a.tree.strings(func(s string) { named[s] = true })
	other := 0
	for _, o := range slices.Concat(e.Objects, drops) {
		if slices.ContainsFunc(o.Names[min(1, max(len(o.Names)-1, 0)):], func(n string) bool { return named[n] }) {
			return 0
		}
		if len(o.Names) > 0 {
			other = 1
		}
	}
	return other
}

// newAttempt makes one of a statement, if it may have been a command with that tag. Its text is the source's own, but for
// what has no place in a restore.
func newAttempt(text string, s *statement, tag string) (a attempt, fits bool) {
	a = attempt{sql: text[s.Location : s.Location+s.Length], text: text, tree: s.Stmt}
	kind, n := s.Stmt.kind()
	verb, _, _ := strings.Cut(tag, " ")
	switch {
	case strings.HasSuffix(kind, "ExtensionStmt"):
		a.skip = !strings.HasSuffix(tag, " EXTENSION") // a command of the extension's script
		return a, true
	case strings.HasSuffix(kind, "SubscriptionStmt"):
		fits = strings.HasSuffix(tag, " SUBSCRIPTION")
		a.skip, a.subscription = true, true
	case kind == "GrantStmt":
		grant, _ := n["is_grant"].(bool)
		fits = grant && tag == "GRANT" || !grant && tag == "REVOKE"
	case kind == "CommentStmt":
		fits = verb == "COMMENT"
	case kind == "RefreshMatViewStmt":
		fits = verb == "REFRESH"
		a.sql = without(a.sql, concurrently)
	case kind == "IndexStmt":
		fits = tag == "CREATE INDEX"
		a.sql = without(a.sql, concurrently, tablespace)
	case kind == "CreateStmt":
		fits = tag == "CREATE TABLE"
		a.sql = without(a.sql, tablespace)
	case kind == "AlterDefaultPrivilegesStmt" || tag == "ALTER DEFAULT PRIVILEGES": // of which the server names no object
		fits = kind == "AlterDefaultPrivilegesStmt" && tag == "ALTER DEFAULT PRIVILEGES"
	case kind == "AlterTableStmt":
		fits = verb == "ALTER"
		a.sql = without(a.sql, concurrently)
		a.skip = moves(n)
	case kind == "RenameStmt", strings.HasPrefix(kind, "Alter"):
		fits = verb == "ALTER"
	case kind == "DropOwnedStmt", kind == "ReassignOwnedStmt", kind == "SecLabelStmt":
		fits = true
	case kind == "ImportForeignSchemaStmt":
		fits = verb == "IMPORT" || verb == "CREATE"
	case strings.HasPrefix(kind, "Create"), strings.HasPrefix(kind, "Define"), kind == "ViewStmt", kind == "RuleStmt", kind == "CompositeTypeStmt":
		fits = verb == "CREATE"
	}
	s.Stmt.walk(func(name string, n node) {
		if name == "RoleSpec" && n.text("roletype") == "ROLESPEC_CSTRING" {
			a.roles = append(a.roles, n.text("rolename"))
		}
	})
	return a, fits
}

// What a fresh server, and a transaction, cannot do, or do otherwise. Whether a text is right without it the comparison with the
// source's catalog tells.
var (
	concurrently = regexp.MustCompile(`(?i)\bCONCURRENTLY\b`)
	tablespace   = regexp.MustCompile(`(?i)\bTABLESPACE\s+("(?:[^"]|"")+"|\w+)`)
)

// without takes the first of each pattern out of a statement.
func without(sql string, patterns ...*regexp.Regexp) string {
	for _, p := range patterns {
		if m := p.FindStringIndex(sql); m != nil {
			sql = sql[:m[0]] + sql[m[1]:]
		}
	}
	return sql
}

// moves reports whether ALTER TABLE does nothing but to put the table into another tablespace.
func moves(n node) bool {
	cmds, _ := n["cmds"].([]any)
	for _, c := range cmds {
		c, _ := c.(map[string]any)
		if _, cmd := node(c).kind(); cmd.text("subtype") != "AT_SetTableSpace" {
			return false
		}
	}
	return len(cmds) > 0
}

// judge notes tables that the command has filled with values which the record does not hold.
func (d *definer) judge(ctx context.Context, e *ddl.Entry, a *attempt) error {
	for i := range d.rewrite {
		o := &d.rewrite[i]
		why := ""
		switch {
		case o.Reason&ddl.RewrittenPersistence != 0:
			switch e.Persistence(o) {
			case "p":
				why = "it was unlogged before, and its rows of that time are in no log"
			case "u": // what becomes of its rows from now on nobody knows
				if len(o.Names) == 2 {
					if err := run(ctx, d.r.conn, "DELETE FROM ONLY "+quote(o.Names...)); err != nil {
						return fmt.Errorf("empty %s, which is unlogged now: %w", o.Identity, err)
					}
				}
			}
		case o.Reason&(ddl.RewrittenDefault|ddl.RewrittenType) != 0:
			repeatable, err := d.repeatable(ctx, a.tree)
			if err != nil {
				return err
			}
			if !repeatable {
				why = "it was filled with values that are computed anew whenever they are asked for, and of which the log holds none"
			}
		}
		if why == "" || len(o.Names) != 2 {
			continue
		}
		_, err := d.r.conn.Exec(ctx, "INSERT INTO txreel_restore.inexact VALUES ($1::regclass, $2, $3)", quote(o.Names...), d.r.seq.String(), why)
		if err != nil {
			return fmt.Errorf("note that %s is not exact: %w", o.Identity, err)
		}
	}
	return nil
}

// repeatable reports whether the expressions of a statement give the same values here as in the source. Sequences do not:
// they number rows in the order in which they lie.
func (d *definer) repeatable(ctx context.Context, tree node) (bool, error) {
	functions := []string{}
	ok := tree != nil
	tree.walk(func(name string, n node) {
		switch name {
		case "FuncCall":
			functions = append(functions, n.last("funcname"))
		case "SQLValueFunction":
			ok = false
		case "Constraint":
			ok = ok && n.text("contype") != "CONSTR_IDENTITY"
		case "typeName", "TypeName":
			ok = ok && !strings.Contains(n.last("names"), "serial")
		}
	})
	if !ok || len(functions) == 0 {
		return ok, nil
	}
	err := d.r.conn.QueryRow(ctx, "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proname = ANY ($1) AND provolatile <> 'i')", functions).Scan(&ok)
	if err != nil {
		return false, fmt.Errorf("look at functions: %w", err)
	}
	return ok, nil
}
