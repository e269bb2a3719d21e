package fold

import "bytes"

// The notation of lines is that of the server's own COPY TO (documentation of COPY, section Text Format), byte for byte: a row of
// the record and the same row of a base are the same line.

// special says by which letter a byte is escaped; zero for those that stand for themselves.
var special = [256]byte{'\b': 'b', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't', '\v': 'v', '\\': '\\'}

// appendField appends a value; nil is NULL.
func appendField(dst, v []byte) []byte {
	if v == nil {
		return append(dst, '\\', 'N')
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
