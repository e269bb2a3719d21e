package postgres

import (
	"context"

	"txreel/sources"
)

// largeObjectsCounted bounds the count of large objects; more than that many is many.
const largeObjectsCounted = 100000

// checkCoverage names what is not in the server's log, so that nobody believes it recorded.
func (d *doctor) checkCoverage(ctx context.Context) error {
	var objects int
	err := d.conn.QueryRow(ctx, `SELECT count(*) FROM (SELECT FROM pg_largeobject_metadata LIMIT $1::int) x`, largeObjectsCounted).Scan(&objects)
	if err != nil {
		return err
	}
	if objects > 0 {
		atLeast := ""
		if objects == largeObjectsCounted {
			atLeast = "at least "
		}
		d.add("large objects", sources.SeverityWarning, "keep such data in a bytea column", "%s%d large objects: PostgreSQL does not decode changes to them; each base has them as they stand", atLeast, objects)
	}
	for _, c := range []struct{ check, condition, meaning string }{
		{"unlogged tables", `c.relkind = 'r' AND c.relpersistence = 'u'`, "their rows are never in the log; a restore has their structure only"},
		{"foreign tables", `c.relkind = 'f'`, "their rows are elsewhere; a restore has their structure only"},
		{"materialized views", `c.relkind = 'm'`, "their rows are not in the log; a restore has their definition and refreshes them"},
		{"sequences", `c.relkind = 'S'`, "their steps are not in the log but sampled; a restore may skip some of their values"},
	} {
		total, first, err := d.relations(ctx, c.condition)
		if err != nil {
			return err
		}
		if total > 0 {
			d.add(c.check, sources.SeverityNote, "", "%d (%s): %s", total, listed(first, total), c.meaning)
		}
	}
	return nil
}
