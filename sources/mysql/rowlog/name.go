package rowlog

import (
	"strconv"
	"strings"

	"txreel/sources/mysql/binlog"
)

// name is the type of a column as the server names it, as far as that is known.
func (c *column) name() string {
	if c.declared != "" {
		return c.declared
	}
	switch c.kind {
	case kindInt, kindFloat, kindDouble, kindDecimal:
		return c.numberName()
	case kindBit:
		bits := int(c.meta>>8)*8 + int(c.meta&0xff)
		return "bit(" + strconv.Itoa(bits) + ")"
	case kindEnum, kindSet:
		return c.memberName()
	case kindString:
		return c.stringName()
	}
	return c.otherName()
}

// numberName tells when the sign of a whole number is a guess.
func (c *column) numberName() string {
	var name string
	switch c.typ {
	case binlog.ColumnTiny:
		name = "tinyint"
	case binlog.ColumnShort:
		name = "smallint"
	case binlog.ColumnInt24:
		name = "mediumint"
	case binlog.ColumnLong:
		name = "int"
	case binlog.ColumnLongLong:
		name = "bigint"
	case binlog.ColumnFloat:
		name = "float"
	case binlog.ColumnDouble:
		name = "double"
	case binlog.ColumnNewDecimal:
		name = "decimal(" + strconv.Itoa(c.precision) + "," + strconv.Itoa(c.frac) + ")"
	}
	switch {
	case c.unsigned:
		name += " unsigned"
	case !c.signKnown && c.kind == kindInt:
		name += " (signed or unsigned)"
	}
	return name
}

func (c *column) memberName() string {
	name := "enum"
	if c.kind == kindSet {
		name = "set"
	}
	if c.members == nil {
		return name + " (numbers)"
	}
	quoted := strings.NewReplacer("'", "''", `\`, `\\`, "\n", `\n`, "\r", `\r`, "\x00", `\0`)
	list := make([]string, len(c.members))
	for i, m := range c.members {
		list[i] = "'" + quoted.Replace(string(m)) + "'"
	}
	return name + "(" + strings.Join(list, ",") + ")"
}

func (c *column) stringName() string {
	switch c.typ {
	case binlog.ColumnString:
		return c.charName("char", "binary")
	case binlog.ColumnVarchar, binlog.ColumnVarString, binlog.ColumnVarcharCompressed:
		return c.charName("varchar", "varbinary")
	case binlog.ColumnGeometry:
		return c.geometryName()
	case binlog.ColumnVector:
		if c.dimensions > 0 {
			return "vector(" + strconv.FormatUint(c.dimensions, 10) + ")"
		}
		return "vector"
	}
	size := [...]string{"", "tiny", "", "medium", "long"}[c.prefix]
	switch {
	case c.cs != nil || c.text:
		return size + "text"
	case c.bytes:
		return size + "blob"
	}
	return size + "text or " + size + "blob"
}

// charName tells characters from bytes, where that is known. The log has the length in
// bytes.
func (c *column) charName(text, bytes string) string {
	switch {
	case c.cs != nil:
		return text + "(" + strconv.Itoa(c.precision/c.cs.MaxLen) + ")"
	case c.bytes:
		return bytes + "(" + strconv.Itoa(c.precision) + ")"
	}
	return text + " or " + bytes + " (" + strconv.Itoa(c.precision) + " bytes)"
}

func (c *column) geometryName() string {
	if names := [...]string{"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
		"geomcollection"}; c.geometry < uint64(len(names)) {
		return names[c.geometry]
	}
	return "geometry"
}

func (c *column) otherName() string {
	var name string
	switch c.kind {
	case kindYear:
		return "year"
	case kindDate:
		return "date"
	case kindJSON:
		return "json"
	case kindNone:
		return "null"
	case kindTime, kindOldTime, kindHiresTime:
		name = "time"
	case kindDatetime, kindOldDatetime, kindHiresDatetime:
		name = "datetime"
	case kindTimestamp, kindOldTimestamp, kindHiresTimestamp:
		name = "timestamp"
	default:
		return "type " + strconv.Itoa(int(c.typ))
	}
	if c.frac > 0 {
		name += "(" + strconv.Itoa(c.frac) + ")"
	}
	return name
}
