package rowlog

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"txreel/change"
	"txreel/sources/mysql/rowlog/jsonb"
	"txreel/sources/mysql/rowlog/sqltext"
)

// value gives what SELECT shows for the stored bytes v of a column. Values that are not
// there literally are written to the decoder's buffer: what an earlier one aliases stays
// as it is when the buffer grows.
func (d *Decoder) value(c *column, v []byte) (change.Value, error) {
	start := len(d.text)
	ok := true
	switch c.kind {
	case kindString:
		return d.stringValue(c, v)
	case kindInt:
		d.text = c.appendInt(d.text, v)
	case kindFloat:
		d.text = c.appendFloat(d.text, float64(math.Float32frombits(binary.LittleEndian.Uint32(v))), 32)
	case kindDouble:
		d.text = c.appendFloat(d.text, math.Float64frombits(binary.LittleEndian.Uint64(v)), 64)
	case kindDecimal:
		if d.text, ok = sqltext.AppendDecimal(d.text, v, c.precision, c.frac); ok {
			d.fill(c, start)
		}
	case kindYear:
		d.text = sqltext.AppendYear(d.text, v[0])
	case kindBit:
		return change.Value{State: change.Binary, Bytes: v}, nil
	case kindEnum:
		ok = d.enum(c, sqltext.Uint(v))
	case kindSet:
		ok = d.set(c, sqltext.Uint(v))
	case kindJSON:
		text, err := jsonb.Append(d.text, v)
		if err != nil {
			return change.Value{}, err
		}
		d.text = text
	case kindUUID, kindInet6, kindInet4:
		ok = d.network(c.kind, v)
	case kindNone:
		return change.Value{State: change.Null}, nil
	default:
		ok = d.temporal(c, v)
	}
	if !ok {
		return change.Value{}, fmt.Errorf("%w: %x is no value of a column of type %s", errRow, v[:min(len(v), 16)], c.name())
	}
	return d.since(start), nil
}

// since is the text written from start on.
func (d *Decoder) since(start int) change.Value {
	return change.Value{State: change.Text, Bytes: d.text[start:len(d.text):len(d.text)]}
}

func (c *column) appendInt(dst, v []byte) []byte {
	if !c.unsigned {
		return strconv.AppendInt(dst, sqltext.Int(v), 10)
	}
	n := sqltext.Uint(v)
	if c.zerofill > 0 {
		digits := 1
		for m := n; m >= 10; m /= 10 {
			digits++
		}
		for ; digits < c.zerofill; digits++ {
			dst = append(dst, '0')
		}
	}
	return strconv.AppendUint(dst, n, 10)
}

func (c *column) appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case c.fixed > 0:
		return strconv.AppendFloat(dst, f, 'f', c.fixed-1, 64)
	case bits == 32:
		return sqltext.AppendFloat(dst, float32(f))
	}
	return sqltext.AppendDouble(dst, f)
}

// fill puts zeros before what was written from start on, where the type wants them.
func (d *Decoder) fill(c *column, start int) {
	missing := c.zerofill - (len(d.text) - start)
	if missing <= 0 || d.text[start] == '-' {
		return
	}
	for range missing {
		d.text = append(d.text, '0')
	}
	copy(d.text[start+missing:], d.text[start:])
	for i := range missing {
		d.text[start+i] = '0'
	}
}

func (d *Decoder) enum(c *column, n uint64) bool {
	switch {
	case c.members == nil:
		d.text = strconv.AppendUint(d.text, n, 10)
	case n > uint64(len(c.members)):
		return false
	case n > 0: // zero is '', what a value that was refused became
		d.text = append(d.text, c.members[n-1]...)
	}
	return true
}

func (d *Decoder) set(c *column, bits uint64) bool {
	if c.members == nil {
		d.text = strconv.AppendUint(d.text, bits, 10)
		return true
	}
	for i, sep := 0, false; bits != 0; i, bits = i+1, bits>>1 {
		if bits&1 == 0 {
			continue
		}
		if i >= len(c.members) {
			return false
		}
		if sep {
			d.text = append(d.text, ',')
		}
		d.text = append(d.text, c.members[i]...)
		sep = true
	}
	return true
}

// stringValue gives characters as UTF-8, and what is not characters as bytes.
func (d *Decoder) stringValue(c *column, v []byte) (change.Value, error) {
	if c.compressed {
		var err error
		if v, err = d.inflate(v); err != nil {
			return change.Value{}, err
		}
	}
	if c.cs == nil {
		if len(v) < c.pad {
			v = d.zeros(v, c.pad)
		}
		return change.Value{State: change.Binary, Bytes: v}, nil
	}
	if c.cs.UTF8() {
		if !utf8.Valid(v) {
			return change.Value{State: change.Binary, Bytes: v}, nil
		}
		return change.Value{State: change.Text, Bytes: v}, nil
	}
	start := len(d.text)
	text, ok := c.cs.Append(d.text, v)
	d.text = text
	if !ok {
		d.text = d.text[:start]
		return change.Value{State: change.Binary, Bytes: v}, nil
	}
	return d.since(start), nil
}

// zeros gives back the zeros that the server cut from the end of a value of n bytes.
func (d *Decoder) zeros(v []byte, n int) []byte {
	start := len(d.text)
	d.text = append(d.text, v...)
	for len(d.text)-start < n {
		d.text = append(d.text, 0)
	}
	return d.text[start:len(d.text):len(d.text)]
}
