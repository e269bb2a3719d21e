package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"txreel/internal/dbtest"
)

// memoryLimit is what a txreel may have resident, whatever a transaction's size.
const memoryLimit = 256 << 20

// TestHugeTransaction records one transaction that is larger than the memory allowed, and restores it.
func TestHugeTransaction(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t, "max_wal_size=4GB")
	s := newSite(t, pg, "huge", nil)
	s.setup()
	s.exec(`CREATE TABLE huge (id bigint PRIMARY KEY, note text); ALTER TABLE huge ALTER note SET STORAGE EXTERNAL`)
	capture := s.start("capture", "--heartbeat", "500ms")
	a := s.waitArchive()
	s.waitBases(a, 1, 1)

	conn, err := pg.Conn(t.Context(), s.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	rows := &rowStream{bytes: int64(times(272, 2048)) << 20}
	tag, err := conn.PgConn().CopyFrom(t.Context(), rows, "COPY huge FROM STDIN")
	if err != nil {
		t.Fatal(err)
	}
	s.waitPast(a, s.here())
	peak := capture.peakRSS()
	t.Logf("%d rows: the capture had %d MiB resident at most", tag.RowsAffected(), peak>>20)
	if peak > memoryLimit {
		t.Errorf("the capture had %d MiB resident", peak>>20)
	}
	capture.signal(terminate)
	if code := capture.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	const folding = 64 << 20
	r := s.restore("huge_again", "--memory", "64MiB")
	t.Logf("the restore had %d MiB resident at most", r.rss>>20)
	if r.rss > memoryLimit+folding {
		t.Errorf("the restore had %d MiB resident", r.rss>>20)
	}
	s.same("huge_again")
}

// rowStream is COPY input of at least so many bytes in rows of different lengths, one of them of 16 MiB.
type rowStream struct {
	bytes int64
	id    int64
	buf   []byte
	chaff []byte
}

func (r *rowStream) Read(p []byte) (int, error) {
	for len(r.buf) < len(p) && r.bytes > 0 {
		if r.chaff == nil {
			random := rand.New(rand.NewPCG(3, 4))
			r.chaff = make([]byte, 16<<20)
			for i := range r.chaff {
				r.chaff[i] = "0123456789abcdef"[random.IntN(16)]
			}
		}
		r.id++
		n := int(200 + r.id*7919%2000)
		if r.id == 1000 {
			n = len(r.chaff)
		}
		from := int(r.id*104729) % (len(r.chaff) - 3000)
		if n == len(r.chaff) {
			from = 0
		}
		before := len(r.buf)
		r.buf = fmt.Appendf(r.buf, "%d\t%s\n", r.id, r.chaff[from:from+n])
		r.bytes -= int64(len(r.buf) - before)
	}
	if len(r.buf) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.buf)
	r.buf = append(r.buf[:0], r.buf[n:]...)
	return n, nil
}

// same fails the test unless another database of the source's server holds what the source does.
func (s *site) same(db string) {
	s.t.Helper()
	want, err := dbtest.Dump(s.t.Context(), s.pg.URL(s.db), "txreel")
	if err != nil {
		s.t.Fatal(err)
	}
	got, err := dbtest.Dump(s.t.Context(), s.pg.URL(db), "txreel")
	if err != nil {
		s.t.Fatal(err)
	}
	if diff := dbtest.Diff(want, got); diff != "" {
		s.t.Errorf("the restored database differs:\n%s", diff)
	}
}
