package binlog

import (
	"encoding/binary"
	"io"
)

// cursor walks over bytes that are at hand, or that come from a stream through a
// small window. Once it lacks bytes, bad is set.
type cursor struct {
	b      []byte    // at hand
	src    io.Reader // where more come from; nil if b is all
	left   uint64    // how many more may come from it
	window []byte
	kept   []byte // what a walker needs longer than the window shows it
	bad    bool
}

// windowSize is more than all that is ever looked at together.
const windowSize = 64 << 10

// over makes the cursor walk over b.
func (c *cursor) over(b []byte) { c.b, c.src, c.left, c.bad = b, nil, 0, false }

// from makes the cursor walk over the next n bytes of src.
func (c *cursor) from(src io.Reader, n uint64) {
	if c.window == nil {
		c.window = make([]byte, windowSize)
	}
	c.b, c.src, c.left, c.bad = nil, src, n, false
}

// rest returns how many bytes are left.
func (c *cursor) rest() uint64 { return uint64(len(c.b)) + c.left }

// more brings at least n bytes to hand, of which windowSize is the most.
func (c *cursor) more(n int) bool {
	if c.bad || c.src == nil || uint64(n) > c.rest() || n > len(c.window) {
		c.fail()
		return false
	}
	have := copy(c.window, c.b)
	want := min(len(c.window), have+int(min(c.left, windowSize)))
	got, err := io.ReadAtLeast(c.src, c.window[have:want], n-have)
	if err != nil {
		c.fail()
		return false
	}
	c.b, c.left = c.window[:have+got], c.left-uint64(got)
	return true
}

func (c *cursor) fail() { c.bad, c.b, c.left = true, nil, 0 }

// skip passes n bytes over.
func (c *cursor) skip(n uint64) {
	for n > uint64(len(c.b)) {
		if n > c.rest() {
			c.fail()
			return
		}
		n -= uint64(len(c.b))
		c.b = nil
		if !c.more(int(min(n, 1))) {
			return
		}
	}
	c.b = c.b[n:]
}

// take returns the next n bytes, valid until the cursor moves on.
func (c *cursor) take(n int) []byte {
	if n > len(c.b) && !c.more(n) {
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

// number takes an integer of n bytes, at most 4.
func (c *cursor) number(n uint8) uint64 {
	if int(n) > len(c.b) && !c.more(int(n)) {
		return 0
	}
	var v uint64
	switch b := c.b; n {
	case 1:
		v = uint64(b[0])
	case 2:
		v = uint64(binary.LittleEndian.Uint16(b))
	case 3:
		v = uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16
	case 4:
		v = uint64(binary.LittleEndian.Uint32(b))
	}
	c.b = c.b[n:]
	return v
}

// packed takes an integer of MySQL's packed notation.
func (c *cursor) packed() uint64 {
	switch first := c.number(1); first {
	case 252:
		return c.number(2)
	case 253:
		return c.number(3)
	case 254:
		if b := c.take(8); b != nil {
			return binary.LittleEndian.Uint64(b)
		}
		return 0
	case 251, 255:
		c.fail()
		return 0
	default:
		return first
	}
}

// Read implements io.Reader for what the cursor walks over.
func (c *cursor) Read(b []byte) (int, error) {
	if len(c.b) == 0 {
		if c.bad {
			return 0, io.ErrUnexpectedEOF
		}
		if c.left == 0 {
			return 0, io.EOF
		}
		if !c.more(1) {
			return 0, io.ErrUnexpectedEOF
		}
	}
	n := copy(b, c.b)
	c.b = c.b[n:]
	return n, nil
}

// ReadByte is Read of one byte.
func (c *cursor) ReadByte() (byte, error) {
	if len(c.b) == 0 {
		var one [1]byte
		_, err := c.Read(one[:])
		return one[0], err
	}
	b := c.b[0]
	c.b = c.b[1:]
	return b, nil
}
