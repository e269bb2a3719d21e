package mysql

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

const (
	comQuit  = 0x01
	comQuery = 0x03

	tagOK  = 0x00
	tagEOF = 0xfe
	tagErr = 0xff

	// maxPayload is the length of a packet that another one continues.
	maxPayload = 1<<24 - 1
	// maxAnswer bounds one row or answer: max_allowed_packet reaches no further.
	maxAnswer = 1<<30 + maxPayload
)

// ServerError is an error that the server answered.
type ServerError struct {
	Code    uint16
	State   string // SQLSTATE
	Message string
}

// Error returns the server's words and its number for them.
func (e *ServerError) Error() string { return fmt.Sprintf("%s (error %d)", e.Message, e.Code) }

// parseError reads the payload of an error packet.
func parseError(b []byte) error {
	if len(b) < 3 {
		return errors.New("error packet without a number")
	}
	e := &ServerError{Code: binary.LittleEndian.Uint16(b[1:])}
	b = b[3:]
	if len(b) >= 6 && b[0] == '#' {
		e.State, b = string(b[1:6]), b[6:]
	}
	e.Message = string(b)
	return e
}

// wire reads and writes the packets of an established session.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	buf  []byte // of the last packet read
	out  []byte
}

// command sends one command.
func (w *wire) command(code byte, body []byte) error {
	if len(body) >= maxPayload {
		return fmt.Errorf("statement of %d bytes", len(body))
	}
	n := len(body) + 1
	w.out = append(w.out[:0], byte(n), byte(n>>8), byte(n>>16), 0, code)
	w.out = append(w.out, body...)
	_, err := w.conn.Write(w.out)
	return err
}

// packet reads the next packet, valid until the next call. Sequence numbers count
// nothing that TCP does not.
func (w *wire) packet() ([]byte, error) {
	w.buf = w.buf[:0]
	for {
		var header [4]byte
		if _, err := io.ReadFull(w.in, header[:]); err != nil {
			return nil, err
		}
		length := int(binary.LittleEndian.Uint32(header[:]) & 0xffffff)
		start := len(w.buf)
		if start+length > maxAnswer {
			return nil, fmt.Errorf("answer of more than %d bytes", maxAnswer)
		}
		w.buf = grow(w.buf, length)
		if _, err := io.ReadFull(w.in, w.buf[start:]); err != nil {
			return nil, err
		}
		if length < maxPayload {
			if len(w.buf) == 0 {
				return nil, errors.New("empty packet")
			}
			return w.buf, nil
		}
	}
}

// grow lengthens b by n bytes.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		b = append(make([]byte, 0, max(2*cap(b), len(b)+n)), b...)
	}
	return b[:len(b)+n]
}

// lenenc reads a length-encoded integer. Null is that of a row.
func lenenc(b []byte) (n uint64, null bool, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, false, nil, false
	}
	size := 0
	switch b[0] {
	case 0xfb:
		return 0, true, b[1:], true
	case 0xfc:
		size = 2
	case 0xfd:
		size = 3
	case 0xfe:
		size = 8
	case 0xff:
		return 0, false, nil, false
	default:
		return uint64(b[0]), false, b[1:], true
	}
	if len(b) <= size {
		return 0, false, nil, false
	}
	for i := size; i > 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	return n, false, b[1+size:], true
}

// lenstr reads a length-encoded string, nil for NULL.
func lenstr(b []byte) (s, rest []byte, ok bool) {
	n, null, rest, ok := lenenc(b)
	if !ok || n > uint64(len(rest)) {
		return nil, nil, false
	}
	if null {
		return nil, rest, true
	}
	return rest[:n:n], rest[n:], true
}
