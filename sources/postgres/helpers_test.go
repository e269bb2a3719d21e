package postgres

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sources/postgres/pgoutput"
)

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// site is a database that is set up for a capture. Its slot has its name.
type site struct {
	*dbtest.Postgres
	t  *testing.T
	db string
}

// newSite makes a database with the publication txreel, a table t and a slot.
func newSite(t *testing.T, pg *dbtest.Postgres, db string) *site {
	t.Helper()
	if _, err := pg.CreateDB(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	s := &site{Postgres: pg, t: t, db: db}
	s.exec("CREATE TABLE t (n bigserial PRIMARY KEY, v text); CREATE PUBLICATION txreel FOR ALL TABLES WITH (" + publicationOptions(s.Major) + ")")
	if err := CreateSlot(t.Context(), s.url(), db, 10_000); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) url() string { return s.URL(s.db) }

func (s *site) exec(sql string) {
	s.t.Helper()
	s.MustExec(s.t, s.db, sql)
}

// conn is an ordinary session.
func (s *site) conn() *pgx.Conn {
	s.t.Helper()
	conn, err := s.Conn(s.t.Context(), s.db)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// one returns the only value of a query.
func (s *site) one(sql string) string {
	s.t.Helper()
	rows := s.MustQuery(s.t, s.db, sql)
	if len(rows) != 1 {
		s.t.Fatalf("%s: %d rows", sql, len(rows))
	}
	return rows[0][0]
}

func (s *site) confirmed() string {
	s.t.Helper()
	return s.one("select confirmed_flush_lsn from pg_replication_slots where slot_name = '" + s.db + "'")
}

// options are those of a capture of the site, with little patience.
func (s *site) options(tail change.Position) SourceOptions {
	return SourceOptions{URL: s.url(), Slot: s.db, Publication: "txreel", Tail: tail, statusEvery: 100 * time.Millisecond, stopGrace: 50 * time.Millisecond, fenceEvery: -1}
}

func (s *site) tryOpen(o SourceOptions) (*Source, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	src, err := Open(ctx, o)
	if err == nil {
		s.t.Cleanup(src.Close)
	}
	return src, err
}

func (s *site) open(tail change.Position) *Source {
	s.t.Helper()
	src, err := s.tryOpen(s.options(tail))
	if err != nil {
		s.t.Fatal(err)
	}
	return src
}

// next returns a copy of the next message that is not idle.
func next(t *testing.T, src *Source) change.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		m, err := src.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind != change.KindIdle {
			c := *m
			c.Raw, c.Defs, c.Touched = slices.Clone(m.Raw), slices.Clone(m.Defs), slices.Clone(m.Touched)
			return c
		}
	}
}

// failure reads until the stream fails.
func failure(t *testing.T, src *Source) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		if _, err := src.Next(ctx); err != nil {
			if ctx.Err() != nil {
				t.Fatal("the stream goes on")
			}
			return err
		}
	}
}

// transaction is one that a stream delivered, with the first values of its rows.
type transaction struct {
	commit change.Message
	values []string
	data   [][]byte
	tables []*change.Table
}

// nextTransaction passes over empty ones: version 14 sends those as well.
func nextTransaction(t *testing.T, src *Source) transaction {
	t.Helper()
	for {
		if x := anyTransaction(t, src); len(x.data) > 0 {
			return x
		}
	}
}

func anyTransaction(t *testing.T, src *Source) transaction {
	t.Helper()
	var x transaction
	var d pgoutput.Decoder
	var ev change.Event
	if m := next(t, src); m.Kind != change.KindBegin {
		t.Fatalf("%+v, want a begin", m)
	}
	for {
		m := next(t, src)
		if m.Kind == change.KindCommit {
			x.commit = m
			return x
		}
		x.data = append(x.data, m.Raw)
		for _, touch := range m.Touched {
			x.tables = append(x.tables, touch.Table)
		}
		for _, def := range m.Defs {
			for _, raw := range def.Messages {
				if _, err := d.Event(raw, &ev); err != nil {
					t.Fatal(err)
				}
			}
		}
		if is, err := d.Event(m.Raw, &ev); err != nil {
			t.Fatal(err)
		} else if is && len(ev.New) > 0 {
			x.values = append(x.values, string(ev.New[0].Bytes))
		}
	}
}

func pgError(code, message string) error { return &pgconn.PgError{Code: code, Message: message} }
