package fold

import (
	"bytes"
	"encoding/binary"
)

// The notation of lines is that of the server's own COPY TO (documentation of COPY, section Text Format), byte for byte: a row of
// the record and the same row of a base are the same line.

// special says by which letter a byte is escaped; zero for those that stand for themselves.
var special = [256]byte{'\b': 'b', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't', '\v': 'v', '\\': '\\'}

// appendField appends a value; nil is NULL.
func appendField(dst, v []byte) []byte {
	if v == nil {
		return append(dst, '\\', 'N')
	}
	if plain(v) {
		return append(dst, v...)
	}
	from := 0
	for i, c := range v {
		if c > '\\' || special[c] == 0 {
			continue
		}
		dst = append(append(dst, v[from:i]...), '\\', special[c])
		from = i + 1
	}
	return append(dst, v[from:]...)
}

// plain reports whether every byte of a value stands for itself; false may also mean that some may not. It looks at
// eight bytes at a time: none is below 14, where all but one of the special ones are, and none is a backslash.
func plain(v []byte) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	found := uint64(0)
	for len(v) >= 8 {
		w := binary.LittleEndian.Uint64(v)
		b := w ^ '\\'*ones
		found |= (w-14*ones)&^w | (b-ones)&^b
		v = v[8:]
	}
	if found&highs != 0 {
		return false
	}
	for _, c := range v {
		if special[c] != 0 {
			return false
		}
	}
	return true
}

// appendPlain appends what a field stands for, which is not NULL.
func appendPlain(dst, field []byte) []byte {
	for {
		i := bytes.IndexByte(field, '\\')
		if i < 0 || i+1 == len(field) {
			return append(dst, field...)
		}
		dst = append(dst, field[:i]...)
		c := field[i+1]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'v':
			c = '\v'
		}
		dst, field = append(dst, c), field[i+2:]
	}
}

// cutField cuts the first field off a line.
func cutField(line []byte) (field, rest []byte) {
	if i := bytes.IndexByte(line, '\t'); i >= 0 {
		return line[:i], line[i+1:]
	}
	return line, nil
}
