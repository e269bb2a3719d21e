package mysql

import (
	"regexp"
	"strings"

	"txreel/sources/mysql/binlog"
)

var (
	// behindQuery is what an applier's message goes on with behind a statement that it holds whole.
	behindQuery = regexp.MustCompile(`'(?:, (?:Gtid \d+-\d+-\d+|Internal MariaDB error code: \d+))*,?\s*$`)
	// nearText is the piece of a statement that a parser did not understand.
	nearText = regexp.MustCompile(`(?s) near '.*`)
)

// withoutSecrets returns an applier's message without the passwords, keys and hashes of the statement in it.
func withoutSecrets(text string) string {
	const mark = "Query: '"
	before, query, found := strings.Cut(text, mark)
	if !found {
		return nearText.ReplaceAllString(text, " near <redacted>")
	}
	behind := "'"
	if at := behindQuery.FindStringIndex(query); at != nil {
		query, behind = query[:at[0]], query[at[0]:]
	} // else the server has cut the message off
	plain := string(binlog.Redact([]byte(query), binlog.Mode{}))
	if plain != query {
		before = nearText.ReplaceAllString(before, " near <redacted>, ")
	}
	return before + mark + plain + behind
}
