package postgres

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"

	"txreel/archive"
	"txreel/restore"
	"txreel/sources/postgres/pgbase"
)

// chooser finds the entries of a schema dump that a selection means. It goes by what pg_dump itself has on record of each
// entry: which others it needs. What a chosen table is made of comes along, at any depth; what hangs on it, such as indexes, foreign
// keys and triggers, comes along unless it needs a table or view that is not there, and is named as left out otherwise.
type chooser struct {
	of    *script
	byID  map[int]*entry
	all   []*entry
	in    map[int]bool // entries to be made
	rows  map[int]bool // tables whose rows are restored, a subset
	named map[int]bool // views that are asked for, and whatever else a chosen schema has
	left  []restore.LeftOut
	seen  map[int]bool    // entries that are named as left out
	gone  map[string]bool // parts of chosen tables that are left out, by partName
}

// Chooser returns what finds out which tables and objects of a base a selection means. It writes nothing.
func Chooser(a *archive.Archive, s restore.Selection, opts Options) restore.Chooser {
	return func(ctx context.Context, p *restore.Plan) (*restore.Partial, error) {
		t := &Target{opts: opts, job: &restore.Job{Archive: a, Plan: p}}
		if err := t.readManifest(); err != nil {
			return nil, err
		}
		var err error
		if t.schema, err = t.schemaOf(ctx, p.Base, t.engine.ServerVersion/10000); err != nil {
			return nil, err
		}
		t.schema.leaveOut(t.engine.Publications)
		c, err := t.schema.choose(&s)
		if err != nil {
			return nil, err
		}
		part := &restore.Partial{Selection: s, Tables: c.names(true), Structure: c.names(false), LeftOut: c.left}
		for _, e := range c.all {
			if c.in[e.id] && (isTable(e) || isView(e)) && !slices.Contains(part.Schemas, e.schema) {
				part.Schemas = append(part.Schemas, e.schema)
			}
		}
		for _, r := range t.engine.Roles {
			if c.mentions(r) {
				part.Roles = append(part.Roles, r)
			}
		}
		return part, nil
	}
}

func isTable(e *entry) bool { return e.kind == "TABLE" || e.kind == "FOREIGN TABLE" }

func isView(e *entry) bool { return e.kind == "VIEW" || e.kind == "MATERIALIZED VIEW" }

func isRoutine(e *entry) bool {
	return e.kind == "FUNCTION" || e.kind == "PROCEDURE" || e.kind == "AGGREGATE"
}

// choose finds what a selection means.
func (s *script) choose(sel *restore.Selection) (*chooser, error) {
	c := &chooser{of: s, byID: make(map[int]*entry), all: slices.Concat(s.pre, s.post), in: make(map[int]bool), rows: make(map[int]bool), named: make(map[int]bool), seen: make(map[int]bool), gone: make(map[string]bool)}
	for _, e := range c.all {
		c.byID[e.id] = e
	}
	optional, err := c.seeds(sel)
	if err != nil {
		return nil, err
	}
	c.partitions()
	for _, e := range c.all {
		if c.rows[e.id] {
			c.must(e)
		}
	}
	for _, e := range optional {
		c.named[e.id] = true
		c.may(e)
	}
	for before := -1; before < len(c.in); {
		before = len(c.in)
		for _, e := range c.all {
			if !c.in[e.id] && c.belongs(e) {
				c.may(e)
			}
		}
		c.called()
	}
	return c, nil
}

