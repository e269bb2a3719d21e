package binlog

import (
	"bytes"
	"compress/zlib"
	"fmt"
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
	for size > 0 { // not at once: a few bytes can claim to be many
		n := min(size, 1<<20)
		have := len(b)
		b = append(b, make([]byte, n)...)
		if _, err := io.ReadFull(i.z, b[have:]); err != nil {
			return b[:have], fmt.Errorf("%w: decompress: %w", ErrMalformed, err)
		}
		size -= n
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

// open begins to read compressed bytes, and returns how many there will be. The first byte
// tells the algorithm, of which there is one, and how many bytes the size has, which
// is stored most significant byte first.
func (i *Inflater) open(compressed []byte) (uint64, error) {
	if len(compressed) == 0 || compressed[0]&0x80 == 0 || compressed[0]>>4&7 != 0 {
		return 0, fmt.Errorf("%w: compressed with an algorithm other than zlib", ErrMalformed)
	}
	n := int(compressed[0] & 7)
	if n < 1 || n > 4 || len(compressed) < 1+n {
		return 0, fmt.Errorf("%w: compressed bytes without a size", ErrMalformed)
	}
	var size uint64
	for _, c := range compressed[1 : 1+n] {
		size = size<<8 | uint64(c)
	}
	i.src.Reset(compressed[1+n:])
	var err error
	if resetter, ok := i.z.(zlib.Resetter); ok {
		err = resetter.Reset(&i.src, nil)
	} else {
		i.z, err = zlib.NewReader(&i.src)
	}
	if err != nil {
		i.z = nil
		return 0, fmt.Errorf("%w: decompress: %w", ErrMalformed, err)
	}
	return size, nil
}
