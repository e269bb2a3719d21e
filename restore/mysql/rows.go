package mysql

import (
	"context"
	"errors"

	"github.com/go-mysql-org/go-mysql/mysql"

	"txreel/sources/mysql/mybase"
)

var errAnswer = errors.New("the server's answer is malformed")

// sum runs a SELECT and sums up its rows, of which it keeps no more than a piece, however large a value is.
func (c *conn) sum(ctx context.Context, sql string, to *mybase.Content) error {
	return c.do(ctx, func() error {
		p := c.Conn.Conn // packets
		b, err := c.ask(sql)
		if err != nil {
			return err
		}
		columns, rest, ok := lengthEncoded(b)
		if !ok || len(rest) > 0 || columns != uint64(to.Columns()) {
			var none loadAnswer
			if err := parseAnswer(b, &none); err != nil {
				return err
			}
			return errAnswer
		}
		for range columns + 1 { // their descriptions, and an end
			if _, err := p.ReadPacket(); err != nil {
				return err
			}
		}
		r := rowReader{to: to}
		for {
			if err := p.ReadPacketTo(&r); err != nil {
				return err
			}
			if more, err := r.end(); err != nil || !more {
				return err
			}
		}
	})
}

// rowReader takes the packets of a result's rows in pieces, and hands on their values.
type rowReader struct {
	to     *mybase.Content
	column int
	head   [9]byte // a value's length, of which have bytes are there
	have   int
	left   uint64 // of the value
	refuse []byte // an error packet, as far as it has come
	bad    bool
}

// Write implements io.Writer. It never fails: end does.
func (r *rowReader) Write(p []byte) (int, error) {
	n := len(p)
	if r.refuse == nil && r.column == 0 && r.have == 0 && r.left == 0 && n > 0 && p[0] == mysql.ERR_HEADER {
		r.refuse = make([]byte, 0, n)
	}
	if r.refuse != nil {
		r.refuse = append(r.refuse, p...)
		return n, nil
	}
	for len(p) > 0 && !r.bad {
		if r.left > 0 {
			k := min(r.left, uint64(len(p)))
			r.to.Piece(p[:k])
			p = p[k:]
			if r.left -= k; r.left == 0 {
				r.to.EndValue()
				r.column++
			}
			continue
		}
		r.head[r.have] = p[0]
		r.have++
		p = p[1:]
		r.value()
	}
	return n, nil
}

// value begins a value if all of its length is there.
func (r *rowReader) value() {
	size := map[byte]int{0xfc: 3, 0xfd: 4, 0xfe: 9}[r.head[0]]
	if r.have < size {
		return
	}
	length, _, ok := lengthEncoded(r.head[:r.have])
	null := r.head[0] == 0xfb
	r.have = 0
	switch {
	case r.column == r.to.Columns() || !ok && !null:
		r.bad = true
	case null:
		r.to.Null()
		r.column++
	case length == 0:
		r.to.EndValue()
		r.column++
	default:
		r.left = length
	}
}

// end is called behind a packet. It reports false behind the last row.
func (r *rowReader) end() (bool, error) {
	switch {
	case r.refuse != nil:
		var none loadAnswer
		if err := parseAnswer(r.refuse, &none); err != nil {
			return false, err
		}
		return false, errAnswer
	case r.column == 0 && r.have > 0 && r.have < 9 && r.head[0] == mysql.EOF_HEADER:
		return false, nil
	case r.bad || r.have > 0 || r.left > 0 || r.column != r.to.Columns():
		return false, errAnswer
	}
	r.to.EndRow()
	r.column = 0
	return true, nil
}
