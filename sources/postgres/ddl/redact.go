package ddl

import (
	"regexp"
	"slices"

	"txreel/change"
	"txreel/sources/postgres/pgoutput"
)

// secret matches a string behind a word that says that it is one: PASSWORD of a role that was made in the same string as
// what the log is about, options of servers and user mappings, CONNECTION of a subscription. Rather too much is taken for the string than too little.
var secret = regexp.MustCompile(`(?is)\b(\w*(?:password|passwd|secret|token|credential|connection|passphrase|access_key|api_key)\w*"?)((?:\s|=|:|\bto\b)*)((?:e|u&)?'(?:[^'\\]|\\.|'')*'|\$\w*\$.*?\$\w*\$)`)

// Redact returns a statement without what it calls a secret.
func Redact(text []byte) []byte {
	return secret.ReplaceAll(text, []byte("$1$2'<redacted>'"))
}

// Decoder decodes messages for people: as pgoutput's does, but for secrets in the log of definitions. The archive has them, as
// the source sent them.
type Decoder struct {
	pgoutput.Decoder
	values []change.Value
}

// Next implements audit.Decoder.
func (d *Decoder) Next(ev *change.Event) (bool, error) {
	ok, err := d.Decoder.Next(ev)
	if !ok || err != nil || ev.Relation == nil || !Is(ev.Relation.Schema, ev.Relation.Name) || ev.New == nil {
		return ok, err
	}
	d.values = append(d.values[:0], ev.New...)
	for i, c := range ev.Relation.Columns {
		if i < len(d.values) && slices.Contains([]string{"query", "context", "objects"}, c.Name) {
			d.values[i].Bytes = Redact(d.values[i].Bytes)
		}
	}
	ev.New = d.values
	return true, nil
}
