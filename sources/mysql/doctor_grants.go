package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"txreel/sources"
)

// grants is what an account may do everywhere, its active roles included.
type grants struct {
	all     bool            // ALL PRIVILEGES
	global  map[string]bool // upper case, ON *.*
	revoked []string        // schemas that MySQL's partial revokes take SELECT away from, quoted
	others  int             // grants on schemas, tables and routines
}

func (g *grants) has(privilege string) bool {
	// MariaDB before 10.5 and some services print the old name.
	return g.all || g.global[privilege] || privilege == "BINLOG MONITOR" && g.global["REPLICATION CLIENT"]
}

// readGrants reads those of an account, written as in SQL, or of the session itself when that is empty.
func readGrants(ctx context.Context, conn *Conn, account string) (*grants, error) {
	sql := "SHOW GRANTS"
	if account != "" {
		sql += " FOR " + account
	}
	r, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	lines := make([]string, len(r.Rows))
	for i, row := range r.Rows {
		lines[i] = row[0].String()
	}
	return parseGrants(lines), nil
}

// parseGrants reads the lines of SHOW GRANTS. What it does not understand gives nothing.
func parseGrants(lines []string) *grants {
	g := &grants{global: map[string]bool{}}
	for _, line := range lines {
		verb, rest, _ := strings.Cut(line, " ")
		privileges, rest, found := cutOutside(rest, " ON ")
		if !found || verb != "GRANT" && verb != "REVOKE" {
			continue // a role, SET DEFAULT ROLE
		}
		on, _, _ := cutOutside(rest, map[string]string{"GRANT": " TO ", "REVOKE": " FROM "}[verb])
		list := splitOutside(privileges)
		switch {
		case verb == "REVOKE":
			if slices.Contains(list, "SELECT") {
				g.revoked = append(g.revoked, strings.TrimSuffix(on, ".*"))
			}
			continue
		case on != "*.*":
			if !slices.Contains(list, "PROXY") {
				g.others++
			}
			continue
		}
		for _, p := range list {
			g.all = g.all || p == "ALL PRIVILEGES"
			if p != "USAGE" {
				g.global[p] = true
			}
		}
	}
	return g
}

// cutOutside cuts at the first sep that is outside of quotes and parentheses.
func cutOutside(s, sep string) (before, after string, found bool) {
	var quote byte
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0:
			if c == '\\' && quote != '`' {
				i++ // a hash can hold a quote
			} else if c == quote {
				quote = 0 // a doubled one opens the next
			}
		case c == '`' || c == '\'' || c == '"':
			quote = c
		case c == '(':
			depth++
		case c == ')':
			depth--
		case depth == 0 && strings.HasPrefix(s[i:], sep):
			return s[:i], s[i+len(sep):], true
		}
	}
	return s, "", false
}

// splitOutside splits a list of privileges, which may have columns behind them.
func splitOutside(s string) []string {
	var list []string
	for more := true; more; {
		var item string
		item, s, more = cutOutside(s, ",")
		list = append(list, strings.TrimSpace(item))
	}
	return list
}

// need is a privilege and what goes wrong without it.
type need struct {
	privilege string
	severity  sources.Severity
	purpose   string
}

// captureNeeds are what the stream needs, and no more.
func captureNeeds(mariadb bool) []need {
	n := []need{{"REPLICATION SLAVE", sources.SeverityProblem, "the binlog is not sent"}}
	if mariadb {
		return append(n, need{"BINLOG MONITOR", sources.SeverityProblem, "the end of the binlog and the time until it is purged are not shown"})
	}
	return append(n, need{"REPLICATION CLIENT", sources.SeverityProblem, "the end of the binlog and the time until it is purged are not shown"})
}

// baseNeeds are what a base reads with, beyond captureNeeds. There is no privilege to see triggers and events but the
// ones to make them. SELECT everywhere also shows the text of procedures and functions, and performance_schema.
func baseNeeds(mariadb bool) []need {
	n := []need{
		{"SELECT", sources.SeverityProblem, "tables cannot be read, nor accounts and grants in the schema mysql"},
		{"SHOW VIEW", sources.SeverityProblem, "views would be missing"},
		{"TRIGGER", sources.SeverityProblem, "triggers would be missing"},
		{"EVENT", sources.SeverityProblem, "events would be missing"},
		{"PROCESS", sources.SeverityNote, "nobody sees how many old rows the server keeps for a long base, or who waits for a table that it reads"},
	}
	if mariadb {
		return append(n, need{"SLAVE MONITOR", sources.SeverityNote, "the doctor cannot see whether the server is a replica"})
	}
	return append(n,
		need{"XA_RECOVER_ADMIN", sources.SeverityProblem, "prepared XA transactions are not seen, and one that is open across a base makes its replay fail"},
		need{"BACKUP_ADMIN", sources.SeverityWarning, "a base on a busy server needs many more tries, or a lock, and ALTER TABLE can run into it"})
}

// lockNeeds are what a base uses that may lock for a moment, with --allow-lock.
func lockNeeds() []need {
	return []need{{"RELOAD", sources.SeverityProblem, "FLUSH TABLES WITH READ LOCK is refused"}}
}

// missing picks those that g lacks.
func (g *grants) missing(needs []need) []need {
	var list []need
	for _, n := range needs {
		if !g.has(n.privilege) {
			list = append(list, n)
		}
	}
	return list
}

// grantSQL gives an account privileges everywhere.
func grantSQL(needs []need, account string) string {
	names := make([]string, len(needs))
	for i, n := range needs {
		names[i] = n.privilege
	}
	return fmt.Sprintf("GRANT %s ON *.* TO %s", strings.Join(names, ", "), account)
}

// quoteAccount writes user@host as both servers read it.
func quoteAccount(user, host string) string { return quoteLiteral(user) + "@" + quoteLiteral(host) }

// splitAccount takes CURRENT_USER() apart; a user's name may hold an @, a host's cannot.
func splitAccount(account string) (user, host string) {
	i := strings.LastIndexByte(account, '@')
	if i < 0 {
		return account, ""
	}
	return account[:i], account[i+1:]
}
