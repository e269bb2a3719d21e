package mysql

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Value is a column of a row as the server writes it in text; nil is NULL.
type Value []byte

// String returns the text; "" for NULL.
func (v Value) String() string { return string(v) }

// Null reports whether the value is NULL.
func (v Value) Null() bool { return v == nil }

// Int reads a whole number.
func (v Value) Int() (int64, error) { return strconv.ParseInt(string(v), 10, 64) }

// Uint reads a whole number that has no sign.
func (v Value) Uint() (uint64, error) { return strconv.ParseUint(string(v), 10, 64) }

// Column describes a column of a result.
type Column struct {
	Name    string
	Type    byte // the protocol's number
	Charset uint16
	Flags   uint16
	Length  uint32
	Decimal byte
}

// Result is what a statement returned.
type Result struct {
	Columns  []Column
	Rows     [][]Value
	Affected uint64
}

// Value returns a row's column by its name, in either case; NULL where there is none. What SHOW statements return
// differs from version to version.
func (r *Result) Value(row int, column string) Value {
	for i := range r.Columns {
		if strings.EqualFold(r.Columns[i].Name, column) {
			return r.Rows[row][i]
		}
	}
	return nil
}

// ErrNoRows says that a statement returned no row.
var ErrNoRows = errors.New("the statement returned no row")

// Query runs a statement and returns all it returned. When ctx ends, the connection is closed.
func (c *Conn) Query(ctx context.Context, sql string) (*Result, error) {
	r := &Result{}
	err := c.stream(ctx, sql, r, func(row []Value) error {
		size := 0
		for _, v := range row {
			size += len(v)
		}
		kept, text := make([]Value, len(row)), make([]byte, 0, size)
		for i, v := range row {
			if v != nil {
				start := len(text)
				text = append(text, v...)
				kept[i] = Value(text[start:len(text):len(text)])
			}
		}
		r.Rows = append(r.Rows, kept)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// QueryRow runs a statement and returns its first row. It returns ErrNoRows if there is none.
func (c *Conn) QueryRow(ctx context.Context, sql string) ([]Value, error) {
	r, err := c.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	if len(r.Rows) == 0 {
		return nil, ErrNoRows
	}
	return r.Rows[0], nil
}

// Exec runs a statement and drops what it returns.
func (c *Conn) Exec(ctx context.Context, sql string) error {
	return c.stream(ctx, sql, &Result{}, func([]Value) error { return nil })
}

// Stream runs a statement and calls row for each row it returns, without keeping any: the values are valid until row
// returns. An error of row ends the connection, since rows may be on their way, and is returned as it is.
func (c *Conn) Stream(ctx context.Context, sql string, row func([]Value) error) error {
	return c.stream(ctx, sql, &Result{}, row)
}

func (c *Conn) stream(ctx context.Context, sql string, r *Result, row func([]Value) error) error {
	return c.run(ctx, comQuery, []byte(sql), r, row)
}

// simple runs a command that returns nothing.
func (c *Conn) simple(ctx context.Context, code byte, body []byte) error {
	return c.run(ctx, code, body, &Result{}, func([]Value) error { return nil })
}

func (c *Conn) run(ctx context.Context, code byte, body []byte, r *Result, row func([]Value) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.broken != nil {
		return c.broken
	}
	stop := context.AfterFunc(ctx, func() { _ = c.wire.conn.SetDeadline(time.Unix(1, 0)) })
	err := c.answer(code, body, r, row)
	if !stop() && err == nil { // ctx ended just then: the deadline may stand
		err = context.Cause(ctx)
		c.end(err)
		return err
	}
	var refused *ServerError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.As(err, &refused):
		if !goesAway(refused) {
			return err // the session goes on
		}
		err = unreachable(err)
	case !errors.As(err, new(rowError)):
		err = unreachable(err)
	default:
		err = errors.Unwrap(err)
	}
	c.end(err)
	return err
}

// rowError is an error of the function that is given the rows.
type rowError struct{ error }

func (e rowError) Unwrap() error { return e.error }

// answer sends a command and reads its answer.
func (c *Conn) answer(code byte, body []byte, r *Result, row func([]Value) error) error {
	if err := c.wire.command(code, body); err != nil {
		return err
	}
	b, err := c.wire.packet()
	if err != nil {
		return err
	}
	switch b[0] {
	case tagErr:
		return parseError(b)
	case tagOK:
		r.Affected, _, _, _ = lenenc(b[1:])
		return nil
	case 0xfb:
		return errors.New("the server asks for a file")
	}
	count, _, rest, ok := lenenc(b)
	if !ok || len(rest) != 0 || count > 1<<16 {
		return errors.New("the server's answer is malformed")
	}
	for range count {
		if b, err = c.wire.packet(); err != nil {
			return err
		}
		column, err := parseColumn(b)
		if err != nil {
			return err
		}
		r.Columns = append(r.Columns, column)
	}
	if b, err = c.wire.packet(); err != nil {
		return err
	}
	if b[0] != tagEOF {
		return errors.New("the server's answer is malformed: its columns do not end")
	}
	values := make([]Value, count)
	for {
		if b, err = c.wire.packet(); err != nil {
			return err
		}
		switch {
		case b[0] == tagErr:
			return parseError(b)
		case b[0] == tagEOF && len(b) < 9:
			return nil
		}
		for i := range values {
			var ok bool
			if values[i], b, ok = lenstr(b); !ok {
				return fmt.Errorf("the server's answer is malformed: column %d of a row", i+1)
			}
		}
		if err := row(values); err != nil {
			return rowError{err}
		}
	}
}

func parseColumn(b []byte) (Column, error) {
	var parts [6][]byte // catalog, schema, table, original table, name, original name
	for i := range parts {
		var ok bool
		if parts[i], b, ok = lenstr(b); !ok {
			return Column{}, errors.New("the server's answer is malformed: a column's description")
		}
	}
	if len(b) < 11 {
		return Column{}, errors.New("the server's answer is malformed: a column's description")
	}
	return Column{
		Name: string(parts[4]), Charset: binary.LittleEndian.Uint16(b[1:]), Length: binary.LittleEndian.Uint32(b[3:]),
		Type: b[7], Flags: binary.LittleEndian.Uint16(b[8:]), Decimal: b[10],
	}, nil
}

// quoteLiteral quotes a string for the sessions that Connect opens, where a backslash escapes.
func quoteLiteral(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`, "\x00", `\0`).Replace(s) + "'"
}

// quoteIdent quotes a name, qualified when it has several parts.
func quoteIdent(parts ...string) string {
	quoted := make([]string, len(parts))
	for i, part := range parts {
		quoted[i] = "`" + strings.ReplaceAll(part, "`", "``") + "`"
	}
	return strings.Join(quoted, ".")
}
