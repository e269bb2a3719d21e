package pgclient

import (
	"net/url"
	"regexp"
	"strings"
)

// clientOptions are the options of a source that the client programs know and may
// show on their command line. What is left out are secrets, and settings of a session,
// which our own connections take and libpq refuses.
const clientOptions = " host hostaddr port dbname user passfile channel_binding connect_timeout options " +
	"keepalives keepalives_idle keepalives_interval keepalives_count tcp_user_timeout " +
	"sslmode sslcert sslkey sslrootcert sslcrl sslcrldir sslsni sslnegotiation ssl_min_protocol_version ssl_max_protocol_version " +
	"require_auth requirepeer krbsrvname gssencmode gsslib service servicefile target_session_attrs load_balance_hosts "

func clientOption(name string) bool { return strings.Contains(clientOptions, " "+name+" ") }

// WithoutPassword returns the source as libpq reads it, with nothing secret in it. It
// splits as libpq does and not as URLs are split elsewhere: a password may hold a raw #
// or ?, and ends at the first @.
func WithoutPassword(source string) string {
	if scheme, rest, ok := strings.Cut(source, "://"); ok && (scheme == "postgres" || scheme == "postgresql") {
		user := ""
		if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
			user, _, _ = strings.Cut(rest[:i], ":")
			user, rest = user+"@", rest[i+1:]
		}
		address, query, _ := strings.Cut(rest, "?")
		mark := "?"
		for pair := range strings.SplitSeq(query, "&") {
			name, _, _ := strings.Cut(pair, "=")
			if name, err := url.PathUnescape(name); err == nil && clientOption(name) {
				address, mark = address+mark+pair, "&"
			}
		}
		return scheme + "://" + user + address
	}
	pair := regexp.MustCompile(`(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s\\]|\\.)*)`)
	var kept []string
	for _, m := range pair.FindAllStringSubmatch(source, -1) {
		if m[1] == "database" {
			m[1] = "dbname"
		}
		if clientOption(m[1]) {
			kept = append(kept, m[1]+"="+m[2])
		}
	}
	return strings.Join(kept, " ")
}
