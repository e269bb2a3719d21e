package postgres

import (
	"fmt"
	"slices"
	"strings"

	"txreel/restore"
	"txreel/sources/postgres/pgbase"
)

// step is one thing to make. Everything in its statements is quoted: what is recorded is data, never SQL.
type step struct {
	text    string
	sql     []string
	role    string // it makes this role, without which the restore cannot go on
	late    bool   // at the end of the restore, not before the schema
	secret  bool   // it sets a value that nothing may print
	done    bool
	refused string // why it could not be made
}

// globals is what a restore makes of roles, settings and the like.
type globals struct {
	want    *recorded
	have    *pgbase.Globals
	may     rights
	roles   map[string]pgbase.Role // of the target
	created map[string]bool
	steps   []step
	differs []string
	notMade []string
}

// newGlobals compares what was with what the target has; nil is a target that has nothing. A role that is there stays as it is.
func newGlobals(want *recorded, have *pgbase.Globals, may rights) *globals {
	if have == nil {
		have = &pgbase.Globals{Owner: want.Owner, Server: want.Server, Database: want.Database}
		have.Database.ACL, have.Database.Comment, have.Database.Labels, have.Database.Connections, have.Database.Owner = nil, "", nil, -1, want.Owner
	}
	g := &globals{want: want, have: have, may: may, roles: make(map[string]pgbase.Role), created: make(map[string]bool)}
	for _, r := range have.Roles {
		g.roles[r.Name] = r
	}
	for _, r := range want.Roles {
		if _, ok := g.roles[r.Name]; !ok {
			g.created[r.Name] = true
		}
	}
	for _, r := range want.Roles {
		if g.created[r.Name] {
			g.addRole(r)
		} else {
			g.compareRole(g.roles[r.Name], r)
		}
	}
	g.addDescriptions()
	g.addMemberships()
	g.addParameters()
	g.addSettings()
	g.addDatabase()
	g.nameTheRest()
	return g
}

func (g *globals) add(s step) { g.steps = append(g.steps, s) }

// there reports whether the target has the role, or is given it.
func (g *globals) there(role string) bool {
	_, ok := g.roles[role]
	return ok || g.created[role] || strings.HasPrefix(role, "pg_")
}

func (g *globals) differ(format string, args ...any) {
	g.differs = append(g.differs, fmt.Sprintf(format, args...))
}

func (g *globals) leaveOut(format string, args ...any) {
	g.notMade = append(g.notMade, fmt.Sprintf(format, args...))
}

// attribute is a property that CREATE ROLE has a word for.
type attribute struct {
	word    string
	on      func(pgbase.Role) bool
	allowed func(rights) bool
}

func attributes() []attribute {
	free := func(rights) bool { return true }
	return []attribute{
		{"SUPERUSER", func(r pgbase.Role) bool { return r.Superuser }, func(m rights) bool { return m.super }},
		{"CREATEROLE", func(r pgbase.Role) bool { return r.CreateRole }, free},
		{"CREATEDB", func(r pgbase.Role) bool { return r.CreateDB }, func(m rights) bool { return m.super || m.major < 16 || m.createDB }},
		{"LOGIN", func(r pgbase.Role) bool { return r.Login }, free},
		{"REPLICATION", func(r pgbase.Role) bool { return r.Replication }, func(m rights) bool { return m.super || m.major >= 16 && m.replication }},
		{"BYPASSRLS", func(r pgbase.Role) bool { return r.BypassRLS }, func(m rights) bool { return m.super || m.major >= 16 && m.bypassRLS }},
		{"NOINHERIT", func(r pgbase.Role) bool { return !r.Inherit }, free},
	}
}

func (g *globals) addRole(r pgbase.Role) {
	sql := "CREATE ROLE " + quote(r.Name)
	var words []string
	for _, a := range attributes() {
		switch {
		case !a.on(r):
		case !a.allowed(g.may):
			g.leaveOut("%s of role %s: %q may not give it", a.word, quote(r.Name), g.may.user)
		default:
			words = append(words, a.word)
		}
	}
	if r.Connections != -1 {
		words = append(words, fmt.Sprintf("CONNECTION LIMIT %d", r.Connections))
	}
	if r.ValidUntil != "" {
		words = append(words, "VALID UNTIL "+literal(r.ValidUntil))
	}
	text := "role " + quote(r.Name)
	if len(words) > 0 {
		sql += " " + strings.Join(words, " ")
		text += " (" + strings.ToLower(strings.Join(words, ", ")) + ")"
	}
	g.add(step{text: text, sql: []string{sql}, role: r.Name})
}

