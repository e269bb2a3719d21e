package postgres

import (
	"cmp"
	"context"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"

	"txreel/internal/rowsum"
	"txreel/internal/spill"
	"txreel/restore/postgres/fold"
	"txreel/sources/postgres/pgbase"
)

// rollSink keeps final rows of the record, compressed, until all of a pass are there: they come a few at a time, and of any
// number of tables.
type rollSink struct {
	roller *roller
	zstd   *zstd.Encoder // for EncodeAll, which may be called concurrently
	lines  []rowsum.Lines
	frames [][]byte // by worker, for reuse

	mu     sync.Mutex
	body   *spill.Buffer
	pieces []rollPiece
}

var _ fold.Sink = (*rollSink)(nil)

// rollPiece is a zstd frame of rows in the body of a rollSink.
type rollPiece struct {
	table    int
	from, to int64
	raw      int64
	rows     rowsum.Sum
}

func newRollSink(r *roller) (*rollSink, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(r.Jobs), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
	return &rollSink{roller: r, zstd: enc, lines: make([]rowsum.Lines, r.Jobs), frames: make([][]byte, r.Jobs), body: newSpill(r.SpillDir)}, err
}

// newSpill returns a buffer for what is about to be stored.
func newSpill(dir string) *spill.Buffer {
	const inMemory = 16 << 20
	return spill.New(dir, inMemory)
}

func (s *rollSink) close() { s.body.Reset() }

// Rows implements fold.Sink.
func (s *rollSink) Rows(_ context.Context, worker, table int, lines []byte, _ int64) error {
	sum := &s.lines[worker]
	sum.Reset()
	_, _ = sum.Write(lines) // never fails
	s.frames[worker] = s.zstd.EncodeAll(lines, s.frames[worker][:0])
	s.mu.Lock()
	defer s.mu.Unlock()
	from := s.body.Size()
	if _, err := s.body.Write(s.frames[worker]); err != nil {
		return err
	}
	s.pieces = append(s.pieces, rollPiece{table: table, from: from, to: s.body.Size(), raw: int64(len(lines)), rows: sum.Sum})
	return nil
}

// store makes objects of what the sink has taken.
func (s *rollSink) store(ctx context.Context) error {
	slices.SortStableFunc(s.pieces, func(a, b rollPiece) int { return cmp.Compare(a.table, b.table) })
	var parts [][]rollPiece
	var raw int64
	for i, from := 0, 0; i < len(s.pieces); i++ {
		raw += s.pieces[i].raw
		if i == len(s.pieces)-1 || s.pieces[i+1].table != s.pieces[i].table || raw >= rawChunk {
			parts = append(parts, s.pieces[from:i+1])
			from, raw = i+1, 0
		}
	}
	return s.roller.each(ctx, len(parts), func(ctx context.Context, w *pgbase.Chunk, i int) error { return s.storePart(ctx, w.Body, parts[i]) })
}

// storePart makes one object: frames behind one another are zstd too.
func (s *rollSink) storePart(ctx context.Context, body *spill.Buffer, part []rollPiece) error {
	body.Reset()
	var raw int64
	var rows rowsum.Sum
	for _, p := range part {
		if _, err := io.Copy(body, io.NewSectionReader(s.body, p.from, p.to-p.from)); err != nil {
			return err
		}
		raw += p.raw
		rows.Merge(p.rows)
	}
	table := part[0].table
	o, err := s.roller.archive.CreateObject(ctx, s.roller.base, s.roller.name(table), body, body.Size())
	if err != nil {
		return err
	}
	o.Raw, o.Rows = raw, rows.Rows
	s.roller.stored(table, o, rows)
	return nil
}
