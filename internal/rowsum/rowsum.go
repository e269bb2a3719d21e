// Package rowsum sums up the rows of a table: the result is the same in whatever order, and in however many parts, they
// come, and another one as soon as a row is another, is missing, or is there twice. It finds mistakes. Who may choose the
// rows can make two tables with one sum, and need not be stopped here: the objects that hold rows have a SHA-256.
package rowsum

import (
	"bytes"
	"fmt"
	"math/bits"
	"strings"

	"github.com/zeebo/xxh3"
)

// Sum is what rows come to: their number, and the sum of their hashes modulo 2^128. The zero Sum is that of no rows.
type Sum struct {
	Rows   int64
	hi, lo uint64
}

// Add adds a row.
func (s *Sum) Add(row []byte) { s.add(xxh3.Hash128(row)) }

func (s *Sum) add(h xxh3.Uint128) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, h.Lo, 0)
	s.hi, _ = bits.Add64(s.hi, h.Hi, carry)
	s.Rows++
}

// Merge adds the rows that another Sum has.
func (s *Sum) Merge(o Sum) {
	rows := s.Rows + o.Rows
	s.add(xxh3.Uint128{Hi: o.hi, Lo: o.lo})
	s.Rows = rows
}

// scheme says how a Content was computed. Another way needs another word.
const scheme = "xxh3:"

// Content is the sum of the hashes as manifests have it. Two tables are taken for the same if they have as many rows, and
// the same Content.
func (s Sum) Content() string { return fmt.Sprintf("%s%016x%016x", scheme, s.hi, s.lo) }

// Comparable reports whether text is a Content that this package computes: a later version may know others.
func Comparable(text string) bool { return strings.HasPrefix(text, scheme) }

// Row takes a row in pieces, cut anywhere. It is reused for one row after another.
type Row struct{ hash xxh3.Hasher }

// Write adds a piece. It never fails.
func (r *Row) Write(p []byte) (int, error) { return r.hash.Write(p) }

// End adds the row to the sum, and begins the next one.
func (r *Row) End(to *Sum) {
	to.add(r.hash.Sum128())
	r.hash.Reset()
}

// Lines takes rows as lines, in pieces cut anywhere: the line feed ends a row and is no part of it.
type Lines struct {
	Sum
	row  Row
	open bool // row holds the beginning of one
}

// Write adds what it is given. It never fails.
func (l *Lines) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		switch {
		case end < 0:
			l.open = true
			_, err := l.row.Write(p)
			return n, err
		case l.open:
			if _, err := l.row.Write(p[:end]); err != nil {
				return 0, err
			}
			l.row.End(&l.Sum)
			l.open = false
		default:
			l.Add(p[:end])
		}
		p = p[end+1:]
	}
	return n, nil
}

// Reset begins anew.
func (l *Lines) Reset() {
	l.Sum = Sum{}
	if l.open {
		l.row.hash.Reset()
		l.open = false
	}
}
