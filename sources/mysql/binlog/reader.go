package binlog

import (
	"encoding/binary"
	"fmt"
)

// reader takes a body apart. Once it lacks bytes, bad is set and all it returns
// is zero.
type reader struct {
	b   []byte
	bad bool
}

// bytes takes n bytes.
func (r *reader) bytes(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() uint8 {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// uint takes an integer of n bytes, at most 8.
func (r *reader) uint(n uint64) uint64 {
	var v uint64
	for i, c := range r.bytes(n) {
		v |= uint64(c) << (8 * i)
	}
	return v
}

// packed takes an integer of MySQL's packed notation: 1, 3, 4 or 9 bytes. The first byte
// 251, which is NULL elsewhere, is no number.
func (r *reader) packed() uint64 {
	switch first := r.u8(); first {
	case 251, 255:
		r.bad, r.b = true, nil
		return 0
	case 252:
		return r.uint(2)
	case 253:
		return r.uint(3)
	case 254:
		return r.uint(8)
	default:
		return uint64(first)
	}
}

// appendPacked appends what packed takes.
func appendPacked(b []byte, v uint64) []byte {
	switch {
	case v < 251:
		return append(b, byte(v))
	case v < 1<<16:
		return append(b, 252, byte(v), byte(v>>8))
	case v < 1<<24:
		return append(b, 253, byte(v), byte(v>>8), byte(v>>16))
	}
	return binary.LittleEndian.AppendUint64(append(b, 254), v)
}

// malformed returns the error of an event whose body contradicts its format.
func malformed(e *Event) error {
	return fmt.Errorf("%w: the body of a %s event of %d bytes", ErrMalformed, e.Type, len(e.Raw))
}
