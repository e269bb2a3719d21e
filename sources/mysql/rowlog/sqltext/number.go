// Package sqltext writes numbers and times of MySQL's and MariaDB's storage formats as
// the servers themselves print them.
package sqltext

import (
	"encoding/binary"
	"strconv"
)

// AppendDouble appends a DOUBLE: the shortest digits that stand for it, as SELECT does.
func AppendDouble(dst []byte, f float64) []byte { return appendFloat(dst, f, 64) }

// AppendFloat appends a FLOAT: the shortest digits that stand for it. SELECT rounds to
// six and so shows 16777216 as 16777200; the log's value is kept whole.
func AppendFloat(dst []byte, f float32) []byte { return appendFloat(dst, float64(f), 32) }

// appendFloat chooses between the notations by the servers' rule: exponents only from
// 1e15 on, unless digits are left behind the point, and below 1e-15.
func appendFloat(dst []byte, f float64, bits int) []byte {
	var b [32]byte
	sci := strconv.AppendFloat(b[:0], f, 'e', -1, bits) // [-]d[.ddd]e±dd
	e := len(sci) - 1
	for ; e >= 0 && sci[e] != 'e'; e-- {
	}
	if e < 0 {
		return append(dst, sci...) // not a number: neither server stores one
	}
	digits := e
	if sci[0] == '-' {
		digits--
	}
	if digits > 1 {
		digits-- // the point
	}
	exp, _ := strconv.Atoi(string(sci[e+1:])) // strconv wrote it
	if point := exp + 1; point >= -14 && (point <= 15 || digits > point) {
		return strconv.AppendFloat(dst, f, 'f', -1, bits)
	}
	dst = append(dst, sci[:e+1]...)
	return strconv.AppendInt(dst, int64(exp), 10)
}

// The limits of DECIMAL: MariaDB's scale, which is the larger.
const (
	maxPrecision = 65
	maxScale     = 38
)

// bytesOf is how many bytes the digits of an incomplete group of nine take.
const bytesOf = "\x00\x01\x01\x02\x02\x03\x03\x04\x04"

// DecimalSize returns the bytes a DECIMAL(precision, scale) takes, or -1 if there can
// be none.
func DecimalSize(precision, scale int) int {
	whole := precision - scale
	if precision < 1 || precision > maxPrecision || scale < 0 || scale > maxScale || whole < 0 {
		return -1
	}
	return whole/9*4 + int(bytesOf[whole%9]) + scale/9*4 + int(bytesOf[scale%9])
}

// AppendDecimal appends a DECIMAL(precision, scale), of which src holds the
// DecimalSize bytes. It reports false, having appended something unusable, if they are none.
func AppendDecimal(dst, src []byte, precision, scale int) ([]byte, bool) {
	if size := DecimalSize(precision, scale); size < 0 || len(src) != size {
		return dst, false
	}
	d := decimal{src: src, first: 0x80}
	if src[0]&0x80 == 0 {
		d.mask = 0xff
		dst = append(dst, '-')
	}
	whole := precision - scale
	start := len(dst)
	dst = d.group(dst, whole%9)
	for range whole / 9 {
		dst = d.group(dst, 9)
	}
	zeros := start
	for zeros < len(dst)-1 && dst[zeros] == '0' {
		zeros++
	}
	dst = append(dst[:start], dst[zeros:]...)
	if len(dst) == start {
		dst = append(dst, '0')
	}
	if scale > 0 {
		dst = append(dst, '.')
		for range scale / 9 {
			dst = d.group(dst, 9)
		}
		dst = d.group(dst, scale%9)
	}
	return dst, !d.bad
}

// decimal walks the groups of digits. The first bit of all is the sign, inverted, and a
// negative number has every bit inverted.
type decimal struct {
	src         []byte
	mask, first byte
	bad         bool
}

func (d *decimal) group(dst []byte, digits int) []byte {
	if digits == 0 {
		return dst
	}
	size := 4
	if digits < 9 {
		size = int(bytesOf[digits])
	}
	var v uint32
	for _, b := range d.src[:size] {
		v = v<<8 | uint32(b^d.mask^d.first)
		d.first = 0
	}
	d.src = d.src[size:]
	var text [9]byte
	for i := digits - 1; i >= 0; i-- {
		text[i] = '0' + byte(v%10)
		v /= 10
	}
	d.bad = d.bad || v != 0
	return append(dst, text[:digits]...)
}

// Uint reads an unsigned integer of up to eight bytes, the low one first.
func Uint(b []byte) (v uint64) {
	if len(b) == 8 {
		return binary.LittleEndian.Uint64(b)
	}
	for i := len(b) - 1; i >= 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	return v
}

// Int reads a signed integer of up to eight bytes, the low one first.
func Int(b []byte) int64 {
	shift := 64 - 8*len(b)
	return int64(Uint(b)<<shift) >> shift
}

// BigUint reads an unsigned integer of up to eight bytes, the high one first.
func BigUint(b []byte) (v uint64) {
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v
}
