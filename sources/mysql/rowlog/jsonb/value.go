// Package jsonb reads MySQL's binary JSON and the changes that a partial update logs of
// it, and writes it as the server prints it.
package jsonb

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed is wrapped when bytes are not binary JSON.
var ErrMalformed = errors.New("malformed JSON value")

// The types of values.
const (
	smallObject = iota
	largeObject
	smallArray
	largeArray
	literal
	int16Type
	uint16Type
	int32Type
	uint32Type
	int64Type
	uint64Type
	doubleType
	stringType
	opaqueType = 0x0f
)

// maxDepth bounds how deep values nest: the server refuses more than 100 levels.
const maxDepth = 128

// value is a value in binary: its type, and the bytes from where it begins to the end of
// what holds it.
type value struct {
	typ  byte
	data []byte
}

// parse reads a whole document. None at all is what the server takes for null.
func parse(doc []byte) value {
	if len(doc) == 0 {
		return value{literal, []byte{0}}
	}
	return value{doc[0], doc[1:]}
}

// container is an object or an array of which the head has been checked.
type container struct {
	data   []byte // as long as the head says
	count  int
	object bool
	wide   int // bytes of an offset: 2 or 4
}

func (v value) isContainer() bool { return v.typ <= largeArray }

func (v value) container() (container, bool) {
	c := container{object: v.typ <= largeObject, wide: 2}
	if v.typ == largeObject || v.typ == largeArray {
		c.wide = 4
	}
	if !v.isContainer() || len(v.data) < 2*c.wide {
		return c, false
	}
	c.data = v.data
	count, size := c.uint(0), c.uint(c.wide)
	if size > len(v.data) || count > size/(1+c.wide) {
		return c, false
	}
	c.data, c.count = v.data[:size], count
	return c, c.values()+count*(1+c.wide) <= size
}

// uint reads an offset, of which there must be enough bytes.
func (c *container) uint(at int) int {
	if c.wide == 2 {
		return int(binary.LittleEndian.Uint16(c.data[at:]))
	}
	return int(binary.LittleEndian.Uint32(c.data[at:]))
}

// values returns where the entries of values begin.
func (c *container) values() int {
	at := 2 * c.wide
	if c.object {
		at += c.count * (c.wide + 2)
	}
	return at
}

func (c *container) key(i int) ([]byte, bool) {
	at := 2*c.wide + i*(c.wide+2)
	offset, length := c.uint(at), int(binary.LittleEndian.Uint16(c.data[at+c.wide:]))
	if offset > len(c.data) || length > len(c.data)-offset {
		return nil, false
	}
	return c.data[offset : offset+length], true
}

func (c *container) value(i int) (value, bool) {
	at := c.values() + i*(1+c.wide)
	v := value{typ: c.data[at]}
	switch v.typ {
	case literal, int16Type, uint16Type:
		v.data = c.data[at+1 : at+1+c.wide]
		return v, true
	case int32Type, uint32Type:
		if c.wide == 4 {
			v.data = c.data[at+1 : at+5]
			return v, true
		}
	}
	offset := c.uint(at + 1)
	if offset > len(c.data) {
		return v, false
	}
	v.data = c.data[offset:]
	return v, true
}

// fixed returns the n bytes a scalar takes.
func (v value) fixed(n int) ([]byte, bool) {
	if len(v.data) < n {
		return nil, false
	}
	return v.data[:n], true
}

// blob returns bytes behind their length.
func blob(b []byte) ([]byte, bool) {
	n := 0
	for i := 0; i < len(b) && i < 5; i++ {
		n |= int(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			b = b[i+1:]
			if n > len(b) {
				return nil, false
			}
			return b[:n], true
		}
	}
	return nil, false
}
