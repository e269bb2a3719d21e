package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"strings"

	"txreel/change"
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
	return span{first: f, last: l, key: o.Key, size: o.Size}, nil
}

// rollups lists the rollups of a level that begin after the given Seq.
func (a *Archive) rollups(ctx context.Context, epoch uint64, level int, after change.Seq) ([]span, error) {
	var all []span
	start := ""
	if after > 0 {
		start = rollupsKey(epoch, level) + after.String() + "z" // behind every rollup that begins with after
	}
	for {
		objects, err := a.Store.List(ctx, rollupsKey(epoch, level), start, page)
		if err != nil {
			return nil, fmt.Errorf("list rollups of epoch %d: %w", epoch, err)
		}
		for _, o := range objects {
			s, err := parseRollupKey(epoch, level, o)
			if err != nil {
				return nil, err
			}
			all = append(all, s)
			start = o.Key
		}
		if len(objects) < page {
			return all, nil
		}
	}
}

// roller gathers indexes until a rollup is due. Its state is derived from the
// archive at every start.
type roller struct {
	archive *Archive
	epoch   uint64
	pending []rolled
	bytes   int
	lower   []span // rollups of level 1 that no rollup of level 2 holds yet
}

// newRoller finds out what the rollups of the epoch do not hold yet.
func (a *Archive) newRoller(ctx context.Context, tail Tail) (*roller, error) {
	r := &roller{archive: a, epoch: tail.Epoch}
	if tail.Seq == 0 {
		return r, nil
	}
	done := change.Seq(0)
	upper, err := a.rollups(ctx, tail.Epoch, 2, 0)
	if err != nil {
		return nil, err
	}
	if n := len(upper); n > 0 {
		done = upper[n-1].last
	}
	if r.lower, err = a.rollups(ctx, tail.Epoch, 1, done); err != nil {
		return nil, err
	}
	if n := len(r.lower); n > 0 {
		done = r.lower[n-1].last
	}
	for x, err := range a.Segments(ctx, tail.Epoch, done+1) {
		if err != nil {
			return nil, err
		}
		r.take(rolled{first: x.First(), last: x.Last(), size: x.Size, packed: x.Packed})
		if err := r.write(ctx); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *roller) add(ctx context.Context, s rolled) error {
	r.take(s)
	return r.write(ctx)
}

func (r *roller) take(s rolled) {
	r.pending = append(r.pending, s)
	r.bytes += len(s.packed)
}

func (r *roller) write(ctx context.Context) error {
	if len(r.pending) < rollupFan && r.bytes < rollupBytes {
		return nil
	}
	first, last := r.pending[0].first, r.pending[len(r.pending)-1].last
	body := encodeRollup(r.pending)
	r.pending, r.bytes = nil, 0
	key := rollupKey(r.epoch, 1, first, last)
	if err := r.create(ctx, key, body); err != nil {
		return err
	}
	r.lower = append(r.lower, span{first: first, last: last, key: key, size: int64(len(body))})
	if len(r.lower) < rollupFan {
		return nil
	}
	lower := r.lower
	r.lower = nil
	var total int64
	for _, s := range lower {
		total += s.size
	}
	if total > rollupBytes {
		return nil // large enough as they are: one more hop would save nothing
	}
	var all []rolled
	for _, s := range lower {
		if err := r.archive.readRollup(ctx, s, func(e rolled) error { all = append(all, e); return nil }); err != nil {
			return err
		}
	}
	return r.create(ctx, rollupKey(r.epoch, 2, lower[0].first, lower[len(lower)-1].last), encodeRollup(all))
}

func (r *roller) create(ctx context.Context, key string, body []byte) error {
	err := r.archive.Store.Create(ctx, key, bytes.NewReader(body), int64(len(body)))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create %s: %w", key, err)
	}
	return nil
}

func encodeRollup(entries []rolled) []byte {
	b := []byte(rollupMagic)
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
	body, size, err := a.Store.Open(ctx, s.key, 0, -1)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.key, err)
	}
	defer body.Close()
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	left := size
	read := func(p []byte) error {
		left -= int64(len(p))
		if _, err := io.ReadFull(body, p); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("%w: %s is truncated", ErrCorrupt, s.key)
			}
			return fmt.Errorf("read %s: %w", s.key, err)
		}
		return nil
	}
	head := make([]byte, len(rollupMagic))
	if err := read(head); err != nil {
		return err
	}
	if string(head) != rollupMagic {
		return fmt.Errorf("%w: %s is no rollup of version 1: it begins with %x", ErrCorrupt, s.key, head)
	}
	_, _ = sum.Write(head)
	for {
		head := make([]byte, rollupEntrySize)
		if err := read(head); err != nil {
			return err
		}
		_, _ = sum.Write(head)
		segmentSize, n := binary.LittleEndian.Uint64(head), int64(binary.LittleEndian.Uint32(head[8:]))
		if segmentSize == 0 && n == 0 {
			break
		}
		if n > left || segmentSize > math.MaxInt64 {
			return fmt.Errorf("%w: %s: index of %d bytes with %d left", ErrCorrupt, s.key, n, left)
		}
		packed := make([]byte, n)
		if err := read(packed); err != nil {
			return err
		}
		_, _ = sum.Write(packed)
		if err := entry(rolled{size: int64(segmentSize), packed: packed}); err != nil {
			return err
		}
	}
	want := sum.Sum32()
	if err := read(head[:4]); err != nil {
		return err
	}
	if left != 0 || binary.LittleEndian.Uint32(head) != want {
		return fmt.Errorf("%w: %s: checksum mismatch", ErrCorrupt, s.key)
	}
	return nil
}

// decode turns a rollup's entry into the tail of its segment.
func (e *rolled) decode(frames *segment.FrameReader) (*segment.Tail, error) {
	t, need, err := frames.Tail(e.packed, e.size)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, fmt.Errorf("%w: index of %d bytes cut to %d", ErrCorrupt, need, len(e.packed))
	}
	return t, nil
}
