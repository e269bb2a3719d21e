package audit

import (
	"encoding/base64"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"txreel/change"
)

const (
	// flushAt is how many bytes are gathered before they are written.
	flushAt = 64 << 10
	// chunk is how much of a value is encoded at once, so that a value of any size
	// leaves the buffer as large as it is. A multiple of three: base64 takes it whole.
	chunk = 48 << 10
)

// lines writes lines of JSON without taking memory for them. The first error of
// the writer sticks.
type lines struct {
	out io.Writer
	buf []byte
	err error
}

func (l *lines) raw(s string)   { l.buf = append(l.buf, s...) }
func (l *lines) bytes(b []byte) { l.buf = append(l.buf, b...) }
func (l *lines) uint(n uint64)  { l.buf = strconv.AppendUint(l.buf, n, 10) }

// end ends a line.
func (l *lines) end() error {
	l.buf = append(l.buf, '\n')
	if len(l.buf) >= flushAt {
		l.flush()
	}
	return l.err
}

func (l *lines) flush() {
	if l.err == nil && len(l.buf) > 0 {
		_, l.err = l.out.Write(l.buf)
	}
	l.buf = l.buf[:0]
}

// text writes a value in the server's text notation: a string, or when it is not
// valid UTF-8 an object with its bytes.
func (l *lines) text(b []byte) {
	if !utf8.Valid(b) {
		l.object("base64", b)
		return
	}
	l.buf = append(l.buf, '"')
	for len(b) > chunk {
		l.buf = appendEscaped(l.buf, b[:chunk])
		b = b[chunk:]
		l.flush()
	}
	l.buf = append(appendEscaped(l.buf, b), '"')
}

// object writes bytes under a name that says what they are.
func (l *lines) object(name string, b []byte) {
	l.raw(`{"`)
	l.raw(name)
	l.raw(`":`)
	l.base64(b)
	l.raw(`}`)
}

func (l *lines) base64(b []byte) {
	l.buf = append(l.buf, '"')
	for len(b) > chunk {
		l.buf = base64.StdEncoding.AppendEncode(l.buf, b[:chunk])
		b = b[chunk:]
		l.flush()
	}
	l.buf = append(base64.StdEncoding.AppendEncode(l.buf, b), '"')
}

// appendString appends s as a JSON string. Names that are not valid UTF-8 cannot
// be keys of JSON: they are written as "base64:" and their bytes.
func appendString(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = "base64:" + base64.StdEncoding.EncodeToString([]byte(s))
	}
	return append(appendEscaped(append(b, '"'), s), '"')
}

// appendEscaped appends the inside of a JSON string. s is valid UTF-8, or a part of
// it cut anywhere.
func appendEscaped[T string | []byte](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	done := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[done:i]...)
		done = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(b, s[done:]...)
}

// appendTime appends t as change.Time prints it.
func appendTime(b []byte, t change.Time) []byte {
	return time.UnixMicro(int64(t)).UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z07:00")
}

// appendSeq appends s as it prints.
func appendSeq(b []byte, s change.Seq) []byte {
	const hex = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, hex[s>>shift&15])
	}
	return b
}
