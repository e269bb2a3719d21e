package binlog

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash/adler32"
	"io"
)

// Inflater brings back what MariaDB compressed (log_bin_compress). It keeps its memory
// for the next time. The zero value is ready. It is not safe for concurrent use.
type Inflater struct {
	src bytes.Reader
	z   io.ReadCloser
	buf []byte
}

// Append appends what compressed holds to b. It refuses more than limit bytes.
func (i *Inflater) Append(b, compressed []byte, limit uint64) ([]byte, error) {
	size, err := i.open(compressed)
	if err != nil {
		return b, err
	}
	if size > limit {
		return b, fmt.Errorf("%w: %d compressed bytes claim to hold %d, the limit is %d", ErrMalformed, len(compressed), size, limit)
	}
	start := len(b)
	for size > 0 { // not at once: a few bytes can claim to be many
		have, n := len(b), int(min(size, 1<<20))
		b = grown(b, n)
		if _, err := io.ReadFull(i.z, b[have:]); err != nil {
			return b[:start], fmt.Errorf("%w: decompress: %w", ErrMalformed, err)
		}
		size -= uint64(n)
	}
	var rest [1]byte
	var sum [4]byte
	if n, err := i.z.Read(rest[:]); n > 0 || err != io.EOF {
		return b[:start], fmt.Errorf("%w: decompress: more bytes than announced", ErrMalformed)
	}
	if _, err := io.ReadFull(&i.src, sum[:]); err != nil || binary.BigEndian.Uint32(sum[:]) != adler32.Checksum(b[start:]) {
		return b[:start], fmt.Errorf("%w: decompress: the checksum is wrong", ErrMalformed)
	}
	return b, nil
}

// Text returns the statement of a QUERY event, brought back if it is compressed. It is valid
// until the Inflater is used again, or as long as the event.
func (i *Inflater) Text(q *Query, limit uint64) ([]byte, error) {
	if !q.Compressed {
		return q.Text, nil
	}
	var err error
	i.buf, err = i.Append(i.buf[:0], q.Text, limit)
	if err != nil {
		return nil, err
	}
	return i.buf, nil
}

// open begins to read compressed bytes, and returns how many there will be.
func (i *Inflater) open(compressed []byte) (uint64, error) {
	size, n, err := inflated(compressed)
	if err != nil {
		return 0, err
	}
	i.src.Reset(compressed[n:])
	return size, i.reset(&i.src)
}

// reset begins to read what is compressed in src.
func (i *Inflater) reset(src flate.Reader) error {
	if i.z == nil {
		i.z = flate.NewReader(src)
		return nil
	}
	if err := i.z.(flate.Resetter).Reset(src, nil); err != nil {
		return fmt.Errorf("%w: decompress: %w", ErrMalformed, err)
	}
	return nil
}

// inflated returns how many bytes are compressed, and how many stand before them. The first byte
// tells the algorithm, of which there is one, and how many bytes the size has, which
// is stored most significant byte first. What follows is a zlib stream (RFC 1950): two bytes
// of head, the compressed bytes, a checksum.
func inflated(compressed []byte) (size uint64, before int, err error) {
	if len(compressed) == 0 || compressed[0]&0x80 == 0 || compressed[0]>>4&7 != 0 {
		return 0, 0, fmt.Errorf("%w: compressed with an algorithm other than zlib", ErrMalformed)
	}
	n := int(compressed[0] & 7)
	if n < 1 || n > 4 || len(compressed) < 1+n+2 {
		return 0, 0, fmt.Errorf("%w: compressed bytes without a size", ErrMalformed)
	}
	for _, c := range compressed[1 : 1+n] {
		size = size<<8 | uint64(c)
	}
	head := compressed[1+n:]
	const deflate, dictionary = 8, 0x20
	if head[0]&0x0f != deflate || head[1]&dictionary != 0 || binary.BigEndian.Uint16(head)%31 != 0 {
		return 0, 0, fmt.Errorf("%w: compressed bytes that are not zlib's", ErrMalformed)
	}
	return size, 1 + n + 2, nil
}
