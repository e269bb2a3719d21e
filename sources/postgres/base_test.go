package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"txreel/archive"
	"txreel/capture"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/internal/rowsum"
	"txreel/segment"
	"txreel/sink/dir"
	"txreel/sources"
	"txreel/sources/postgres/pgoutput"
)

// TestBasesOnOneServer runs what needs a server and leaves it as it was.
func TestBasesOnOneServer(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t, "autovacuum=off", "max_wal_senders=40", "max_replication_slots=40", "max_connections=200", "max_prepared_transactions=40",
		// Commits that wait are passed by those that do not.
		"fsync=on", "commit_delay=20000", "commit_siblings=1")
	for name, test := range map[string]func(*testing.T, *dbtest.Postgres){
		"exact under load":   testBaseExact,
		"changing tables":    testBaseChangingTables,
		"table versions":     testTableVersions,
		"least privileges":   testLeastPrivileges,
		"unpublished tables": testUnpublished,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, pg)
		})
	}
}

func newTestArchive(t *testing.T) *archive.Archive {
	t.Helper()
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Init(t.Context(), store, archive.Identity{Engine: "postgres"})
	if err == nil {
		_, err = a.StartEpoch(t.Context(), nil, archive.CauseFirst, "", nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// record captures the site into a until the test ends or stop is called. beat asks
// for heartbeats.
func (s *site) record(a *archive.Archive, o SourceOptions) (beat func(), stop func()) {
	s.t.Helper()
	w, err := a.NewWriter(s.t.Context(), 1, s.t.TempDir())
	if err != nil {
		s.t.Fatal(err)
	}
	src, err := s.tryOpen(o)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	beats := make(chan struct{}, 1)
	var joined sync.WaitGroup
	joined.Go(func() {
		err := capture.Run(ctx, src, w, capture.Options{FlushAge: 200 * time.Millisecond, Start: src.Start(), Beat: beats})
		if !errors.Is(err, context.Canceled) {
			s.t.Errorf("capture: %v", err)
		}
		w.Close()
	})
	stop = sync.OnceFunc(func() { cancel(); joined.Wait(); src.Close() })
	s.t.Cleanup(stop)
	return func() {
		select {
		case beats <- struct{}{}:
		default:
		}
	}, stop
}

func (s *site) baseOptions() BaseOptions {
	return BaseOptions{URL: s.url(), Publication: "txreel", PgDump: s.BinDir + "/pg_dump", SpillDir: s.t.TempDir(), LockTimeout: 10_000}
}

// rows reads a table out of a base: first column to the whole line of COPY's text.
func rows(t *testing.T, a *archive.Archive, b *archive.Base, table string) map[string]string {
	t.Helper()
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	all := map[string]string{}
	for _, bt := range b.Tables {
		if bt.Name != table {
			continue
		}
		var sum rowsum.Sum
		for _, c := range bt.Chunks {
			body, _, err := a.Store.Open(t.Context(), b.Key(c.Name), 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			if err := dec.Reset(body); err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			if _, err := text.ReadFrom(dec); err != nil {
				t.Fatal(err)
			}
			_ = body.Close()
			for line := range strings.Lines(text.String()) {
				line = strings.TrimSuffix(line, "\n")
				sum.Add([]byte(line))
				key, _, _ := strings.Cut(line, "\t")
				if _, twice := all[key]; twice {
					t.Errorf("base %s holds %s twice", b.ID, key)
				}
				all[key] = line
			}
		}
		if sum.Content() != bt.Content || sum.Rows != bt.Rows {
			t.Errorf("base %s: %s has %d rows of content %s on record, its objects %d of content %s", b.ID, table, bt.Rows, bt.Content, sum.Rows, sum.Content())
		}
	}
	return all
}

// testBaseExact takes bases while clients write, and expects every one, and what was
// recorded behind it, to be what the table is in the end.
func testBaseExact(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "exact")
	// Large enough for more than one chunk.
	s.exec("create table wide (n bigint primary key, v text) with (fillfactor = 10); insert into wide select i, repeat('x', 750) from generate_series(1, 8500) i")
	s.exec("insert into t (v) select 'first' from generate_series(1, 2000)")
	a := newTestArchive(t)
	beat, stop := s.record(a, s.options(""))

	load, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	for c := range 20 {
		conn := s.conn()
		if _, err := conn.Exec(t.Context(), "set synchronous_commit = "+[]string{"on", "off", "local"}[c%3]); err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(uint64(c), 7))
		clients.Go(func() {
			for i := 0; load.Err() == nil; i++ {
				n := 1 + r.IntN(4000)
				sql := fmt.Sprintf(`insert into t values (%d, '%d.%d') on conflict (n) do update set v = excluded.v`, n, c, i)
				switch r.IntN(40) {
				case 0, 4, 5, 6, 7:
					sql = fmt.Sprintf("delete from t where n = %d", n)
				case 1, 8, 9, 10, 11:
					sql = fmt.Sprintf("begin; %s; savepoint a; delete from t where n = %d; rollback to a; update wide set v = '%d.%d' where n = %d; commit", sql, n+1, c, i, n)
				case 2, 12, 13, 14, 15:
					sql = fmt.Sprintf("begin; %s; prepare transaction '%d.%d'; select pg_sleep(0.01); commit prepared '%d.%d'", sql, c, i, c, i)
				case 3, 16, 17, 18, 19:
					sql = "begin; " + sql + "; rollback"
				case 20:
					sql = "begin; " + sql + "; select pg_sleep(0.5); commit"
				}
				for _, one := range strings.Split(sql, "; ") {
					if _, err := conn.PgConn().Exec(context.WithoutCancel(load), one).ReadAll(); err != nil {
						t.Errorf("%s: %v", one, err)
						return
					}
				}
			}
		})
	}
	var bases []*archive.Base
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	for i := range rounds {
		o := s.baseOptions()
		o.Jobs = 1 + i%3
		var last sources.BaseProgress
		var mu sync.Mutex
		o.Progress = func(p sources.BaseProgress) {
			mu.Lock()
			defer mu.Unlock()
			if p.Done >= last.Done {
				last = p
			}
		}
		b, err := TakeBase(t.Context(), a, 1, o)
		if err == nil {
			err = FinishBase(t.Context(), a, b, beat)
		}
		if err != nil {
			t.Fatal(err)
		}
		if last.Done != last.Total || last.Done == 0 || last.Rows == 0 {
			t.Errorf("progress ends with %+v", last)
		}
		bases = append(bases, b)
		e, err := engineOf(b)
		if err != nil || (e.Visible == nil) != (i == 0) {
			t.Errorf("base %d, told by what it sees: %+v, %v", i, e.Visible, err)
		}
		t.Logf("base %d holds %d transactions ahead of others", i, len(b.Ahead))
	}
	cancel()
	clients.Wait()
	end := mustLSN(t, change.Position(s.one("select pg_current_wal_insert_lsn()")))
	var tail archive.Tail
	eventually(t, "the archive to hold everything", func() bool {
		beat()
		var err error
		tail, err = a.Tail(t.Context(), 1)
		return err == nil && mustLSN(t, tail.Position) >= end
	})
	stop()
	if n := s.one("select count(*) from pg_replication_slots where temporary and database = 'exact'"); n != "0" {
		t.Errorf("%s temporary slots left", n)
	}
	for _, table := range []string{"t", "wide"} {
		want := map[string]string{}
		for _, r := range s.MustQuery(t, s.db, "select n, v from "+table) {
			want[r[0]] = r[0] + "\t" + r[1]
		}
		for i, b := range bases {
			got := rows(t, a, b, table)
			if table == "wide" && len(b.Tables[slices.IndexFunc(b.Tables, func(x archive.BaseTable) bool { return x.Name == "wide" })].Chunks) < 2 {
				t.Error("wide is one chunk: this proves less than it should")
			}
			replay(t, a, got, table, b, tail.Seq)
			if !maps.Equal(got, want) {
				n := 0
				for k := range want {
					if got[k] != want[k] {
						n++
					}
				}
				t.Errorf("base %d at %s and what follows: %d rows of %s, the table has %d; %d differ", i, b.Seq, len(got), table, len(want), n)
			}
		}
	}
}

// replay applies what a base does not hold to rows by their first column, up to a transaction.
func replay(t *testing.T, a *archive.Archive, rows map[string]string, table string, b *archive.Base, to change.Seq) {
	t.Helper()
	if to < b.Upto() {
		t.Fatalf("base %s holds transactions up to %s, asked for is %s", b.ID, b.Upto(), to)
	}
	stream := a.Stream(t.Context(), 1, b.Seq+1, to, t.TempDir())
	defer stream.Close()
	var d pgoutput.Decoder
	var ev change.Event
	held := false
	for b.Seq < to {
		rec, err := stream.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if rec.Kind == segment.Begin {
			held = b.Holds(rec.Seq)
		}
		if rec.Kind != segment.Message && rec.Kind != segment.Definition {
			continue
		}
		is, err := d.Event(rec.Raw, &ev)
		if err != nil {
			t.Fatal(err)
		}
		if !is || held || ev.Relation == nil || ev.Relation.Name != table {
			continue
		}
		switch ev.Op {
		case change.OpDelete:
			delete(rows, string(ev.Old[0].Bytes))
		case change.OpInsert, change.OpUpdate:
			key := string(ev.New[0].Bytes)
			_, there := rows[key]
			if there != (ev.Op == change.OpUpdate) {
				t.Errorf("%s of %s, which is there: %v", ev.Op, key, there)
			}
			rows[key] = key + "\t" + string(ev.New[1].Bytes)
		}
	}
}

// TestBaseLocks lets others hold what a base needs: it gives up in time, says why and
// leaves nothing. It has a server of its own, since a slot waits for the writers of
// every database.
func TestBaseLocks(t *testing.T) {
	t.Parallel()
	s := newSite(t, dbtest.PG(t, "autovacuum=off"), "locks")
	a := newTestArchive(t)
	o := s.baseOptions()
	o.LockTimeout = 300
	expect := func(what string) {
		t.Helper()
		_, err := TakeBase(t.Context(), a, 1, o)
		if err == nil || errors.Is(err, capture.ErrUnreachable) || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %q", err, what)
		}
		if n := s.one("select count(*) from pg_replication_slots where temporary and database = 'locks'"); n != "0" {
			t.Errorf("%s temporary slots left", n)
		}
		eventually(t, "the base's sessions to end", func() bool {
			return s.one("select count(*) from pg_stat_activity where datname = 'locks' and application_name like 'txreel%'") == "0"
		})
	}
	s.exec("begin; insert into t default values; prepare transaction 'locks'")
	expect("was prepared")
	s.exec("rollback prepared 'locks'")
	// A lock that is taken while the base is under way.
	s.exec("create table small (n int); insert into t select from generate_series(1, 1000)")
	conn := s.conn()
	o.Jobs = 1
	var once sync.Once
	o.Progress = func(sources.BaseProgress) {
		once.Do(func() {
			if _, err := conn.Exec(t.Context(), "begin; lock small in access exclusive mode"); err != nil {
				t.Error(err)
			}
		})
	}
	expect("lock timeout")
	if _, err := conn.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	if _, err := TakeBase(t.Context(), a, 1, o); err != nil {
		t.Error(err)
	}
	bases, err := a.Bases(t.Context(), 1)
	if err != nil || len(bases) != 0 {
		t.Errorf("%d bases, %v", len(bases), err)
	}
}

// testBaseChangingTables changes a table between the base's snapshot and the moment
// its rows are read. None of this may become a base with a hole.
func testBaseChangingTables(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "changing")
	a := newTestArchive(t)
	for _, c := range []struct {
		name, sql, want string
	}{
		{"dropped", "drop table small", "small"},
		{"truncated", "truncate small", "truncated"},
		{"truncated and filled", "truncate small; insert into small select generate_series(1, 10)", "truncated"},
		{"written anew", "alter table small alter n type bigint", "written anew"},
		{"replaced", "alter table small rename to old; create table small (n int)", "replaced"},
		{"renamed", "alter table small rename to smaller", "small"},
		{"clustered", "cluster small using small_pkey", "written anew"},
		{"harmless", "alter table small add column more int; insert into small values (99, 1); delete from small where n = 1; analyze small", ""},
	} {
		s.exec("drop table if exists large, small, old, smaller cascade; create table large (n int); insert into large select generate_series(1, 10000); create table small (n int primary key); insert into small select generate_series(1, 10)")
		o := s.baseOptions()
		o.Jobs = 1
		var once sync.Once
		o.Progress = func(sources.BaseProgress) {
			once.Do(func() {
				if err := s.Exec(t.Context(), s.db, c.sql); err != nil {
					t.Error(err)
				}
			})
		} // behind the first, the largest, table
		b, err := TakeBase(t.Context(), a, 1, o)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			} else if got := rows(t, a, b, "small"); len(got) != 10 || got["1"] != "1" {
				t.Errorf("%s: %v", c.name, got)
			}
			continue
		}
		if err == nil || errors.Is(err, capture.ErrUnreachable) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// testTableVersions compares the catalog's definitions with those of Relation
