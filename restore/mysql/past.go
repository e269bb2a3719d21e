package mysql

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"txreel/change"
	"txreel/sources/mysql/mybase"
)

// tableName is a table's.
type tableName struct{ schema, name string }

// fold is the name without its case, since a statement may write it otherwise than the server stores it.
func (n tableName) fold() tableName {
	return tableName{strings.ToLower(n.schema), strings.ToLower(n.name)}
}

// past says what the transactions between base and cut have done to tables, as far as the index of the record tells.
// What it does not tell, foreign keys that cascade, statements that change rows, leaves doubt; and where there is doubt,
// nothing is claimed of a table.
type past struct {
	mariadb bool
	folds   bool // names have no case
	// sound reports whether a table is one of the base's, with transactions.
	sound func(tableName) bool

	any      string // why any table may have changed; "" if none of this kind has come
	touched  map[tableName]bool
	added    map[tableName]int64 // inserts less deletes, by row events
	unsure   map[tableName]bool  // added may be wrong
	named    map[tableName]bool  // by statements that change definitions, without case
	schemas  map[string]bool     // that were dropped, without case
	prepared bool                // an XA transaction was prepared or decided: what was added when is unsure
}

func newPast(mariadb, folds bool, sound func(tableName) bool) *past {
	return &past{mariadb: mariadb, folds: folds, sound: sound, touched: make(map[tableName]bool), added: make(map[tableName]int64),
		unsure: make(map[tableName]bool), named: make(map[tableName]bool), schemas: make(map[string]bool)}
}

// soundTables returns what tells the tables of the base of which it has the rows as of its own place in the log, and of which
// each event changes the rows that it speaks of and no others.
func (t *Target) soundTables() func(tableName) bool {
	sound := make(map[tableName]bool)
	folds := t.engine.LowerCaseTableNames != 0
	for i := range t.job.Plan.Base.Tables {
		tab := &t.job.Plan.Base.Tables[i]
		var columns mybase.Table
		if json.Unmarshal(tab.Engine, &columns) == nil && columns.Transactional && !columns.Versioned { // a manifest that is damaged is refused elsewhere
			n := tableName{tab.Schema, tab.Name}
			if folds {
				n = n.fold()
			}
			sound[n] = true
		}
	}
	return func(n tableName) bool { return sound[n] }
}

// add takes a transaction of the replay.
func (h *past) add(t *change.Txn) {
	if t.Kind != change.TxnSource {
		return
	}
	mixed := false // MariaDB logs what was rolled back together with what could not be
	for i := range t.Tables {
		mixed = mixed || h.mariadb && !h.sound(h.nameOf(t.Tables[i].Table))
	}
	for i := range t.Tables {
		c := &t.Tables[i]
		n := h.nameOf(c.Table)
		h.touched[n] = true
		h.added[n] += int64(c.Inserts) - int64(c.Deletes)
		if mixed || c.Truncates > 0 {
			h.unsure[n] = true
		}
	}
	const empty = 3 // events of a transaction of MySQL's with nothing in it
	switch {
	case t.Note != "":
		h.statement(t)
	case len(t.Tables) == 0 && (h.mariadb || t.Messages != empty):
		h.doubt(t, "it does what the index does not tell")
	}
}

func (h *past) nameOf(t *change.Table) tableName { return h.key(tableName{t.Schema, t.Name}) }

// key is what a table is known by.
func (h *past) key(n tableName) tableName {
	if h.folds {
		return n.fold()
	}
	return n
}

func (h *past) doubt(t *change.Txn, why string) {
	if h.any == "" {
		h.any = fmt.Sprintf("transaction %s: %s", t.Seq, why)
	}
}

