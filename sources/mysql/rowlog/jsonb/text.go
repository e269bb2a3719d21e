package jsonb

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"txreel/sources/mysql/rowlog/sqltext"
)

// Append appends a document as the server prints it.
func Append(dst, doc []byte) ([]byte, error) {
	p := printer{dst: dst, limit: limit(len(dst), len(doc))}
	if !p.value(parse(doc), 0) {
		return dst, malformed(doc)
	}
	return p.dst, nil
}

func malformed(doc []byte) error { return fmt.Errorf("%w of %d bytes", ErrMalformed, len(doc)) }

// limit bounds the text of a document: parts of a malformed one may all lie at the same
// place. The most a byte can cost is six, for \u0000; an entry of five bytes is worth
// less.
func limit(have, doc int) int { return have + 1024 + 16*doc }

// printer appends values; a method reports false at the first that is malformed.
type printer struct {
	dst   []byte
	limit int
}

func (p *printer) value(v value, depth int) bool {
	if len(p.dst) > p.limit {
		return false
	}
	switch v.typ {
	case smallObject, largeObject, smallArray, largeArray:
		c, ok := v.container()
		return ok && depth < maxDepth && p.container(&c, depth)
	case literal:
		return p.literal(v)
	case stringType:
		b, ok := blob(v.data)
		p.dst = appendString(p.dst, b)
		return ok
	case opaqueType:
		return p.opaque(v)
	}
	return p.number(v)
}

func (p *printer) container(c *container, depth int) bool {
	open, end := byte('['), byte(']')
	if c.object {
		open, end = '{', '}'
	}
	p.dst = append(p.dst, open)
	for i := range c.count {
		if i > 0 {
			p.dst = append(p.dst, ", "...)
		}
		if c.object {
			key, ok := c.key(i)
			if !ok {
				return false
			}
			p.dst = append(appendString(p.dst, key), ": "...)
		}
		if v, ok := c.value(i); !ok || !p.value(v, depth+1) {
			return false
		}
	}
	p.dst = append(p.dst, end)
	return true
}

func (p *printer) literal(v value) bool {
	if len(v.data) == 0 || v.data[0] > 2 {
		return false
	}
	p.dst = append(p.dst, [...]string{"null", "true", "false"}[v.data[0]]...)
	return true
}

func (p *printer) number(v value) bool {
	size := 8
	switch v.typ {
	case int16Type, uint16Type:
		size = 2
	case int32Type, uint32Type:
		size = 4
	}
	b, ok := v.fixed(size)
	if !ok {
		return false
	}
	switch v.typ {
	case int16Type, int32Type, int64Type:
		p.dst = strconv.AppendInt(p.dst, sqltext.Int(b), 10)
	case uint16Type, uint32Type, uint64Type:
		p.dst = strconv.AppendUint(p.dst, sqltext.Uint(b), 10)
	case doubleType:
		p.double(math.Float64frombits(binary.LittleEndian.Uint64(b)))
	default:
		return false
	}
	return true
}

// double appends a number that would otherwise read as an integer with ".0".
func (p *printer) double(f float64) {
	start := len(p.dst)
	p.dst = sqltext.AppendDouble(p.dst, f)
	for _, c := range p.dst[start:] {
		if c != '-' && (c < '0' || c > '9') {
			return
		}
	}
	p.dst = append(p.dst, ".0"...)
}

// The types of columns that opaque values have a notation for.
const (
	columnTimestamp = 7
	columnDate      = 10
	columnTime      = 11
	columnDatetime  = 12
	columnDecimal   = 246
)

func (p *printer) opaque(v value) bool {
	if len(v.data) == 0 {
		return false
	}
	typ := v.data[0]
	b, ok := blob(v.data[1:])
	if !ok {
		return false
	}
	switch typ {
	case columnDecimal:
		if len(b) < 2 {
			return false
		}
		p.dst, ok = sqltext.AppendDecimal(p.dst, b[2:], int(b[0]), int(b[1]))
		return ok
	case columnDate, columnTime, columnDatetime, columnTimestamp:
		if len(b) != 8 {
			return false
		}
		p.dst = append(p.dst, '"')
		p.temporal(typ, sqltext.Int(b))
	default:
		p.dst = append(p.dst, `"base64:type`...)
		p.dst = strconv.AppendUint(p.dst, uint64(typ), 10)
		p.dst = append(p.dst, ':')
		p.base64(b)
	}
	p.dst = append(p.dst, '"')
	return true
}

// base64 appends bytes in lines of 76 characters, of which the server escapes the ends like
// any other.
func (p *printer) base64(b []byte) {
	const line = 76 / 4 * 3
	for len(b) > line {
		p.dst = append(base64.StdEncoding.AppendEncode(p.dst, b[:line]), `\n`...)
		b = b[line:]
	}
	p.dst = base64.StdEncoding.AppendEncode(p.dst, b)
}

// temporal appends what the server packs into eight bytes: as in columns, and the
// fraction in microseconds below.
func (p *printer) temporal(typ byte, packed int64) {
	switch typ {
	case columnTime:
		p.dst = sqltext.AppendTime(p.dst, packed, 6)
	case columnDate:
		days := uint64(packed) >> 41
		p.dst = sqltext.AppendDate(p.dst, days>>5/13, days>>5%13, days&31)
	default:
		p.dst = sqltext.AppendDatetime(p.dst, uint64(packed)>>24, uint64(packed)&0xffffff, 6)
	}
}

// appendString appends a string with the escapes the server uses, and no others.
func appendString(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i, c := range s {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[c>>4], hex[c&15])
		}
	}
	return append(append(dst, s[start:]...), '"')
}
