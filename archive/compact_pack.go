package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"txreel/change"
	"txreel/segment"
)

// A pack is an object that holds a run of segments, byte for byte, and behind them a directory and a trailer. So nothing that names a
// segment, by its key or by its hash, has to change when the segment's own object goes. docs/format.md specifies it (5.10).
const (
	packMagic   = "TXRPACK\n"
	packVersion = 1
	packEntry   = 48      // bytes of an entry of the directory
	packTrailer = 56      // bytes of the trailer
	maxPacked   = 1 << 16 // segments of a pack
)

// packed is where in a pack a segment stands.
type packed struct {
	first     change.Seq
	off, size int64
	hash      segment.Hash
}

func packsKey(epoch uint64) string { return epochKey(epoch) + "/packs/" }

// packKey returns the key of the pack of the transactions from first to last.
func packKey(epoch uint64, first, last change.Seq) string {
	return packsKey(epoch) + first.String() + "-" + last.String()
}

// parsePackKey returns what the key of a pack says.
func parsePackKey(epoch uint64, o Object) (span, error) {
	first, last, ok := strings.Cut(strings.TrimPrefix(o.Key, packsKey(epoch)), "-")
	f, err1 := change.ParseSeq(first)
	l, err2 := change.ParseSeq(last)
	if !ok || err1 != nil || err2 != nil || f == 0 || l < f || packKey(epoch, f, l) != o.Key {
		return span{}, fmt.Errorf("%w: %s is no key of a pack", ErrCorrupt, o.Key)
	}
	return span{epoch: epoch, first: f, last: l, key: o.Key, size: o.Size}, nil
}

// packsOf lists the packs of an epoch in order.
func (a *Archive) packsOf(ctx context.Context, epoch uint64) ([]span, error) {
	var packs []span
	after := ""
	for {
		objects, err := a.Store.List(ctx, packsKey(epoch), after, page)
		if err != nil {
			return nil, fmt.Errorf("list packs of epoch %d: %w", epoch, err)
		}
		for _, o := range objects {
			after = o.Key
			p, err := parsePackKey(epoch, o)
			if err != nil {
				return nil, err
			}
			packs = append(packs, p)
		}
		if len(objects) < page {
			return packs, nil
		}
	}
}

// packGuess is how much of a pack is read for its directory: enough for that of most.
const packGuess = 64 << 10

// directory reads which segments a pack holds, in order.
func (a *Archive) directory(ctx context.Context, p span) ([]packed, error) {
	b, err := a.packEnd(ctx, p, min(max(packTrailer, packGuess), p.size))
	if err != nil {
		return nil, err
	}
	if len(b) < packTrailer {
		return nil, fmt.Errorf("%w: %s has %d bytes, and ends with %d", ErrCorrupt, p.key, p.size, packTrailer)
	}
	n, err := packCount(p, b[len(b)-packTrailer:])
	if err != nil {
		return nil, err
	}
	if need := n*packEntry + packTrailer; need > int64(len(b)) {
		if b, err = a.packEnd(ctx, p, need); err != nil {
			return nil, err
		}
	} else {
		b = b[int64(len(b))-need:]
	}
	return parseDirectory(p, b)
}

// packEnd reads the last n bytes of a pack.
func (a *Archive) packEnd(ctx context.Context, p span, n int64) ([]byte, error) {
	if p.size < n {
		return nil, fmt.Errorf("%w: %s has %d bytes, and ends with %d", ErrCorrupt, p.key, p.size, n)
	}
	return a.packRange(ctx, p, p.size-n, n)
}

// packRange reads n bytes of a pack from off on.
func (a *Archive) packRange(ctx context.Context, p span, off, n int64) ([]byte, error) {
	body, err := a.openPack(ctx, p, off, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b := make([]byte, n)
	if _, err := io.ReadFull(body, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", p.key, err)
	}
	return b, nil
}

// openPack opens a range of a pack.
func (a *Archive) openPack(ctx context.Context, p span, off, n int64) (io.ReadCloser, error) {
	body, size, err := a.Store.Open(ctx, p.key, off, n)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", p.key, err)
	}
	if size != p.size {
		_ = body.Close() // nothing was read of it
		return nil, fmt.Errorf("%w: %s has %d bytes, the listing says %d", ErrCorrupt, p.key, size, p.size)
	}
	return body, nil
}

// packCount returns how many segments the trailer of a pack says it holds, within what may be trusted.
func packCount(p span, trailer []byte) (int64, error) {
	if string(trailer[48:]) != packMagic {
		return 0, fmt.Errorf("%w: %s does not end as a pack does", ErrCorrupt, p.key)
	}
	if v := binary.LittleEndian.Uint64(trailer[40:]); v != packVersion {
		return 0, fmt.Errorf("%w: %s is a pack of version %d, this build reads %d", ErrVersion, p.key, v, packVersion)
	}
	n := binary.LittleEndian.Uint64(trailer)
	if n == 0 || n > maxPacked {
		return 0, fmt.Errorf("%w: %s says it holds %d segments, of 1 to %d", ErrCorrupt, p.key, n, maxPacked)
	}
	return int64(n), nil
}

// parseDirectory returns the entries of a directory, which b holds with the trailer behind it: they fill the pack, and begin and end
// where its key says.
func parseDirectory(p span, b []byte) ([]packed, error) {
	list, trailer := b[:len(b)-packTrailer], b[len(b)-packTrailer:]
	if sum := sha256.Sum256(list); !bytes.Equal(sum[:], trailer[8:40]) {
		return nil, fmt.Errorf("%w: the directory of %s is damaged", ErrCorrupt, p.key)
	}
	var entries []packed
	off, next := int64(0), p.first
	for e := range slices.Chunk(list, packEntry) {
		x := packed{first: change.Seq(binary.LittleEndian.Uint64(e)), off: off, size: int64(binary.LittleEndian.Uint64(e[8:])), hash: segment.Hash(e[16:])}
		if x.first < next || x.first > p.last || len(entries) == 0 && x.first != p.first || x.size <= 0 || x.size > p.size-off {
			return nil, fmt.Errorf("%w: %s: entry %d of its directory is segment %s of %d bytes", ErrCorrupt, p.key, len(entries), x.first, x.size)
		}
		entries = append(entries, x)
		off, next = off+x.size, x.first+1
	}
	if off != p.size-int64(len(b)) {
		return nil, fmt.Errorf("%w: %s: its segments end at %d, its directory begins at %d", ErrCorrupt, p.key, off, p.size-int64(len(b)))
	}
	return entries, nil
}

// openPacked opens a range of a packed segment as Store.Open does one of an object.
func (a *Archive) openPacked(ctx context.Context, p span, x packed, off, n int64) (io.ReadCloser, int64, error) {
	switch {
	case off < 0:
		n = min(-off, x.size)
		off = x.size - n
	case off > x.size:
		return nil, 0, fmt.Errorf("%s: offset %d of a segment of %d bytes", p.key, off, x.size)
	case n < 0 || n > x.size-off:
		n = x.size - off
	}
	if x.size <= blockSmall {
		b, err := a.packs.blocks.read(ctx, a, p, x.off+off, n)
		if err != nil {
			return nil, 0, fmt.Errorf("segment %s: %w", x.first, err)
		}
		return io.NopCloser(bytes.NewReader(b)), x.size, nil
	}
	body, err := a.openPack(ctx, p, x.off+off, n)
	if err != nil {
		return nil, 0, fmt.Errorf("segment %s: %w", x.first, err)
	}
	return body, x.size, nil
}
