package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/change"
	"txreel/sources/postgres/ddl"
)

// relationName is a table of the source under a name that the record gives it.
type relationName struct {
	id           uint32
	schema, name string
}

// passes reports whether a partial restore passes over a table's rows. A table of the base is told by its number in the source,
// whatever it is called by now. One that was made since is restored if the target has made it, or if the selection names it: where
// that one's making was passed over, its rows end the restore.
func (r *replay) passes(ctx context.Context, rel *change.Relation) (bool, error) {
	t := r.target
	if t.job.Plan.Partial == nil || t.chosen[rel.ID] {
		return false, nil
	}
	if t.others[rel.ID] {
		return true, nil
	}
	at := relationName{rel.ID, rel.Schema, rel.Name}
	if pass, known := r.passed[at]; known {
		return pass, nil
	}
	if err := r.pipe.drain(); err != nil { // what it looks at may be of this very transaction
		return false, err
	}
	var there bool
	err := r.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM txreel_restore.relations r JOIN pg_catalog.pg_class c ON c.oid = r.target WHERE r.source = $1)
		OR EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $2 AND c.relname = $3 AND c.relkind IN ('r', 'p')
			AND NOT EXISTS (SELECT FROM txreel_restore.relations r WHERE r.target = c.oid) AND NOT EXISTS (SELECT FROM txreel_restore.aside a WHERE a.relation = c.oid))`,
		int64(rel.ID), rel.Schema, rel.Name).Scan(&there)
	if err != nil {
		return false, fmt.Errorf("look for table %s: %w", rel, err)
	}
	r.passed[at] = !there && !t.job.Plan.Partial.Selection.Names(rel.Schema, rel.Name)
	return r.passed[at], nil
}

// replayChosen applies what a partial restore needs of the record: segments without a change of its tables are not read.
func (t *Target) replayChosen(ctx context.Context) error {
	p, r := t.job.Plan, t.replay
	for at := t.applied; ; {
		from, to, ok := p.Partial.Next(at, p.Seq)
		if !ok {
			from = p.Seq + 1
		}
		for len(r.mends) > 0 && r.mends[0].Seq < from {
			seq := r.mends[0].Seq
			if err := r.passTo(seq); err != nil {
				return err
			}
			if err := r.mendAt(ctx, seq); err != nil {
				return err
			}
		}
		if !ok {
			return r.passTo(p.Seq)
		}
		if err := t.replayStream(ctx, t.job.Archive.Stream(ctx, p.Epoch, from, to, t.opts.TempDir)); err != nil {
			return err
		}
		if r.whole != to {
			return fmt.Errorf("the record ended at transaction %s, it should go on to %s", r.whole, to)
		}
		at = to
	}
}

// passTo notes that nothing of the record up to a transaction is needed any more.
func (r *replay) passTo(seq change.Seq) error {
	if r.whole >= seq {
		return nil
	}
	if err := r.start(); err != nil {
		return err
	}
	r.seq, r.whole = seq, seq
	return r.land()
}

// perform carries out a command. Where only some tables are restored, one that makes another table is passed over, and so
// is one of which the target has nothing: the server says that what it names is not there. Whatever else cannot be carried
// out ends the restore.
func (d *definer) perform(ctx context.Context, e *ddl.Entry) error {
	part := d.r.target.job.Plan.Partial
	if part == nil {
		return d.command(ctx, e)
	}
	if strings.HasPrefix(e.Tag, "DROP ") && e.Tag != "DROP OWNED" {
		return d.dropChosen(ctx, e)
	}
	made := madeTable(e)
	d.tried, d.refused = nil, nil
	wanted := true
	err := inSavepoint(ctx, d.r.conn, func() error {
		if err := d.command(ctx, e); err != nil || made == nil {
			return err
		}
		var err error
		if wanted, err = d.wanted(ctx, made); err == nil && !wanted {
			return errNotChosen
		}
		return err
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNotChosen):
		return nil
	case made != nil && part.Selection.Names(made.Names[0], made.Names[1]), !d.undefined():
		return err
	}
	for i := range e.Objects {
		there, lookErr := d.concerns(ctx, &e.Objects[i])
		if lookErr != nil {
			return lookErr
		}
		if there {
			return fmt.Errorf("%w: it concerns a table that is restored and something that is not: restore to a point before it, or choose that too", err)
		}
	}
	if len(d.tried) > 0 {
		d.tried[0].taken(d)
	}
	if e.Tag == "GRANT" || e.Tag == "REVOKE" {
		d.r.target.warn("privileges may not be quite the source's: passed over, since it names what is not restored: %s", clip(e.Query))
	}
	return nil
}

// errNotChosen takes a table back that a command made.
var errNotChosen = errors.New("the table is not chosen")

// madeTable returns the table or view that a command makes; nil if it makes none.
func madeTable(e *ddl.Entry) *ddl.Object {
	if !strings.HasPrefix(e.Tag, "CREATE ") && !makesRows(e.Tag) {
		return nil
	}
	for i := range e.Objects {
		o := &e.Objects[i]
		switch o.Type {
		case "table", "view", "materialized view", "foreign table":
			if len(o.Names) == 2 && (strings.HasPrefix(o.Tag, "CREATE ") || makesRows(e.Tag)) {
				return o
			}
		}
	}
	return nil
}

// wanted reports whether a table or view that has been made is restored: the selection names it, or it is a partition of one that is.
func (d *definer) wanted(ctx context.Context, o *ddl.Object) (bool, error) {
	if d.r.target.job.Plan.Partial.Selection.Names(o.Names[0], o.Names[1]) {
		return true, nil
	}
	var part bool
	err := d.r.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
		WHERE i.inhrelid = pg_catalog.to_regclass($1) AND c.relispartition AND p.oid NOT IN (SELECT relation FROM txreel_restore.aside))`, quote(o.Names...)).Scan(&part)
	if err != nil {
		return false, fmt.Errorf("look at table %s: %w", o.Identity, err)
	}
	return part, nil
}

