package postgres

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"txreel/archive"
	"txreel/sources/postgres/ddl"
	"txreel/sources/postgres/pgbase"
)

// readEngine reads what a restore needs besides schema and rows.
func readEngine(ctx context.Context, conn *pgx.Conn, publication string) (*pgbase.Engine, error) {
	e := &pgbase.Engine{}
	err := conn.QueryRow(ctx, `
		select pg_catalog.current_setting('server_version_num')::int, pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
		       array(select r.rolname::text from pg_catalog.pg_roles r
		              where r.oid = 10 or r.oid in (select s.refobjid from pg_catalog.pg_shdepend s
		                    where s.dbid in (0, d.oid) and s.refclassid = 'pg_catalog.pg_authid'::regclass
		                      and (s.dbid = d.oid or s.classid = 'pg_catalog.pg_database'::regclass and s.objid = d.oid))
		              order by 1),
		       array(select p.oid::bigint from pg_catalog.pg_publication p where p.pubname::text in ($1::text, $1::text || '_undo'))
		  from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()`, publication).
		Scan(&e.ServerVersion, &e.Encoding, &e.Collate, &e.Ctype, &e.Roles, &e.Publications)
	if err != nil {
		return nil, wrapSQL("describe the database", err)
	}
	if e.Extensions, err = collect[pgbase.Extension](ctx, conn, `select extname::text as name, extversion as version from pg_catalog.pg_extension order by 1`); err != nil {
		return nil, err
	}
	if e.MatViews, err = collect[pgbase.Name](ctx, conn, `
		select n.nspname::text as schema, c.relname::text as name from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		 where c.relkind = 'm' and c.relispopulated order by c.oid`); err != nil {
		return nil, err
	}
	if e.Sequences, err = readSequences(ctx, conn); err != nil {
		return nil, err
	}
	e.Definitions, err = readDefinitions(ctx, conn)
	return e, err
}

func collect[T any](ctx context.Context, conn *pgx.Conn, sql string) ([]T, error) {
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, wrapSQL("describe the database", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[T])
	return all, wrapSQL("describe the database", err)
}

// readSequences reads the state of every sequence. It is not under the snapshot's
// rule: a sequence shows what it has handed out by now, which is at least what it
// had at the snapshot.
func readSequences(ctx context.Context, conn *pgx.Conn) ([]pgbase.Sequence, error) {
	rows, err := conn.Query(ctx, `
		select n.nspname::text, c.relname::text, s.seqincrement, tn.nspname::text, t.relname::text, a.attname::text
		  from pg_catalog.pg_sequence s
		  join pg_catalog.pg_class c on c.oid = s.seqrelid
		  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		  left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid
		        and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
		  left join pg_catalog.pg_class t on t.oid = d.refobjid
		  left join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
		  left join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
		 where c.relpersistence = 'p' order by c.oid`)
	if err != nil {
		return nil, wrapSQL("list sequences", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s pgbase.Sequence, err error) {
		var schema, table, column *string
		err = row.Scan(&s.Schema, &s.Name.Name, &s.Increment, &schema, &table, &column)
		if column != nil {
			s.OwnerOf = &pgbase.Owner{Name: pgbase.Name{Schema: *schema, Name: *table}, Column: *column}
		}
		return s, err
	})
	if err != nil {
		return nil, wrapSQL("list sequences", err)
	}
	batch := &pgx.Batch{}
	for i := range all {
		batch.Queue("select last_value, is_called from " + quoteIdent(all[i].Schema, all[i].Name.Name)).QueryRow(func(row pgx.Row) error {
			return row.Scan(&all[i].Last, &all[i].Called)
		})
	}
	return all, wrapSQL("read sequences", conn.SendBatch(ctx, batch).Close())
}

// outsidePublication is what doctor does not speak of before there is a publication.
const outsidePublication = "changes of tables outside the publication"

