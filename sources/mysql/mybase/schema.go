package mybase

import (
	"encoding/json"
	"unicode/utf8"
)

// Schema is every definition of the server. Within a list, definitions stand in an
// order they can be made in, except that views may need views that follow.
type Schema struct {
	Databases []Database   `json:"databases"`
	Tables    []Definition `json:"tables"`
	Sequences []Sequence   `json:"sequences,omitempty"`
	Routines  []Definition `json:"routines,omitempty"` // and packages, before their bodies
	Views     []Definition `json:"views,omitempty"`
	Triggers  []Definition `json:"triggers,omitempty"` // of a table, in the order they fire
	Events    []Definition `json:"events,omitempty"`
}

// Database is what SQL calls a schema.
type Database struct {
	Name string `json:"name"`
	SQL  string `json:"sql"` // CREATE DATABASE
}

// Definition is an object and the statement that makes it, together with the
// settings of the session that has to run it: they are part of its meaning.
type Definition struct {
	Kind   string `json:"kind"` // table, view, procedure, function, package, package body, trigger, event
	Schema string `json:"schema"`
	Name   string `json:"name"`
	Table  string `json:"table,omitempty"` // a trigger's
	SQL    Text   `json:"sql"`
	// Mode is the sql_mode, Client character_set_client, which SQL is in, Connection
	// collation_connection and Database the collation of the database when it was made. They
	// are empty for tables; Mode is for views.
	Mode       *string `json:"sql_mode,omitempty"`
	Client     string  `json:"character_set_client,omitempty"`
	Connection string  `json:"collation_connection,omitempty"`
	Database   string  `json:"database_collation,omitempty"`
	// Zone is an event's time zone, and Altered when it was last altered, in seconds since 1970.
	Zone    string `json:"time_zone,omitempty"`
	Altered int64  `json:"altered,omitempty"`
	// Broken tells that the object does not work in the source either.
	Broken bool `json:"broken,omitempty"`
}

// Sequence is a sequence of MariaDB and its row.
type Sequence struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	SQL    string `json:"sql"`
	// Values are the columns of its row in their order, next_not_cached_value first.
	Values []string `json:"values"`
}

// Accounts are the users and roles of the server.
type Accounts struct {
	Accounts []Account `json:"accounts"`
	// Missing says why the list is not whole; "" when it is.
	Missing string `json:"missing,omitempty"`
}

// Account is a user or a role.
type Account struct {
	User   string   `json:"user"`
	Host   string   `json:"host"` // "" for a role of MariaDB
	Role   bool     `json:"role,omitempty"`
	Create string   `json:"create,omitempty"` // CREATE USER, with the hash of the password
	Grants []string `json:"grants,omitempty"`
}

// Text is SQL in a character set of its own. It is a string in JSON, unless it is not
// valid UTF-8: then it is an object with the base64 of its bytes.
type Text string

type bareText struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON encodes the text.
func (t Text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal(bareText{[]byte(t)})
}

// UnmarshalJSON decodes what MarshalJSON wrote.
func (t *Text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var bare bareText
		err := json.Unmarshal(b, &bare)
		*t = Text(bare.Base64)
		return err
	}
	var s string
	err := json.Unmarshal(b, &s)
	*t = Text(s)
	return err
}
