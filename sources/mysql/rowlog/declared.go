package rowlog

import (
	"strconv"
	"strings"

	"txreel/sources/mysql/binlog"
)

// declared is a column's type as information_schema.COLUMNS spells it.
type declared struct {
	name     string // "int", "varchar", in lower case
	args     []int  // what stands in the parentheses, if it is numbers
	members  []string
	unsigned bool
	zerofill bool
}

// parseDeclared takes a type such as "int(10) unsigned" or "enum('a','b')" apart.
func parseDeclared(text string) (d declared, ok bool) {
	i := 0
	for i < len(text) && (text[i] >= 'a' && text[i] <= 'z' || text[i] >= 'A' && text[i] <= 'Z' || text[i] >= '0' && text[i] <= '9') {
		i++
	}
	d.name, text = strings.ToLower(text[:i]), text[i:]
	if d.name == "" {
		return d, false
	}
	if strings.HasPrefix(text, "(") {
		if text, ok = d.arguments(text[1:]); !ok {
			return d, false
		}
	}
	rest := strings.ToLower(text)
	d.unsigned = strings.Contains(rest, "unsigned")
	d.zerofill = strings.Contains(rest, "zerofill")
	return d, true
}

// arguments reads up to the closing parenthesis and returns what follows.
func (d *declared) arguments(text string) (rest string, ok bool) {
	for text != "" {
		switch text[0] {
		case ')':
			return text[1:], true
		case ',', ' ':
			text = text[1:]
		case '\'':
			var member string
			var ok bool
			if member, text, ok = unquote(text); !ok {
				return "", false
			}
			d.members = append(d.members, member)
		default:
			i := 0
			for i < len(text) && text[i] >= '0' && text[i] <= '9' {
				i++
			}
			n, err := strconv.Atoi(text[:i])
			if err != nil {
				return "", false
			}
			d.args = append(d.args, n)
			text = text[i:]
		}
	}
	return "", false
}

// unquote takes a name of an ENUM or SET off text, as the servers write it whatever the
// sql_mode: with quotes doubled, and with a backslash before what is not printed.
func unquote(text string) (name, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\'' && i+1 < len(text) && text[i+1] == '\'':
			i++
		case c == '\'':
			return b.String(), text[i+1:], true
		case c == '\\' && i+1 < len(text):
			i++
			switch c = text[i]; c {
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case '0':
				c = 0
			}
		}
		b.WriteByte(c)
	}
	return "", "", false
}

// arg returns the i-th argument, or otherwise what the servers take for it.
func (d *declared) arg(i, otherwise int) int {
	if i < len(d.args) {
		return d.args[i]
	}
	return otherwise
}

// code returns the code a TABLE_MAP event has for the type, of several that hold the same
// the first.
func (d *declared) code() binlog.ColumnType {
	switch d.name {
	case "tinyint", "bool", "boolean":
		return binlog.ColumnTiny
	case "smallint":
		return binlog.ColumnShort
	case "mediumint":
		return binlog.ColumnInt24
	case "int", "integer":
		return binlog.ColumnLong
	case "bigint":
		return binlog.ColumnLongLong
	case "float":
		return binlog.ColumnFloat
	case "double", "real":
		return binlog.ColumnDouble
	case "decimal", "numeric":
		return binlog.ColumnNewDecimal
	case "bit":
		return binlog.ColumnBit
	case "year":
		return binlog.ColumnYear
	case "date":
		return binlog.ColumnDate
	case "time":
		return binlog.ColumnTime2
	case "datetime":
		return binlog.ColumnDatetime2
	case "timestamp":
		return binlog.ColumnTimestamp2
	case "enum":
		return binlog.ColumnEnum
	case "set":
		return binlog.ColumnSet
	case "json":
		return binlog.ColumnJSON
	case "char", "binary", "uuid", "inet6", "inet4":
		return binlog.ColumnString
	case "varchar", "varbinary":
		return binlog.ColumnVarchar
	case "vector":
		return binlog.ColumnVector
	case "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geomcollection",
		"geometrycollection":
		return binlog.ColumnGeometry
	}
	if d.blobPrefix() > 0 {
		return binlog.ColumnBlob
	}
	return 0
}

// blobPrefix returns the bytes of a value's length, zero for what is neither TEXT nor
// BLOB.
func (d *declared) blobPrefix() int {
	base, ok := strings.CutSuffix(d.name, "text")
	if !ok {
		if base, ok = strings.CutSuffix(d.name, "blob"); !ok {
			return 0
		}
	}
	switch base {
	case "tiny":
		return 1
	case "":
		return 2
	case "medium":
		return 3
	case "long":
		return 4
	}
	return 0
}
