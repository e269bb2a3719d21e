package mysql

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"time"

	"txreel/change"
	"txreel/sources/mysql/binlog"
)

const (
	// batchBytes is the memory of a batch. A packet that is larger, up to 16 MiB, makes it
	// grow.
	batchBytes = 1 << 20
	// batchesInFlight bounds what is read but not yet recorded: one batch is filled, one waits,
	// and one is in use.
	batchesInFlight = 3
	// keepLarge is how many batches that would have fit into batchBytes a large one is kept for.
	keepLarge = 64

	packetHeader = 4
)

// batch is a run of whole packets of the protocol, one behind the other.
type batch struct {
	data     []byte
	received change.Time // when the last of it arrived, by our clock
	small    int         // times in a row that batchBytes would have done
}

// read fills batches until the connection ends. It owns the reading side of the
// connection. It hands over what one look at the socket found: while they are
// recorded more arrives, so that the batches become as large as they have to be.
func (s *Source) read(ctx context.Context) {
	defer close(s.batches)
	var b *batch
	var rest []byte // the beginning of a packet, at the end of the batch before
	for {
		if b = s.take(ctx, rest); b == nil {
			return
		}
		whole, err := s.fill(b)
		var next []byte
		if err == nil {
			next = b.data[whole:]
		}
		b.data = b.data[:whole]
		b.received = change.Time(time.Now().UnixMicro())
		if err != nil {
			s.fail(s.explainStream(err)) // what is whole is handed over all the same
		}
		rest = append(s.rest[:0], next...)
		s.rest = rest
		select {
		case s.batches <- b:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// take waits for a batch that is free and begins it with rest.
func (s *Source) take(ctx context.Context, rest []byte) *batch {
	select {
	case b := <-s.free:
		if len(rest) <= batchBytes && b.small > keepLarge && cap(b.data) > batchBytes || b.data == nil {
			b.data, b.small = make([]byte, 0, batchBytes), 0
		}
		b.data = append(b.data[:0], rest...)
		return b
	case <-ctx.Done():
		return nil
	}
}

// fill reads until the batch holds a whole packet, and returns how many of its bytes are
// whole packets. Every event in them has the checksum it should have.
func (s *Source) fill(b *batch) (whole int, err error) {
	for {
		whole, err = s.framer.packets(b.data, whole)
		if whole > 0 || err != nil {
			break
		}
		need := batchBytes
		if len(b.data) >= packetHeader {
			need = max(need, packetHeader+packetLength(b.data))
		}
		if cap(b.data) < need {
			b.data = append(make([]byte, 0, need+packetHeader), b.data...)
		}
		// The server speaks at least once in a heartbeat, once it has found the place; the deadline is for while we listen.
		limit := s.opts.silence
		if !s.framer.arrived {
			limit = max(limit, seekLimit)
		}
		_ = s.dump.wire.conn.SetReadDeadline(time.Now().Add(limit))
		n, err := s.dump.wire.conn.Read(b.data[len(b.data):cap(b.data)])
		b.data = b.data[:len(b.data)+n]
		if err != nil && n == 0 {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = fmt.Errorf("it has been silent for %s", limit)
			}
			return 0, unreachable(err)
		}
	}
	if s.framer.arrived && !s.arrived.Load() {
		s.arrived.Store(true)
	}
	if whole <= batchBytes {
		b.small++
	} else {
		b.small = 0
	}
	return whole, err
}

func packetLength(b []byte) int { return int(binary.LittleEndian.Uint32(b) & 0xffffff) }

// framer finds the packets in what the server sends, and checks the events in them as far
// as the protocol and their checksums go.
type framer struct {
	semi bool            // every event is preceded by whether the server waits for it
	sum  binlog.Checksum // of the file that is read
	more bool            // the next packet continues an event
	left uint64          // bytes of that event to come
	crc  uint32          // of that event so far
	tail [4]byte         // its last bytes so far, if it has a checksum
	size uint32          // of that event
	kind binlog.Type     // of that event

	arrived bool // an event has come that is more than the head of a file
}

// event returns what a packet that begins an event has of it.
func (f *framer) event(payload []byte) []byte {
	if f.semi {
		return payload[1+semiSyncPrefix:]
	}
	return payload[1:]
}

// errEnded means that the server ended the stream in good order.
var errEnded = errors.New("it ended the stream, as a server that shuts down does")

// packets walks over the whole packets in b, from done on, and returns where they end.
func (f *framer) packets(b []byte, done int) (int, error) {
	for len(b)-done >= packetHeader {
		length := packetLength(b[done:])
		if len(b)-done-packetHeader < length {
			break
		}
		payload := b[done+packetHeader:][:length]
		var err error
		if f.more {
			err = f.piece(payload, length == maxPayload)
		} else {
			err = f.first(payload)
		}
		if err != nil {
			return done, err
		}
		done += packetHeader + length
	}
	return done, nil
}

// first checks the packet that an event begins with.
func (f *framer) first(payload []byte) error {
	if len(payload) == 0 {
		return errors.New("empty packet in the stream")
	}
	switch {
	case payload[0] == tagErr:
		return parseError(payload)
	case payload[0] == tagEOF && len(payload) < 9:
		return unreachable(errEnded)
	case payload[0] != tagOK:
		return fmt.Errorf("packet of unknown kind %#x in the stream", payload[0])
	}
	if f.semi && (len(payload) < 1+semiSyncPrefix || payload[1] != semiSyncMagic) {
		return errors.New("the server sends its log without asking for acknowledgements, although it was told that commits wait for them")
	}
	raw := f.event(payload)
	h, err := binlog.ParseHeader(raw)
	if err != nil {
		return err
	}
	f.arrived = f.arrived || !heads(h.Type)
	if len(payload) < maxPayload {
		if uint64(h.Size) != uint64(len(raw)) {
			return unreachable(fmt.Errorf("a %s event of %d bytes came with %d", h.Type, h.Size, len(raw)))
		}
		return f.whole(&h, raw)
	}
	if uint64(h.Size) < uint64(len(raw)) {
		return unreachable(fmt.Errorf("a %s event of %d bytes came with more", h.Type, h.Size))
	}
	f.left, f.size, f.kind, f.crc = uint64(h.Size), h.Size, h.Type, 0
	return f.piece(raw, true)
}

// whole checks an event of one packet.
func (f *framer) whole(h *binlog.Header, raw []byte) error {
	switch {
	case h.Type == binlog.TypeFormatDescription:
		e, err := binlog.Parse(raw, 0)
		if err != nil {
			return err
		}
		format, err := binlog.ParseFormat(&e)
		if err != nil {
			return err
		}
		if format.Checksum == binlog.ChecksumCRC32 { // else a sender that alters it leaves the one it had
			if err := e.Verify(); err != nil {
				return unreachable(err)
			}
		}
		f.sum = format.Checksum
	case artificial(h): // see frame
	case f.sum == binlog.ChecksumCRC32:
		e, err := binlog.Parse(raw, f.sum)
		if err == nil {
			err = e.Verify()
		}
		if err != nil {
			return unreachable(err) // to be sent again
		}
	}
	return nil
}

// piece checks a packet of an event that has several. Another one follows if it is full.
func (f *framer) piece(b []byte, full bool) error {
	if uint64(len(b)) > f.left {
		return unreachable(fmt.Errorf("a %s event of %d bytes came with more", f.kind, f.size))
	}
	before := f.left
	f.left -= uint64(len(b))
	f.more = full
	if f.sum == binlog.ChecksumCRC32 {
		const size = uint64(len(f.tail)) // of the checksum, which the last bytes are
		covered := uint64(len(b))
		if f.left < size {
			covered -= min(covered, size-f.left)
		}
		f.crc = crc32.Update(f.crc, crc32.IEEETable, b[:covered])
		if rest := b[covered:]; len(rest) > 0 {
			copy(f.tail[size-min(size, before-covered):], rest)
		}
	}
	if full {
		return nil
	}
	if f.left != 0 {
		return unreachable(fmt.Errorf("a %s event of %d bytes came with %d less", f.kind, f.size, f.left))
	}
	if stored := binary.LittleEndian.Uint32(f.tail[:]); f.sum == binlog.ChecksumCRC32 && stored != f.crc {
		return unreachable(fmt.Errorf("%w: a %s event of %d bytes says %08x, its bytes are %08x", binlog.ErrChecksum, f.kind, f.size, stored, f.crc))
	}
	return nil
}

// heads reports whether events of this type stand at the beginning of a file, which a server sends before it
// looks for the place in it that was asked for.
func heads(t binlog.Type) bool {
	return t.Frames() && t != binlog.TypeHeartbeat && t != binlog.TypeHeartbeatV2
}

// artificial reports whether the sender made an event, which is in no file.
func artificial(h *binlog.Header) bool {
	return h.Has(binlog.FlagArtificial) || h.LogPos == 0 && h.Timestamp == 0 || h.Type == binlog.TypeHeartbeat || h.Type == binlog.TypeHeartbeatV2
}

// parse takes a whole event apart. What the sender made itself ends in a checksum or does
// not, depending on what it was told and what it read last.
func parse(h *binlog.Header, raw []byte, sum binlog.Checksum) (binlog.Event, error) {
	if artificial(h) {
		if e, err := binlog.Parse(raw, binlog.ChecksumCRC32); err == nil && e.Verify() == nil {
			return e, nil
		}
		sum = binlog.ChecksumNone
	}
	return binlog.Parse(raw, sum)
}