// seeds takes what is named: tables at once, and everything else as far as its needs can be met.
func (c *chooser) seeds(sel *restore.Selection) (optional []*entry, err error) {
	found := make(map[string]bool)
	for _, e := range c.all {
		for _, p := range sel.Tables {
			if !isTable(e) && !isView(e) || !p.Match(e.schema, e.name) {
				continue
			}
			found["--table "+p.Text] = true
			if isTable(e) {
				c.rows[e.id] = true
			} else if p.Exact() {
				optional = append(optional, e)
			}
		}
		for _, n := range sel.Schemas {
			named := e.kind == "SCHEMA" && e.name == n
			if e.schema != n && !named {
				continue
			}
			found["--schema "+n] = true
			switch {
			case isTable(e):
				c.rows[e.id] = true
			case c.subject(e) == nil && !c.follows(e) && !never(e):
				optional = append(optional, e)
			}
		}
	}
	for _, p := range sel.Tables {
		if what := "--table " + p.Text; !found[what] {
			return nil, &restore.UnmatchedError{Asked: what, Close: c.close(p.Text, isTable, qualified)}
		}
	}
	for _, n := range sel.Schemas {
		if what := "--schema " + n; !found[what] {
			return nil, &restore.UnmatchedError{Asked: what, Close: c.close(n, func(e *entry) bool { return e.kind == "SCHEMA" }, func(e *entry) string { return e.name })}
		}
	}
	return optional, nil
}

// partitions adds the partitions of chosen tables, at any depth.
func (c *chooser) partitions() {
	for before := -1; before < len(c.rows); {
		before = len(c.rows)
		for _, e := range c.all {
			if e.kind != "TABLE ATTACH" {
				continue
			}
			var child, root *entry
			for _, d := range e.deps {
				switch p := c.byID[d]; {
				case p == nil || !isTable(p):
				case p.schema == e.schema && p.name == e.name:
					child = p
				default:
					root = p
				}
			}
			if child != nil && root != nil && c.rows[root.id] {
				c.rows[child.id] = true
			}
		}
	}
}

// never reports whether an entry is about the whole database, and never part of some tables.
func never(e *entry) bool {
	return strings.HasPrefix(e.kind, "PUBLICATION") || strings.HasPrefix(e.kind, "SUBSCRIPTION") || e.kind == "EVENT TRIGGER" || e.kind == "DEFAULT ACL"
}

// follows reports whether an entry only says more of others: it is made if all of those are.
func (c *chooser) follows(e *entry) bool {
	switch e.kind {
	case "COMMENT", "ACL", "SECURITY LABEL", "INDEX ATTACH", "TABLE ATTACH":
		return true
	case "CONSTRAINT", "CHECK CONSTRAINT", "DEFAULT":
		return c.subject(e) == nil // of a domain or a composite type
	}
	return false
}

// subject returns the table or view that an entry is a part of; nil when it stands by itself.
func (c *chooser) subject(e *entry) *entry {
	byName, deps := false, e.deps
	switch e.kind {
	case "FK CONSTRAINT", "CONSTRAINT", "CHECK CONSTRAINT", "TRIGGER", "POLICY", "RULE", "DEFAULT", "ROW SECURITY":
		byName = true // two tables may be among what it needs
	case "INDEX", "STATISTICS":
	case "SEQUENCE OWNED BY": // which names the sequence, and that the table
		for _, d := range e.deps {
			if q := c.byID[d]; q != nil && q.kind == "SEQUENCE" {
				deps = slices.Concat(deps, q.deps)
			}
		}
	case "SEQUENCE":
		if !ofIdentity(e) {
			return nil
		}
	default:
		return nil
	}
	for _, d := range deps {
		p := c.byID[d]
		if p == nil || !isTable(p) && !isView(p) {
			continue
		}
		if !byName || p.schema == e.schema && (e.name == p.name || strings.HasPrefix(e.name, p.name+" ")) {
			return p
		}
	}
	return nil
}

// ofIdentity reports whether a sequence is part of an identity column, and made with it.
func ofIdentity(e *entry) bool { return !strings.Contains(e.sql, "CREATE SEQUENCE ") }

