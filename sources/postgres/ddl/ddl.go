// Package ddl is the log of definitions that a PostgreSQL source keeps of itself: the SQL that makes it, what a row of it
// says, and how one catalog is compared with another. The source writes it, the restore carries it out again.
package ddl

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"txreel/change"
)

// Schema and Table name the log in a source.
const (
	Schema = "txreel"
	Table  = "ddl_log"
)

// Function is what the event triggers call.
const Function = "txreel.on_ddl()"

// Triggers returns the event triggers. They are ENABLE ALWAYS, or a session with session_replication_role =
// replica would change the schema unseen.
func Triggers() []Trigger {
	return []Trigger{{"txreel_ddl", "ddl_command_end"}, {"txreel_drop", "sql_drop"}, {"txreel_rewrite", "table_rewrite"}}
}

// Trigger is an event trigger.
type Trigger struct{ Name, Event string }

//go:embed log.sql
var logSQL string

//go:embed describe.sql
var describeSQL string

// Describe returns the functions that say what an object of the catalog is, to be made in a schema that exists.
func Describe(schema string) string { return strings.ReplaceAll(describeSQL, "{schema}", schema) }

// Install returns the script that makes the log and what writes it, or brings an older one up to date; the event triggers
// are not part of it. In a server whose messages are not English the functions that a command came through cannot be
// read off its context: pin makes the server speak English for the moment, which takes a superuser.
func Install(pin bool) string {
	messages := ""
	if pin {
		messages = "SET lc_messages = 'C'"
	}
	return strings.NewReplacer("{describe}", Describe(Schema), "{messages}", messages, "{version}", Version()).Replace(logSQL)
}

// Mark is how the comment of a Function of ours begins.
const Mark = "txreel: writes the log of definitions, "

// Version tells one Install from another; the comment of Function bears it.
func Version() string {
	sum := sha256.Sum256([]byte(logSQL + describeSQL))
	return Mark + hex.EncodeToString(sum[:8])
}

// Is reports whether a table is the log.
func Is(schema, name string) bool { return schema == Schema && name == Table }

// Event is what wrote a row.
type Event string

// The events.
const (
	End     Event = "end"     // a command has ended
	Drop    Event = "drop"    // a command has dropped objects; its End follows
	Rewrite Event = "rewrite" // a command is about to rewrite a table; its End follows
	Failed  Event = "failed"  // a command has ended, and the log could not be written as it should: Context says why
)

// Entry is a row of the log.
type Entry struct {
	ID       string
	Event    Event
	Tag      string // of the command
	Login    string
	Role     string            // what SET ROLE had made of it, or none
	Settings map[string]string // what decides how the statement is understood
	Query    string            // all that the client sent
	Context  string            // see Statement
	Objects  []Object
}

// Object is what a command touched.
type Object struct {
	// Type, Names and Args are what pg_get_object_address takes. They are empty for what the server does not name: GRANT, ALTER DEFAULT PRIVILEGES.
	Type     string   `json:"type"`
	Names    []string `json:"names"`
	Args     []string `json:"args"`
	Kind     string   `json:"kind"`
	Identity string   `json:"identity"` // as it is written in SQL
	Tag      string   `json:"tag"`      // End: the part of the command that touched it
	Original bool     `json:"original"` // Drop: it was named, and not dropped because of another
	Reason   int      `json:"reason"`   // Rewrite: see Rewritten…
	// State is what describe() says of it; null for what is gone.
	State json.RawMessage `json:"state"`
	// Missing has the values that rows get which were there before the column was, as array literals of one element.
	Missing map[string]string `json:"missing"`
}

// Reasons for which tables are rewritten, from the server's event_trigger.h; they are bits.
const (
	RewrittenPersistence = 1 // SET LOGGED or UNLOGGED
	RewrittenDefault     = 2 // a column with a default that is not the same for all rows
	RewrittenType        = 4 // another type of a column
	RewrittenMethod      = 8 // another access method
)

// Read returns the entry that an event of the log's table adds; false if it adds none.
func Read(ev *change.Event) (e Entry, ok bool, err error) {
	if ev.Op != change.OpInsert || !Is(ev.Relation.Schema, ev.Relation.Name) {
		return e, false, nil
	}
	for i, c := range ev.Relation.Columns {
		v := ev.New[i]
		if v.State != change.Text {
			continue
		}
		text := string(v.Bytes)
		if !utf8.ValidString(text) { // which json would change without a word
			return e, false, fmt.Errorf("row %s of %s.%s: column %s is not in UTF-8, as the database is not: restore to a point before it, or to one behind the next base snapshot", e.ID, Schema, Table, c.Name)
		}
		switch c.Name {
		case "id":
			e.ID = text
		case "event":
			e.Event = Event(text)
		case "tag":
			e.Tag = text
		case "login":
			e.Login = text
		case "role":
			e.Role = text
		case "settings":
			err = json.Unmarshal(v.Bytes, &e.Settings)
		case "query":
			e.Query = text
		case "context":
			e.Context = text
		case "objects":
			err = json.Unmarshal(v.Bytes, &e.Objects)
		}
		if err != nil {
			return e, false, fmt.Errorf("row %s of %s.%s: column %s: %w", e.ID, Schema, Table, c.Name, err)
		}
	}
	switch e.Event {
	case End, Drop, Rewrite, Failed:
		return e, true, nil
	}
	return e, false, fmt.Errorf("row %s of %s.%s has event %q, which this version does not know", e.ID, Schema, Table, e.Event)
}

// Texts returns what may be the text of the entry's command, the innermost first: that of a statement in a function, as
// the server's context quotes it, where the command came through one, or all that the client sent. Each may hold several statements, of which the
// command is one. A statement of a function in SQL is not quoted there: function and number say which one it is.
func (e *Entry) Texts() (texts []string, function string, number int) {
	_, rest, nested := strings.Cut(e.Context, "\n") // the first line is our own function
	if !nested {
		return []string{e.Query}, "", 0
	}
	const sql = "SQL statement \""
	if rest, ok := strings.CutPrefix(rest, sql); ok {
		// The text is quoted as it is: every quote at the end of a line may be its end.
		for i := 0; i < len(rest); i++ {
			if rest[i] == '"' && (i+1 == len(rest) || rest[i+1] == '\n') {
				texts = append(texts, rest[:i])
			}
		}
		return texts, "", 0
	}
	// The name is quoted as it is, too.
	if rest, ok := strings.CutPrefix(rest, "SQL function \""); ok {
		const statement = "\" statement "
		line, _, _ := strings.Cut(rest, "\n")
		if i := strings.LastIndex(line, statement); i >= 0 {
			if number, err := strconv.Atoi(line[i+len(statement):]); err == nil {
				return nil, line[:i], number
			}
		}
	}
	return nil, "", 0
}

// Owner returns the role that what the command made belongs to; "" when it made nothing that belongs to anybody.
func (e *Entry) Owner() string {
	for i := range e.Objects {
		var s struct {
			Is struct{ Owner string }
		}
		if json.Unmarshal(e.Objects[i].State, &s) == nil && s.Is.Owner != "" { // not every state is an object
			return s.Is.Owner
		}
	}
	return ""
}

// Persistence returns what the command has made of a relation: p for one that is logged; "" when it does not say.
func (e *Entry) Persistence(o *Object) string {
	for i := range e.Objects {
		var s struct {
			Is struct{ Persistence string }
		}
		if strings.Join(e.Objects[i].Names, "\x00") == strings.Join(o.Names, "\x00") && json.Unmarshal(e.Objects[i].State, &s) == nil {
			return s.Is.Persistence
		}
	}
	return ""
}
