package jsonb

import (
	"encoding/json"
	"errors"
)

// leg is one step of a path: a member of an object or a cell of an array.
type leg struct {
	member bool
	key    []byte
	cell   int
}

// path is a parsed path such as $.a[3]."b c".
type path struct {
	legs []leg
}

var errPath = errors.New("malformed path")

// maxCell bounds a cell's number: no document has as many.
const maxCell = 1 << 30

// parse reads the legs of a path; keys alias it unless they are escaped.
func (p *path) parse(b []byte) error {
	p.legs = p.legs[:0]
	if len(b) == 0 || b[0] != '$' {
		return errPath
	}
	for b = b[1:]; len(b) > 0; {
		var l leg
		var ok bool
		switch b[0] {
		case '.':
			l, b, ok = member(b[1:])
		case '[':
			l, b, ok = cell(b[1:])
		}
		if !ok || len(p.legs) >= maxDepth {
			return errPath
		}
		p.legs = append(p.legs, l)
	}
	return nil
}

func cell(b []byte) (l leg, rest []byte, ok bool) {
	for i, c := range b {
		if c == ']' {
			return l, b[i+1:], i > 0
		}
		if c < '0' || c > '9' || l.cell > maxCell {
			break
		}
		l.cell = 10*l.cell + int(c-'0')
	}
	return l, nil, false
}

func member(b []byte) (l leg, rest []byte, ok bool) {
	l.member = true
	if len(b) == 0 || b[0] != '"' {
		i := 0
		for i < len(b) && b[i] != '.' && b[i] != '[' {
			i++
		}
		l.key = b[:i]
		return l, b[i:], i > 0
	}
	escaped := false
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			l.key, ok = b[1:i], true
			if escaped {
				var s string
				ok = json.Unmarshal(b[:i+1], &s) == nil
				l.key = []byte(s)
			}
			return l, b[i+1:], ok
		}
	}
	return l, nil, false
}