// belongs reports whether an entry is part of what is chosen already.
func (c *chooser) belongs(e *entry) bool {
	if never(e) {
		return false
	}
	if p := c.subject(e); p != nil {
		return c.in[p.id]
	}
	if c.follows(e) {
		known := 0
		for _, d := range e.deps {
			if c.byID[d] != nil && d != e.id {
				known++
				if !c.in[d] {
					return false
				}
			}
		}
		return known > 0
	}
	return e.kind == "CAST" && slices.ContainsFunc(e.deps, func(d int) bool { return c.in[d] && c.byID[d].kind != "SCHEMA" })
}

// needs returns the entries that one needs by itself. That a sequence goes when a table does is no need of the sequence.
func (c *chooser) needs(e *entry) (list []*entry) {
	for _, d := range e.deps {
		p := c.byID[d]
		if p == nil || p == e || e.kind == "SEQUENCE" && !ofIdentity(e) && (isTable(p) || isView(p)) {
			continue
		}
		list = append(list, p)
	}
	return list
}

// must takes an entry with all that it needs, tables for their structure.
func (c *chooser) must(e *entry) {
	c.in[e.id] = true
	for _, p := range c.needs(e) {
		if !c.in[p.id] {
			c.must(p)
		}
	}
}

// may takes an entry with what it needs, unless that is a table or view that is not chosen.
func (c *chooser) may(e *entry) {
	got := make(map[int]bool)
	missing := c.reach(e, got)
	if e.kind == "FK CONSTRAINT" && missing == nil {
		for _, p := range c.needs(e) { // a table that is there for its structure has no rows to refer to
			if isTable(p) && !c.rows[p.id] && p != c.subject(e) {
				missing = p
			}
		}
	}
	if missing == nil {
		maps.Copy(c.in, got)
		return
	}
	if p := c.subject(e); p != nil {
		c.gone[partName(e.kind, strings.TrimPrefix(e.name, p.name+" "))] = true
	}
	if !c.seen[e.id] {
		c.seen[e.id] = true
		c.left = append(c.left, restore.LeftOut{Object: strings.ToLower(e.kind) + " " + qualified(e), Why: "it needs " + strings.ToLower(missing.kind) + " " + qualified(missing) + ", which is not chosen"})
	}
}

// partName is a part of some table by its kind, in pg_dump's words, and its name.
func partName(kind, name string) string { return kind + " " + name }

// reach follows what an entry needs into got. It returns what of that stands in the way.
func (c *chooser) reach(e *entry, got map[int]bool) (missing *entry) {
	got[e.id] = true
	for _, p := range c.needs(e) {
		if c.in[p.id] || got[p.id] {
			continue
		}
		if isTable(p) || isView(p) {
			return p
		}
		if missing := c.reach(p, got); missing != nil {
			return missing
		}
	}
	return nil
}

// words finds what may be the names that the text of a routine mentions.
func words() *regexp.Regexp {
	return regexp.MustCompile(`[A-Za-z_\x{80}-\x{10FFFF}][\w$\x{80}-\x{10FFFF}]*`)
}

// called takes the routines that the texts of chosen ones seem to call, which no catalog has on record, and names the tables
// that they seem to use.
func (c *chooser) called() {
	routines, tables := make(map[string][]*entry), make(map[string][]*entry)
	for _, e := range c.all {
		switch name, _, _ := strings.Cut(e.name, "("); {
		case c.in[e.id]:
		case isRoutine(e):
			routines[name] = append(routines[name], e)
		case isTable(e):
			tables[name] = append(tables[name], e)
		}
	}
	find := words()
	for _, e := range c.all {
		if !isRoutine(e) || !c.in[e.id] {
			continue
		}
		for _, w := range find.FindAllString(e.sql, -1) {
			for _, f := range routines[w] {
				if !c.in[f.id] {
					c.may(f)
				}
			}
			for _, tab := range tables[w] {
				if !c.seen[tab.id] {
					c.seen[tab.id] = true
					c.left = append(c.left, restore.LeftOut{Object: "table " + qualified(tab), Why: "it is not chosen, and " + strings.ToLower(e.kind) + " " + qualified(e) + " seems to use it"})
				}
			}
		}
	}
}

