package binlog

import (
	"bytes"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"txreel/change"
)

// redacted stands in place of what is secret.
const redacted = "<redacted>"

// Redact returns a statement without the passwords, keys and hashes that it holds. Where the
// statement cannot be read with certainty and may hold any, all but its first words
// are taken out.
func Redact(text []byte, mode Mode) []byte {
	out, ok := redact(nil, text, mode, false, math.MaxInt)
	if !mode.Known {
		// Then both ways to read a backslash must agree.
		mode.NoBackslashEscapes = true
		other, sure := redact(nil, text, mode, false, math.MaxInt)
		ok = ok && sure && bytes.Equal(out, other)
	}
	if !ok && suspicious(text) {
		return firstWords(text)
	}
	if !ok {
		return text
	}
	return out
}

// Note returns the beginning of a statement for an index: on one line, without comments and
// secrets, and with the default database before it as SHOW BINLOG EVENTS prints it. It has
// change.MaxNote bytes at most.
func Note(text []byte, schema string, mode Mode) string {
	out, ok := redact(nil, text, mode, true, 2*change.MaxNote)
	if !mode.Known && ok {
		mode.NoBackslashEscapes = true
		var other []byte
		other, ok = redact(nil, text, mode, true, 2*change.MaxNote)
		ok = ok && bytes.Equal(out, other)
	}
	switch {
	case !ok && suspicious(text):
		out = firstWords(text)
	case !ok:
		out = text[:min(len(text), 2*change.MaxNote)]
	}
	var b strings.Builder
	if schema != "" {
		b.WriteString("use `" + strings.ReplaceAll(schema, "`", "``") + "`; ")
	}
	b.Write(out)
	return shorten(oneLine(b.String()), change.MaxNote)
}

// oneLine replaces what would break a line, or is no UTF-8.
func oneLine(text string) string {
	text = strings.ToValidUTF8(text, "?")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.TrimSpace(text))
}

// shorten cuts text to n bytes, and says so.
func shorten(text string, n int) string {
	const more = "…"
	if len(text) <= n {
		return text
	}
	cut := n - len(more)
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + more
}

// firstWords returns the first words of a statement that cannot be shown.
func firstWords(text []byte) []byte {
	end, words := 0, 0
	for end < len(text) && words < 2 {
		c := text[end]
		if c == ' ' {
			words++
		} else if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			break
		}
		end++
	}
	return append(bytes.TrimSpace(bytes.Clone(text[:end])), " "+redacted...)
}

// suspicious reports whether a statement may hold secrets, judged by its bytes alone.
func suspicious(text []byte) bool {
	upper := bytes.ToUpper(text)
	for _, word := range []string{"IDENTIFIED", "PASSWORD", "AUTHENTICATION_STRING", "SERVER", "CONNECTION", "CHALLENGE_RESPONSE", "CRYPT", "CODE", "KDF"} {
		if bytes.Contains(upper, []byte(word)) {
			return true
		}
	}
	return false
}

// redact appends the statement without its secrets to b, up to about limit bytes. Flat leaves out
// comments, and makes one blank of many. It returns false if the statement cannot be cut
// into tokens.
func redact(b, text []byte, mode Mode, flat bool, limit int) ([]byte, bool) {
	r := redactor{lexer: lexer{text: text, mode: mode}}
	t := r.next()
	for len(b) < limit {
		next := r.next()
		if t.kind == kindBroken {
			return b, false
		}
		secret := r.secret(t, next)
		switch gap := text[t.gap:t.start]; {
		case flat && len(gap) > 0 && len(b) > 0 && t.kind != kindEnd:
			b = append(b, ' ')
		case !flat && t.comment && (r.careful || suspicious(gap)): // a comment may repeat what is redacted
			b = append(b, ' ')
		case !flat:
			b = append(b, gap[:min(len(gap), limit-len(b))]...)
		}
		if t.kind == kindEnd {
			break
		}
		if secret {
			b = append(b, redacted...)
		} else {
			b = append(b, text[t.start:][:min(t.end-t.start, limit)]...)
		}
		t = next
	}
	return b, true
}

// redactor decides which tokens are secret, one after the other.
type redactor struct {
	lexer
	before   token // the one before previous
	previous token
	seen     int // tokens before this one
	// careful is set from the first word on that secrets follow: strings that are not known to be
	// harmless are secret.
	careful bool
	// depth counts the parentheses that are open in the arguments of a function that takes
	// secrets; 0 outside of them.
	depth int
	// value is set behind a word that a secret follows, with "=" or without.
	value bool
	// assigned is set behind "=" of such a word, up to the end of the expression.
	assigned bool
	// hidden is set behind a secret: literals side by side are one.
	hidden bool
	// server is set in the options of a SERVER, whose names are anybody's choice.
	server bool
	// all is set where no literal is to be trusted.
	all bool
}

// secret reports whether a token must not be shown.
func (r *redactor) secret(t, next token) bool {
	hide := (t.kind == kindLiteral || t.kind == kindName && r.text[t.start] == '"') && r.literal(t, next)
	switch {
	case r.symbol(t, '(') && (r.depth > 0 || r.value || r.takesSecrets(r.previous)):
		r.depth++
	case r.symbol(t, ')') && r.depth > 0:
		r.depth--
	}
	switch {
	case t.kind == kindWord || t.kind == kindName:
		// The value may be what a function makes of it, or come with a character set.
		r.value = r.announces(t) || r.value && (r.symbol(next, '(') || r.text[t.start] == '_')
		r.careful = r.careful || r.beginsSecrets(t)
		r.assigned = r.assigned && !r.is(t, "WHERE")
		r.server = r.server || r.is(t, "SERVER") && r.seen > 0
		r.all = r.all || r.beginsProgram(t) && unsafe(r.text) || r.keepsSecrets(t)
	case r.symbol(t, '='):
		r.assigned = r.assigned || r.value
	case (r.symbol(t, ',') || r.symbol(t, ';')) && r.depth == 0:
		r.value, r.assigned = false, false
	case !r.symbol(t, ':'):
		r.value = false
	}
	r.hidden = hide
	r.before, r.previous = r.previous, t
	r.seen++
	return hide
}

