package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"txreel/sources"
	"txreel/sources/postgres/ddl"
)

// definitionLog is what matters of the log of definitions.
type definitionLog struct {
	version  string // what the function's comment says; "" when there is none
	triggers map[string]string
	may      bool // the session's role may make event triggers
	super    bool
}

func (l *definitionLog) there() bool { return strings.HasPrefix(l.version, ddl.Mark) }

// complete reports whether nothing escapes the log.
func (l *definitionLog) complete() bool {
	for _, t := range ddl.Triggers() {
		if l.triggers[t.Name] != "A" {
			return false
		}
	}
	return l.there()
}

func readDefinitionLog(ctx context.Context, conn *pgx.Conn) (*definitionLog, error) {
	l := &definitionLog{triggers: make(map[string]string)}
	err := conn.QueryRow(ctx, `
		SELECT COALESCE(pg_catalog.obj_description(pg_catalog.to_regprocedure($1), 'pg_proc'), ''), r.rolsuper,
		       r.rolsuper OR EXISTS (SELECT FROM pg_catalog.pg_roles x WHERE x.rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin') AND pg_catalog.pg_has_role(r.oid, x.oid, 'MEMBER'))
		FROM pg_catalog.pg_roles r WHERE r.rolname = current_user`, ddl.Function).Scan(&l.version, &l.super, &l.may)
	if err != nil {
		return nil, fmt.Errorf("look at the log of definitions: %w", err)
	}
	if !l.there() {
		return l, nil
	}
	rows, err := conn.Query(ctx, `SELECT evtname::text, evtenabled::text FROM pg_catalog.pg_event_trigger WHERE evtfoid = pg_catalog.to_regprocedure($1)`, ddl.Function)
	if err != nil {
		return nil, fmt.Errorf("look at event triggers: %w", err)
	}
	var name, enabled string
	if _, err := pgx.ForEachRow(rows, []any{&name, &enabled}, func() error { l.triggers[name] = enabled; return nil }); err != nil {
		return nil, fmt.Errorf("look at event triggers: %w", err)
	}
	return l, nil
}

// planDefinitions makes the log of definitions, where the role may: the stream has rows, and nothing of what their tables are.
func (s Setup) planDefinitions(ctx context.Context, conn *pgx.Conn) ([]sources.Statement, error) {
	if s.NoDefinitions {
		return nil, nil
	}
	l, err := readDefinitionLog(ctx, conn)
	if err != nil || !l.may {
		return nil, err
	}
	var plan []sources.Statement
	if l.version != ddl.Version() {
		if l.version != "" && !l.there() {
			return nil, fmt.Errorf("there is a function %s which is not txreel's: rename it, or run setup with --no-ddl", ddl.Function)
		}
		plan = append(plan, sources.Statement{SQL: strings.TrimSuffix(strings.TrimSpace(ddl.Install(l.super)), ";"),
			Why: "The log of definitions: changes of the schema are not in the stream. Functions write down what each command did, in the command's own transaction; they never make one fail."})
	}
	for _, t := range ddl.Triggers() {
		if _, ok := l.triggers[t.Name]; !ok {
			plan = append(plan, sources.Statement{SQL: "CREATE EVENT TRIGGER " + t.Name + " ON " + t.Event + " EXECUTE FUNCTION " + ddl.Function,
				Why: "Calls them."})
		}
		if l.triggers[t.Name] != "A" {
			plan = append(plan, sources.Statement{SQL: "ALTER EVENT TRIGGER " + t.Name + " ENABLE ALWAYS",
				Why: "Also in sessions with session_replication_role = replica."})
		}
	}
	if s.Role == "" {
		return plan, nil
	}
	var granted bool
	err = conn.QueryRow(ctx, `SELECT COALESCE((SELECT pg_catalog.has_table_privilege(r.oid, c.oid, 'DELETE') AND pg_catalog.has_schema_privilege(r.oid, c.relnamespace, 'USAGE')
		FROM pg_catalog.pg_roles r, pg_catalog.pg_class c WHERE r.rolname = $1 AND c.oid = pg_catalog.to_regclass('txreel.ddl_log')), false)`, s.Role).Scan(&granted)
	if err != nil {
		return nil, fmt.Errorf("look at the log of definitions: %w", err)
	}
	if !granted {
		name := quoteIdent(s.Role)
		plan = append(plan, sources.Statement{SQL: "GRANT USAGE ON SCHEMA txreel TO " + name + "; GRANT SELECT, DELETE ON txreel.ddl_log TO " + name,
			Why: "Capture removes rows that the archive holds. It cannot add any: what the log says, has happened."})
	}
	return plan, nil
}

// planNoDefinitions stops the log, and planNoLog removes it, once the publication is gone.
func (s Setup) planNoDefinitions(ctx context.Context, conn *pgx.Conn) ([]sources.Statement, error) {
	l, err := readDefinitionLog(ctx, conn)
	if err != nil || !l.there() {
		return nil, err
	}
	var plan []sources.Statement
	for _, t := range ddl.Triggers() {
		if _, ok := l.triggers[t.Name]; ok {
			plan = append(plan, sources.Statement{SQL: "DROP EVENT TRIGGER " + t.Name, Why: "Changes of definitions are not written down any more."})
		}
	}
	return plan, nil
}

func (s Setup) planNoLog(ctx context.Context, conn *pgx.Conn) ([]sources.Statement, error) {
	l, err := readDefinitionLog(ctx, conn)
	if err != nil || !l.there() {
		return nil, err
	}
	rows, err := conn.Query(ctx, `SELECT n.nspname::text, c.relname::text, COALESCE(i.relname::text, '') FROM txreel.identities x JOIN pg_catalog.pg_class c ON c.oid = x.relid
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_catalog.pg_class i ON i.oid = (pg_catalog.to_jsonb(x) ->> 'index')::oid WHERE c.relreplident = 'f' ORDER BY 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("look at identities: %w", err)
	}
	var plan []sources.Statement
	var t tableName
	var index string
	_, err = pgx.ForEachRow(rows, []any{&t.schema, &t.name, &index}, func() error {
		if len(plan) == 0 {
			plan = append(plan, boundLocks())
		}
		sql := "ALTER TABLE " + t.quoted() + " REPLICA IDENTITY DEFAULT"
		if index != "" {
			sql = "ALTER TABLE " + t.quoted() + " REPLICA IDENTITY USING INDEX " + quoteIdent(index)
		}
		plan = append(plan, sources.Statement{SQL: sql, Why: "It was made FULL when the table came to be without a key."})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at identities: %w", err)
	}
	return append(plan, sources.Statement{SQL: "DROP SCHEMA " + ddl.Schema + " CASCADE", Why: "The log of definitions and the functions that wrote it."}), nil
}

// logTable is the log's table as setup publishes it, where tables are published by name.
func logTable(ctx context.Context, conn *pgx.Conn) (tableName, error) {
	t := tableName{schema: ddl.Schema, name: ddl.Table}
	var oid *uint32
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.to_regclass($1)::oid", t.quoted()).Scan(&oid); err != nil {
		return t, fmt.Errorf("look at the log of definitions: %w", err)
	}
	if oid != nil {
		t.oid = *oid
	}
	return t, nil
}