// messages.
func testTableVersions(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "versions")
	s.exec(`create schema "Other sch.ema"; create type mood as enum ('sad', 'ok'); create type pair as (a int, b text); create domain positive as int check (value > 0);
		create domain "Other sch.ema"."dom""ain" as mood[];
		create table types (a smallint, b numeric(10,2), c numeric, d varchar(7), e char(3), f text[], g timestamp(3), h timestamptz, i time(2) with time zone, j interval(4), k bit(5), l varbit(9),
			m json, n jsonb, o uuid, p inet, q point, r int4range, s int4multirange, t tsvector, u xml, v bytea, w money, x oid, y regclass, z name, aa interval year to month, ab int[][], ac "char");
		create table own (m mood, p pair, d positive, ms mood[], ps pair[], ds positive[], x "Other sch.ema"."dom""ain");
		create table generated (a int primary key, b int generated always as (a * 2) stored, c int);
		create table dropped (a int, gone text, b int); alter table dropped drop column gone;
		create table late (a int); alter table late add column b varchar(3) default 'x';
		create table identity (a int generated always as identity, b int generated by default as identity);
		create table part (a int, b text) partition by list (a); create table part_1 partition of part for values in (1);
		create table part_2 (b text, extra int, a int); alter table part_2 drop column extra; alter table part attach partition part_2 for values in (2);
		create table parent (a int); create table child (b int) inherits (parent);
		create table "Other sch.ema"."Ta ""ble" ("Col umn" int, "%" text);
		create table ful (a int, b text); alter table ful replica identity full;
		create table idx (a int not null, b int); create unique index idx_i on idx (a); alter table idx replica identity using index idx_i;
		create unlogged table unlogged (a int); create temp table temporary (a int); create view view as select 1;
		create table several (a int, b int, primary key (b, a))`)
	conn := connectTo(t, s.url())
	tables, err := Tables(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	catalog := map[string]uint64{}
	for _, x := range tables {
		catalog[x.String()] = x.Version
	}
	s.exec(`insert into types default values; insert into own default values; insert into generated values (1); insert into dropped default values; insert into late default values;
		insert into identity default values; insert into part values (1), (2); insert into parent default values; insert into child default values; insert into "Other sch.ema"."Ta ""ble" default values;
		insert into ful default values; insert into idx values (1); insert into several values (1, 2); insert into t default values`)
	src := s.open("")
	stream := map[string]uint64{}
	for _, x := range nextTransaction(t, src).tables {
		stream[x.String()] = x.Version
	}
	if !maps.Equal(catalog, stream) || len(catalog) != 15 {
		for name := range catalog {
			if catalog[name] != stream[name] {
				t.Errorf("%s is %x in the catalog, %x in the stream", name, catalog[name], stream[name])
			}
		}
		t.Errorf("%d tables in the catalog, %d in the stream", len(catalog), len(stream))
	}
	// A change that concerns rows changes the version in both, others in neither.
	for _, c := range []struct {
		sql     string
		changes bool
	}{
		{"alter table late alter b type varchar(4)", true}, {"alter table late rename b to c", true}, {"alter table late drop column c", true},
		{"alter table late rename to later; alter table later rename to late", false}, {"alter table late alter a set default 5", false},
		{"create index on late (a)", false}, {"alter table late replica identity full", false}, {"drop table late; create table late (a int)", true},
	} {
		s.exec(c.sql)
		tables, err := Tables(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(tables, func(x change.Table) bool { return x.Name == "late" })
		if (tables[i].Version != catalog["public.late"]) != c.changes {
			t.Errorf("%s changes the version: %v, want %v", c.sql, !c.changes, c.changes)
		}
		catalog["public.late"] = tables[i].Version
		s.exec("insert into late values (1)")
		if x := nextTransaction(t, src).tables[0]; x.Version != tables[i].Version {
			t.Errorf("%s: %x in the catalog, %x in the stream", c.sql, tables[i].Version, x.Version)
		}
	}
}

// testLeastPrivileges does all a capture does as the role that setup makes.
func testLeastPrivileges(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "least")
	s.exec(`create schema hidden; create table hidden.secret (n int primary key, who text); insert into hidden.secret values (1, 'a'), (2, 'b');
		alter table hidden.secret enable row level security; alter table hidden.secret force row level security; create policy p on hidden.secret using (who = current_user);
		create sequence hidden.s; revoke all on schema hidden from public; insert into t default values; select lo_create(0)`)
	setup := Setup{Publication: "txreel", Slot: "least_own", Role: "least role"}
	if err := setup.Apply(t.Context(), connectTo(t, s.url()), func(sources.Statement, error) {}); err != nil {
		t.Fatal(err)
	}
	s.exec(`alter role "least role" password 'pw'`)
	source := s.URLAs("least role", "pw", s.db)
	if _, err := Identify(t.Context(), source); err != nil {
		t.Error(err)
	}
	if err := CreateSlot(t.Context(), source, "least_own", 10_000); err != nil {
		t.Fatal(err)
	}
	conn := connectTo(t, source)
	if ok, err := PublicationExists(t.Context(), conn, "txreel"); err != nil || !ok {
		t.Errorf("%v, %v", ok, err)
	}
	if _, err := SlotPredates(t.Context(), conn, "least_own", "txreel"); err != nil {
		t.Error(err)
	}
	if h, err := ReadHealth(t.Context(), conn, "least_own"); err != nil || h.WALStatus != "reserved" || h.LimitBytes != -1 {
		t.Errorf("%+v, %v", h, err)
	}
	a := newTestArchive(t)
	o := s.options("")
	o.URL, o.Slot = source, "least_own"
	beat, stop := s.record(a, o)
	bo := s.baseOptions()
	bo.URL = source
	b, err := TakeBase(t.Context(), a, 1, bo)
	if err == nil {
		err = FinishBase(t.Context(), a, b, beat)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := rows(t, a, b, "secret"); len(got) != 2 {
		t.Errorf("rows behind row-level security: %v", got)
	}
	name, _, err := WriteMark(t.Context(), conn, "by the role")
	if err != nil || name == "" {
		t.Errorf("mark %q, %v", name, err)
	}
	stop()
	// Without BYPASSRLS a base fails, and is not a smaller one.
	s.exec(`alter role "least role" nobypassrls`)
	if _, err := TakeBase(t.Context(), a, 1, bo); err == nil || !strings.Contains(err.Error(), "row-level security") {
		t.Errorf("%v", err)
	}
	if err := DropSlot(t.Context(), conn, "least_own"); err != nil {
		eventually(t, "the slot to be free", func() bool { return DropSlot(t.Context(), conn, "least_own") == nil })
	}
}

// testUnpublished names in the coverage statement what is not recorded (Invariant 9).
func testUnpublished(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "unpublished")
	s.exec(`create schema "O"; create table "O"."left out" (n int); create table third (n int); create unlogged table u (n int); drop publication txreel; create publication txreel for table t`)
	for publication, want := range map[string]string{"txreel": `2 ("O"."left out", public.third);`, "all": "0;", "none": `3 ("O"."left out", public.t, public.third);`} {
		if publication == "all" {
			s.exec(`create publication "all" for all tables`)
		}
		coverage, err := readCoverage(t.Context(), connectTo(t, s.url()), publication)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(coverage, func(c archive.Coverage) bool { return c.What == "changes of tables outside the publication" })
		if i < 0 || coverage[i].Class != archive.Missing || !strings.HasPrefix(coverage[i].Detail, want) {
			t.Errorf("%s: %+v, want %s", publication, coverage, want)
		}
	}
	o := s.baseOptions()
	o.Timeline = "2"
	if _, err := TakeBase(t.Context(), newTestArchive(t), 1, o); err == nil || !strings.Contains(err.Error(), "records timeline 2, and the server that a base was to be read from is on timeline 1") {
		t.Errorf("a base of another timeline: %v", err)
	}
	o.Timeline = "1"
	b, err := TakeBase(t.Context(), newTestArchive(t), 1, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.Tables {
		if got := strings.Contains(string(b.Tables[i].Engine), `"unpublished":true`); got != (b.Tables[i].Name != "t") || b.Tables[i].Name == "u" {
			t.Errorf("%s is called unpublished: %v", b.Tables[i].Name, got)
		}
	}
}
