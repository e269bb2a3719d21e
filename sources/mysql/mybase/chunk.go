package mybase

import (
	"strconv"
	"strings"
)

// Between the values of a line stands a tab, behind the last one a line feed. NULL is
// \N. A backslash in front of a tab, a line feed or a backslash says that it belongs
// to the value. All other bytes are themselves. It is what
//
//	LOAD DATA … CHARACTER SET binary FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n'
//
// reads.

// special reports whether a byte needs a backslash.
func special(c byte) bool { return c == '\t' || c == '\n' || c == '\\' }

// AppendValue appends a value to a line; nil is NULL.
func AppendValue(line, value []byte) []byte {
	if value == nil {
		return append(line, `\N`...)
	}
	start := 0
	for i, c := range value {
		if special(c) {
			line = append(line, value[start:i]...)
			line = append(line, '\\', c)
			start = i + 1
		}
	}
	return append(line, value[start:]...)
}

// Quote quotes a name as SQL wants it, qualified when it has several parts.
func Quote(parts ...string) string {
	var b strings.Builder
	for i, part := range parts {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString("`" + strings.ReplaceAll(part, "`", "``") + "`")
	}
	return b.String()
}

// Expression is what a SELECT reads of a column so that the value has its Form.
func (c *Column) Expression() string {
	name := Quote(c.Name)
	switch c.Form {
	case FormNumber:
		return "CAST(" + name + " AS UNSIGNED)"
	case FormReal:
		return "CAST(" + name + " AS DOUBLE)"
	case FormDouble:
		// The server prints a double in at most 22 characters, and cuts digits to stay in them.
		// Between these bounds all 17 have room.
		return "IF(" + name + " = 0 OR ABS(" + name + ") BETWEEN 1e-3 AND 1e15, CAST(" + name + " AS DOUBLE), CONCAT('x', HEX(SUBSTRING(ST_AsWKB(POINT(" + name + ", 0)), 6, 8))))"
	}
	return name
}

// Assignment is what SET in LOAD DATA does with a value that was read into a
// variable; "" when the column takes the value as it is.
func (c *Column) Assignment(variable string) string {
	name := Quote(c.Name)
	switch c.Form {
	case FormText:
		return name + " = CONVERT(" + variable + " USING utf8mb4)"
	case FormNumber:
		return name + " = CAST(" + variable + " AS UNSIGNED)"
	case FormDouble:
		return name + " = IF(" + variable + " LIKE 'x%', ST_X(ST_GeomFromWKB(UNHEX(CONCAT('0101000000', SUBSTRING(" + variable + ", 2), '0000000000000000')))), " + variable + " * 1e0)"
	}
	return ""
}

// SelectList is what a SELECT of the table's rows names.
func (t *Table) SelectList() string {
	var list []string
	for i := range t.Columns {
		if t.Columns[i].Form != FormNone {
			list = append(list, t.Columns[i].Expression())
		}
	}
	return strings.Join(list, ", ")
}

// LoadClauses are the columns and assignments of a LOAD DATA of the table's chunks.
func (t *Table) LoadClauses() string {
	var columns, assignments []string
	for i := range t.Columns {
		c := &t.Columns[i]
		if c.Form == FormNone {
			continue
		}
		variable := "@txreel_" + strconv.Itoa(i)
		if a := c.Assignment(variable); a != "" {
			columns, assignments = append(columns, variable), append(assignments, a)
		} else {
			columns = append(columns, Quote(c.Name))
		}
	}
	clauses := "(" + strings.Join(columns, ", ") + ")"
	if len(assignments) > 0 {
		clauses += " SET " + strings.Join(assignments, ", ")
	}
	return clauses
}
