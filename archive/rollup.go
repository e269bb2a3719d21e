package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"

	"txreel/change"
	"txreel/internal/failpoint"
	"txreel/segment"
)

// A rollup is one object with the indexes of many segments, so that readers of a
// long history need few requests. Level 1 holds the indexes of up to rollupFan
// segments, level 2 those of rollupFan rollups of level 1. Rollups are derived data:
// whoever reads them falls back on the segments where one is missing.
const (
	rollupFan   = 32
	rollupBytes = 8 << 20 // a rollup is closed early when it grows past this
	rollupMagic = "TXROLL1\n"
	levels      = 2

	rollupEntrySize = 12
)

// rolled is one segment in a rollup.
type rolled struct {
	first, last change.Seq
	size        int64  // of the segment
	packed      []byte // its index and footer, as stored
}

// span is a rollup as its key describes it.
type span struct {
	epoch       uint64
	first, last change.Seq
	key         string
	size        int64
}

func rollupsKey(epoch uint64, level int) string {
	return fmt.Sprintf("%s/rollups/%d/", epochKey(epoch), level)
}

func rollupKey(epoch uint64, level int, first, last change.Seq) string {
	return rollupsKey(epoch, level) + first.String() + "-" + last.String()
}

func parseRollupKey(epoch uint64, level int, o Object) (span, error) {
	first, last, ok := strings.Cut(strings.TrimPrefix(o.Key, rollupsKey(epoch, level)), "-")
	f, err1 := change.ParseSeq(first)
	l, err2 := change.ParseSeq(last)
	if !ok || err1 != nil || err2 != nil || f == 0 || l < f || rollupKey(epoch, level, f, l) != o.Key {
		return span{}, fmt.Errorf("%w: %s is no key of a rollup", ErrCorrupt, o.Key)
	}
	return span{epoch: epoch, first: f, last: l, key: o.Key, size: o.Size}, nil
}

// roller gathers indexes until a rollup is due. Its state is derived from the
// archive at every start, and so are the borders between rollups: whoever continues
// writes the objects that its predecessor would have written.
type roller struct {
	archive *Archive
	epoch   uint64
	pending []rolled
	lower   []span // rollups of level 1 that no rollup of level 2 holds yet
	off     bool   // this writer writes no more rollups
	failed  error  // why, until it has been reported
}

// maxPending bounds what is kept of segments while rollups cannot be written.
const maxPending = 4 * rollupBytes

// newRoller finds out what the rollups of the epoch do not hold yet. It writes
// nothing, and takes few requests however long the epoch is. Damage does not stop a
// writer: it then goes on without rollups.
func (a *Archive) newRoller(ctx context.Context, tail Tail) (*roller, error) {
	r := &roller{archive: a, epoch: tail.Epoch}
	if tail.Seq == 0 {
		return r, nil
	}
	if err := r.catchUp(ctx, tail); errors.Is(err, ErrCorrupt) {
		r.stop(err)
	} else if err != nil {
		return nil, err
	}
	return r, nil
}

func (r *roller) catchUp(ctx context.Context, tail Tail) error {
	pruned, err := r.archive.Pruned(ctx, r.epoch)
	if err != nil {
		return err
	}
	done := change.Seq(0) // the last transaction rolled up
	upper, _, err := r.archive.lastPage(ctx, r.epoch, 2, 0, math.MaxUint64)
	if err != nil {
		return err
	}
	if n := len(upper); n > 0 {
		done = upper[n-1].last
	}
	above := done
	// What a page does not hold is too much to catch up with. It stays as it is, and
	// costs readers time.
	lower, from, err := r.archive.lastPage(ctx, r.epoch, 1, done, math.MaxUint64)
	if err != nil {
		return err
	}
	if n := len(lower); n > 0 {
		done = lower[n-1].last
		if from == above {
			r.lower = slices.DeleteFunc(lower, func(s span) bool { return s.last < pruned.From() })
		}
	}
	done = max(done, pruned.From()-1)
	objects, err := r.behind(ctx, done)
	if err != nil || objects == nil {
		return err
	}
	frames, err := segment.NewFrameReader()
	if err != nil {
		return err
	}
	for _, o := range objects {
		seq, err := parseSegmentKey(r.epoch, o.Key)
		if err != nil {
			return err
		}
		if seq > tail.Segment {
			break // another writer's
		}
		x, err := r.archive.segmentTail(ctx, frames, r.epoch, seq, o.Size)
		if err != nil {
			return notFoundIsCorrupt(err)
		}
		if seq != done+1 {
			return &HoleError{Epoch: r.epoch, After: done, Next: seq}
		}
		done = x.Last()
		r.pending = append(r.pending, rolled{first: seq, last: done, size: x.Size, packed: bytes.Clone(x.Packed)})
	}
	return nil
}

