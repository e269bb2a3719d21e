package binlog

import "bytes"

// kind tells what a token of a statement is.
type kind uint8

const (
	kindEnd     kind = iota
	kindWord         // a keyword, a name without quotes, a number
	kindName         // a name in quotes
	kindLiteral      // a string, or bytes in hexadecimal or binary notation
	kindSymbol       // one other character
	kindBroken       // a string, name or comment that does not end
)

// token is a part of a statement, and what stands before it.
type token struct {
	kind       kind
	start, end int
	// gap is where the comments and blanks before it begin.
	gap int
	// comment means that there is a comment among them.
	comment bool
}

// lexer cuts a statement into tokens as the servers do. What executable comments hold is
// part of the statement.
type lexer struct {
	text []byte
	at   int
	mode Mode
	// executable counts the executable comments that are open.
	executable int
}

// next returns the next token.
func (l *lexer) next() token {
	t := token{gap: l.at}
	if !l.blanks(&t) {
		t.kind, t.start, t.end = kindBroken, l.at, len(l.text)
		l.at = len(l.text)
		return t
	}
	t.start = l.at
	if l.at == len(l.text) {
		t.end = l.at
		return t
	}
	switch c := l.text[l.at]; {
	case c == '\'':
		t.kind = l.quoted(c, kindLiteral)
	case c == '"' && l.mode.ANSIQuotes:
		t.kind = l.quoted(c, kindName)
	case c == '"':
		t.kind = l.quoted(c, kindLiteral)
	case c == '`':
		t.kind = l.quoted(c, kindName)
	case isWord(c):
		t.kind = l.word()
	default:
		l.at++
		t.kind = kindSymbol
	}
	t.end = l.at
	return t
}

// blanks passes over blanks and comments, and reports whether each comment ends.
func (l *lexer) blanks(t *token) bool {
	for l.at < len(l.text) {
		rest := l.text[l.at:]
		switch {
		case rest[0] <= ' ':
			l.at++
		case rest[0] == '#', isDashes(rest):
			t.comment = true
			l.at += len(rest)
			if end := bytes.IndexByte(rest, '\n'); end >= 0 {
				l.at += end + 1 - len(rest)
			}
		case bytes.HasPrefix(rest, []byte("/*!")), bytes.HasPrefix(rest, []byte("/*M!")):
			l.executable++
			l.at += bytes.IndexByte(rest, '!') + 1
			for l.at < len(l.text) && l.text[l.at] >= '0' && l.text[l.at] <= '9' { // the version it is for
				l.at++
			}
		case l.executable > 0 && bytes.HasPrefix(rest, []byte("*/")):
			l.executable--
			l.at += 2
		case bytes.HasPrefix(rest, []byte("/*")):
			t.comment = true
			end := bytes.Index(rest[2:], []byte("*/"))
			if end < 0 {
				return false
			}
			l.at += 2 + end + 2
		default:
			return true
		}
	}
	return true
}

// isDashes reports whether a comment of two dashes begins, which a blank must follow.
func isDashes(b []byte) bool {
	return len(b) >= 2 && b[0] == '-' && b[1] == '-' && (len(b) == 2 || b[2] <= ' ')
}

// isWord reports whether a name without quotes, or a number, may hold the character. All that is not
// ASCII may be part of a name.
func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

// quoted passes over what is in quotes.
func (l *lexer) quoted(quote byte, as kind) kind {
	escapes := as == kindLiteral && !l.mode.NoBackslashEscapes
	for l.at++; l.at < len(l.text); l.at++ {
		switch c := l.text[l.at]; {
		case c == '\\' && escapes:
			l.at++
		case c != quote:
		case l.at+1 < len(l.text) && l.text[l.at+1] == quote: // doubled, it stands for itself
			l.at++
		default:
			l.at++
			return as
		}
	}
	l.at = len(l.text)
	return kindBroken
}

// word passes over a word, and over bytes in hexadecimal or binary notation: 0x1F, X'1F',
// b'01'.
func (l *lexer) word() kind {
	start := l.at
	for l.at < len(l.text) && isWord(l.text[l.at]) {
		l.at++
	}
	word := l.text[start:l.at]
	if len(word) == 1 && l.at < len(l.text) && l.text[l.at] == '\'' {
		switch word[0] {
		case 'x', 'X', 'b', 'B', 'n', 'N':
			return l.quoted('\'', kindLiteral)
		}
	}
	if len(word) > 2 && word[0] == '0' && (word[1] == 'x' || word[1] == 'X' || word[1] == 'b') {
		return kindLiteral
	}
	return kindWord
}

// is reports whether the token is the word, which is in upper case.
func (l *lexer) is(t token, word string) bool {
	return t.kind == kindWord && t.end-t.start == len(word) && hasPrefix(l.text[t.start:t.end], word)
}

// symbol reports whether the token is the character.
func (l *lexer) symbol(t token, c byte) bool { return t.kind == kindSymbol && l.text[t.start] == c }

// name returns the name that the token is, without its quotes.
func (l *lexer) name(t token) ([]byte, bool) {
	text := l.text[t.start:t.end]
	switch t.kind {
	case kindWord:
		return text, true
	case kindName:
		quote := text[:1]
		return bytes.ReplaceAll(text[1:len(text)-1], []byte{quote[0], quote[0]}, quote), true
	}
	return nil, false
}
