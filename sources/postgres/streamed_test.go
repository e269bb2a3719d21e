package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"txreel/capture"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/segment"
	"txreel/sources/postgres/lsn"
)

// TestStreamedIsTheSame records a corpus of transactions in one piece and as the server streams them, during and after,
// and expects the same segment, byte for byte.
func TestStreamedIsTheSame(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t, "logical_decoding_work_mem=64kB", "autovacuum=off", "max_prepared_transactions=20")
	t.Run("blocker", func(t *testing.T) { testBlocker(t, pg) }) // before anybody else writes
	t.Run("failover", func(t *testing.T) { testFailoverSlot(t, pg) })
	t.Run("in doubt", func(t *testing.T) { testMessageInDoubt(t, pg) })
	t.Run("rolled back table", func(t *testing.T) { testRolledBackTable(t, pg) })
	t.Run("again", func(t *testing.T) { testStreamedAgain(t, pg) })
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := newSite(t, pg, "corpus")
	type result struct {
		b     []byte
		again bool // opened anew on the way
		err   error
	}
	for _, slot := range []string{"live", "later"} {
		if err := CreateSlot(t.Context(), s.url(), slot, 10_000); err != nil {
			t.Fatal(err)
		}
	}
	read := func(slot string, whole bool, until func() lsn.LSN) result {
		o := s.options("")
		o.Slot, o.Whole, o.spoolPages, o.SpillDir = slot, whole, 3, t.TempDir()
		b, src, err := s.segmentOf(o, until)
		if src == nil {
			return result{err: err}
		}
		if n := len(src.parser.streams.open); err == nil && n != 0 {
			err = fmt.Errorf("%s: %d transactions are still open", slot, n)
		}
		if sp := &src.parser.streams.spool; err == nil && (sp.held != 0 || len(sp.free) != int(sp.slots)) {
			err = fmt.Errorf("%s: %d pages in memory and %d in the file are left", slot, sp.held, int(sp.slots)-len(sp.free))
		}
		return result{b, src.opts.Whole != whole, err}
	}
	end := make(chan lsn.LSN, 1)
	live := make(chan result, 1)
	go func() { // joined below
		at := lsn.LSN(0)
		live <- read("live", false, func() lsn.LSN {
			select {
			case at = <-end:
			default:
			}
			return at
		})
	}()
	s.corpus(seed, 400)
	at := s.current()
	end <- at
	was := <-live
	fixed := func() lsn.LSN { return at }
	whole, later := read("corpus", true, fixed), read("later", false, fixed)
	if err := errors.Join(whole.err, was.err, later.err); err != nil {
		t.Fatal(err)
	}
	streamed := s.MustQuery(t, s.db, "select slot_name, spill_txns, stream_txns, stream_count from pg_stat_replication_slots order by 1")
	t.Logf("%d bytes; slot, spilled, streamed transactions, pieces: %v", len(whole.b), streamed)
	for when, got := range map[string]result{"while it runs": was, "afterwards": later} {
		if says := difference(whole.b, got.b, got.again); says != "" {
			t.Errorf("%s: %s", when, says)
		}
	}
	if n := s.one("select count(*) from pg_stat_replication_slots where slot_name <> 'corpus' and stream_count > 2 * stream_txns and stream_txns > 10"); n != "2" {
		t.Error("little was streamed: this proves nothing")
	}
}

// testMessageInDoubt rolls back a logical message that the server has streamed under the id of the whole transaction.
func testMessageInDoubt(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "doubt")
	s.exec(`begin; insert into t values (-1); savepoint a; select pg_logical_emit_message(true, 'p', 'rolled back');
		insert into t (v) select repeat('x', 1000) from generate_series(2, 300); rollback to a; insert into t values (-2); commit`)
	s.exec("insert into t values (-3)")
	if err := failure(t, s.open("")); !errors.Is(err, ErrPieces) || errors.Is(err, capture.ErrGap) {
		t.Fatal(err)
	}
	o := s.options("")
	o.Whole = true
	src, err := s.tryOpen(o)
	if err != nil {
		t.Fatal(err)
	}
	if got := shown([]transaction{nextTransaction(t, src), nextTransaction(t, src)}); !slices.Equal(got, []string{"-1+-2", "-3"}) {
		t.Errorf("%q", got)
	}
}

