package rowlog

import (
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/rowlog/charset"
)

// Column is a column of a table as information_schema.COLUMNS describes it.
type Column struct {
	Name    string
	Type    string // COLUMN_TYPE, such as "int(10) unsigned" or "enum('a','b')"
	Charset string // CHARACTER_SET_NAME; "" where it is NULL
	Key     bool   // part of the primary key
}

// Schema tells the columns of a table, in the order of the table, as they were when the
// messages a Decoder is first shown were written; ok is false for a table it does not know.
type Schema func(schema, table string) (columns []Column, ok bool)

// fits reports whether a declared column can be the one of the log, and lays what is
// declared over what the log says.
func (c *column) fits(decl Column, set func(name string) *charset.Charset) bool {
	t, ok := parseDeclared(decl.Type)
	if !ok || !c.sameCode(&t) {
		return false
	}
	if c.signKnown && c.unsigned != t.unsigned && (c.kind == kindInt || c.kind == kindDecimal) {
		return false
	}
	switch c.kind {
	case kindInt:
		c.unsigned, c.signKnown = t.unsigned, true
		if t.zerofill {
			c.zerofill = t.arg(0, 0)
		}
	case kindFloat, kindDouble:
		if len(t.args) == 2 {
			c.fixed = min(t.args[1], 30) + 1
		}
		c.unsigned, c.signKnown = t.unsigned, true
	case kindDecimal:
		c.unsigned, c.signKnown = t.unsigned, true
		if t.zerofill {
			c.zerofill = c.precision + min(c.frac, 1)
		}
	case kindEnum, kindSet:
		if c.members == nil {
			for _, m := range t.members {
				c.members = append(c.members, []byte(m))
			}
		}
	case kindString:
		if !c.declareString(&t, decl.Charset, set) {
			return false
		}
	case kindOldTime, kindOldDatetime, kindOldTimestamp:
		if !c.declareOld(t.arg(0, 0)) {
			return false
		}
	}
	c.declared = decl.Type
	return true
}

// sameCode compares what the log says of the type with what is declared.
func (c *column) sameCode(t *declared) bool {
	code := t.code()
	switch c.typ {
	case binlog.ColumnTime:
		return code == binlog.ColumnTime2
	case binlog.ColumnDatetime:
		return code == binlog.ColumnDatetime2
	case binlog.ColumnTimestamp:
		return code == binlog.ColumnTimestamp2
	case binlog.ColumnTime2, binlog.ColumnDatetime2, binlog.ColumnTimestamp2:
		return code == c.typ && t.arg(0, 0) == c.frac
	case binlog.ColumnNewDecimal:
		return code == c.typ && t.arg(0, 10) == c.precision && t.arg(1, 0) == c.frac
	case binlog.ColumnBit:
		return code == c.typ && t.arg(0, 1) == int(c.meta>>8)*8+int(c.meta&0xff)
	case binlog.ColumnNewDate:
		return code == binlog.ColumnDate
	case binlog.ColumnVarcharCompressed:
		return code == binlog.ColumnVarchar
	case binlog.ColumnVarchar: // MariaDB keeps a vector in a VARBINARY
		return code == binlog.ColumnVarchar || code == binlog.ColumnVector
	case binlog.ColumnBlobCompressed:
		return code == binlog.ColumnBlob && t.blobPrefix() == c.prefix
	case binlog.ColumnBlob: // MariaDB's JSON is a LONGTEXT
		return code == binlog.ColumnBlob && t.blobPrefix() == c.prefix || code == binlog.ColumnJSON && c.prefix == 4
	}
	return code == c.typ
}

// declareString settles the character set, and what hides behind BINARY.
func (c *column) declareString(t *declared, name string, set func(name string) *charset.Charset) bool {
	switch t.name {
	case "uuid", "inet6", "inet4":
		size := 16
		c.kind, c.cs = kindUUID, nil
		switch t.name {
		case "inet6":
			c.kind = kindInet6
		case "inet4":
			c.kind, size = kindInet4, 4
		}
		return c.precision == size
	case "binary", "varbinary":
		c.bytes, c.cs = true, nil
		if t.name == "binary" {
			c.pad = c.precision
		}
		return t.arg(0, 1) == c.precision
	case "char", "varchar":
		if name == "" || name == "binary" {
			return false
		}
	}
	if name != "" && c.character() {
		c.text = true
		if c.cs == nil {
			c.cs = set(name)
		}
	}
	if n := t.arg(0, 1); (t.name == "char" || t.name == "varchar") && c.cs != nil && n*c.cs.MaxLen != c.precision {
		return false
	}
	if name == "" && c.character() {
		c.bytes = true
	}
	return true
}

// declareOld tells the formats that MariaDB used before it took over MySQL's, and of which
// the log does not say how many digits a fraction has.
func (c *column) declareOld(digits int) bool {
	if digits < 0 || digits > 6 {
		return false
	}
	if digits == 0 {
		return true
	}
	c.frac = digits
	switch c.kind {
	case kindOldTimestamp:
		c.kind, c.size = kindHiresTimestamp, 4+(digits+1)/2
	case kindOldTime:
		c.kind, c.size = kindHiresTime, hiresSize(kindHiresTime, digits)
	case kindOldDatetime:
		c.kind, c.size = kindHiresDatetime, hiresSize(kindHiresDatetime, digits)
	}
	return true
}
