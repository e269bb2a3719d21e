package charset

import (
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
)

// pairs holds what the characters of an East Asian set of two bytes stand for, by the
// two bytes, and of those of three by the two behind 0x8f; zero for nothing. lone tells
// it of single bytes from 0x80.
type pairs struct {
	two, three [1 << 16]uint16
	lone       [256]uint16
}

// newPairs builds the table of a set: the common mapping of its family, with what the
// servers convert otherwise laid over it.
func newPairs(name string) *pairs {
	p := new(pairs)
	switch name {
	case "gbk":
		p.fill(simplifiedchinese.GBK)
	case "gb2312":
		p.fill(simplifiedchinese.GBK)
		p.set(0xa1a4, "・")
		p.set(0xa1aa, "―")
	case "gb18030":
		p.fill(simplifiedchinese.GB18030)
		gb18030(p)
	case "big5":
		p.fill(traditionalchinese.Big5)
		big5(p)
	case "euckr":
		p.fill(korean.EUCKR)
	case "sjis":
		p.fill(japanese.ShiftJIS)
		p.halfwidth()
		for code, text := range jis() {
			row, cell := int(code>>8)-0x21, int(code&0xff)-0x21
			lead, trail := 0x81+row/2, 0x40+cell+row%2*94
			if trail >= 0x7f {
				trail++
			}
			p.set(lead<<8|trail, text)
		}
	case "cp932":
		p.fill(japanese.ShiftJIS)
		p.halfwidth()
		p.private(0xf040, 0xf940, 0x40, 0xfc, 0xe000)
	case "ujis", "eucjpms":
		p.fill(japanese.EUCJP)
		p.private(0xf5a1, 0xfea1, 0xa1, 0xfe, 0xe000)
		eucjp(p, name)
	}
	return p
}

// fill takes all of two bytes, and of three behind 0x8f, from an encoding.
func (p *pairs) fill(enc encoding.Encoding) {
	dec := enc.NewDecoder()
	var src [3]byte
	var dst [16]byte
	one := func(src []byte) uint16 {
		dec.Reset()
		n, used, err := dec.Transform(dst[:], src, true)
		r, size := utf8.DecodeRune(dst[:n])
		if err != nil || used != len(src) || size != n || r == utf8.RuneError || r > 0xffff {
			return 0
		}
		return uint16(r)
	}
	for a := 0x80; a < 0x100; a++ {
		for b := 0x30; b < 0x100; b++ {
			src[0], src[1], src[2] = 0x8f, byte(a), byte(b)
			p.two[a<<8|b] = one(src[1:])
			if enc == japanese.EUCJP && a > 0xa0 && b > 0xa0 {
				p.three[a<<8|b] = one(src[:])
			}
		}
	}
}

// set lets the characters of text follow each other from code on; a space stands for
// none.
func (p *pairs) set(code int, text string) {
	for _, r := range text {
		if r == ' ' {
			r = 0
		}
		p.two[code] = uint16(r)
		code++
	}
}

// private numbers the rows from lead byte to lead byte, and in them the trail bytes from
// low to high without 0x7f, as characters for private use.
func (p *pairs) private(from, to, low, high int, r uint16) {
	for lead := from >> 8; lead <= to>>8; lead++ {
		for trail := low; trail <= high; trail++ {
			if trail == 0x7f {
				continue
			}
			p.two[lead<<8|trail] = r
			r++
		}
	}
}

// halfwidth sets the katakana that one byte encodes in the family of Shift-JIS.
func (p *pairs) halfwidth() {
	for b := 0xa1; b <= 0xdf; b++ {
		p.lone[b] = uint16(0xff61 + b - 0xa1)
	}
}

// jis lists the characters that the servers' sjis and ujis convert by JIS X 0208 itself
// where others follow Windows.
func jis() map[uint16]string {
	return map[uint16]string{0x2140: `\`, 0x2141: "〜‖", 0x215d: "−", 0x2171: "¢£", 0x224c: "¬"}
}

func (c *Charset) appendPairs(dst, src []byte) ([]byte, bool) {
	p := c.pairs
	for i := 0; i < len(src); i++ {
		b := src[i]
		if b < utf8.RuneSelf {
			dst = append(dst, b)
			continue
		}
		if r := p.lone[b]; r != 0 {
			dst = utf8.AppendRune(dst, rune(r))
			continue
		}
		if i++; i >= len(src) {
			return dst, false
		}
		r := p.two[int(b)<<8|int(src[i])]
		switch {
		case c.kind == triple && b == 0x8f:
			if i++; i >= len(src) {
				return dst, false
			}
			r = p.three[int(src[i-1])<<8|int(src[i])]
		case c.kind == fourfold && src[i] < 0x40:
			var text [8]byte
			if i += 2; i >= len(src) {
				return dst, false
			}
			c.gb.Reset()
			n, used, err := c.gb.Transform(text[:], src[i-3:i+1], true)
			four, size := utf8.DecodeRune(text[:n])
			if err != nil || used != 4 || size != n || four == utf8.RuneError {
				return dst, false
			}
			if four == 'ḿ' { // it has changed places with a8bc
				four = '\ue7c7'
			}
			dst = utf8.AppendRune(dst, four)
			continue
		}
		if r == 0 {
			return dst, false
		}
		dst = utf8.AppendRune(dst, rune(r))
	}
	return dst, true
}