// testRolledBackTable rolls back a table with rows that were streamed. Some versions fail to decode that before the
// transaction's end, and get another chance.
func testRolledBackTable(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "rolledback")
	s.exec(`begin; insert into t select -i from generate_series(1, 300) i; savepoint a;
		create table made (n int primary key, v text); insert into made select i, repeat('m', 500) from generate_series(1, 400) i; rollback to a;
		insert into t select -1000 - i from generate_series(1, 300) i; commit`)
	src := s.open("")
	for {
		m, err := src.Next(t.Context())
		if errors.Is(err, ErrPieces) {
			t.Log(err)
			src.Close()
			o := s.options("")
			o.Whole = true
			if src, err = s.tryOpen(o); err != nil {
				t.Fatal(err)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind == change.KindBegin {
			src.Close()
			src = s.open("")
			break
		}
	}
	if x := nextTransaction(t, src); len(x.values) != 600 || x.tables[599].Name != "t" {
		t.Errorf("%d rows", len(x.values))
	}
}

// testStreamedAgain ends connections in the middle of a transaction that is being streamed: the next one is sent all of it.
func testStreamedAgain(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "again")
	long := s.conn()
	if _, err := long.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	var tail change.Position
	for i := range 3 {
		if _, err := long.Exec(t.Context(), "insert into t (v) select repeat('x', 1000) from generate_series(1, 200)"); err != nil {
			t.Fatal(err)
		}
		s.exec("insert into t (v) values ('between')")
		src := s.open(tail)
		x := nextTransaction(t, src)
		tail = x.commit.Position
		src.Ack(tail) // although the other one, which began before, has not ended
		eventually(t, "the acknowledgement", func() bool { return s.confirmed() == string(tail) })
		eventually(t, "a piece of the other one", func() bool {
			_, err := src.Next(t.Context())
			return err != nil || len(src.parser.streams.open) > 0
		})
		if len(x.values) != 1 {
			t.Errorf("%d rows", len(x.values))
		}
		src.Close()
		if i > 0 {
			continue // what came before the place where a stream begins is not sent piece by piece
		}
		if spilled := s.one("select spill_bytes from pg_stat_replication_slots where slot_name = 'again'"); spilled != "0" {
			t.Errorf("the source wrote %s bytes to its own disk", spilled)
		}
	}
	if _, err := long.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	src := s.open(tail)
	if x := nextTransaction(t, src); len(x.values) != 600 {
		t.Errorf("%d rows, want 600", len(x.values))
	}
}

func (s *site) current() lsn.LSN {
	s.t.Helper()
	s.exec("select pg_switch_wal()") // which also flushes
	return mustLSN(s.t, change.Position(s.one("select pg_current_wal_insert_lsn()")))
}

// segmentOf writes what a stream delivers up to a position into one segment, and reads on in one piece where a capture
// would. Times of receipt, which always differ, are left out. The source it returns is closed.
func (s *site) segmentOf(o SourceOptions, until func() lsn.LSN) ([]byte, *Source, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	var out sliceOutput
	w, err := segment.NewWriter(&out, segment.Header{Engine: "postgres", First: 1, Epoch: 1})
	if err != nil {
		return nil, nil, err
	}
	for {
		src, err := s.tryOpen(o)
		if err != nil {
			return nil, nil, err
		}
		err = writeUntil(ctx, src, w, until)
		held, free := src.parser.streams.spool.held, len(src.parser.streams.spool.free)
		slots := src.parser.streams.spool.slots
		src.Close()
		src.parser.streams.spool = spool{held: held, free: make([]uint32, free), slots: slots} // for a look at what was left
		if errors.Is(err, ErrPieces) && !o.Whole {
			s.t.Logf("%s: %v", o.Slot, err)
			o.Whole, o.Tail = true, src.Position() // as a capture does
			if err := w.Rollback(); err != nil {
				return nil, src, err
			}
			continue
		}
		if err == nil {
			_, err = w.Close("end")
		}
		return out.b, src, err
	}
}