// literal reports whether a literal is secret.
func (r *redactor) literal(t, next token) bool {
	if t.kind == kindName { // a string to a server with another idea of the quotes
		return r.value || r.careful && (r.is(r.previous, "BY") || r.is(r.previous, "AS") || r.is(r.previous, "USING"))
	}
	if r.all || r.depth > 0 || r.value || r.assigned || r.hidden || mentions(r.text[t.start:t.end]) {
		return true
	}
	if r.server {
		for _, word := range []string{"SERVER", "EXISTS", "WRAPPER", "HOST", "DATABASE", "USER", "SOCKET", "OWNER", "PORT"} {
			if r.is(r.previous, word) {
				return false
			}
		}
		return true
	}
	if !r.careful {
		return false
	}
	// A user, a host, or a plug-in.
	for _, word := range []string{"WITH", "VIA", "USER", "EXISTS", "FOR", "TO", "FROM", "ROLE"} {
		if r.is(r.previous, word) {
			return false
		}
	}
	for _, word := range []string{"BY", "AS", "USING", "PASSWORD", "REPLACE"} {
		if r.is(r.previous, word) {
			return true
		}
	}
	return !r.symbol(r.previous, '@') && !r.symbol(next, '@')
}

// beginsSecrets reports whether secrets may follow a word anywhere in the statement.
func (r *redactor) beginsSecrets(t token) bool {
	switch {
	case r.is(t, "IDENTIFIED"), r.is(t, "CHALLENGE_RESPONSE"):
		return true
	case r.is(t, "PASSWORD"):
		return r.is(r.previous, "SET")
	case r.is(t, "USER"):
		return r.is(r.previous, "CREATE") || r.is(r.previous, "ALTER") || r.is(r.previous, "REPLACE")
	}
	return r.is(t, "GRANT") && r.seen == 0
}

// beginsProgram reports whether a word says that the statement holds others, or text that is
// made into others.
func (r *redactor) beginsProgram(t token) bool {
	for _, word := range []string{"PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "PACKAGE"} {
		if r.is(t, word) {
			return true
		}
	}
	return false
}

// unsafe reports whether a program deals with passwords. Where it takes them from, and what it makes of them, only
// who runs it could tell.
func unsafe(text []byte) bool {
	upper := bytes.ToUpper(text)
	return bytes.Contains(upper, []byte("IDENTIFIED")) || bytes.Contains(upper, []byte("PASSWORD")) || bytes.Contains(upper, []byte("AUTHENTICATION_STRING"))
}

// keepsSecrets reports whether a name is that of a table in which a server keeps passwords.
func (r *redactor) keepsSecrets(t token) bool {
	if !r.symbol(r.previous, '.') {
		return false
	}
	if schema, _ := r.name(r.before); !bytes.EqualFold(schema, []byte("mysql")) {
		return false
	}
	name, _ := r.name(t)
	for _, table := range []string{"user", "global_priv", "servers", "slave_master_info", "password_history"} {
		if bytes.EqualFold(name, []byte(table)) {
			return true
		}
	}
	return false
}

// announces reports whether the value that follows a word is secret: PASSWORD and all that ends with
// it, such as SOURCE_PASSWORD; AUTHENTICATION_STRING; and CONNECTION, which holds a URL.
func (r *redactor) announces(t token) bool {
	word, _ := r.name(t)
	const password = "PASSWORD"
	return len(word) >= len(password) && hasPrefix(word[len(word)-len(password):], password) ||
		bytes.EqualFold(word, []byte("AUTHENTICATION_STRING")) || r.is(t, "CONNECTION")
}

// takesSecrets reports whether the token is a function whose arguments are secret.
func (r *redactor) takesSecrets(t token) bool {
	for _, name := range []string{"PASSWORD", "OLD_PASSWORD", "AES_ENCRYPT", "AES_DECRYPT", "DES_ENCRYPT", "DES_DECRYPT", "ENCRYPT", "ENCODE", "DECODE", "KDF",
		"VALIDATE_PASSWORD_STRENGTH"} {
		if r.is(t, name) {
			return true
		}
	}
	return false
}

// mentions reports whether a string is a statement itself that holds secrets, as those that
// procedures prepare, or the options of an engine.
func mentions(literal []byte) bool {
	upper := bytes.ToUpper(literal)
	if bytes.Contains(upper, []byte("IDENTIFIED")) || bytes.Contains(upper, []byte("AUTHENTICATION_STRING")) {
		return true
	}
	for {
		_, after, found := bytes.Cut(upper, []byte("PASSWORD"))
		if !found {
			return false
		}
		value := bytes.TrimLeft(after, " \t\r\n")
		if len(value) > 1 && bytes.IndexByte([]byte(`=("'\:/`), value[0]) >= 0 || bytes.HasPrefix(value, []byte("FOR")) {
			return true
		}
		upper = after
	}
}