// behind lists the segments behind a transaction; none if they are more than a page, or in more packs than a rollup holds segments: then rollups
// could not be written for long.
func (r *roller) behind(ctx context.Context, done change.Seq) (all []Object, err error) {
	packs, err := r.archive.packs.list(ctx, r.archive, r.epoch, done+1)
	if err != nil || packs.after(done) > r.archive.fan {
		return nil, err
	}
	for next := done + 1; next != 0; {
		var some []Object
		if some, next, err = r.archive.NextSegments(ctx, r.epoch, next, math.MaxUint64); err != nil {
			return nil, err
		}
		if all = append(all, some...); len(all) >= page {
			return nil, nil
		}
	}
	return all, nil
}

func (r *roller) stop(err error) {
	*r = roller{archive: r.archive, epoch: r.epoch, off: true,
		failed: fmt.Errorf("no rollups are written until the next start: %w", err)}
}

// add takes the index of a segment that is in the archive and writes the rollups
// that are due.
func (r *roller) add(ctx context.Context, s rolled) error {
	if r.off {
		err := r.failed
		r.failed = nil
		return err
	}
	r.pending = append(r.pending, s)
	err := r.write(ctx)
	if err != nil {
		var bytes int
		for i := range r.pending {
			bytes += len(r.pending[i].packed)
		}
		if bytes > maxPending {
			r.stop(err)
			err, r.failed = r.failed, nil
		}
	}
	return err
}

// write writes what is due. What fails stays due: a rollup that is left out would
// leave a hole that no later start fills.
func (r *roller) write(ctx context.Context) error {
	for {
		n := r.due()
		if n == 0 {
			break
		}
		first, last := r.pending[0].first, r.pending[n-1].last
		body := r.archive.encodeRollup(r.epoch, r.pending[:n])
		key := rollupKey(r.epoch, 1, first, last)
		if err := r.create(ctx, key, body); err != nil {
			return err
		}
		r.lower = append(r.lower, span{epoch: r.epoch, first: first, last: last, key: key, size: int64(len(body))})
		r.pending = append([]rolled(nil), r.pending[n:]...)
	}
	for {
		n := r.dueLower()
		if n == 0 {
			return nil
		}
		if n > 1 { // a single one would only be copied
			if err := r.writeUpper(ctx, r.lower[:n]); err != nil && !errors.Is(err, ErrCorrupt) {
				return err
			} else if err != nil {
				r.lower = r.lower[n:] // they will not mend
				return err
			}
		}
		r.lower = append([]span(nil), r.lower[n:]...)
	}
}

// due returns how many of the pending indexes make a rollup, or zero.
func (r *roller) due() int {
	bytes := 0
	for i := range r.pending {
		if bytes += len(r.pending[i].packed); i+1 == r.archive.fan || bytes >= rollupBytes {
			return i + 1
		}
	}
	return 0
}

// dueLower is due for rollups of level 1. Those of one rollup of level 2 must follow
// upon each other.
func (r *roller) dueLower() int {
	var bytes int64
	for i, s := range r.lower {
		if i > 0 && s.first != r.lower[i-1].last+1 {
			return i
		}
		if bytes += s.size; i+1 == r.archive.fan || bytes >= rollupBytes {
			return i + 1
		}
	}
	return 0
}

func (r *roller) writeUpper(ctx context.Context, lower []span) error {
	frames, err := segment.NewFrameReader()
	if err != nil {
		return err
	}
	var all []rolled
	next := lower[0].first
	for _, s := range lower {
		err := r.archive.readRollup(ctx, s, func(e rolled) error {
			t, err := e.decode(frames)
			if err != nil {
				return err
			}
			if t.First() != next {
				return fmt.Errorf("%w: %s holds the index of segment %s where %s must be", ErrCorrupt, s.key, t.First(), next)
			}
			e.first, e.last = t.First(), t.Last()
			next = e.last + 1
			all = append(all, e)
			return nil
		})
		if err == nil && next != s.last+1 {
			err = fmt.Errorf("%w: %s ends with %s", ErrCorrupt, s.key, next-1)
		}
		if err != nil {
			return notFoundIsCorrupt(err)
		}
	}
	return r.create(ctx, rollupKey(r.epoch, 2, lower[0].first, lower[len(lower)-1].last), r.archive.encodeRollup(r.epoch, all))
}

