package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"txreel/archive"
	"txreel/change"
	"txreel/restore"
	"txreel/sources/postgres/pgbase"
)

// recorded is what the record says of roles, settings and the like at the cut of a plan.
type recorded struct {
	*pgbase.Globals
	from     string // the object that says so
	position change.Position
	seen     string
	known    string // what that proves, in a sentence
}

// findGlobals returns the newest state that is on record at or before the plan's cut.
func findGlobals(ctx context.Context, a *archive.Archive, p *restore.Plan) (*recorded, error) {
	cut := p.Base.Position
	if p.Cut != nil && p.Seq > p.Base.Seq {
		cut = p.Cut.Position
	}
	if p.Goal.Kind == restore.AtPosition && !p.Goal.Before { // between two transactions
		if c, err := compare(change.Position(p.Goal.Text), cut); err == nil && c > 0 {
			cut = change.Position(p.Goal.Text)
		}
	}
	// Behind the end of the record there is nothing that it could be too late for.
	all := p.Goal.Kind == restore.Latest && !p.Goal.Before && p.Next == nil
	last, next, err := a.FindGlobals(ctx, p.Epoch, func(g *archive.Globals) (bool, error) {
		c, err := compare(g.Position, cut)
		return all || c <= 0, err
	})
	if err != nil {
		return nil, err
	}
	var engine pgbase.Engine
	if err := json.Unmarshal(p.Base.Engine, &engine); err != nil {
		return nil, fmt.Errorf("%w: manifest of base %s: engine: %w", archive.ErrCorrupt, p.Base.ID, err)
	}
	r := &recorded{}
	if engine.Globals != nil {
		*r = recorded{Globals: engine.Globals, from: "base " + p.Base.ID, position: p.Base.Position, seen: p.Base.Finished}
	}
	if last != nil {
		c, err := compare(last.Position, p.Base.Position)
		if err != nil {
			return nil, err
		}
		if c > 0 || r.Globals == nil {
			*r = recorded{Globals: &pgbase.Globals{}, from: last.Key(), position: last.Position, seen: last.Seen}
			if err := json.Unmarshal(last.State, r.Globals); err != nil {
				return nil, fmt.Errorf("%w: %s: %w", archive.ErrCorrupt, last.Key(), err)
			}
		}
	}
	if r.Globals == nil {
		return nil, errors.New("the record holds no roles and settings at or before this point: restore without --globals")
	}
	r.known, err = known(next, cut)
	return r, err
}

// known says what the state behind the one that is used, or that there is none, proves of the cut.
func known(next *archive.Globals, cut change.Position) (string, error) {
	switch {
	case next == nil:
		return "no other state is on record behind it", nil
	case next.Before == "":
		return fmt.Sprintf("another state was first seen at %s (%s), behind the point; when it came about is not known", next.Position.Brief(), next.Seen), nil
	}
	c, err := compare(cut, next.Before)
	if err != nil {
		return "", err
	}
	if c <= 0 {
		return fmt.Sprintf("it was seen unchanged at %s, behind the point", next.Before.Brief()), nil
	}
	return fmt.Sprintf("it was last seen unchanged at %s, before the point, and another state first at %s (%s), behind it: the change between the two may belong to the point or not",
		next.Before.Brief(), next.Position.Brief(), next.Seen), nil
}

// rights are what the connecting role may do.
type rights struct {
	user                                                string
	super, createRole, createDB, replication, bypassRLS bool
	major                                               int
}

// readGlobals looks at what the target has.
func (t *Target) readGlobals(ctx context.Context) (have *pgbase.Globals, may rights, err error) {
	may.major = major(t.control.PgConn())
	err = t.control.QueryRow(ctx, "SELECT rolname::text, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user").
		Scan(&may.user, &may.super, &may.createRole, &may.createDB, &may.replication, &may.bypassRLS)
	if err != nil {
		return nil, may, fmt.Errorf("read the target's roles: %w", err)
	}
	sql, err := pgbase.GlobalsSQL(may.major*10000, false, "")
	if err != nil {
		return nil, may, err
	}
	err = inUTF8(ctx, t.control, func() error {
		results, err := t.control.PgConn().Exec(ctx, sql).ReadAll()
		if err != nil {
			return err
		}
		have, err = pgbase.ParseGlobals(results[0].Rows[0][1])
		return err
	})
	if err != nil {
		return nil, may, fmt.Errorf("read the target's roles and settings: %w", err)
	}
	return have, may, nil
}

// inUTF8 runs do in a transaction in which names and values are in UTF-8, as the record has them. Our sessions speak the
// database's own encoding otherwise.
func inUTF8(ctx context.Context, conn *pgx.Conn, do func() error) error {
	return inTx(ctx, conn, func() error {
		if err := run(ctx, conn, "SET LOCAL client_encoding = 'UTF8'"); err != nil {
			return err
		}
		return do()
	})
}

// PlanGlobals says what would be made of roles and settings in a target that has none of them.
func PlanGlobals(ctx context.Context, a *archive.Archive, p *restore.Plan) (*restore.Globals, error) {
	want, err := findGlobals(ctx, a, p)
	if err != nil {
		return nil, err
	}
	return newGlobals(want, nil, rights{super: true}).report(), nil
}

// PlanGlobals says what would be made of roles and settings in this target. It writes nothing.
func (t *Target) PlanGlobals(ctx context.Context, a *archive.Archive, p *restore.Plan) (*restore.Globals, error) {
	want, err := findGlobals(ctx, a, p)
	if err != nil {
		return nil, err
	}
	have, may, err := t.readGlobals(ctx)
	if err != nil {
		return nil, err
	}
	return newGlobals(want, have, may).report(), nil
}

// NamedRoles returns the owners and grantees that the schema of a plan's base names.
func NamedRoles(p *restore.Plan) ([]string, error) {
	var engine pgbase.Engine
	if err := json.Unmarshal(p.Base.Engine, &engine); err != nil {
		return nil, fmt.Errorf("%w: manifest of base %s: engine: %w", archive.ErrCorrupt, p.Base.ID, err)
	}
	return engine.Roles, nil
}

// checkGlobals works out what is to be made, and refuses a role that may not make it.
func (t *Target) checkGlobals(ctx context.Context) error {
	t.globals = nil
	if !t.opts.Globals {
		return nil
	}
	want, err := findGlobals(ctx, t.job.Archive, t.job.Plan)
	if err != nil {
		return err
	}
	have, may, err := t.readGlobals(ctx)
	if err != nil {
		return err
	}
	g := newGlobals(want, have, may)
	if len(g.created) > 0 && !may.super && !may.createRole {
		return fmt.Errorf("the record has %d roles that the target lacks, such as %q, and %q may not create roles: connect as a superuser or give it CREATEROLE, or create them and restore without --globals",
			len(g.created), g.steps[0].role, may.user)
	}
	t.globals = g
	return nil
}
