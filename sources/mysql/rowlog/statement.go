package rowlog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"

	"txreel/change"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/rowlog/charset"
	"txreel/sources/mysql/rowlog/sqltext"
)

// query takes a statement.
func (d *Decoder) query(e *binlog.Event) error {
	q, err := binlog.ParseQuery(e)
	if err != nil {
		return err
	}
	text, err := d.inflater.Text(&q, maxInflated)
	if err != nil {
		return err
	}
	if frames(text) {
		return nil
	}
	d.forget(q.Schema, text)
	if d.undone {
		return nil
	}
	d.give(change.Event{Op: change.OpStatement, Prefix: string(q.Schema), Content: binlog.Redact(d.utf8(text, q.StatusVars), q.Mode())})
	return nil
}

// frames reports whether a statement frames a transaction or a part of it.
func frames(text []byte) bool {
	for _, word := range [...]string{"BEGIN", "COMMIT", "ROLLBACK"} {
		if string(text) == word {
			return true
		}
	}
	for _, start := range [...]string{"SAVEPOINT ", "ROLLBACK TO ", "RELEASE SAVEPOINT ", "XA START ", "XA BEGIN ", "XA END ", "XA PREPARE ",
		"# Dum"} { // what MariaDB puts in the place of an event that a reader does not know
		if len(text) >= len(start) && bytes.EqualFold(text[:len(start)], []byte(start)) {
			return true
		}
	}
	return false
}

// rowsQuery takes the statement beside the rows it changed.
func (d *Decoder) rowsQuery(e *binlog.Event) error {
	text, err := binlog.ParseRowsQuery(e)
	if err != nil {
		return err
	}
	d.give(change.Event{Op: change.OpMessage, Prefix: "query", Content: binlog.Redact(text, binlog.Mode{})})
	return nil
}

// utf8 gives a statement in UTF-8 by the character set of the client that sent it, which
// is among the settings it ran with.
func (d *Decoder) utf8(text, vars []byte) []byte {
	set := d.charset(charset.Of(clientCollation(vars)))
	if set == nil || set.UTF8() {
		return text
	}
	converted, ok := set.Append(nil, text)
	if !ok {
		return text
	}
	return converted
}

// The settings that come before a client's character set, and it.
const (
	varFlags = iota
	varSQLMode
	varCatalogZ // with a zero behind it
	varAutoIncrement
	varCharset
	varTimeZone
	varCatalog
)

// clientCollation finds the client's collation; 0 if the statement does not say.
func clientCollation(vars []byte) uint64 {
	for len(vars) > 1 {
		code, size := vars[0], 0
		vars = vars[1:]
		switch code {
		case varFlags, varAutoIncrement:
			size = 4
		case varSQLMode:
			size = 8
		case varCatalogZ:
			size = 1 + int(vars[0]) + 1
		case varTimeZone, varCatalog:
			size = 1 + int(vars[0])
		case varCharset:
			if len(vars) >= 2 {
				return uint64(binary.LittleEndian.Uint16(vars))
			}
			return 0
		default:
			return 0
		}
		if size > len(vars) {
			return 0
		}
		vars = vars[size:]
	}
	return 0
}

// The types of user variables.
const (
	userString = iota
	userReal
	userInt
	_
	userDecimal
)

// userUnsigned is the flag of an unsigned integer.
const userUnsigned = 1

// userVar takes the value of a user variable that the next statement uses.
func (d *Decoder) userVar(e *binlog.Event) error {
	name, rest, ok := counted(e.Body)
	if !ok || len(rest) < 1 {
		return malformedVar(e)
	}
	d.text = append(append(append(d.text[:0], "@`"...), bytes.ReplaceAll(name, []byte("`"), []byte("``"))...), "` := "...)
	if rest[0] != 0 {
		d.text = append(d.text, "NULL"...)
	} else {
		if len(rest) < 6 {
			return malformedVar(e)
		}
		typ, collation := rest[1], binary.LittleEndian.Uint32(rest[2:])
		value, flags, ok := counted(rest[6:])
		if !ok || !d.userValue(typ, collation, value, len(flags) > 0 && flags[0]&userUnsigned != 0) {
			return malformedVar(e)
		}
	}
	d.give(change.Event{Op: change.OpMessage, Prefix: "user_var", Content: d.text})
	return nil
}

// userValue writes a value as a literal of SQL.
func (d *Decoder) userValue(typ byte, collation uint32, value []byte, unsigned bool) bool {
	switch typ {
	case userInt:
		if len(value) != 8 {
			return false
		}
		if unsigned {
			d.text = strconv.AppendUint(d.text, sqltext.Uint(value), 10)
		} else {
			d.text = strconv.AppendInt(d.text, sqltext.Int(value), 10)
		}
	case userReal:
		if len(value) != 8 {
			return false
		}
		d.text = sqltext.AppendDouble(d.text, math.Float64frombits(binary.LittleEndian.Uint64(value)))
	case userDecimal:
		if len(value) < 2 {
			return false
		}
		var ok bool
		d.text, ok = sqltext.AppendDecimal(d.text, value[2:], int(value[0]), int(value[1]))
		return ok
	case userString:
		if set := d.charset(charset.Of(uint64(collation))); set != nil {
			if text, ok := set.Append(nil, value); ok {
				d.text = append(d.text, '\'')
				d.text = append(d.text, bytes.ReplaceAll(bytes.ReplaceAll(text, []byte(`\`), []byte(`\\`)), []byte("'"), []byte("''"))...)
				d.text = append(d.text, '\'')
				return true
			}
		}
		d.text = append(hex.AppendEncode(append(d.text, "x'"...), value), '\'')
	default:
		return false
	}
	return true
}

// counted takes bytes behind their number in four.
func counted(b []byte) (v, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.LittleEndian.Uint32(b)
	if b = b[4:]; uint64(n) > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

func malformedVar(e *binlog.Event) error {
	return fmt.Errorf("%w: the body of a %s event of %d bytes", binlog.ErrMalformed, e.Type, len(e.Raw))
}
