package postgres

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"txreel/archive"
	"txreel/capture"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sink/dir"
	"txreel/sources/postgres/lsn"
	"txreel/sources/postgres/pgoutput"
)

// TestRolledBack puts a server back to an earlier copy of its disk, which leaves its timeline as it is, and lets it write
// past the end of the record. The record does not go on with it, now or at the next try; with the server that was
// not put back it does, wherever its slot stands.
func TestRolledBack(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t, "autovacuum=off")
	s := newSite(t, pg, "rolled")
	s.exec("insert into t values (1)")
	first := s.read("", 1)[0]
	idle := newSite(t, pg, "idle") // of which nothing is on record behind the slot's position
	copied := filepath.Join(pg.Dir, "copy")
	restart := func(between func() error) {
		t.Helper()
		if err := pg.Stop(t.Context(), "fast"); err != nil {
			t.Fatal(err)
		}
		if err := between(); err != nil {
			t.Fatal(err)
		}
		if err := pg.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	restart(func() error { return exec.Command("cp", "-a", pg.DataDir(), copied).Run() })
	s.exec("insert into t values (2)")
	s.exec("insert into t values (3)")
	two := s.read(first.commit.Position, 2)
	second := two[1]
	held := s.last(two[0], second)
	options := func() SourceOptions {
		o := s.options(second.commit.Position)
		o.Held = func(_ context.Context, from change.Position) (*Last, error) {
			if string(from) != s.confirmed() {
				t.Errorf("asked for what is behind %s, the slot stands at %s", from, s.confirmed())
			}
			return held, nil
		}
		return o
	}

	s.exec("insert into t values (4)")
	src, err := s.tryOpen(options())
	if err != nil {
		t.Fatal(err)
	}
	if x := nextTransaction(t, src); len(x.values) != 1 || x.values[0] != "4" {
		t.Errorf("with the server it knows the record goes on with %q, want 4", x.values)
	}
	eventually(t, "the record's end to be acknowledged", func() bool { return s.confirmed() == string(second.commit.Position) })
	src.Close()

	restart(func() error {
		return errors.Join(os.Rename(pg.DataDir(), pg.DataDir()+".old"), os.Rename(copied, pg.DataDir()))
	})
	for n := 10; mustLSN(t, change.Position(s.one("select pg_current_wal_insert_lsn()"))) <= mustLSN(t, second.commit.Position); n++ {
		s.exec("insert into t values (" + strconv.Itoa(n) + ")")
	}
	s.exec("insert into t values (100)")
	stands := s.confirmed()
	for range 2 {
		src, err := s.tryOpen(options())
		if err == nil {
			eventually(t, "a word from us", func() bool {
				return s.one("select count(reply_time) from pg_stat_replication where pid = "+strconv.Itoa(int(src.conn.PID()))) == "1"
			})
			if now := s.confirmed(); now != stands {
				t.Errorf("the slot was moved to %s without a proof, it stood at %s", now, stands)
			}
			err = failure(t, src)
			src.Close()
		}
		if !errors.Is(err, capture.ErrDiverged) {
			t.Errorf("with a server that was put back: %v", err)
		}
	}
	idle.exec("insert into t values (1)")
	o := idle.options(change.Position(idle.one("select pg_current_wal_insert_lsn()")))
	o.Held = func(context.Context, change.Position) (*Last, error) { return nil, nil }
	idle.exec("insert into t values (2)")
	if src, err = idle.tryOpen(o); err == nil {
		err = failure(t, src)
	}
	if !errors.Is(err, capture.ErrDiverged) {
		t.Errorf("with a server that committed when the record says that nothing happened: %v", err)
	}
}

// last is what the record would say of a transaction.
func (s *site) last(before, x transaction) *Last {
	s.t.Helper()
	xid, err := strconv.ParseUint(x.commit.XID, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return &Last{XID: uint32(xid), End: mustLSN(s.t, x.commit.Position), Time: x.commit.CommitTime, Before: mustLSN(s.t, before.commit.Position)}
}

func TestProof(t *testing.T) {
	t.Parallel()
	type txn struct {
		xid  uint32
		end  uint64
		time change.Time
	}
	last := txn{7, 0x70, 700}
	for _, c := range []struct {
		name     string
		last     *txn
		sent     []txn
		diverged bool
	}{
		{"the last alone", &last, []txn{last}, false},
		{"those before it too", &last, []txn{{5, 0x50, 500}, last}, false},
		{"another id", &last, []txn{{8, 0x70, 700}}, true},
		{"another time", &last, []txn{{7, 0x70, 701}}, true},
		{"another end", &last, []txn{{7, 0x78, 700}}, true},
		{"nothing", &last, nil, true},
		{"one before it alone", &last, []txn{{5, 0x50, 500}}, true},
		{"one behind it", &last, []txn{last, {8, 0x80, 800}}, true},
		{"nothing on record, and nothing sent", nil, nil, false},
		{"nothing on record", nil, []txn{last}, true},
	} {
		p := proof{asked: true, end: 0x90}
		if c.last != nil {
			p.last = &Last{XID: c.last.xid, End: lsn.LSN(c.last.end), Time: c.last.time}
		}
		var err error
		for _, x := range c.sent {
			p.xid = x.xid
			if err == nil {
				err = p.shown(&pgoutput.Commit{EndLSN: x.end, CommitTime: x.time})
			}
		}
		if err == nil {
			err = p.passed()
		}
		if errors.Is(err, capture.ErrDiverged) != c.diverged || (err != nil) != c.diverged {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestLastBehind(t *testing.T) {
	t.Parallel()
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Init(t.Context(), store, archive.Identity{Engine: "postgres", System: "1", Database: "d"})
	if err == nil {
		_, err = a.StartEpoch(t.Context(), nil, archive.CauseFirst, "", nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	w, err := a.NewWriter(t.Context(), 1, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, x := range []struct {
		xid string // "" is a fence, "-" a heartbeat
		end lsn.LSN
	}{{"4294967303", 0x70}, {"-", 0x78}, {"", 0x80}, {"4294967305", 0x90}, {"", 0x98}, {"-", 0xa0}, {"-", 0xb0}} {
		position := x.end.Position()
		if x.xid == "-" {
			err = w.Heartbeat(position, 500)
		} else {
			err = errors.Join(w.Append(&change.Message{Kind: change.KindBegin}), w.Append(&change.Message{Kind: change.KindData, Raw: []byte("x")}),
				w.Append(&change.Message{Kind: change.KindCommit, XID: x.xid, Position: position, CommitTime: change.Time(x.end)}))
		}
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := w.Seal(position)
		if err == nil {
			err = w.Ship(t.Context(), sealed)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.Release(sealed)
	}
	first, second := Last{XID: 7, End: 0x70, Time: 0x70}, Last{XID: 9, End: 0x90, Time: 0x90, Before: 0x80}
	whole := w.Tail()
	early := whole
	early.Seq = 3
	for _, c := range []struct {
		tail archive.Tail
		from lsn.LSN
		want *Last
	}{
		{whole, 0xb0, nil}, {whole, 0xa0, nil}, {whole, 0x90, nil}, {whole, 0x8f, &second}, {whole, 0x10, &second},
		{early, 0x70, nil}, {early, 0x10, &first},
	} {
		got, err := LastBehind(t.Context(), a, c.tail, c.from.Position())
		if err != nil || (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("behind %s, up to %s: %+v, %v; want %+v", c.from, c.tail.Seq, got, err, c.want)
		}
	}
}
