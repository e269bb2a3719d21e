package mysql

import (
	"strings"
)

// eventStatement is what a statement does to the scheduler's EVENT objects.
type eventStatement struct {
	verb     string // CREATE, ALTER, DROP, or DROP DATABASE
	schema   string // "" for the default one
	name     string
	state    string // the state it asks for; "" when it says nothing
	unless   bool   // IF NOT EXISTS
	toSchema string // RENAME TO
	toName   string
}

// States of an EVENT, as the information schema has them.
const (
	stateEnabled  = "ENABLED"
	stateDisabled = "DISABLED"
	stateReplica  = "SLAVESIDE_DISABLED"
	stateDropped  = "" // on record only
)

// parseEventStatement reads a statement as far as it concerns EVENT objects; ok is false
// for all others. Statements in a binary log have passed the server's own parser.
func parseEventStatement(text []byte) (s eventStatement, ok bool) {
	if !mayConcernEvents(text) {
		return s, false
	}
	l := lexer{text: string(text)}
	s.verb = l.word()
	switch s.verb {
	case "CREATE":
		l.accept("OR", "REPLACE")
	case "ALTER":
	case "DROP":
		if l.accept("DATABASE") || l.accept("SCHEMA") {
			l.accept("IF", "EXISTS")
			s.verb, s.schema = "DROP DATABASE", l.name()
			return s, s.schema != ""
		}
	default:
		return s, false
	}
	if l.accept("DEFINER") {
		l.next() // =
		l.next() // the user, or CURRENT_USER
		for l.peek() == "(" || l.peek() == ")" {
			l.next()
		}
		if l.peek() == "@" {
			l.next()
			l.next()
		}
	}
	if !l.accept("EVENT") {
		return s, false
	}
	if s.verb == "CREATE" {
		s.unless = l.accept("IF", "NOT", "EXISTS")
	} else {
		l.accept("IF", "EXISTS")
	}
	s.schema, s.name = l.qualified()
	for s.name != "" {
		t := l.next()
		switch {
		case t == "" || !l.quoted && strings.EqualFold(t, "DO"):
			return s, true
		case l.quoted:
		case strings.EqualFold(t, "ENABLE"):
			s.state = stateEnabled
		case strings.EqualFold(t, "DISABLE"):
			s.state = stateDisabled
			if l.accept("ON", "SLAVE") || l.accept("ON", "REPLICA") {
				s.state = stateReplica
			}
		case strings.EqualFold(t, "RENAME"):
			if l.accept("TO") {
				s.toSchema, s.toName = l.qualified()
			}
		}
	}
	return s, false
}

// mayConcernEvents tells apart at little cost what cannot be such a statement.
func mayConcernEvents(text []byte) bool {
	const look = 4 << 10 // comments may stand before what matters
	head := strings.ToUpper(string(text[:min(len(text), look)]))
	return strings.Contains(head, "EVENT") && (strings.Contains(head, "CREATE") || strings.Contains(head, "ALTER") || strings.Contains(head, "DROP")) ||
		strings.Contains(head, "DROP") && (strings.Contains(head, "DATABASE") || strings.Contains(head, "SCHEMA"))
}

// lexer takes a statement apart into words, quoted names and strings, and single
// characters. It passes over comments, but not over what is written in them for
// the server.
type lexer struct {
	text   string
	quoted bool // the token that next returned was quoted
}

// next returns the next token without its quotes; "" at the end.
func (l *lexer) next() string {
	l.quoted = false
	l.skip()
	if l.text == "" {
		return ""
	}
	c := l.text[0]
	if c == '`' || c == '\'' || c == '"' {
		return l.quote(c)
	}
	n := 0
	for n < len(l.text) && wordByte(l.text[n]) {
		n++
	}
	n = max(n, 1)
	t := l.text[:n]
	l.text = l.text[n:]
	return t
}

func (l *lexer) peek() string {
	saved := *l
	t := l.next()
	*l = saved
	return t
}

// word returns the next token in upper case.
func (l *lexer) word() string { return strings.ToUpper(l.next()) }

// accept takes the words if they come next, and else nothing.
func (l *lexer) accept(words ...string) bool {
	saved := *l
	for _, w := range words {
		if t := l.next(); l.quoted || !strings.EqualFold(t, w) {
			*l = saved
			return false
		}
	}
	return true
}

func (l *lexer) name() string { return l.next() }

// qualified returns a name and the schema it is qualified with, if it is.
func (l *lexer) qualified() (schema, name string) {
	name = l.next()
	if l.peek() == "." {
		l.next()
		return name, l.next()
	}
	return "", name
}

func (l *lexer) skip() {
	for {
		l.text = strings.TrimLeft(l.text, " \t\r\n\v\f")
		switch {
		case strings.HasPrefix(l.text, "/*!"), strings.HasPrefix(l.text, "/*M!"):
			l.text = strings.TrimLeft(l.text[strings.IndexByte(l.text, '!')+1:], "0123456789")
		case strings.HasPrefix(l.text, "*/"):
			l.text = l.text[2:]
		case strings.HasPrefix(l.text, "/*"):
			l.cut(l.text[2:], "*/")
		case strings.HasPrefix(l.text, "#"), strings.HasPrefix(l.text, "-- "), strings.HasPrefix(l.text, "--\n"), strings.HasPrefix(l.text, "--\t"):
			l.cut(l.text, "\n")
		default:
			return
		}
	}
}

// cut goes on behind end.
func (l *lexer) cut(text, end string) {
	_, l.text, _ = strings.Cut(text, end)
}

// quote takes a quoted token. A doubled quote stands for one; in strings a backslash
// escapes.
func (l *lexer) quote(q byte) string {
	l.quoted = true
	var b strings.Builder
	i := 1
	for i < len(l.text) {
		c := l.text[i]
		switch {
		case c == '\\' && q != '`' && i+1 < len(l.text):
			i++
			b.WriteByte(l.text[i])
		case c == q && i+1 < len(l.text) && l.text[i+1] == q:
			i++
			b.WriteByte(q)
		case c == q:
			l.text = l.text[i+1:]
			return b.String()
		default:
			b.WriteByte(c)
		}
		i++
	}
	l.text = ""
	return b.String()
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}
