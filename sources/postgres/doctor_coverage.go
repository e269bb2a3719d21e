package postgres

import (
	"context"
	"strings"

	"txreel/sources"
)

// checkCoverage says in advance what the next base will say of itself: what the record holds and how exactly, so that nobody believes recorded
// what is not.
func (d *doctor) checkCoverage(ctx context.Context) error {
	all, err := readCoverage(ctx, d.conn, d.opts.Publication)
	if err != nil {
		return err
	}
	for _, c := range all {
		switch {
		case strings.HasPrefix(c.Detail, "0;"), // there are none
			d.pub == nil && c.What == outsidePublication: // setup will say
		case c.What == largeObjectsCovered:
			d.add("coverage", sources.SeverityWarning, "keep such data in a bytea column", "%s: %s: %s", c.Class, c.What, c.Detail)
		default:
			d.add("coverage", sources.SeverityNote, "", "%s: %s: %s", c.Class, c.What, c.Detail)
		}
	}
	return nil
}
