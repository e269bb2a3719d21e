package postgres

import (
	"fmt"
	"slices"
	"strings"

	"txreel/sources/postgres/pgbase"
)

// addSettings makes what ALTER ROLE … SET and ALTER DATABASE … SET have made: for new roles, for all roles, and for the database.
func (g *globals) addSettings() {
	db := quote(g.have.Database.Name)
	for _, s := range g.want.Settings {
		if s.Role != "" && !g.there(s.Role) {
			continue // the server that was read lost it in between
		}
		of, alter, late := " of role "+quote(s.Role), "ALTER ROLE "+quote(s.Role), s.Database || s.Role == ""
		if s.Role == "" {
			of, alter = " of all roles", "ALTER ROLE ALL"
		}
		switch {
		case s.Database && s.Role == "":
			of, alter = " of the database", "ALTER DATABASE "+db
		case s.Database:
			of += " in the database"
			alter += " IN DATABASE " + db
		}
		have := g.settings(s)
		for _, v := range s.Values {
			name, value, ok := strings.Cut(v, "=")
			is, there := have[name]
			switch {
			case !ok || there && is == value:
			case s.Database, g.created[s.Role], s.Role == "" && !there:
				g.add(step{text: "setting " + quote(name) + of, sql: []string{alter + " SET " + quote(name) + " TO " + settingValue(name, value)}, late: late, secret: true})
			default:
				g.differ("setting %s%s", quote(name), of)
			}
		}
	}
}

// settings are those that the target has for the same role and database.
func (g *globals) settings(like pgbase.Settings) map[string]string {
	all := make(map[string]string)
	for _, s := range g.have.Settings {
		if s.Role != like.Role || s.Database != like.Database {
			continue
		}
		for _, v := range s.Values {
			name, value, _ := strings.Cut(v, "=")
			all[name] = value
		}
	}
	return all
}

// settingValue writes the value of a setting for SET … TO. A list of names is kept as the server writes it, each quoted where it must be, and
// as one literal it would be taken for one name.
func settingValue(name, value string) string {
	switch strings.ToLower(name) {
	case "local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries", "temp_tablespaces", "unix_socket_directories":
	default:
		return literal(value)
	}
	var parts []string
	for _, p := range splitNames(value) {
		parts = append(parts, literal(p))
	}
	if len(parts) == 0 {
		return "''"
	}
	return strings.Join(parts, ", ")
}

// splitNames takes a list of names apart, of which some are in double quotes.
func splitNames(list string) []string {
	var names []string
	for rest := strings.TrimSpace(list); rest != ""; {
		var name string
		if strings.HasPrefix(rest, `"`) {
			var b strings.Builder
			i := 1
			for ; i < len(rest); i++ {
				if rest[i] != '"' {
					b.WriteByte(rest[i])
				} else if i+1 < len(rest) && rest[i+1] == '"' {
					b.WriteByte('"')
					i++
				} else {
					break
				}
			}
			name, rest = b.String(), rest[min(i+1, len(rest)):]
			_, rest, _ = strings.Cut(rest, ",")
		} else {
			name, rest, _ = strings.Cut(rest, ",")
			name = strings.TrimSpace(name)
		}
		names = append(names, name)
		rest = strings.TrimSpace(rest)
	}
	return names
}

// addDatabase makes the properties of the database that can be changed, and names the others.
func (g *globals) addDatabase() {
	want, have := g.want.Database, g.have.Database
	db := "DATABASE " + quote(have.Name)
	if want.Owner == g.want.Owner {
		want.Owner = g.have.Owner
	}
	if want.Comment != have.Comment {
		sql := "NULL"
		if want.Comment != "" {
			sql = literal(want.Comment)
		}
		g.add(step{text: "comment on the database", sql: []string{"COMMENT ON " + db + " IS " + sql}, late: true})
	}
	for _, l := range want.Labels {
		if !slices.Contains(have.Labels, l) {
			g.add(step{text: "security label of the database", sql: []string{"SECURITY LABEL FOR " + quote(l.Provider) + " ON " + db + " IS " + literal(l.Label)}, late: true})
		}
	}
	if want.Connections != have.Connections {
		g.add(step{text: fmt.Sprintf("connection limit of the database, %d", want.Connections), sql: []string{fmt.Sprintf("ALTER %s CONNECTION LIMIT %d", db, want.Connections)}, late: true})
	}
	if want.Owner != have.Owner && g.there(want.Owner) {
		g.add(step{text: "owner of the database, " + quote(want.Owner), sql: []string{"ALTER " + db + " OWNER TO " + quote(want.Owner)}, late: true})
	}
	g.addPrivileges(want, have, db)
	for _, c := range []struct{ name, was, is string }{
		{"locale provider", want.Provider, have.Provider}, {"collate", want.Collate, have.Collate}, {"ctype", want.Ctype, have.Ctype}, {"locale", want.Locale, have.Locale},
		{"ICU rules", want.IcuRules, have.IcuRules}, {"collation version", want.CollationVersion, have.CollationVersion}, {"tablespace", want.Tablespace, have.Tablespace},
	} {
		if c.was != c.is {
			g.differ("%s of the database: it was %q, and is %q", c.name, c.was, c.is)
		}
	}
	if want.Template != have.Template {
		g.differ("the database was a template: %v", want.Template)
	}
}

// addPrivileges makes the database's access list what it was: everything is taken away first.
func (g *globals) addPrivileges(want, have pgbase.Database, db string) {
	rename := func(list []pgbase.Grant, from, to string) []pgbase.Grant {
		list = slices.Clone(list)
		for i := range list {
			if list[i].Grantor == from {
				list[i].Grantor = to
			}
			if list[i].Grantee == from {
				list[i].Grantee = to
			}
		}
		return list
	}
	if want.ACL == nil {
		if have.ACL != nil {
			g.differ("privileges on the database: it had those of a new one")
		}
		return
	}
	list := want.ACL
	if g.want.Owner != g.have.Owner {
		list = rename(list, g.want.Owner, g.have.Owner)
	}
	if have.ACL != nil && slices.Equal(list, rename(have.ACL, have.Owner, want.Owner)) {
		return
	}
	var sql []string
	taken := []pgbase.Grant{{}, {Grantee: want.Owner}}
	for _, p := range have.ACL {
		taken = append(taken, pgbase.Grant{Grantee: p.Grantee})
	}
	slices.SortFunc(taken, func(a, b pgbase.Grant) int { return strings.Compare(a.Grantee, b.Grantee) })
	for _, p := range slices.Compact(taken) {
		sql = append(sql, "REVOKE ALL ON "+db+" FROM "+grantee(p)+" CASCADE")
	}
	for _, p := range list {
		if p.Grantee != "" && !g.there(p.Grantee) {
			g.leaveOut("privilege %s on the database of %s, which is not there", p.Privilege, quote(p.Grantee))
			continue
		}
		if p.Grantor == want.Owner || !g.there(p.Grantor) {
			sql = append(sql, grant(p, db))
		} else {
			sql = append(sql, "SET LOCAL ROLE "+quote(p.Grantor), grant(p, db), "RESET ROLE")
		}
	}
	g.add(step{text: "privileges on the database", sql: sql, late: true})
}
