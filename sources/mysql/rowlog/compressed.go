package rowlog

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"fmt"
	"io"

	"txreel/sources/mysql/rowlog/sqltext"
)

// columnInflater brings back the values of MariaDB's COMPRESSED columns. Its memory is
// used again.
type columnInflater struct {
	src   bytes.Reader
	plain io.ReadCloser // deflate alone
	zlib  io.ReadCloser
	buf   []byte // of the values of one row
}

// The parts of the byte that a compressed value begins with: the method, whether the
// stream lacks zlib's frame, and how many bytes of the original size follow, the high one
// first.
const (
	methodNone = 0
	methodZlib = 8
	noFrame    = 0x08
	sizeBytes  = 0x07
)

// inflate returns the original of a value of a COMPRESSED column.
func (d *Decoder) inflate(v []byte) ([]byte, error) {
	if len(v) == 0 {
		return v, nil
	}
	head, n := v[0], int(v[0]&sizeBytes)
	switch head >> 4 {
	case methodNone:
		return v[1:], nil
	case methodZlib:
	default:
		return nil, fmt.Errorf("%w: a value compressed by method %d", errRow, head>>4)
	}
	if n == 0 || n > 4 || len(v) < 1+n {
		return nil, fmt.Errorf("%w: a compressed value without its size", errRow)
	}
	size := sqltext.BigUint(v[1 : 1+n])
	if size > maxInflated || size > 2000*uint64(len(v)) { // deflate makes 1032 of one at most
		return nil, fmt.Errorf("%w: a compressed value of %d bytes claims to be %d", errRow, len(v), size)
	}
	out, err := d.columns.read(v[1+n:], int(size), head&noFrame != 0)
	if err != nil {
		return nil, fmt.Errorf("%w: decompress a value: %w", errRow, err)
	}
	return out, nil
}

// read decompresses src. What it returned before in the same row stays as it is.
func (c *columnInflater) read(src []byte, size int, plain bool) ([]byte, error) {
	c.src.Reset(src)
	var in io.Reader
	var err error
	switch {
	case plain && c.plain == nil:
		c.plain = flate.NewReader(&c.src)
	case plain:
		err = c.plain.(flate.Resetter).Reset(&c.src, nil)
	case c.zlib == nil:
		c.zlib, err = zlib.NewReader(&c.src)
	default:
		err = c.zlib.(zlib.Resetter).Reset(&c.src, nil)
	}
	if err != nil {
		return nil, err
	}
	if in = c.zlib; plain {
		in = c.plain
	}
	start := len(c.buf)
	if cap(c.buf)-start < size {
		c.buf, start = make([]byte, 0, max(size, 2*cap(c.buf))), 0
	}
	c.buf = c.buf[:start+size]
	_, err = io.ReadFull(in, c.buf[start:])
	return c.buf[start:len(c.buf):len(c.buf)], err
}
