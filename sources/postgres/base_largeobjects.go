package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/archive"
	"txreel/sources/postgres/pgbase"
)

// copyLargeObjects stores the large objects that the snapshot sees, if there are any: no log carries their changes, so a base
// is all that is ever known of them. A role that may not read them leaves them out, and the coverage statement says so.
func (b *baseRun) copyLargeObjects(ctx context.Context) error {
	may, count, err := largeObjects(ctx, b.leader)
	if err != nil || !may || count == 0 {
		return err
	}
	w, err := pgbase.NewChunk(b.SpillDir)
	if err != nil {
		return err
	}
	defer w.Release()
	for _, part := range []struct{ name, sql string }{
		{pgbase.LargeObjects, `SELECT m.oid, pg_catalog.pg_get_userbyid(m.lomowner), m.lomacl, pg_catalog.obj_description(m.oid, 'pg_largeobject') FROM pg_catalog.pg_largeobject_metadata m`},
		{pgbase.LargeObjectPages, `SELECT l.loid, l.pageno::int8 * (pg_catalog.current_setting('block_size')::int8 / 4), l.data FROM pg_catalog.pg_largeobject l ORDER BY l.loid, l.pageno`},
	} {
		w.Reset()
		tag, err := b.leader.PgConn().CopyTo(ctx, w, "COPY ("+part.sql+") TO STDOUT")
		if err != nil {
			return wrapSQL("copy large objects", err)
		}
		if err := w.Close(); err != nil {
			return err
		}
		o, err := b.archive.CreateObject(ctx, b.base, part.name, w.Body, w.Body.Size())
		if err != nil {
			return err
		}
		o.Raw, o.Rows = w.Raw, tag.RowsAffected()
		b.base.Objects = append(b.base.Objects, o)
	}
	return nil
}

// largeObjects counts them, and reports whether the session may read what they hold.
func largeObjects(ctx context.Context, conn *pgx.Conn) (may bool, count int64, err error) {
	err = conn.QueryRow(ctx, `SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT'), (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata)`).Scan(&may, &count)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "42501" {
		return false, 0, nil
	}
	return may, count, wrapSQL("count large objects", err)
}

// largeObjectsCovered is what the coverage statement calls them.
const largeObjectsCovered = "large objects"

// largeObjectCoverage is what a base says of them.
func largeObjectCoverage(ctx context.Context, conn *pgx.Conn) (archive.Coverage, error) {
	may, count, err := largeObjects(ctx, conn)
	if err != nil {
		return archive.Coverage{}, err
	}
	if !may {
		return archive.Coverage{Class: archive.Missing, What: largeObjectsCovered, Detail: fmt.Sprintf("%d; the role may not read them: GRANT pg_read_all_data", count)}, nil
	}
	return archive.Coverage{Class: archive.Bounded, What: largeObjectsCovered, Detail: fmt.Sprintf("%d; as they stood at each base: logical replication does not carry them", count)}, nil
}
