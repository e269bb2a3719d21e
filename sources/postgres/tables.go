package postgres

import (
	"context"
	"encoding/json"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/rowsum"
	"txreel/sources/postgres/pgbase"
	"txreel/sources/postgres/pgoutput"
)

// tableInfo is what a base has to know of a table.
type tableInfo struct {
	pgbase.Table
	Schema, Name string
	Version      uint64
	Pages        int64  // 8 KiB blocks of the heap
	File         uint32 // pg_class.relfilenode: another one after TRUNCATE and whatever writes the table anew
	foreign      bool   // it, or a column, has a name that is not UTF-8, as no manifest can have it
	rows         rowsum.Sum
}

// tablesSQL lists every permanent table whose rows the stream carries, with the
// columns as pgoutput would name them. Types go by OID since Relation messages do. Stored generated columns are among those
// where a publication sends them, which from PostgreSQL 18 on setup makes ours do.
const tablesSQL = `
select c.oid::bigint, n.nspname, c.relname, c.relreplident::text,
       coalesce(pg_catalog.pg_relation_size(c.oid), 0) / pg_catalog.current_setting('block_size')::bigint,
       exists (select from pg_catalog.pg_depend d
                where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'),
       coalesce((select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                   'name', a.attname, 'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
                   'identity_always', a.attidentity = 'a', 'generated', a.attgenerated <> '',
                   'oid', a.atttypid::bigint, 'mod', a.atttypmod) order by a.attnum)
          from pg_catalog.pg_attribute a
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
           and (a.attgenerated = '' or a.attgenerated = 's' and exists (
                select from pg_catalog.pg_publication p where pg_catalog.to_jsonb(p) ->> 'pubgencols' = 's'))), '[]'),
       k.key, coalesce(k.con::bigint, 0), coalesce(k.idx::bigint, 0), c.relfilenode::bigint
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join lateral (
       select i.indexrelid as idx, con.oid as con,
              (select pg_catalog.array_agg(a.attname::text order by x.ord)
                 from pg_catalog.unnest(i.indkey::int2[]) with ordinality x(num, ord)
                 join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = x.num
                where x.ord <= i.indnkeyatts) as key
         from pg_catalog.pg_index i
         left join pg_catalog.pg_constraint con on con.conindid = i.indexrelid and con.conrelid = c.oid and con.contype in ('p', 'u')
        where i.indrelid = c.oid and i.indisvalid and (i.indisprimary or i.indisreplident and c.relreplident = 'i')
        order by i.indisprimary desc limit 1) k on true
 where c.relkind = 'r' and c.relpersistence = 'p'
   and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
 order by 5 desc, c.oid`

func readTables(ctx context.Context, q interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}) ([]tableInfo, error) {
	rows, err := q.Query(ctx, tablesSQL)
	if err != nil {
		return nil, wrapSQL("list tables", err)
	}
	defer rows.Close()
	var all []tableInfo
	for rows.Next() {
		var t tableInfo
		var columns string
		var key []string
		if err := rows.Scan(&t.OID, &t.Schema, &t.Name, &t.Identity, &t.Pages, &t.Member, &columns, &key, &t.KeyConstraint, &t.KeyIndex, &t.File); err != nil {
			return nil, wrapSQL("list tables", err)
		}
		t.Key = key
		t.foreign = !utf8.ValidString(t.Schema + t.Name + columns)
		if err := t.readColumns(columns); err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, wrapSQL("list tables", rows.Err())
}

func (t *tableInfo) readColumns(text string) error {
	var columns []struct {
		pgbase.Column
		OID       uint32
		Mod       int32
		Generated bool
	}
	if err := json.Unmarshal([]byte(text), &columns); err != nil {
		return err
	}
	r := pgoutput.Relation{ID: t.OID, Schema: t.Schema, Name: t.Name}
	for _, c := range columns {
		if !c.Generated { // nobody can write those, so no base has them
			t.Columns = append(t.Columns, c.Column)
		}
		r.Columns = append(r.Columns, pgoutput.Column{Name: c.Name, Type: c.OID, Mod: c.Mod})
	}
	t.Version = r.Version()
	return nil
}

// Tables returns the tables of the source and the version of each one's
// definition, comparable with those of the stream and of a base.
func Tables(ctx context.Context, conn *pgx.Conn) ([]change.Table, error) {
	infos, err := readTables(ctx, conn)
	if err != nil {
		return nil, err
	}
	tables := make([]change.Table, len(infos))
	for i, t := range infos {
		tables[i] = change.Table{Schema: t.Schema, Name: t.Name, Version: t.Version}
	}
	return tables, nil
}

// entry returns what the manifest says of the table.
func (t *tableInfo) entry(chunks []archive.BaseObject) (archive.BaseTable, error) {
	engine, err := json.Marshal(t.Table)
	b := archive.BaseTable{Schema: t.Schema, Name: t.Name, Version: archive.HexVersion(t.Version), Chunks: chunks, Engine: engine}
	for _, c := range chunks {
		b.Rows += c.Rows
	}
	b.Content = t.rows.Content()
	return b, err
}