// statement takes a transaction that holds a statement. The note is its beginning, and the transaction may hold others
// unless the statement is one that ends transactions by itself.
func (h *past) statement(t *change.Txn) {
	if strings.HasPrefix(t.Note, "XA ") {
		h.prepared = true
		return
	}
	l := lexer{text: t.Note}
	schema := ""
	if l.accept("USE") {
		schema = l.next()
		l.next() // ;
	}
	s := parseStatement(&l)
	whole := !strings.HasSuffix(t.Note, "…") && !strings.Contains(t.Note, `\`)
	legible := !strings.Contains(t.Note, "<redacted>")
	for i := range s.tables {
		if s.tables[i].schema == "" {
			s.tables[i].schema = schema
		}
		// What is no UTF-8 or cannot be printed is replaced in notes.
		legible = legible && !strings.ContainsAny(s.tables[i].schema+s.tables[i].name, "? ")
	}
	switch {
	case s.harmless, s.temporary && t.Messages == 2: // nothing beside it
	case s.schema != "":
		h.schemas[strings.ToLower(s.schema)] = true
	case len(s.tables) == 0 || s.more && !whole || !legible:
		h.doubt(t, "it holds a statement whose effects are not certain: "+t.Note)
	}
	for _, n := range s.tables {
		h.named[n.fold()] = true
	}
}

// statementEffect is which tables' rows a statement may change.
type statementEffect struct {
	harmless  bool // none
	temporary bool // none that lasts
	schema    string
	tables    []tableName
	more      bool // what was not read of it may name others
}

// parseStatement reads what is certain of a statement; the zero effect is that of every other.
func parseStatement(l *lexer) (s statementEffect) {
	object := func() string { // what is created, altered or dropped
		l.accept("OR", "REPLACE")
		for range 100 {
			w := l.word()
			switch w {
			case "TABLE", "DATABASE", "SCHEMA", "TEMPORARY":
				if l.quoted {
					return ""
				}
				return w
			case "USER", "ROLE", "VIEW", "PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "SERVER", "PACKAGE", "INDEX", "SEQUENCE":
				if l.quoted {
					return ""
				}
				return "HARMLESS"
			case "":
				return ""
			}
		}
		return ""
	}
	table := func() {
		var n tableName
		if n.schema, n.name = l.qualified(); n.name != "" {
			s.tables = append(s.tables, n)
		}
	}
	switch verb := l.word(); verb {
	case "GRANT", "REVOKE", "ANALYZE", "OPTIMIZE", "FLUSH":
		s.harmless = true
	case "SET":
		s.harmless = l.accept("PASSWORD") || l.accept("DEFAULT", "ROLE")
	case "CREATE", "ALTER", "DROP":
		switch object() {
		case "HARMLESS":
			s.harmless = true
		case "DATABASE", "SCHEMA":
			if s.harmless = verb != "DROP"; !s.harmless {
				l.accept("IF", "EXISTS")
				s.schema = l.name()
			}
		case "TEMPORARY":
			s.temporary = true
		case "TABLE":
			l.accept("IF", "NOT", "EXISTS")
			l.accept("IF", "EXISTS")
			table()
			switch verb {
			case "ALTER":
				s.more = true
				if !alterStays(l) {
					return statementEffect{}
				}
			case "DROP":
				s.more = true
				for l.accept(",") {
					table()
				}
			}
		}
	case "TRUNCATE":
		l.accept("TABLE")
		table()
	case "RENAME":
		switch {
		case l.accept("USER"):
			s.harmless = true
		case l.accept("TABLE"), l.accept("TABLES"):
			s.more = true
			l.accept("IF", "EXISTS")
			for table(); l.accept("TO") || l.accept(","); table() {
			}
			if l.next() != "" {
				return statementEffect{}
			}
		}
	}
	return s
}

// alterStays reports whether what follows in ALTER TABLE concerns no other table.
func alterStays(l *lexer) bool {
	for before := ""; ; {
		w := l.word()
		switch {
		case w == "":
			return true
		case l.quoted:
			w = ""
		case w == "EXCHANGE", w == "CONVERT" && l.peek() != "TO": // MariaDB makes tables of partitions
			return false
		case w == "RENAME":
			next := strings.ToUpper(l.peek())
			if !slices.Contains([]string{"COLUMN", "INDEX", "KEY"}, next) {
				return false
			}
		case w == "TABLE" && (before == "WITH" || before == "TO"):
			return false
		}
		before = w
	}
}

// spread marks what foreign keys may have changed: the tables that refer to one which may be another than at the base.
// links goes from a table to those that refer to it in such a way that a change there changes them.
func (h *past) spread(links map[tableName][]tableName) {
	var queue []tableName
	for n := range links {
		if !h.untouched(n) {
			queue = append(queue, n)
		}
	}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		for _, child := range links[n] {
			h.unsure[child] = true
			if !h.touched[child] {
				h.touched[child] = true
				queue = append(queue, child)
			}
		}
	}
}

// untouched reports whether a table is as it was at the base.
func (h *past) untouched(n tableName) bool { return !h.touched[h.key(n)] && h.sameTable(n) }

// sameTable reports whether no statement can have changed the table.
func (h *past) sameTable(n tableName) bool {
	f := n.fold()
	return h.any == "" && !h.named[f] && !h.schemas[f.schema]
}

// rows returns how many rows a table has that had some at the base, if that is certain.
func (h *past) rows(n tableName, atBase int64) (int64, bool) {
	n = h.key(n)
	return atBase + h.added[n], h.sound(n) && h.sameTable(n) && !h.unsure[n] && (!h.prepared || !h.touched[n])
}
