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
	for _, word := range []string{"IDENTIFIED", "PASSWORD", "CONNECTION", "CHALLENGE_RESPONSE", "CRYPT", "CODE", "KDF"} {
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
}

// secret reports whether a token must not be shown.
func (r *redactor) secret(t, next token) bool {
	hide := t.kind == kindLiteral && r.literal(t, next)
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
	case !r.symbol(t, '=') && !r.symbol(t, ':'):
		r.value = false
	}
	r.previous = t
	r.seen++
	return hide
}

// literal reports whether a literal is secret.
func (r *redactor) literal(t, next token) bool {
	if r.depth > 0 || r.value || mentions(r.text[t.start:t.end]) {
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
		return r.seen == 1 && r.is(r.previous, "SET")
	case r.is(t, "USER"):
		return r.is(r.previous, "CREATE") || r.is(r.previous, "ALTER") || r.is(r.previous, "REPLACE")
	}
	return r.is(t, "GRANT") && r.seen == 0
}

// announces reports whether the value that follows a word is secret: PASSWORD and all that ends with
// it, such as SOURCE_PASSWORD; and CONNECTION, which holds a URL.
func (r *redactor) announces(t token) bool {
	word, _ := r.name(t)
	const password = "PASSWORD"
	return len(word) >= len(password) && hasPrefix(word[len(word)-len(password):], password) || r.is(t, "CONNECTION")
}

// takesSecrets reports whether the token is a function whose arguments are secret.
func (r *redactor) takesSecrets(t token) bool {
	for _, name := range []string{"PASSWORD", "OLD_PASSWORD", "AES_ENCRYPT", "AES_DECRYPT", "DES_ENCRYPT", "DES_DECRYPT", "ENCRYPT", "ENCODE", "DECODE", "KDF"} {
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
	if bytes.Contains(upper, []byte("IDENTIFIED ")) {
		return true
	}
	for {
		_, after, found := bytes.Cut(upper, []byte("PASSWORD"))
		if !found {
			return false
		}
		value := bytes.TrimLeft(after, " \t")
		if len(value) > 1 && bytes.IndexByte([]byte(`=("'\:`), value[0]) >= 0 {
			return true
		}
		upper = after
	}
}
