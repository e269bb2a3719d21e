package audit

import (
	"fmt"
	"strings"

	"txreel/change"
)

// pattern matches table names. Without a dot it stands for tables of that name in
// any schema.
type pattern struct {
	text   string
	schema bool // text holds the schema
}

// patterns is a list of them; an empty one matches every table.
type patterns []pattern

// parsePatterns reads patterns as people type them: schema.table or table, exact in
// case, unquoted, with * for any characters, ? for one, and \ before a character
// that stands for itself.
func parsePatterns(texts []string) (patterns, error) {
	var list patterns
	for _, t := range texts {
		bare := t
		for strings.HasSuffix(bare, `\\`) {
			bare = bare[:len(bare)-2]
		}
		if t == "" || strings.HasSuffix(bare, `\`) {
			return nil, fmt.Errorf("table pattern %q: give schema.table or table, with * for any characters", t)
		}
		list = append(list, pattern{text: t, schema: strings.Contains(t, ".")})
	}
	return list, nil
}

// match reports whether one of the patterns matches the table.
func (l patterns) match(schema, name string) bool {
	for _, p := range l {
		if p.schema && glob(p.text, schema, name) || !p.schema && glob(p.text, name, "") {
			return true
		}
	}
	return len(l) == 0
}

func (l patterns) matchTable(t *change.Table) bool { return l.match(t.Schema, t.Name) }

// glob matches pattern against a, and a dot and b behind it unless b is empty.
// It takes no memory and, with the last star as the only place to go back to, at
// most len(pattern) * len(text) steps.
func glob(pattern, a, b string) bool {
	size := len(a)
	if b != "" {
		size += 1 + len(b)
	}
	at := func(i int) byte {
		switch {
		case i < len(a):
			return a[i]
		case i == len(a):
			return '.'
		}
		return b[i-len(a)-1]
	}
	p, s := 0, 0
	star, mark := -1, 0
	for s < size {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, s
			p++
			continue
		case p < len(pattern) && pattern[p] == '?':
			p++
			s++
			for s < size && at(s)&0xc0 == 0x80 { // the rest of a character
				s++
			}
			continue
		case p+1 < len(pattern) && pattern[p] == '\\' && pattern[p+1] == at(s):
			p += 2
			s++
			continue
		case p < len(pattern) && pattern[p] != '\\' && pattern[p] == at(s):
			p++
			s++
			continue
		case star < 0:
			return false
		}
		mark++
		p, s = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
