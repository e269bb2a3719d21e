package mysql

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"txreel/archive"
	"txreel/change"
	"txreel/sink/dir"
	"txreel/sources/mysql/gtid"
)

// counted is a store that counts what is asked of it.
type counted struct {
	archive.Store
	requests int
}

func (c *counted) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, int64, error) {
	c.requests++
	return c.Store.Open(ctx, key, off, n)
}

func (c *counted) List(ctx context.Context, prefix, after string, most int) ([]archive.Object, error) {
	c.requests++
	return c.Store.List(ctx, prefix, after, most)
}

// recording is an archive that a test writes segment by segment.
type recording struct {
	t       *testing.T
	dir     string
	store   *counted
	archive *archive.Archive
	writer  *archive.Writer
}

func newRecording(t *testing.T, engine string) *recording {
	t.Helper()
	r := &recording{t: t, dir: t.TempDir()}
	store, err := dir.Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	r.store = &counted{Store: store}
	if r.archive, err = archive.Init(t.Context(), r.store, archive.Identity{Engine: engine, System: "test"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.archive.StartEpoch(t.Context(), nil, archive.CauseFirst, "", nil); err != nil {
		t.Fatal(err)
	}
	if r.writer, err = r.archive.NewWriter(t.Context(), 1, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.writer.Close)
	return r
}

// segment stores what was appended, as capture does.
func (r *recording) segment(end change.Position) {
	r.t.Helper()
	s, err := r.writer.Seal(end)
	if err == nil {
		err = r.writer.Ship(r.t.Context(), s)
	}
	if err == nil {
		err = r.writer.RollUp(r.t.Context(), s)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.writer.Release(s)
}

func (r *recording) beat(position change.Position) {
	r.t.Helper()
	if err := r.writer.Heartbeat(position, 1); err != nil {
		r.t.Fatal(err)
	}
}

// logs appends the transactions of a simulated log of MariaDB.
func (r *recording) logs(s *script, held string) {
	r.t.Helper()
	got := s.play(r.t, gtid.MariaDB, held)
	if got.err != nil {
		r.t.Fatal(got.err)
	}
	for _, x := range got.txns {
		for i, raw := range x.messages {
			m := change.Message{Kind: change.KindData, Raw: raw}
			if i == 0 {
				m.Kind, m.Defs = change.KindBegin, x.defs
			}
			if i == len(x.messages)-1 {
				m.Kind, m.XID, m.Position, m.CommitTime = change.KindCommit, x.xid, x.position, 1
			}
			if err := r.writer.Append(&m); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// last reads the last transaction and says which it is, and where its domain stood.
func (r *recording) last() (*Last, string) {
	r.t.Helper()
	l, err := ReadLast(r.t.Context(), r.archive, r.writer.Tail(), r.t.TempDir())
	if err != nil {
		r.t.Fatal(err)
	}
	if l == nil {
		return nil, "nothing"
	}
	if l.Unknown != "" {
		return l, "unknown"
	}
	return l, l.print.gtid.String() + " behind " + l.before.String()
}

// The last transaction that was committed is found behind however many heartbeats, and where its domain stood before
// it, wherever that is on record.
func TestReadLast(t *testing.T) {
	t.Parallel()
	r := newRecording(t, "mariadb")
	want := func(want string) *Last {
		t.Helper()
		l, got := r.last()
		if got != want {
			t.Errorf("the last transaction is %q, want %q", got, want)
		}
		return l
	}
	want("nothing")
	r.beat("0-9-4,3-9-9")
	r.segment("0-9-4,3-9-9")
	want("unknown") // nobody can tell what was before the record

	r.logs(mariaScript().maria(0, 5, 0).query("INSERT").xid(), "0-9-4,3-9-9")
	r.segment("0-1-5,3-9-9")
	want("0-1-5 behind 0-9-4")
	r.logs(mariaScript().maria(1, 1, 1).query("CREATE"), "0-1-5,3-9-9")
	r.segment("0-1-5,1-1-1,3-9-9")
	want("1-1-1 behind ")
	r.logs(mariaScript().maria(0, 7, 1).query("CREATE").maria(1, 2, 1).query("CREATE").maria(0, 8, 0).query("INSERT").xid(), "0-1-5,1-1-1,3-9-9")
	r.segment("0-1-8,1-1-2,3-9-9")
	want("0-1-8 behind 0-1-7")
	r.logs(mariaScript().maria(0, 9, 0).add(200, 0, []byte("of tomorrow")).xid(), "0-1-8,1-1-2,3-9-9")
	r.segment("0-1-9,1-1-2,3-9-9")
	l := want("0-1-9 behind 0-1-8")
	if set := l.without(gtidSet(t, "0-1-9,1-1-2,3-9-9")); set.String() != "0-1-8,1-1-2,3-9-9" {
		t.Errorf("asked for what is behind %s", set)
	}

	// A quiet time.
	for range 1200 {
		r.beat("0-1-9,1-1-2,3-9-9")
		r.segment("0-1-9,1-1-2,3-9-9")
	}
	r.store.requests = 0
	want("0-1-9 behind 0-1-8")
	if r.store.requests > 60 {
		t.Errorf("%d requests for the last transaction", r.store.requests)
	}
	t.Logf("%d requests", r.store.requests)

	// What is damaged is no reason to record nothing from now on.
	r.logs(mariaScript().maria(0, 10, 0).query("INSERT").xid(), "0-1-9,1-1-2,3-9-9")
	r.segment("0-1-10,1-1-2,3-9-9")
	want("0-1-10 behind 0-1-9")
	file := filepath.Join(r.dir, filepath.FromSlash(archive.SegmentKey(1, r.writer.Tail().Seq)))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[150] ^= 1
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	want("unknown")
}

func gtidSet(t *testing.T, text string) *gtid.Set {
	t.Helper()
	set, err := gtid.Parse(gtid.MariaDB, text)
	if err != nil {
		t.Fatal(err)
	}
	return set
}