func writeUntil(ctx context.Context, src *Source, w *segment.Writer, until func() lsn.LSN) error {
	for {
		m, err := src.Next(ctx)
		if err != nil {
			return err
		}
		switch m.Kind {
		case change.KindBegin:
			if err = w.Begin(change.TxnSource); err == nil {
				err = w.Write(m)
			}
		case change.KindData:
			err = w.Write(m)
		case change.KindCommit:
			c := *m
			c.Received = 0
			if c.XID == "" {
				c.CommitTime = 0 // of a message outside any transaction: when the server's clock was read last
			}
			err = errors.Join(w.Write(&c), w.Commit(&c))
		case change.KindIdle:
			at, _ := lsn.FromPosition(m.Position)
			if end := until(); end != 0 && at >= end {
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

type sliceOutput struct{ b []byte }

func (o *sliceOutput) Write(p []byte) (int, error) {
	o.b = append(o.b, p...)
	return len(p), nil
}

func (o *sliceOutput) Truncate(n int64) error {
	o.b = o.b[:n]
	return nil
}

// difference names the first record in which two segments differ. Definitions, which a source that was opened anew
// repeats, count only without again.
func difference(a, b []byte, again bool) string {
	if bytes.Equal(a, b) {
		return ""
	}
	x, before := records(a)
	y, after := records(b)
	for i := range x {
		if i >= len(y) || x[i] != y[i] {
			from := max(i-3, 0)
			return fmt.Sprintf("record %d of %d and %d:\n%s\n--- instead of\n%s\n", i, len(x), len(y),
				strings.Join(y[min(from, len(y)):min(i+2, len(y))], "\n"), strings.Join(x[from:min(i+2, len(x))], "\n"))
		}
	}
	if again && len(x) == len(y) {
		return ""
	}
	return fmt.Sprintf("%d records and %d definitions instead of %d and %d, or the index", len(y), after, len(x), before)
}

// records lists all records of a segment but definitions, which it counts.
func records(b []byte) (out []string, definitions int) {
	r, err := segment.NewReader(bytes.NewReader(b))
	if err != nil {
		return []string{err.Error()}, 0
	}
	for {
		rec, err := r.Next()
		if err != nil {
			return append(out, err.Error()), definitions
		}
		if rec.Kind == segment.Definition {
			definitions++
			continue
		}
		out = append(out, fmt.Sprintf("%v %s %s %s %q %08x", rec.Kind, rec.XID, rec.Position, rec.CommitTime, rec.Raw[:min(len(rec.Raw), 80)], crc32.ChecksumIEEE(rec.Raw)))
	}
}

// corpusSession is one of the sessions of a corpus.
type corpusSession struct {
	*pgx.Conn
	n          int
	open       bool
	savepoints []string
	columns    int
}

// corpus runs random transactions in several sessions at once, step by step, so that they interleave in the log.
func (s *site) corpus(seed uint64, steps int) {
	s.t.Helper()
	r := rand.New(rand.NewPCG(seed, 7))
	s.exec(`create type mood as enum ('low', 'high');
		create table shared (n bigserial primary key, m mood, v text);
		create table full_identity (n int, v text, big text); alter table full_identity replica identity full;
		alter table full_identity alter big set storage external;
		create function loops(name text, turns int, rows int) returns void language plpgsql as $$
		begin
			for i in 1..turns loop
				begin
					execute format('insert into %I (v) select repeat(md5($1::text), 3) from generate_series(1, $2)', name) using i, rows;
					begin
						execute format('insert into %I (v) select $1::text from generate_series(1, $2)', name) using -i, rows;
						if i % 3 = 0 then raise 'inner'; end if;
					exception when others then null;
					end;
					if i % 4 = 0 then raise 'outer'; end if;
				exception when others then null;
				end;
			end loop;
		end $$`)
	var sessions []*corpusSession
	for n := range 5 {
		s.exec(fmt.Sprintf("create table own%d (n bigserial primary key, v text, big text); alter table own%[1]d alter big set storage external", n))
		sessions = append(sessions, &corpusSession{Conn: s.conn(), n: n})
	}
	for range steps {
		c := sessions[r.IntN(len(sessions))]
		own := fmt.Sprintf("own%d", c.n)
		var sql string
		if !c.open {
			c.open, c.savepoints, sql = true, nil, "begin"
		} else {
			switch r.IntN(22) {
			case 0, 1:
				sql, c.open = "commit", false
			case 2:
				sql, c.open = "rollback", false
			case 3, 4, 5:
				c.savepoints = append(c.savepoints, fmt.Sprintf("s%d", len(c.savepoints)))
				sql = "savepoint " + c.savepoints[len(c.savepoints)-1]
			case 6, 7:
				if n := len(c.savepoints); n > 0 {
					i := r.IntN(n)
					sql, c.savepoints = "rollback to "+c.savepoints[i], c.savepoints[:i+1]
				}
			case 8:
				if n := len(c.savepoints); n > 0 {
					i := r.IntN(n)
					sql, c.savepoints = "release "+c.savepoints[i], c.savepoints[:i]
				}
			case 9, 10, 11:
				sql = fmt.Sprintf("insert into %s (v, big) select repeat(md5(i::text), 2), repeat('x%d', 1500) from generate_series(1, %d) i", own, r.IntN(10), 1+r.IntN(60))
			case 12:
				sql = fmt.Sprintf("update %s set v = v || 'u' where n %% 3 = %d", own, r.IntN(3)) // big stays unchanged TOAST
			case 13:
				sql = fmt.Sprintf("delete from %s where n %% 5 = %d", own, r.IntN(5))
			case 14, 15:
				sql = fmt.Sprintf("insert into shared (m, v) select 'low', repeat('%d', 90) from generate_series(1, %d)", c.n, 1+r.IntN(900))
			case 16:
				sql = fmt.Sprintf("insert into full_identity select i, repeat('f', 50), repeat('y', 3000) from generate_series(%d, %d) i", 1000*c.n, 1000*c.n+r.IntN(80))
			case 17:
				sql = fmt.Sprintf("update full_identity set v = v || 'w' where n between %d and %d", 1000*c.n, 1000*c.n+999)
			case 18:
				// Between two rows there is no doubt which subtransaction it is of.
				sql = fmt.Sprintf("insert into %s (v) values ('a'); select pg_logical_emit_message(%t, 'p', repeat('m', %d)); insert into %[1]s (v) values ('b')", own, r.IntN(2) == 0, 1+r.IntN(3000))
			case 19:
				sql = fmt.Sprintf("select loops('%s', %d, %d)", own, 1+r.IntN(9), 1+r.IntN(40))
			case 20:
				switch c.columns++; r.IntN(5) {
				case 0:
					sql = fmt.Sprintf("alter table %s add c%d_%d int default 7", own, c.n, c.columns)
				case 1:
					sql = fmt.Sprintf("create type kind%d_%d as enum ('a'); create table made%[1]d_%[2]d (n int primary key, k kind%[1]d_%[2]d); insert into made%[1]d_%[2]d select i, 'a' from generate_series(1, 900) i", c.n, c.columns)
				case 2:
					sql = fmt.Sprintf("truncate %s", own)
				case 3:
					sql = fmt.Sprintf("alter table %s alter v type varchar", own)
				case 4:
					sql = fmt.Sprintf("insert into %s (v) select 'z' from generate_series(1, 600); alter table %[1]s drop column if exists c%d_%d", own, c.n, c.columns-1)
				}
			case 21:
				if len(c.savepoints) == 0 && r.IntN(2) == 0 {
					id := fmt.Sprintf("p%d_%d", c.n, r.Uint32())
					sql, c.open = "prepare transaction '"+id+"'", false
					s.step(c, sql)
					sql = []string{"commit", "rollback"}[r.IntN(2)] + " prepared '" + id + "'"
				}
			}
		}
		if sql == "" {
			continue
		}
		s.step(c, sql)
	}
	for _, c := range sessions {
		if c.open {
			s.step(c, "commit")
		}
	}
}

// step runs statements of a session, which none of the others may hold up.
func (s *site) step(c *corpusSession, sql string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		s.t.Fatalf("session %d: %s: %v", c.n, sql, err)
	}
}
