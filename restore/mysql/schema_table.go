package mysql

import (
	"errors"
	"strings"
)

// createTable is a CREATE TABLE as SHOW CREATE TABLE prints it, taken apart into what
// is made before the rows and what is cheaper, or only right, after them.
type createTable struct {
	head     string   // up to the first parenthesis
	elements []string // columns, keys and constraints that stand in the first statement
	tail     string   // behind the last parenthesis
	indexes  []string // keys to be added behind the rows
	foreign  []string // foreign keys
}

// manyRows is from how many rows on indexes are built behind the rows.
const manyRows = 20_000

// parseCreateTable takes a statement apart. Foreign keys go to their list, all else stays in
// the statement.
func parseCreateTable(sql string) (createTable, error) {
	var c createTable
	open := -1
	for i := 0; i < len(sql) && open < 0; i++ {
		if end := quotedEnd(sql, i); end > i {
			i = end - 1
		} else if sql[i] == '(' {
			open = i
		}
	}
	if open < 0 {
		return c, errors.New("it has no columns")
	}
	c.head = sql[:open]
	depth, start := 1, open+1
	for i := start; i < len(sql); i++ {
		if end := quotedEnd(sql, i); end > i {
			i = end - 1
			continue
		}
		switch sql[i] {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 || depth == 1 && sql[i] == ',' {
			c.add(strings.TrimSpace(sql[start:i]))
			start = i + 1
		}
		if depth == 0 {
			c.tail = sql[start:]
			return c, nil
		}
	}
	return c, errors.New("its parentheses are not closed")
}

func (c *createTable) add(element string) {
	if strings.HasPrefix(element, "CONSTRAINT ") && isForeign(element) || strings.HasPrefix(element, "FOREIGN KEY ") {
		c.foreign = append(c.foreign, element)
		return
	}
	c.elements = append(c.elements, element)
}

// isForeign reports whether a constraint, CONSTRAINT `name` …, is a foreign key.
func isForeign(element string) bool {
	rest := strings.TrimPrefix(element, "CONSTRAINT ")
	return strings.HasPrefix(strings.TrimSpace(rest[quotedEnd(rest, 0):]), "FOREIGN KEY ")
}

// settle decides which keys are added behind the rows: all or none, so that they stand in
// the same order, and only those of large tables with a primary key, which is the order
// the rows come in.
func (c *createTable) settle(t *loadTable) {
	if t.Rows < manyRows || !strings.EqualFold(t.Table.Engine, "InnoDB") {
		return
	}
	var keep, keys []string
	primary, counter := "", ""
	for _, e := range c.elements {
		switch {
		case strings.HasPrefix(e, "PRIMARY KEY "):
			primary = e
		case strings.HasPrefix(e, "KEY ") || strings.HasPrefix(e, "UNIQUE KEY "):
			if strings.Contains(e, "WITHOUT OVERLAPS") || strings.Contains(e, "USING HASH") {
				return
			}
			keys = append(keys, e)
			continue
		case strings.HasPrefix(e, "FULLTEXT KEY "), strings.HasPrefix(e, "SPATIAL KEY "), strings.HasPrefix(e, "VECTOR KEY "):
			return
		case strings.HasPrefix(e, "`") && strings.Contains(e, " AUTO_INCREMENT"):
			counter = e[:quotedEnd(e, 0)]
		}
		keep = append(keep, e)
	}
	if primary == "" || counter != "" && !strings.HasPrefix(primary, "PRIMARY KEY ("+counter) {
		return
	}
	c.elements, c.indexes = keep, keys
}

// statement is what makes the table before its rows.
func (c *createTable) statement() string {
	return c.head + "(" + strings.Join(c.elements, ",\n") + ")" + c.tail
}

// nameOf returns the name of a key or constraint, quoted; "" when it has none.
func nameOf(element string) string {
	i := strings.IndexByte(element, '`')
	if i < 0 {
		return ""
	}
	return element[i:quotedEnd(element, i)]
}

// quotedEnd returns where what is quoted at i ends, a name or a string, and i if nothing is.
// Within strings a backslash escapes, as the sessions that read definitions were told.
func quotedEnd(s string, i int) int {
	if i >= len(s) {
		return i
	}
	quote := s[i]
	if quote != '`' && quote != '\'' && quote != '"' {
		return i
	}
	for k := i + 1; k < len(s); k++ {
		switch {
		case s[k] == '\\' && quote != '`':
			k++
		case s[k] == quote && k+1 < len(s) && s[k+1] == quote:
			k++
		case s[k] == quote:
			return k + 1
		}
	}
	return len(s)
}