func (g *globals) compareRole(is, was pgbase.Role) {
	var what []string
	for _, a := range attributes() {
		if a.on(is) != a.on(was) {
			what = append(what, strings.ToLower(a.word))
		}
	}
	for _, c := range []struct {
		name string
		same bool
	}{
		{"connection limit", is.Connections == was.Connections}, {"valid until", is.ValidUntil == was.ValidUntil},
		{"comment", is.Comment == was.Comment}, {"security labels", slices.Equal(is.Labels, was.Labels)},
	} {
		if !c.same {
			what = append(what, c.name)
		}
	}
	if len(what) > 0 {
		g.differ("role %s: %s", quote(was.Name), strings.Join(what, ", "))
	}
}

// addDescriptions gives the new roles their comments and labels.
func (g *globals) addDescriptions() {
	for _, r := range g.want.Roles {
		if !g.created[r.Name] {
			continue
		}
		if r.Comment != "" {
			g.add(step{text: "comment on role " + quote(r.Name), sql: []string{"COMMENT ON ROLE " + quote(r.Name) + " IS " + literal(r.Comment)}})
		}
		for _, l := range r.Labels {
			g.add(step{text: "security label of role " + quote(r.Name), sql: []string{"SECURITY LABEL FOR " + quote(l.Provider) + " ON ROLE " + quote(r.Name) + " IS " + literal(l.Label)}})
		}
	}
}

// addMemberships puts new roles into others and others into them. Who grants must have been granted the right to before, so
// it goes in rounds; the server lets no circle come about.
func (g *globals) addMemberships() {
	admin := make(map[[2]string]bool) // who may grant which role, by what is there or was added
	for _, m := range g.have.Memberships {
		if m.Admin {
			admin[[2]string{m.Member, m.Role}] = true
		}
	}
	left := slices.DeleteFunc(slices.Clone(g.want.Memberships), func(m pgbase.Membership) bool {
		if g.created[m.Role] || g.created[m.Member] {
			return false
		}
		if !g.member(m) {
			g.differ("membership of %s in %s: the target does not have it so: GRANT %[2]s TO %[1]s", quote(m.Member), quote(m.Role))
		}
		return true
	})
	for len(left) > 0 {
		before := len(left)
		left = slices.DeleteFunc(left, func(m pgbase.Membership) bool {
			if g.grantor(m) != "" && g.grantor(m) != g.have.Owner && !admin[[2]string{m.Grantor, m.Role}] {
				return false
			}
			g.addMembership(m, g.grantor(m))
			if m.Admin {
				admin[[2]string{m.Member, m.Role}] = true
			}
			return true
		})
		if len(left) == before { // whoever granted it may no longer do so
			for _, m := range left {
				g.addMembership(m, "")
			}
			return
		}
	}
}

// grantor is who grants it in the target; empty is the connecting role.
func (g *globals) grantor(m pgbase.Membership) string {
	switch {
	case !g.may.super, m.Grantor == "", !g.there(m.Grantor):
		return ""
	case m.Grantor == g.want.Owner:
		return g.have.Owner // initdb's role need not have the same name
	}
	return m.Grantor
}

func (g *globals) addMembership(m pgbase.Membership, by string) {
	var options []string
	option := func(word string, is *bool) {
		switch {
		case is == nil || g.may.major < 16:
		case *is:
			options = append(options, word+" TRUE")
		default:
			options = append(options, word+" FALSE")
		}
	}
	if m.Admin {
		options = append(options, "ADMIN OPTION")
	}
	option("INHERIT", m.Inherit)
	option("SET", m.Set)
	sql := "GRANT " + quote(m.Role) + " TO " + quote(m.Member)
	text := "membership of " + quote(m.Member) + " in " + quote(m.Role)
	if len(options) > 0 {
		sql += " WITH " + strings.Join(options, ", ")
		text += " (" + strings.ToLower(strings.Join(options, ", ")) + ")"
	}
	if by != "" {
		sql += " GRANTED BY " + quote(by)
	}
	g.add(step{text: text, sql: []string{sql}})
}