// names returns the tables whose rows are restored, or those tables and views that only come along.
func (c *chooser) names(rows bool) (names []string) {
	for _, e := range c.all {
		if c.in[e.id] && (isTable(e) && c.rows[e.id] == rows || isView(e) && !rows && !c.named[e.id]) {
			names = append(names, qualified(e))
		}
	}
	slices.Sort(names)
	return names
}

// mentions reports whether a name stands in what is made.
func (c *chooser) mentions(name string) bool {
	return slices.ContainsFunc(c.all, func(e *entry) bool { return c.in[e.id] && strings.Contains(e.sql, strings.ReplaceAll(name, `"`, `""`)) })
}

// close returns names like one that was not found, the closest first.
func (c *chooser) close(text string, of func(*entry) bool, name func(*entry) string) (names []string) {
	const most = 3
	distance := make(map[string]int)
	for _, e := range c.all {
		if !of(e) {
			continue
		}
		full := name(e)
		if d := min(edits(text, full), edits(text, e.name)); d <= max(2, len(text)/4) || strings.HasSuffix(text, "."+e.name) {
			distance[full] = d
		}
	}
	names = slices.SortedFunc(maps.Keys(distance), func(a, b string) int {
		if distance[a] != distance[b] {
			return distance[a] - distance[b]
		}
		return strings.Compare(a, b)
	})
	return names[:min(len(names), most)]
}

// edits counts the letters to put in, take out or change to make one text of another.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := corner
			if a[i] != b[j] {
				cost = min(corner, row[j], row[j+1]) + 1
			}
			corner, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// script returns what of the dump is chosen.
func (c *chooser) script() *script {
	s := &script{preamble: c.of.preamble}
	for _, e := range c.of.pre {
		if c.in[e.id] {
			s.pre = append(s.pre, e)
		}
	}
	for _, e := range c.of.post {
		if c.in[e.id] {
			s.post = append(s.post, e)
		}
	}
	return s
}

// narrow leaves of the schema and the manifest what the plan's selection means.
func (t *Target) narrow() error {
	p := t.job.Plan.Partial
	if p == nil {
		return nil
	}
	c, err := t.schema.choose(&p.Selection)
	if err != nil {
		return err
	}
	chosen := c.script()
	t.schema.pre, t.schema.post = chosen.pre, chosen.post
	there := make(map[string]bool) // tables, views and sequences
	for _, e := range t.schema.pre {
		there[e.schema+"."+e.name] = true
		if isTable(e) && !c.rows[e.id] {
			t.aside = append(t.aside, quote(e.schema, e.name))
		}
	}
	t.chosen, t.others = make(map[uint32]bool), make(map[uint32]bool)
	t.tables = slices.DeleteFunc(t.tables, func(tab table) bool {
		chosen := p.Chosen(tab.Schema, tab.Name)
		switch {
		case tab.Unnumbered: // rows tell by the name whose they are
		case chosen:
			t.chosen[tab.OID] = true
		default:
			t.others[tab.OID] = true
		}
		return !chosen
	})
	t.gone = c.gone
	e := &t.engine
	e.Roles = slices.DeleteFunc(e.Roles, func(r string) bool { return !c.mentions(r) })
	e.MatViews = slices.DeleteFunc(e.MatViews, func(n pgbase.Name) bool { return !there[n.Schema+"."+n.Name] })
	e.Sequences = slices.DeleteFunc(e.Sequences, func(s pgbase.Sequence) bool { return !there[s.Schema+"."+s.Name.Name] })
	extensions := make(map[string]bool)
	for _, x := range t.schema.pre {
		extensions[x.name] = extensions[x.name] || x.kind == "EXTENSION"
	}
	e.Extensions = slices.DeleteFunc(e.Extensions, func(x pgbase.Extension) bool { return !extensions[x.Name] })
	for _, l := range p.LeftOut {
		t.warn("left out: %s: %s", l.Object, l.Why)
	}
	return nil
}
