package mybase

import (
	"strconv"
	"strings"

	"txreel/internal/rowsum"
)

// Content sums up the rows of a table as their values come, in pieces cut anywhere. A row counts as the line that a chunk
// has of it, without its line feed; within MySQL's JSON, numbers count as what they are worth (see numbers). It is for one
// table after another, and not safe for concurrent use.
type Content struct {
	rowsum.Sum
	columns int
	json    []bool // by column; nil when there is none

	line   []byte // of the row, or what row does not have of it yet
	row    rowsum.Row
	spilt  bool // row has the beginning of the line
	column int
	text   []byte
	number numbers
}

// spillAt is how long a line gets before it is summed up piece by piece.
const spillAt = 64 << 10

// Begin begins with no rows, of a table.
func (c *Content) Begin(t *Table) {
	if c.spilt {
		c.row.End(&c.Sum)
	}
	c.Sum, c.columns, c.json = rowsum.Sum{}, 0, nil
	c.line, c.spilt, c.column, c.number = c.line[:0], false, 0, numbers{token: c.number.token[:0]}
	for i := range t.Columns {
		if t.Columns[i].Form == FormNone {
			continue
		}
		if t.Columns[i].Form == FormText && strings.EqualFold(t.Columns[i].Type, "json") {
			for len(c.json) <= c.columns {
				c.json = append(c.json, false)
			}
			c.json[c.columns] = true
		}
		c.columns++
	}
	c.columns = max(c.columns, 1) // see SelectList
	for c.json != nil && len(c.json) < c.columns {
		c.json = append(c.json, false)
	}
}

// Columns returns how many values a row has.
func (c *Content) Columns() int { return c.columns }

// Plain reports whether a row counts as the very line that a chunk has, which may then be given to Add.
func (c *Content) Plain() bool { return c.json == nil }

// Null is the whole of the row's next value.
func (c *Content) Null() {
	c.line = AppendValue(c.line, nil)
	c.next()
}

// Piece is a piece of the row's next value.
func (c *Content) Piece(b []byte) {
	if c.json != nil && c.json[c.column] {
		c.text = c.number.append(c.text[:0], b)
		b = c.text
	}
	c.add(b)
}

// EndValue ends the row's next value.
func (c *Content) EndValue() {
	if c.json != nil && c.json[c.column] {
		c.text = c.number.end(c.text[:0])
		c.add(c.text)
	}
	c.next()
}

func (c *Content) add(b []byte) {
	if len(b) == 0 {
		return // nil is NULL to AppendValue
	}
	c.line = AppendValue(c.line, b)
	if len(c.line) >= spillAt {
		_, _ = c.row.Write(c.line) // never fails
		c.line, c.spilt = c.line[:0], true
	}
}

func (c *Content) next() {
	if c.column++; c.column < c.columns {
		c.line = append(c.line, '\t')
	}
}

// EndRow ends the row.
func (c *Content) EndRow() {
	if c.spilt {
		_, _ = c.row.Write(c.line)
		c.row.End(&c.Sum)
	} else {
		c.Add(c.line)
	}
	c.line, c.spilt, c.column = c.line[:0], false, 0
}

// numbers writes the numbers of a JSON document that comes in pieces. A base holds JSON as text: a number that the source
// kept as DECIMAL becomes a DOUBLE in the target, and is printed in another way, though it is worth the same to 53 bits.
// So every number that is no whole number of 64 bits is written as the nearest double: one digit, those behind it that it takes
// to tell it from others, and an exponent of two digits or more, as in 1.5e+00. Nothing else is changed, and nothing is
// computed from it but a sum.
type numbers struct {
	inString, escaped bool
	token             []byte // of a number, as far as it has come
}

// longest is how long a number is at most that is rewritten: a DECIMAL has 65 digits.
const longest = 128

func (n *numbers) append(dst, piece []byte) []byte {
	for _, b := range piece {
		switch {
		case n.inString:
			switch {
			case n.escaped:
				n.escaped = false
			case b == '\\':
				n.escaped = true
			case b == '"':
				n.inString = false
			}
		case b >= '0' && b <= '9', b == '-', len(n.token) > 0 && (b == '.' || b == 'e' || b == 'E' || b == '+'):
			if len(n.token) < longest {
				n.token = append(n.token, b)
				continue
			}
			dst = n.end(dst)
		default:
			dst = n.end(dst)
			n.inString = b == '"'
		}
		dst = append(dst, b)
	}
	return dst
}

// end writes the number that is not written yet.
func (n *numbers) end(dst []byte) []byte {
	if len(n.token) == 0 {
		return dst
	}
	text := n.token
	n.token = n.token[:0]
	if _, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		return append(dst, text...)
	}
	if _, err := strconv.ParseUint(string(text), 10, 64); err == nil {
		return append(dst, text...)
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return append(dst, text...)
	}
	return strconv.AppendFloat(dst, f, 'e', -1, 64)
}
