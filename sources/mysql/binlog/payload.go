package binlog

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Payload is a TRANSACTION_PAYLOAD event: all events of a transaction but its GTID,
// compressed. They have no checksums. Its slices alias the event.
type Payload struct {
	Algorithm PayloadAlgorithm
	Size      uint64 // of the events; 0 where the server did not say
	Data      []byte // the events, compressed by Algorithm
}

// PayloadAlgorithm is how a payload is compressed. The numbers are the server's own.
type PayloadAlgorithm uint64

// The algorithms.
const (
	PayloadZstd PayloadAlgorithm = 0
	PayloadNone PayloadAlgorithm = 255
)

// The fields before a payload.
const (
	payloadEnd = iota
	payloadDataSize
	payloadAlgorithm
	payloadSize
)

// ParsePayload reads a TRANSACTION_PAYLOAD event, not its events. It allocates nothing.
func ParsePayload(e *Event) (Payload, error) {
	if e.Type != TypeTransactionPayload {
		return Payload{}, malformed(e)
	}
	p := Payload{Algorithm: PayloadNone}
	r := reader{b: e.Body}
	size := uint64(len(e.Body))
	for !r.bad {
		field := r.packed()
		if field == payloadEnd {
			break
		}
		value := reader{b: r.bytes(r.packed())}
		switch field {
		case payloadDataSize:
			size = value.packed()
		case payloadAlgorithm:
			p.Algorithm = PayloadAlgorithm(value.packed())
		case payloadSize:
			p.Size = value.packed()
		}
		r.bad = r.bad || value.bad
	}
	p.Data = r.b
	if size < uint64(len(p.Data)) {
		p.Data = p.Data[:size:size]
	}
	if r.bad {
		return Payload{}, malformed(e)
	}
	return p, nil
}

// Unpacker reads the events of payloads, one after another, in bounded memory. It keeps its
// memory for the next payload. The zero value is ready. It is not safe for concurrent
// use.
type Unpacker struct {
	src bytes.Reader
	z   *zstd.Decoder
	in  io.Reader
	buf []byte
}

// maxWindow bounds the memory a zstd frame may ask for. Servers ask for 128 MiB at the highest
// level.
const maxWindow = 256 << 20

// Open begins to read a payload.
func (u *Unpacker) Open(p *Payload) error {
	u.src.Reset(p.Data)
	return u.open(p.Algorithm, &u.src)
}

// open begins to read a payload that comes from src.
func (u *Unpacker) open(algorithm PayloadAlgorithm, src io.Reader) error {
	switch algorithm {
	case PayloadNone:
		u.in = src
		return nil
	case PayloadZstd:
	default:
		return fmt.Errorf("%w: a payload compressed by algorithm %d, this build knows zstd and none", ErrMalformed, uint64(algorithm))
	}
	var err error
	if u.z == nil {
		u.z, err = zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	} else {
		err = u.z.Reset(src)
	}
	if err != nil {
		return fmt.Errorf("%w: decompress a payload: %w", ErrMalformed, err)
	}
	u.in = u.z
	return nil
}

// Next returns the next event, which is valid until the Unpacker is used again. It returns
// io.EOF behind the last one, and refuses events larger than limit bytes.
func (u *Unpacker) Next(limit uint32) (Event, error) {
	if u.in == nil {
		return Event{}, io.EOF
	}
	u.buf = grown(u.buf[:0], HeaderSize)
	if _, err := io.ReadFull(u.in, u.buf); err != nil {
		if err == io.EOF {
			return Event{}, io.EOF
		}
		return Event{}, fmt.Errorf("%w: read a payload: %w", ErrMalformed, err)
	}
	h, err := ParseHeader(u.buf)
	if err != nil {
		return Event{}, err
	}
	if h.Size > limit {
		return Event{}, fmt.Errorf("%w: a payload holds a %s event of %d bytes, the limit is %d", ErrMalformed, h.Type, h.Size, limit)
	}
	for missing := int(h.Size) - HeaderSize; missing > 0; { // not at once: a header can claim any size
		have, n := len(u.buf), min(missing, 1<<20)
		u.buf = grown(u.buf, n)
		if _, err := io.ReadFull(u.in, u.buf[have:]); err != nil {
			return Event{}, fmt.Errorf("%w: read a payload: %w", ErrMalformed, err)
		}
		missing -= n
	}
	return Parse(u.buf, ChecksumNone)
}

// grown returns b with n more bytes, which hold anything.
func grown(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b[:len(b)+n]
	}
	return append(b, make([]byte, n)...)
}