func (r *roller) create(ctx context.Context, key string, body []byte) error {
	failpoint.Hit(failpoint.RollupCreating)
	err := r.archive.Store.Create(ctx, key, bytes.NewReader(body), int64(len(body)))
	failpoint.Hit(failpoint.RollupCreated)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create %s: %w", key, err)
	}
	return nil
}

// rollupHeader is what a rollup of the epoch begins with.
func (a *Archive) rollupHeader(epoch uint64) []byte {
	b := append([]byte(rollupMagic), a.id[:]...)
	return binary.LittleEndian.AppendUint64(b, epoch)
}

func (a *Archive) encodeRollup(epoch uint64, entries []rolled) []byte {
	b := a.rollupHeader(epoch)
	size := rollupEntrySize + 4
	for _, e := range entries {
		size += rollupEntrySize + len(e.packed)
	}
	b = slices.Grow(b, size)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint64(b, uint64(e.size))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(e.packed)))
		b = append(b, e.packed...)
	}
	b = append(b, make([]byte, rollupEntrySize)...) // an entry of size 0 ends the rollup
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// readRollup calls entry for each segment of a rollup. first and last of the
// entries are not set: they are in the packed index. Every packed slice is its
// receiver's to keep.
func (a *Archive) readRollup(ctx context.Context, s span, entry func(rolled) error) error {
	r, err := a.openRollup(ctx, s)
	if err != nil {
		return err
	}
	defer r.close()
	for {
		e, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := entry(e); err != nil {
			return err
		}
	}
}

// rollupReader reads the entries of one rollup.
type rollupReader struct {
	key  string
	body io.ReadCloser
	sum  hash.Hash32
	left int64
}

// openRollup opens a rollup, which must be closed.
func (a *Archive) openRollup(ctx context.Context, s span) (*rollupReader, error) {
	body, size, err := a.Store.Open(ctx, s.key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.key, err)
	}
	r := &rollupReader{key: s.key, body: body, sum: crc32.New(crc32.MakeTable(crc32.Castagnoli)), left: size}
	want := a.rollupHeader(s.epoch)
	head, err := r.read(int64(len(want)))
	if err == nil && !bytes.Equal(head, want) {
		err = fmt.Errorf("%w: %s is no rollup of version 1 of this epoch: it begins with %x", ErrCorrupt, s.key, head)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rollupReader) close() { _ = r.body.Close() } // read only

func (r *rollupReader) read(n int64) ([]byte, error) {
	if n > r.left {
		return nil, fmt.Errorf("%w: %s: %d bytes announced, %d left", ErrCorrupt, r.key, n, r.left)
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r.body, p); err != nil {
		return nil, fmt.Errorf("read %s: %w", r.key, err)
	}
	r.left -= n
	_, _ = r.sum.Write(p)
	return p, nil
}

// next returns the next entry. io.EOF means that the rollup was read to its end and
// its checksum is right.
func (r *rollupReader) next() (rolled, error) {
	head, err := r.read(rollupEntrySize)
	if err != nil {
		return rolled{}, err
	}
	size, n := binary.LittleEndian.Uint64(head), int64(binary.LittleEndian.Uint32(head[8:]))
	if size == 0 && n == 0 {
		return rolled{}, r.end()
	}
	if size > math.MaxInt64 {
		return rolled{}, fmt.Errorf("%w: %s: segment of %d bytes", ErrCorrupt, r.key, size)
	}
	packed, err := r.read(n)
	return rolled{size: int64(size), packed: packed}, err
}

func (r *rollupReader) end() error {
	want := r.sum.Sum32()
	sum, err := r.read(4)
	if err != nil {
		return err
	}
	if r.left != 0 || binary.LittleEndian.Uint32(sum) != want {
		return fmt.Errorf("%w: %s: checksum mismatch", ErrCorrupt, r.key)
	}
	return io.EOF
}

// decode turns a rollup's entry into the tail of its segment.
func (e *rolled) decode(frames *segment.FrameReader) (*segment.Tail, error) {
	if int64(len(e.packed)) > e.size {
		return nil, fmt.Errorf("%w: index of %d bytes of a segment of %d", ErrCorrupt, len(e.packed), e.size)
	}
	t, need, err := frames.Tail(e.packed, e.size)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, fmt.Errorf("%w: index of %d bytes cut to %d", ErrCorrupt, need, len(e.packed))
	}
	return t, nil
}
