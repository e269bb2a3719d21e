package mysql

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"txreel/sources/mysql/mybase"
)

// streamLines runs a SELECT and hands its rows to w as lines of a chunk. It keeps no
// more of a row than w does, however large a value is.
func (c *Conn) streamLines(ctx context.Context, sql string, w *chunkWriter) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if c.broken != nil {
		return c.broken
	}
	stop := context.AfterFunc(ctx, func() { _ = c.wire.conn.SetDeadline(time.Unix(1, 0)) })
	err := c.readLines(sql, w)
	if !stop() {
		err = context.Cause(ctx)
		c.end(err)
		return err
	}
	var refused *ServerError
	var sink sinkError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused) && !goesAway(refused):
		return err // the session goes on
	case errors.As(err, &sink):
		err = sink.error
	default:
		err = unreachable(err)
	}
	c.end(err)
	return err
}

// sinkError is an error of what takes the lines.
type sinkError struct{ error }

// readLines sends the statement, and reads its answer's columns and rows.
func (c *Conn) readLines(sql string, w *chunkWriter) error {
	if err := c.wire.command(comQuery, []byte(sql)); err != nil {
		return err
	}
	b, err := c.wire.packet()
	if err != nil {
		return err
	}
	if b[0] == tagErr {
		return parseError(b)
	}
	columns, _, rest, ok := lenenc(b)
	if !ok || len(rest) != 0 || columns != uint64(w.content.Columns()) {
		return errAnswer
	}
	for range columns + 1 { // their descriptions, and an end
		if b, err = c.wire.packet(); err != nil {
			return err
		}
		if b[0] == tagErr {
			return parseError(b)
		}
	}
	if b[0] != tagEOF {
		return errAnswer
	}
	r := lineReader{in: c.wire.in, w: w, columns: int(columns)}
	for {
		if more, err := r.row(); err != nil || !more {
			return err
		}
	}
}

var errAnswer = errors.New("the server's answer is malformed")

// lineReader reads rows off a connection.
type lineReader struct {
	in      *bufio.Reader
	w       *chunkWriter
	columns int
	left    int  // of the packet
	more    bool // another packet continues it
}

// row reads a row. It reports false at the end of the rows.
func (r *lineReader) row() (bool, error) {
	header, err := r.in.Peek(5)
	if err != nil {
		return false, noEOF(err)
	}
	length := int(binary.LittleEndian.Uint32(header) & 0xffffff)
	switch tag := header[4]; {
	case length == 0:
		return false, errAnswer
	case tag == tagErr || tag == tagEOF && length < 9:
		b, err := r.in.Peek(4 + length)
		if err != nil {
			return false, noEOF(err)
		}
		if tag == tagErr {
			err = parseError(b[4:])
		}
		if _, derr := r.in.Discard(4 + length); err == nil {
			err = derr
		}
		return false, err
	case 4+length <= r.in.Size():
		return true, r.short(length)
	}
	return true, r.long()
}

// short reads a row that the buffer has room for.
func (r *lineReader) short(length int) error {
	b, err := r.in.Peek(4 + length)
	if err != nil {
		return noEOF(err)
	}
	b = b[4:]
	line, content, start := r.w.line, &r.w.content, len(r.w.line)
	plain := content.Plain()
	for i := range r.columns {
		var value []byte
		var ok bool
		if value, b, ok = lenstr(b); !ok {
			return errAnswer
		}
		if i > 0 {
			line = append(line, '\t')
		}
		line = appendValue(line, value)
		switch {
		case plain:
		case value == nil:
			content.Null()
		default:
			content.Piece(value)
			content.EndValue()
		}
	}
	if len(b) != 0 {
		return errAnswer
	}
	if plain {
		content.Add(line[start:])
	} else {
		content.EndRow()
	}
	r.w.line = append(line, '\n')
	if _, err := r.in.Discard(4 + length); err != nil {
		return err
	}
	return r.ended()
}

// appendValue is mybase.AppendValue, faster with long values that it leaves as they are: the
// processor finds a byte in many at once.
func appendValue(line, value []byte) []byte {
	if len(value) >= 16 && bytes.IndexByte(value, '\\') < 0 && bytes.IndexByte(value, '\t') < 0 && bytes.IndexByte(value, '\n') < 0 {
		return append(line, value...)
	}
	return mybase.AppendValue(line, value)
}

// long reads a row piece by piece.
func (r *lineReader) long() error {
	r.left, r.more = 0, true
	for i := range r.columns {
		if i > 0 {
			r.w.line = append(r.w.line, '\t')
		}
		n, null, err := r.length()
		if err != nil {
			return err
		}
		if null {
			r.w.line = mybase.AppendValue(r.w.line, nil)
			r.w.content.Null()
			continue
		}
		for n > 0 {
			b, err := r.piece(n)
			if err != nil {
				return err
			}
			r.w.line = appendValue(r.w.line, b)
			r.w.content.Piece(b)
			n -= uint64(len(b))
			if err := r.discard(len(b)); err != nil {
				return err
			}
			if len(r.w.line) >= r.w.gather {
				if err := r.w.flush(); err != nil {
					return sinkError{err}
				}
			}
		}
		r.w.content.EndValue()
	}
	if r.left != 0 {
		return errAnswer
	}
	if r.more { // the row ends with a packet that says there is more: an empty one
		if err := r.next(); err != nil || r.left != 0 {
			return errors.Join(err, errAnswer)
		}
	}
	r.w.line = append(r.w.line, '\n')
	r.w.content.EndRow()
	return r.ended()
}

func (r *lineReader) ended() error {
	if err := r.w.ended(); err != nil {
		return sinkError{err}
	}
	return nil
}

// next begins the next packet of a row.
func (r *lineReader) next() error {
	if !r.more {
		return errAnswer
	}
	header, err := r.in.Peek(4)
	if err != nil {
		return noEOF(err)
	}
	r.left = int(binary.LittleEndian.Uint32(header) & 0xffffff)
	r.more = r.left == maxPayload
	_, err = r.in.Discard(4)
	return err
}

// piece returns what is at hand of a value, n bytes at most and at least one.
func (r *lineReader) piece(n uint64) ([]byte, error) {
	if r.left == 0 {
		if err := r.next(); err != nil {
			return nil, err
		}
		if r.left == 0 {
			return nil, errAnswer
		}
	}
	if _, err := r.in.Peek(1); err != nil {
		return nil, noEOF(err)
	}
	most := uint64(min(r.left, r.in.Buffered()))
	return r.in.Peek(int(min(n, most)))
}

func (r *lineReader) discard(n int) error {
	r.left -= n
	_, err := r.in.Discard(n)
	return err
}

// length reads the length of a value.
func (r *lineReader) length() (n uint64, null bool, err error) {
	first, err := r.byte()
	if err != nil {
		return 0, false, err
	}
	size := 0
	switch first {
	case 0xfb:
		return 0, true, nil
	case 0xfc:
		size = 2
	case 0xfd:
		size = 3
	case 0xfe:
		size = 8
	case 0xff:
		return 0, false, errAnswer
	default:
		return uint64(first), false, nil
	}
	for i := range size {
		b, err := r.byte()
		if err != nil {
			return 0, false, err
		}
		n |= uint64(b) << (8 * i)
	}
	if n > maxAnswer {
		return 0, false, errAnswer
	}
	return n, false, nil
}

func (r *lineReader) byte() (byte, error) {
	b, err := r.piece(1)
	if err != nil {
		return 0, err
	}
	first := b[0]
	return first, r.discard(1)
}

// noEOF says that an end of the connection came too early.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
