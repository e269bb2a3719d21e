package binlog

// mayTruncate tells quickly that a statement is not TRUNCATE, which most are not.
func mayTruncate(text []byte) bool {
	if len(text) == 0 {
		return false
	}
	switch c := text[0]; {
	case c == 't' || c == 'T':
		return len(text) >= len("TRUNCATE t") && hasPrefix(text, "TRUNCATE")
	case c <= ' ' || c == '/' || c == '#' || c == '-' || c == '(':
		return true
	}
	return false
}

// truncated returns the table that a TRUNCATE statement empties. The schema is nil if the
// statement does not name it.
func truncated(text []byte, mode Mode) (schema, name []byte, ok bool) {
	l := lexer{text: text, mode: mode}
	if !l.is(l.next(), "TRUNCATE") {
		return nil, nil, false
	}
	t := l.next()
	if l.is(t, "TABLE") {
		t = l.next()
	}
	if name, ok = l.name(t); !ok {
		return nil, nil, false
	}
	if t = l.next(); l.symbol(t, '.') {
		schema = name
		if name, ok = l.name(l.next()); !ok {
			return nil, nil, false
		}
	}
	return schema, name, true
}