// dropChosen drops what of the objects of a command is there.
func (d *definer) dropChosen(ctx context.Context, e *ddl.Entry) error {
	var mine []ddl.Object
	for i := range d.drops {
		_, there, err := d.describe(ctx, &d.drops[i])
		if err != nil {
			return err
		}
		if there {
			mine = append(mine, d.drops[i])
		}
	}
	d.drops = mine
	return d.command(ctx, e)
}

// withoutLeftOut removes from the description of a table the parts that a partial restore leaves out.
func (t *Target) withoutLeftOut(state []byte) []byte {
	if len(t.gone) == 0 {
		return state
	}
	var all map[string]any
	if json.Unmarshal(state, &all) != nil {
		return state // it is compared as it is
	}
	is, ok := all["is"].(map[string]any)
	if !ok {
		return state
	}
	for key, kind := range map[string]string{"constraints": "FK CONSTRAINT", "policies": "POLICY", "triggers": "TRIGGER", "rules": "RULE"} {
		parts, ok := is[key].([]any)
		if !ok {
			continue
		}
		if parts = slices.DeleteFunc(parts, func(p any) bool { return t.isGone(kind, p) }); len(parts) == 0 {
			delete(is, key)
		} else {
			is[key] = parts
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		return state
	}
	return b
}

// isGone reports whether a part, as descriptions have it, is left out: its name comes first, or in a command that makes it.
func (t *Target) isGone(kind string, part any) bool {
	list, ok := part.([]any)
	if !ok || len(list) == 0 {
		return false
	}
	first, ok := list[0].(string)
	if !ok {
		return false
	}
	if kind == "FK CONSTRAINT" || kind == "POLICY" {
		return t.gone[partName(kind, first)]
	}
	for name := range t.gone {
		if bare, ok := strings.CutPrefix(name, partName(kind, "")); ok && (strings.Contains(first, kind+" "+bare+" ") || strings.Contains(first, kind+" "+quote(bare)+" ")) {
			return true
		}
	}
	return false
}

// undefined reports whether the text that a command's most likely is failed since something is not there. What else stands in
// the same text, and was tried after it, says nothing.
func (d *definer) undefined() bool {
	if len(d.refused) == 0 {
		return false
	}
	var refused *pgconn.PgError
	var wrong *notEqualError
	switch err := d.refused[0]; {
	case errors.As(err, &wrong):
		return wrong.got == notThere
	case errors.As(err, &refused):
		return undefinedCodes(refused.Code)
	}
	return false
}

// undefinedCodes are the errors of PostgreSQL (appendix A of its documentation) for a table, object, function or schema that is not there.
func undefinedCodes(code string) bool {
	switch code {
	case "42P01", "42704", "42883", "3F000":
		return true
	}
	return false
}

// concerns reports whether an object of a command, or the table that it is part of, is there.
func (d *definer) concerns(ctx context.Context, o *ddl.Object) (bool, error) {
	if _, there, err := d.describe(ctx, o); there || err != nil {
		return there, err
	}
	var there bool
	if len(o.Names) < 2 {
		return false, nil
	}
	err := d.r.conn.QueryRow(ctx, "SELECT pg_catalog.to_regclass($1) IS NOT NULL", quote(o.Names[:2]...)).Scan(&there)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return false, fmt.Errorf("look at %s: %w", o.Identity, err)
	}
	return there, nil
}
