package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/restore"
)

// makeRoles makes roles and what belongs to them, in the transaction that the schema is made in: owners and grantees must be there.
func (t *Target) makeRoles(ctx context.Context, conn *pgx.Conn) error {
	if t.globals == nil {
		return nil
	}
	if err := run(ctx, conn, "SET LOCAL client_encoding = 'UTF8'"); err != nil {
		return err
	}
	if err := t.globals.apply(ctx, conn, false); err != nil {
		return err
	}
	return run(ctx, conn, "SET LOCAL client_encoding = "+literal(conn.PgConn().ParameterStatus("server_encoding")))
}

// insteadOf is what a warning says of a role that was made only because the schema names it.
func (t *Target) insteadOf() string {
	switch {
	case t.globals != nil:
		return ": the schema of the base names it, and at the point it was gone"
	case t.engine.Globals != nil:
		return ": --globals would make it as it was"
	}
	return ""
}

// makeSettings makes what sessions, also ours, begin with, and the properties of the database: when all else is done.
func (t *Target) makeSettings(ctx context.Context) (*restore.Globals, error) {
	g := t.globals
	if g == nil {
		return nil, nil
	}
	err := inUTF8(ctx, t.control, func() error {
		if t.resumed { // there is nothing to do, unless somebody has dropped them meanwhile
			if err := g.apply(ctx, t.control, false); err != nil {
				return err
			}
		}
		return g.apply(ctx, t.control, true)
	})
	if err != nil {
		return nil, err
	}
	return g.report(), nil
}

// apply takes the steps of one of the two times. What the server refuses of those that are not needed is
// undone and noted. A setting is named without the server's words, which might repeat its value.
func (g *globals) apply(ctx context.Context, conn *pgx.Conn, late bool) error {
	for i := range g.steps {
		s := &g.steps[i]
		if s.late != late || s.done {
			continue
		}
		if err := run(ctx, conn, "SAVEPOINT globals"); err != nil {
			return err
		}
		err := s.run(ctx, conn)
		var refused *pgconn.PgError
		switch {
		case err == nil:
			s.done = true
			if err := run(ctx, conn, "RELEASE SAVEPOINT globals"); err != nil {
				return err
			}
			continue
		case !errors.As(err, &refused), s.role != "":
			return fmt.Errorf("make %s: %w", s.text, err)
		}
		if err := run(ctx, conn, "ROLLBACK TO SAVEPOINT globals"); err != nil {
			return err
		}
		s.refused = refused.Message
		if s.secret {
			s.refused = "the server refuses its value or that it is set (" + refused.Code + ")"
		}
	}
	return nil
}

func (s *step) run(ctx context.Context, conn *pgx.Conn) error {
	for _, sql := range s.sql {
		if err := run(ctx, conn, sql); err != nil {
			return err
		}
	}
	return nil
}
