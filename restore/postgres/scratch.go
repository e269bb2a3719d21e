package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/restore"
)

// Scratch restores into a database that it makes for that, on a server that is good for nothing else at the moment, and that goes when it is
// closed. It is restore.Target.
type Scratch struct {
	*Target         // the database
	server  *Target // the one of the address
	url     string
	name    string

	// Numbers are those by which the source knows the tables, by the target's own; of some it has none. Exactness is what the restored
	// database is not sure of. Both are set when the restore has succeeded.
	Numbers   map[uint32]uint32
	Exactness []string
}

var _ restore.Target = (*Scratch)(nil)

// OpenScratch connects to a server through any of its databases, and makes another one there for a plan. What an earlier run has left of it is
// removed. An error that wraps ErrOnlyLive says that the server cannot stand in for the source.
func OpenScratch(ctx context.Context, url string, p *restore.Plan, opts Options) (*Scratch, error) {
	engine, _, err := readManifest(p.Base)
	if err != nil {
		return nil, err
	}
	s := &Scratch{}
	if s.server, err = Open(ctx, url, opts); err != nil {
		return nil, fmt.Errorf("scratch server: %w", err)
	}
	if have, want := major(s.server.control.PgConn()), engine.ServerVersion/10000; have != want {
		s.server.Close()
		return nil, fmt.Errorf("%w: the scratch server is PostgreSQL %d, the source %d: what the schema became would not be its own words", ErrOnlyLive, have, want)
	}
	sum := sha256.Sum256([]byte(p.Archive))
	s.name = "txreel_scratch_" + hex.EncodeToString(sum[:8])
	s.url = withDatabase(url, s.name)
	err = run(ctx, s.server.control, "DROP DATABASE IF EXISTS "+quote(s.name)) // in use: another base is being made there
	if err == nil {
		err = run(ctx, s.server.control, fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 ENCODING %s LC_COLLATE %s LC_CTYPE %s",
			quote(s.name), literal(engine.Encoding), literal(engine.Collate), literal(engine.Ctype)))
	}
	if err != nil {
		err = fmt.Errorf("make database %s on the scratch server: %w%s", s.name, err, explainScratch(err))
	} else if s.Target, err = Open(ctx, s.url, opts); err != nil {
		err = errors.Join(err, s.drop(ctx))
	}
	if err != nil {
		s.server.Close()
		return nil, err
	}
	return s, nil
}

func explainScratch(err error) string {
	var pg *pgconn.PgError
	switch {
	case !errors.As(err, &pg):
	case pg.Code == "42501":
		return ": the role must have CREATEDB, and to restore every owner and grant be a superuser"
	case pg.Code == "55006":
		return ": another base is being made there"
	}
	return ""
}

// URL is the address of the database.
func (s *Scratch) URL() string { return s.url }

func (s *Scratch) drop(ctx context.Context) error {
	if err := run(ctx, s.server.control, "DROP DATABASE IF EXISTS "+quote(s.name)+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("remove database %s from the scratch server: %w", s.name, err)
	}
	return nil
}

// Discard removes the database, and ends the sessions.
func (s *Scratch) Discard(ctx context.Context) error {
	s.Close()
	defer s.server.Close()
	return s.drop(ctx)
}

// Release implements restore.Target.
func (s *Scratch) Release(ctx context.Context) (err error) {
	if s.Numbers, err = s.readNumbers(ctx); err != nil {
		return err
	}
	var inexact []string
	rows, err := s.control.Query(ctx, `SELECT i.relation::regclass::text FROM txreel_restore.inexact i JOIN pg_catalog.pg_class c ON c.oid = i.relation ORDER BY 1`)
	if err == nil {
		inexact, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return fmt.Errorf("read the restore's progress: %w", err)
	}
	if len(inexact) > 0 { // a base that holds them would make them look exact
		return fmt.Errorf("%w: table %s has been rewritten with values that are in no log", ErrOnlyLive, inexact[0])
	}
	s.Exactness = s.warnings
	return s.Target.Release(ctx)
}

// readNumbers finds out which table of the source each of the target's is.
func (s *Scratch) readNumbers(ctx context.Context) (map[uint32]uint32, error) {
	numbers := make(map[uint32]uint32)
	note := func(rows pgx.Rows, err error) error {
		var source, target int64
		if err == nil {
			_, err = pgx.ForEachRow(rows, []any{&source, &target}, func() error { numbers[uint32(target)] = uint32(source); return nil })
		}
		if err != nil {
			return fmt.Errorf("read which tables are which: %w", err)
		}
		return nil
	}
	if len(s.job.Plan.Definitions) > 0 {
		return numbers, note(s.control.Query(ctx, "SELECT source, target::int8 FROM txreel_restore.relations"))
	}
	for i := range s.tables { // they are those of the base
		if t := &s.tables[i]; !t.Unnumbered {
			if err := note(s.control.Query(ctx, "SELECT $1::int8, $2::regclass::oid::int8", int64(t.OID), t.quoted())); err != nil {
				return nil, err
			}
		}
	}
	return numbers, nil
}