// member reports whether the target has the membership with the same options.
func (g *globals) member(want pgbase.Membership) bool {
	same := func(a, b *bool) bool { return a == nil || b == nil || *a == *b }
	return slices.ContainsFunc(g.have.Memberships, func(m pgbase.Membership) bool {
		return m.Role == want.Role && m.Member == want.Member && m.Admin == want.Admin && same(m.Inherit, want.Inherit) && same(m.Set, want.Set)
	})
}

// addParameters gives the new roles what they may set.
func (g *globals) addParameters() {
	for _, p := range g.want.Parameters {
		text := "privilege " + p.Privilege + " on parameter " + quote(p.On) + " of " + grantee(p)
		switch {
		case g.created[p.Grantee]:
			g.add(step{text: text, sql: []string{grant(p, "PARAMETER "+quote(p.On))}})
		case !slices.ContainsFunc(g.have.Parameters, func(h pgbase.Grant) bool {
			return h.On == p.On && h.Grantee == p.Grantee && h.Privilege == p.Privilege && h.Grantable == p.Grantable
		}):
			g.differ("%s: the target does not have it", text)
		}
	}
}

func grantee(p pgbase.Grant) string {
	if p.Grantee == "" {
		return "PUBLIC"
	}
	return quote(p.Grantee)
}

// grant is a statement. The privilege is a word of the server's, and checked to be one.
func grant(p pgbase.Grant, on string) string {
	words := strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r == ' ' {
			return r
		}
		return -1
	}, p.Privilege)
	sql := "GRANT " + words + " ON " + on + " TO " + grantee(p)
	if p.Grantable {
		sql += " WITH GRANT OPTION"
	}
	return sql
}

// nameTheRest says what is never made.
func (g *globals) nameTheRest() {
	var had, unknown int
	var names []string
	for _, r := range g.want.Roles {
		switch {
		case !g.created[r.Name]:
		case r.Password == nil && r.Login:
			unknown++
		case r.Password != nil && *r.Password:
			if had++; had <= 20 {
				names = append(names, quote(r.Name))
			}
		}
	}
	if had > 0 {
		g.leaveOut("passwords, which are not kept: %d of these roles had one (%s%s): set them with ALTER ROLE … PASSWORD", had, strings.Join(names, ", "), more(had > len(names)))
	}
	if unknown > 0 {
		g.leaveOut("passwords, which are not kept: %d of these roles can log in, and which of them had a password the capture could not see: set them with ALTER ROLE … PASSWORD", unknown)
	}
	for _, t := range g.want.Tablespaces {
		text := fmt.Sprintf("tablespace %s (owner %s, location %s", quote(t.Name), quote(t.Owner), t.Location)
		if len(t.Options) > 0 {
			text += ", " + strings.Join(t.Options, ", ")
		}
		g.leaveOut("%s): places belong to a machine; what was in it is in the target database's own tablespace", text)
	}
	var server []string
	for _, p := range g.want.Server {
		if !slices.Contains(g.have.Server, p) {
			server = append(server, p.Name)
		}
	}
	if len(server) > 0 {
		g.differ("settings of the server: %s", strings.Join(server, ", "))
	}
	for _, u := range g.want.Unseen {
		g.leaveOut("%s: the capture could not see it", u)
	}
}

// report says what is made, as far as it could be.
func (g *globals) report() *restore.Globals {
	r := &restore.Globals{From: g.want.from, Position: g.want.position, Seen: g.want.seen, Known: g.want.known,
		Make: []string{}, Differs: slices.Concat([]string{}, g.differs), NotMade: slices.Concat([]string{}, g.notMade)}
	for _, s := range g.steps {
		if s.refused != "" {
			r.NotMade = append(r.NotMade, s.text+": "+s.refused)
		} else {
			r.Make = append(r.Make, s.text)
		}
	}
	return r
}
