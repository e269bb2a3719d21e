package jsonb

import (
	"bytes"
	"fmt"
)

// The operations of a diff, as logged.
const (
	opReplace = iota
	opInsert
	opRemove
)

// Patch applies the diffs of a partial update to a document. Its memory is used again, so
// one is kept for many; it is not safe for concurrent use. The zero value is ready.
type Patch struct {
	nodes []node
	used  int
	room  int // how many nodes well-formed input can lead to
	path  path
}

// node is a value, or, once a diff leads into it, an object or array with its members.
type node struct {
	value  value
	opened bool
	object bool
	kids   []kid
}

type kid struct {
	key  []byte
	node int32
}

// Append appends to dst, as the server prints it, the document doc after the diffs.
func (p *Patch) Append(dst, doc, diffs []byte) ([]byte, error) {
	p.used, p.room = 0, len(doc)+len(diffs)+1
	root := p.node(parse(doc))
	rest := diffs
	for len(rest) > 0 {
		var err error
		if rest, err = p.diff(root, rest); err != nil {
			return dst, err
		}
	}
	out := printer{dst: dst, limit: limit(len(dst), len(doc)+len(diffs))}
	if !p.print(&out, root, 0) {
		return dst, malformed(doc)
	}
	return out.dst, nil
}

// CheckDiffs reports whether b is a sequence of diffs.
func CheckDiffs(b []byte) bool {
	for len(b) > 0 {
		var ok bool
		if _, _, _, b, ok = split(b); !ok {
			return false
		}
	}
	return true
}

// split takes the first diff off b.
func split(b []byte) (op byte, path, val, rest []byte, ok bool) {
	op, b = b[0], b[1:]
	if path, b, ok = lenenc(b); !ok || op > opRemove {
		return op, nil, nil, nil, false
	}
	if op != opRemove {
		val, b, ok = lenenc(b)
	}
	return op, path, val, b, ok
}

// lenenc takes bytes behind their length, as MySQL's protocol encodes it, off b.
func lenenc(b []byte) (v, rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	n, size := uint64(b[0]), 0
	switch b[0] {
	case 0xfc:
		size = 2
	case 0xfd:
		size = 3
	case 0xfe:
		size = 8
	case 0xfb, 0xff:
		return nil, nil, false
	}
	if b = b[1:]; size > 0 {
		if len(b) < size {
			return nil, nil, false
		}
		n = 0
		for i := size - 1; i >= 0; i-- {
			n = n<<8 | uint64(b[i])
		}
		b = b[size:]
	}
	if n > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// node takes a node and returns its number.
func (p *Patch) node(v value) int32 {
	if p.used == len(p.nodes) {
		p.nodes = append(p.nodes, node{})
	}
	n := &p.nodes[p.used]
	n.value, n.opened, n.kids = v, false, n.kids[:0]
	p.used++
	return int32(p.used - 1)
}

// open makes members of what is still one value.
func (p *Patch) open(at int32) bool {
	if p.nodes[at].opened {
		return true
	}
	c, ok := p.nodes[at].value.container()
	if !ok || c.count > p.room-p.used {
		return false
	}
	for i := range c.count {
		var k kid
		v, ok := c.value(i)
		if ok && c.object {
			k.key, ok = c.key(i)
		}
		if !ok {
			return false
		}
		k.node = p.node(v)
		p.nodes[at].kids = append(p.nodes[at].kids, k)
	}
	p.nodes[at].opened, p.nodes[at].object = true, c.object
	return true
}

// diff applies the first diff of b and returns the others.
func (p *Patch) diff(root int32, b []byte) ([]byte, error) {
	op, text, val, rest, ok := split(b)
	if !ok || p.path.parse(text) != nil {
		return nil, fmt.Errorf("%w: changes of %d bytes", ErrMalformed, len(b))
	}
	legs := p.path.legs
	if len(legs) == 0 {
		if op != opReplace {
			return nil, lost(text)
		}
		n := &p.nodes[root]
		n.value, n.opened, n.kids = parse(val), false, n.kids[:0]
		return rest, nil
	}
	at := root
	for _, l := range legs[:len(legs)-1] {
		i, found := p.find(at, l)
		if !found {
			return nil, lost(text)
		}
		at = p.nodes[at].kids[i].node
	}
	last := legs[len(legs)-1]
	i, found := p.find(at, last)
	if i < 0 || op == opInsert && last.member && found || op != opInsert && !found {
		return nil, lost(text)
	}
	switch op {
	case opReplace:
		p.nodes[at].kids[i].node = p.node(parse(val))
	case opRemove:
		kids := p.nodes[at].kids
		p.nodes[at].kids = append(kids[:i], kids[i+1:]...)
	case opInsert:
		k := kid{last.key, p.node(parse(val))}
		kids := append(p.nodes[at].kids, kid{})
		copy(kids[i+1:], kids[i:])
		kids[i] = k
		p.nodes[at].kids = kids
	}
	return rest, nil
}

func lost(path []byte) error {
	return fmt.Errorf("a change at %q does not fit the JSON document before it", path)
}

// find looks for a leg in node at and returns where it is, or would be put; -1 where it
// cannot be.
func (p *Patch) find(at int32, l leg) (int, bool) {
	if !p.open(at) || p.nodes[at].object != l.member {
		return -1, false
	}
	kids := p.nodes[at].kids
	if !l.member {
		if l.cell >= len(kids) {
			return len(kids), false
		}
		return l.cell, true
	}
	for i, k := range kids { // ordered by length, then by bytes
		order := len(k.key) - len(l.key)
		if order == 0 {
			order = bytes.Compare(k.key, l.key)
		}
		if order >= 0 {
			return i, order == 0
		}
	}
	return len(kids), false
}

func (p *Patch) print(out *printer, at int32, depth int) bool {
	n := &p.nodes[at]
	if !n.opened {
		return out.value(n.value, depth)
	}
	open, end := byte('['), byte(']')
	if n.object {
		open, end = '{', '}'
	}
	if depth >= maxDepth {
		return false
	}
	out.dst = append(out.dst, open)
	for i, k := range n.kids {
		if i > 0 {
			out.dst = append(out.dst, ", "...)
		}
		if n.object {
			out.dst = append(appendString(out.dst, k.key), ": "...)
		}
		if !p.print(out, k.node, depth+1) {
			return false
		}
	}
	out.dst = append(out.dst, end)
	return true
}
