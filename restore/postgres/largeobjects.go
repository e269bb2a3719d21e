package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"txreel/archive"
	"txreel/sources/postgres/pgbase"
)

// loadLargeObjects makes the large objects of the base, with their numbers, in one transaction.
func (t *Target) loadLargeObjects(ctx context.Context) error {
	done, err := t.doneNames(ctx, "SELECT name FROM txreel_restore.chunks")
	if err != nil {
		return err
	}
	objects := make(map[string]*archive.BaseObject)
	for i := range t.job.Plan.Base.Objects {
		o := &t.job.Plan.Base.Objects[i]
		objects[o.Name] = o
	}
	what, pages := objects[pgbase.LargeObjects], objects[pgbase.LargeObjectPages]
	if what == nil || pages == nil || done[what.Name] {
		return nil
	}
	err = t.withWorker(ctx, func(conn *pgx.Conn) error {
		return inTx(ctx, conn, func() error {
			if _, err := conn.Exec(ctx, "INSERT INTO txreel_restore.chunks VALUES ($1, 0)", what.Name); err != nil {
				return err
			}
			if err := run(ctx, conn, `CREATE TABLE txreel_restore.large_objects (number oid, owner text, acl text, comment text);
				CREATE TABLE txreel_restore.large_object_pages (number oid, position int8, data bytea)`); err != nil {
				return err
			}
			for table, o := range map[string]*archive.BaseObject{"large_objects": what, "large_object_pages": pages} {
				if err := t.copyObject(ctx, conn, t.job.Plan.Base, "COPY txreel_restore."+table+" FROM STDIN", table, o); err != nil {
					return err
				}
			}
			return t.makeLargeObjects(ctx, conn)
		})
	})
	if err != nil {
		return fmt.Errorf("make large objects: %w", err)
	}
	return nil
}

// copyObject loads an object of a base by COPY.
func (t *Target) copyObject(ctx context.Context, conn *pgx.Conn, b *archive.Base, sql, into string, o *archive.BaseObject) error {
	key := b.Key(o.Name)
	r, err := t.job.Archive.OpenObject(ctx, b, *o)
	if err != nil {
		return err
	}
	defer r.Close()
	tag, err := conn.PgConn().CopyFrom(ctx, r, sql)
	switch {
	case r.Err() != nil:
		return r.Err() // what the server says of it is only "COPY failed"
	case err != nil:
		return fmt.Errorf("load %s into %s: %w", key, into, err)
	case tag.RowsAffected() != o.Rows:
		return fmt.Errorf("%w: %s holds %d rows, the manifest says %d", archive.ErrCorrupt, key, tag.RowsAffected(), o.Rows)
	}
	return nil
}

func (t *Target) makeLargeObjects(ctx context.Context, conn *pgx.Conn) error {
	sql := `SELECT pg_catalog.lo_create(number) FROM txreel_restore.large_objects;
		SELECT pg_catalog.lo_put(number, position, data) FROM txreel_restore.large_object_pages;
		DO $$DECLARE o record; BEGIN
			FOR o IN SELECT * FROM txreel_restore.large_objects WHERE comment IS NOT NULL LOOP
				EXECUTE pg_catalog.format('COMMENT ON LARGE OBJECT %s IS %L', o.number, o.comment);
			END LOOP;
		END$$;`
	if !t.opts.NoOwner {
		sql += `
		DO $$DECLARE o record; BEGIN
			FOR o IN SELECT * FROM txreel_restore.large_objects WHERE owner <> current_user LOOP
				EXECUTE pg_catalog.format('ALTER LARGE OBJECT %s OWNER TO %I', o.number, o.owner);
			END LOOP;
			FOR o IN SELECT number, a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee,
					CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS more
				FROM txreel_restore.large_objects l CROSS JOIN LATERAL pg_catalog.aclexplode(l.acl::aclitem[]) a
				WHERE a.grantee = 0 OR pg_catalog.pg_get_userbyid(a.grantee) <> l.owner LOOP
				EXECUTE pg_catalog.format('GRANT %s ON LARGE OBJECT %s TO %s%s', o.privilege_type, o.number, o.grantee, o.more);
			END LOOP;
		END$$;`
	}
	return run(ctx, conn, sql+"DROP TABLE txreel_restore.large_objects, txreel_restore.large_object_pages")
}
