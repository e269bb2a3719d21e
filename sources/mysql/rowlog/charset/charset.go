// Package charset turns text in the character sets of MySQL and MariaDB into UTF-8,
// and refuses what is not text.
package charset

import (
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/transform"
)

// Charset is one character set. It is not safe for concurrent use.
type Charset struct {
	// Name is the servers' name of it.
	Name string
	// MaxLen is how many bytes a character takes at most: a column of n characters is
	// declared in the log as one of n times as many bytes.
	MaxLen int

	kind   kind
	single *[256]rune
	pairs  *pairs
	gb     transform.Transformer
}

type kind uint8

const (
	utf kind = iota
	ascii
	single
	double   // one byte below 0x80, or two
	triple   // the same, and three behind 0x8f
	fourfold // gb18030
	ucs2
	utf16be
	utf16le
	utf32
)

// Named returns the character set of a name; nil for "binary" and for one that is not
// known.
func Named(name string) *Charset {
	c := &Charset{Name: name, MaxLen: 1}
	switch name {
	case "utf8mb4":
		c.MaxLen = 4
	case "utf8", "utf8mb3":
		c.Name, c.MaxLen = "utf8mb3", 3
	case "ascii":
		c.kind = ascii
	case "ucs2":
		c.kind, c.MaxLen = ucs2, 2
	case "utf16":
		c.kind, c.MaxLen = utf16be, 4
	case "utf16le":
		c.kind, c.MaxLen = utf16le, 4
	case "utf32":
		c.kind, c.MaxLen = utf32, 4
	case "gb18030":
		c.kind, c.MaxLen, c.gb = fourfold, 4, simplifiedchinese.GB18030.NewDecoder()
		c.pairs = newPairs(name)
	case "big5", "gbk", "gb2312", "euckr", "sjis", "cp932":
		c.kind, c.MaxLen, c.pairs = double, 2, newPairs(name)
	case "ujis", "eucjpms":
		c.kind, c.MaxLen, c.pairs = triple, 3, newPairs(name)
	default:
		if c.single = newSingle(name); c.single == nil {
			return nil
		}
		c.kind = single
	}
	return c
}

// UTF8 reports whether text of c is UTF-8 as it is, if it is valid.
func (c *Charset) UTF8() bool { return c.kind == utf || c.kind == ascii }

// Append appends src as UTF-8 to dst and reports whether all of it is text of c; if
// not, it returns dst with an unusable rest.
func (c *Charset) Append(dst, src []byte) ([]byte, bool) {
	switch c.kind {
	case utf:
		return append(dst, src...), utf8.Valid(src)
	case ascii:
		for _, b := range src {
			if b >= utf8.RuneSelf {
				return dst, false
			}
		}
		return append(dst, src...), true
	case single:
		return c.appendSingle(dst, src)
	case double, triple, fourfold:
		return c.appendPairs(dst, src)
	case utf32:
		return appendUTF32(dst, src)
	}
	return c.appendUTF16(dst, src)
}

func (c *Charset) appendSingle(dst, src []byte) ([]byte, bool) {
	for _, b := range src {
		r := c.single[b]
		if r == utf8.RuneError {
			return dst, false
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst, true
}

func (c *Charset) appendUTF16(dst, src []byte) ([]byte, bool) {
	if len(src)%2 != 0 {
		return dst, false
	}
	unit := func(i int) rune {
		if c.kind == utf16le {
			return rune(src[i+1])<<8 | rune(src[i])
		}
		return rune(src[i])<<8 | rune(src[i+1])
	}
	for i := 0; i < len(src); i += 2 {
		r := unit(i)
		if utf16.IsSurrogate(r) {
			if i += 2; c.kind == ucs2 || i >= len(src) {
				return dst, false
			}
			if r = utf16.DecodeRune(r, unit(i)); r == utf8.RuneError {
				return dst, false
			}
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst, true
}

func appendUTF32(dst, src []byte) ([]byte, bool) {
	if len(src)%4 != 0 {
		return dst, false
	}
	for ; len(src) > 0; src = src[4:] {
		r := uint32(src[0])<<24 | uint32(src[1])<<16 | uint32(src[2])<<8 | uint32(src[3])
		if r > utf8.MaxRune || !utf8.ValidRune(rune(r)) {
			return dst, false
		}
		dst = utf8.AppendRune(dst, rune(r))
	}
	return dst, true
}

// newSingle returns what each byte of a character set stands for; nil if there is none
// of that name.
func newSingle(name string) *[256]rune {
	t := new([256]rune)
	for i := range t {
		t[i] = utf8.RuneError
		if i < utf8.RuneSelf {
			t[i] = rune(i)
		}
	}
	if name == "swe7" { // seven bits, with letters where ASCII has brackets
		for i, r := range []rune("ÄÖÅÜ_éabcdefghijklmnopqrstuvwxyzäöåü\ufffd") {
			t['['+i] = r
		}
		t['@'] = 'É'
		return t
	}
	high := []rune(upper(name))
	if len(high) != utf8.RuneSelf {
		return nil
	}
	copy(t[utf8.RuneSelf:], high)
	return t
}
