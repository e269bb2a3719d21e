package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sink/dir"
	"txreel/sink/s3"
	"txreel/sources/postgres/lsn"
)

// place is an archive's, with what a txreel needs to know to work on it and its source.
type place struct {
	t       *testing.T
	binary  string
	gateway *dbtest.Gateway // nil when the archive is a directory
	archive string          // its URL or path
	source  []string        // environment: which source, and how
	hidden  []string        // secrets that no output may hold
	extra   []string        // environment
}

// newPlace makes room for an archive: below the gateway, or in a directory when that is nil.
func newPlace(t *testing.T, name string, gateway *dbtest.Gateway) place {
	t.Helper()
	p := place{t: t, binary: txreel(t), gateway: gateway, archive: filepath.Join(t.TempDir(), "archive")}
	if gateway != nil {
		p.archive = gateway.ArchiveURL(name)
		p.hidden = append(p.hidden, gateway.SecretKey)
	}
	return p
}

// site is a PostgreSQL source and the place of its archive.
type site struct {
	place
	pg *dbtest.Postgres
	db string
}

// newSite makes the database db on pg, ready for a capture into an archive of its own.
func newSite(t *testing.T, pg *dbtest.Postgres, db string, gateway *dbtest.Gateway) *site {
	t.Helper()
	if _, err := pg.CreateDB(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	return siteOf(t, pg, db, gateway)
}

// siteOf is newSite for a database that is there.
func siteOf(t *testing.T, pg *dbtest.Postgres, db string, gateway *dbtest.Gateway) *site {
	t.Helper()
	s := &site{place: newPlace(t, db, gateway), pg: pg, db: db}
	s.source = []string{"TXREEL_SOURCE=" + pg.URL(db), "TXREEL_SLOT=" + s.slot(),
		"TXREEL_PG_DUMP=" + pg.Client("pg_dump"), "TXREEL_PG_RESTORE=" + pg.Client("pg_restore")}
	s.hidden = append(s.hidden, pg.Password())
	return s
}

// setup runs txreel setup on the database.
func (s *site) setup() *site {
	s.t.Helper()
	s.must("setup", "--apply", "--slot", s.slot())
	return s
}

// with returns the site with more in the environment of its commands.
func (s *site) with(env ...string) *site {
	more := *s
	more.extra = append(slices.Clone(s.extra), env...)
	return &more
}

// slot is the name of the site's slot: slots belong to the whole server.
func (s *site) slot() string { return "slot_" + s.db }

func (s *place) env() []string {
	env := append([]string{"TXREEL_ARCHIVE=" + s.archive}, s.source...)
	env = append(env, s.extra...)
	if s.gateway != nil {
		env = append(env, s.gateway.Env()...)
	}
	return env
}

// start starts txreel with the place in its environment.
func (s *place) start(args ...string) *process {
	s.t.Helper()
	return start(s.t, s.env(), s.hidden, s.binary, args...)
}

// run runs txreel to its end.
func (s *place) run(args ...string) result {
	s.t.Helper()
	return s.start(args...).result(patience())
}

// must is run for commands that have to succeed.
func (s *place) must(args ...string) result {
	s.t.Helper()
	r := s.run(args...)
	if r.code != 0 {
		s.t.Fatalf("txreel %q: exit code %d\n%s", args, r.code, tail(r.stderr, 20))
	}
	return r
}

// capture starts a capture that hurries.
func (s *place) capture(args ...string) *process {
	s.t.Helper()
	return s.start(append([]string{"capture", "--flush-age", "50ms", "--heartbeat", "500ms"}, args...)...)
}

// exec runs SQL in the database.
func (s *site) exec(sql string) {
	s.t.Helper()
	s.pg.MustExec(s.t, s.db, sql)
}

// value returns the one value a query has.
func (s *site) value(sql string) string {
	s.t.Helper()
	rows := s.pg.MustQuery(s.t, s.db, sql)
	if len(rows) == 0 || len(rows[0]) == 0 {
		s.t.Fatalf("no row: %s", sql)
	}
	return rows[0][0]
}

// lsn returns a query's one value as an LSN.
func (s *site) lsn(sql string) lsn.LSN {
	s.t.Helper()
	l, err := lsn.Parse(s.value(sql))
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

// here is the end of the source's log.
func (s *site) here() lsn.LSN {
	s.t.Helper()
	return s.lsn("SELECT pg_current_wal_insert_lsn()")
}

// open opens the archive; ok is false while there is none.
func (s *place) open() (a *archive.Archive, ok bool) {
	s.t.Helper()
	var store archive.Store
	var err error
	if s.gateway == nil {
		if _, err := os.Stat(s.archive); err != nil {
			return nil, false
		}
		store, err = dir.Open(s.archive)
	} else {
		opts, perr := s3.ParseURL(s.archive)
		if perr != nil {
			s.t.Fatal(perr)
		}
		opts.AccessKey, opts.SecretKey = s.gateway.AccessKey, s.gateway.SecretKey
		var c *s3.Store
		if c, err = s3.Open(s.t.Context(), opts); err == nil {
			s.t.Cleanup(c.Close)
			store = c
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	a, err = archive.Open(s.t.Context(), store)
	return a, err == nil
}

// mustOpen is open where there must be an archive.
func (s *place) mustOpen() *archive.Archive {
	s.t.Helper()
	a, ok := s.open()
	if !ok {
		s.t.Fatal("there is no archive")
	}
	return a
}

// waitArchive waits until there is an archive.
func (s *place) waitArchive() *archive.Archive {
	s.t.Helper()
	var a *archive.Archive
	eventually(s.t, time.Minute, "the archive exists", func() (ok bool) {
		a, ok = s.open()
		return ok
	})
	return a
}

// waitPast waits until the last epoch of the archive holds everything up to at.
func (s *site) waitPast(a *archive.Archive, at lsn.LSN) archive.Tail {
	s.t.Helper()
	var tail archive.Tail
	eventually(s.t, patience(), fmt.Sprintf("the archive's tail passes %s", at), func() bool {
		epochs, err := a.Epochs(s.t.Context())
		if err != nil || len(epochs) == 0 {
			return false
		}
		tail, err = a.Tail(s.t.Context(), epochs[len(epochs)-1].Number)
		return err == nil && tail.Seq > 0 && position(s.t, tail.Position) >= at
	})
	return tail
}

// waitBases waits until an epoch has n bases.
func (s *place) waitBases(a *archive.Archive, epoch uint64, n int) []archive.Base {
	s.t.Helper()
	var bases []archive.Base
	eventually(s.t, time.Minute, fmt.Sprintf("epoch %d has %d bases", epoch, n), func() bool {
		var err error
		bases, err = a.Bases(s.t.Context(), epoch)
		return err == nil && len(bases) >= n
	})
	return bases
}

func position(t *testing.T, p change.Position) lsn.LSN {
	t.Helper()
	l, err := lsn.FromPosition(p)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