// readCoverage writes down what the base and the stream hold of this database,
// and what they cannot (Invariant 9).
func readCoverage(ctx context.Context, conn *pgx.Conn, publication string) ([]archive.Coverage, error) {
	var sequences int
	if err := conn.QueryRow(ctx, `select count(*) from pg_catalog.pg_sequence`).Scan(&sequences); err != nil {
		return nil, wrapSQL("count sequences", err)
	}
	var some [4]string
	for i, condition := range []string{
		`c.relkind = 'r' and c.relpersistence = 'u'`, `c.relkind = 'f'`, `c.relkind = 'm'`,
		`c.relkind = 'r' and c.relpersistence = 'p' and n.nspname <> '` + ddl.Schema + `' and not exists (select from pg_catalog.pg_publication_tables t
			where t.pubname = $1::text and t.schemaname = n.nspname and t.tablename = c.relname)`,
	} {
		var err error
		if some[i], err = countRelations(ctx, conn, condition, publication); err != nil {
			return nil, err
		}
	}
	unlogged, foreign, matviews, unpublished := some[0], some[1], some[2], some[3]
	subscriptions, err := subscriptionCoverage(ctx, conn)
	if err != nil {
		return nil, err
	}
	large, err := largeObjectCoverage(ctx, conn)
	if err != nil {
		return nil, err
	}
	globals, err := globalsCoverage(ctx, conn)
	if err != nil {
		return nil, err
	}
	definitions, err := readDefinitions(ctx, conn)
	if err != nil {
		return nil, err
	}
	schema := archive.Coverage{Class: archive.Bounded, What: "schema", Detail: "as it stood at each base; a changed table definition starts a new base, other changes are recorded with the next base"}
	if definitions.Logged {
		schema = archive.Coverage{Class: archive.Exact, What: "schema", Detail: "every command that event triggers see; not REASSIGN OWNED and those on event triggers themselves, which are as they stood at each base, and a table that is rewritten with values of no log is exact from the next base on"}
	}
	return []archive.Coverage{
		{Class: archive.Exact, What: "rows of published tables", Detail: "every committed insert, update, delete and truncate"},
		schema,
		{Class: archive.Bounded, What: "sequences", Detail: fmt.Sprintf("%d; sampled while there is traffic; a restore says of how many a sample proves that no value before the point is handed out again", sequences)},
		{Class: archive.Bounded, What: "materialized views", Detail: matviews + "; their definitions, refreshed by the restore"},
		{Class: archive.Missing, What: outsidePublication, Detail: unpublished + "; they stay as they stood at each base"},
		{Class: archive.Missing, What: "rows of unlogged tables", Detail: unlogged + "; the server does not log them, and a restore has their structure only"},
		large,
		{Class: archive.Missing, What: "rows of foreign tables", Detail: foreign + "; their rows are elsewhere, and a restore has their structure only"},
		subscriptions,
		globals,
	}, nil
}

// subscriptionCoverage counts the database's subscriptions. A role that is no superuser may see that they are there, and not
// what their connections are.
func subscriptionCoverage(ctx context.Context, conn *pgx.Conn) (archive.Coverage, error) {
	c := archive.Coverage{Class: archive.Missing, What: "subscriptions"}
	var names []string
	err := conn.QueryRow(ctx, `SELECT coalesce(pg_catalog.array_agg(pg_catalog.quote_ident(s.subname) ORDER BY s.subname), '{}')
		FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = pg_catalog.current_database()`).Scan(&names)
	if err != nil {
		return c, wrapSQL("count subscriptions", err)
	}
	c.Detail = strconv.Itoa(len(names))
	if len(names) > 0 {
		c.Detail += " (" + listed(names[:min(len(names), 10)], len(names)) + ")"
	}
	c.Detail += "; they hold passwords, and a restored database must not receive what is meant for the source"
	return c, nil
}

// countRelations says how many relations c in namespaces n of the user's meet a condition, and names the first.
func countRelations(ctx context.Context, conn *pgx.Conn, condition, publication string) (string, error) {
	const most = 10
	var names []string
	var total int
	err := conn.QueryRow(ctx, `
		select count(*), coalesce((array_agg(pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) order by n.nspname, c.relname))[1:$2], '{}')
		  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		 where $1::text is not null and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast') and `+condition, publication, most).Scan(&total, &names)
	if err != nil {
		return "", wrapSQL("count what is not in the log", err)
	}
	if total == 0 {
		return "0", nil
	}
	return fmt.Sprintf("%d (%s)", total, listed(names, total)), nil
}

// findUnpublished marks the tables whose changes the stream does not carry.
func (b *baseRun) findUnpublished(ctx context.Context) error {
	rows, err := b.leader.Query(ctx, `
		select c.oid::bigint from pg_catalog.pg_publication_tables t
		  join pg_catalog.pg_namespace n on n.nspname = t.schemaname
		  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
		 where t.pubname = $1::text`, b.Publication)
	if err != nil {
		return wrapSQL("list what is published", err)
	}
	published := make(map[uint32]bool)
	var oid uint32
	if _, err := pgx.ForEachRow(rows, []any{&oid}, func() error { published[oid] = true; return nil }); err != nil {
		return wrapSQL("list what is published", err)
	}
	for i := range b.tables {
		b.tables[i].Unpublished = !published[b.tables[i].OID]
	}
	return nil
}
