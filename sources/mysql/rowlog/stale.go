package rowlog

import (
	"strings"

	"txreel/change"
)

// maxStale bounds how many databases are remembered one by one as changed.
const maxStale = 4096

// lookup asks the schema for a table, unless a statement may have changed it since.
func (d *Decoder) lookup(rel *change.Relation) ([]Column, bool) {
	if d.schema == nil || d.blind || d.stale[strings.ToLower(rel.Schema)] {
		return nil, false
	}
	return d.schema(rel.Schema, rel.Name)
}

// forget gives up what the schema says of every database that a statement may change
// tables of: its default one, and all it names. Too many are no harm.
func (d *Decoder) forget(database, text []byte) {
	if d.schema == nil || d.blind {
		return
	}
	w := words{text: string(text)}
	first, second := strings.ToLower(w.next()), strings.ToLower(w.next())
	if harmless(first, second) {
		return
	}
	before := len(d.stale)
	d.stale[strings.ToLower(string(database))] = true
	whole := second == "database" || second == "schema"
	w = words{text: string(text)}
	for last := ""; !w.done(); {
		word := w.next()
		if word == "." || whole {
			d.stale[strings.ToLower(last)] = true
		}
		if last = word; whole {
			d.stale[strings.ToLower(word)] = true
		}
	}
	d.blind = len(d.stale) > maxStale
	if !d.blind && len(d.stale) == before {
		return
	}
	for key, t := range d.known {
		if t.declared && (d.blind || d.stale[strings.ToLower(t.rel.Schema)]) {
			delete(d.known, key)
		}
	}
}

// harmless reports whether a statement that begins with these words leaves the columns of
// all tables as they are. What is not known is not harmless.
func harmless(first, second string) bool {
	switch first {
	case "insert", "update", "delete", "replace", "load", "truncate", "analyze", "optimize", "repair", "check", "flush", "grant", "revoke",
		"set", "xa", "do", "call", "select", "with", "savepoint", "reset", "purge", "kill":
		return true
	case "create", "alter", "drop", "rename":
		switch second {
		case "user", "role", "temporary", "server", "tablespace":
			return true
		}
	}
	return false
}

// words takes a statement apart into names, words and single signs. It need not
// understand the statement: what it takes for a name and is none does no harm.
type words struct {
	text string
}

func (w *words) done() bool { return w.text == "" }

// next returns the next word, "" at the end.
func (w *words) next() string {
	for w.text != "" {
		switch c := w.text[0]; {
		case c <= ' ':
			w.text = w.text[1:]
		case strings.HasPrefix(w.text, "/*!"), strings.HasPrefix(w.text, "/*M!"): // runs, if the version is right
			w.text = strings.TrimLeft(w.text[strings.IndexByte(w.text, '!')+1:], "0123456789")
		case strings.HasPrefix(w.text, "*/"):
			w.text = w.text[2:]
		case strings.HasPrefix(w.text, "/*"):
			w.skipTo("*/")
		case c == '#', strings.HasPrefix(w.text, "-- "), strings.HasPrefix(w.text, "--\t"), strings.HasPrefix(w.text, "--\n"):
			w.skipTo("\n")
		case c == '`' || c == '"' || c == '\'':
			return w.quoted(c)
		case wordByte(c):
			i := 1
			for i < len(w.text) && wordByte(w.text[i]) {
				i++
			}
			word := w.text[:i]
			w.text = w.text[i:]
			return word
		default:
			w.text = w.text[1:]
			return string(rune(c))
		}
	}
	return ""
}

func (w *words) skipTo(end string) {
	_, rest, found := strings.Cut(w.text, end)
	if w.text = ""; found {
		w.text = rest
	}
}

// quoted takes a name, or a string, which a name in double quotes may be as well.
func (w *words) quoted(quote byte) string {
	var b strings.Builder
	i := 1
	for ; i < len(w.text); i++ {
		c := w.text[i]
		if c == '\\' && quote != '`' {
			i++
			continue
		}
		if c == quote {
			if i++; i >= len(w.text) || w.text[i] != quote {
				break
			}
		}
		b.WriteByte(c)
	}
	w.text = w.text[min(i, len(w.text)):]
	return b.String()
}

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}
