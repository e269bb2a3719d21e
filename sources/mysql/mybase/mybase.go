// Package mybase is the MySQL and MariaDB part of a base's manifest and of what the
// base stores: the source writes it, the restore and the audit read it.
package mybase

// The names of a base's objects besides the tables' chunks. Both are a JSON document,
// compressed with zstd.
const (
	// SchemaObject holds a Schema.
	SchemaObject = "schema.json.zst"
	// AccountsObject holds Accounts.
	AccountsObject = "accounts.json.zst"
)

// Rule says by what the snapshot is known to be the database at exactly the base's
// position.
type Rule string

// The rules.
const (
	// RuleLogStatus is MySQL's: performance_schema.log_status names position and GTID set
	// together, and the log had not moved when all sessions had their view.
	RuleLogStatus Rule = "log_status"
	// RuleGTIDBracket is MySQL's where log_status cannot be read: neither the log nor
	// gtid_executed moved while the sessions took their views, and the record shows that the
	// set is all the log held at that place.
	RuleGTIDBracket Rule = "gtid bracket"
	// RuleAligned is MariaDB's: each session knows the place in the log of its own view, and
	// all are the same.
	RuleAligned Rule = "aligned snapshots"
	// RuleReadLock is both's: FLUSH TABLES WITH READ LOCK held commits back for the moment.
	RuleReadLock Rule = "read lock"
	// RuleRestored is that of a base that was read from another server than the source, into which the record had been
	// restored, and nothing else.
	RuleRestored Rule = "restored"
)

// Engine is archive.Base.Engine of a MySQL or MariaDB base.
type Engine struct {
	Flavor  string `json:"flavor"` // mysql or mariadb
	Version string `json:"version"`
	Number  int    `json:"version_number"` // 80045 for 8.0.45, 101119 for 10.11.19
	Rule    Rule   `json:"rule"`
	// File and Offset are the snapshot's place in the source's binlog.
	File   string `json:"file"`
	Offset uint64 `json:"offset"`
	// DefinedUntil and ReadUntil are the GTID sets of the source when the last definition and
	// the last row had been read. Up to the first, a statement of the record behind the base
	// that changes a definition makes the base worthless; up to the second, one that
	// gives a table another's name does.
	DefinedUntil string `json:"defined_until"`
	ReadUntil    string `json:"read_until"`
	// What a target must have in common with the source.
	LowerCaseTableNames int    `json:"lower_case_table_names"`
	PageSize            int    `json:"innodb_page_size"`
	Charset             string `json:"character_set_server"`
	Collation           string `json:"collation_server"`
	// Events are the states that scheduled events had, since a replica cannot keep them.
	Events []EventState `json:"events"`
}

// EventState is an event of the scheduler and whether it ran.
type EventState struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	Status string `json:"status"` // ENABLED, DISABLED, SLAVESIDE_DISABLED or REPLICA_SIDE_DISABLED
}

// Table is archive.BaseTable.Engine. A chunk is lines, one a row, of the columns that
// have a Form, in that order, as AppendValue writes them.
type Table struct {
	Engine string `json:"engine"`
	// Transactional tells that the rows are those of the base's snapshot. Those of other
	// tables are of the moment they were read at.
	Transactional bool `json:"transactional"`
	// Versioned tells that the rows are all that FOR SYSTEM_TIME ALL shows.
	Versioned bool     `json:"versioned,omitempty"`
	Columns   []Column `json:"columns"`
}

// Form says how a column's value stands in a chunk.
type Form string

// The forms.
const (
	// FormNone is that of a generated column: the chunk does not have it.
	FormNone Form = ""
	// FormBytes is the server's text, characters in the column's own character set.
	FormBytes Form = "bytes"
	// FormText is text in UTF-8 that the server must convert.
	FormText Form = "text"
	// FormNumber is the number behind an ENUM or SET.
	FormNumber Form = "number"
	// FormReal is a number in text that reads back as the same bits.
	FormReal Form = "real"
	// FormDouble is a number in text that reads back as the same bits, or, where the server
	// would cut its digits, x and the eight bytes of it, little-endian, in hexadecimal.
	FormDouble Form = "double"
)

// Column is a column of a table, in the table's order.
type Column struct {
	Name      string `json:"name"`
	Type      string `json:"type"` // COLUMN_TYPE of the information schema
	Charset   string `json:"charset,omitempty"`
	Collation string `json:"collation,omitempty"`
	Key       string `json:"key,omitempty"` // COLUMN_KEY: PRI, UNI or MUL
	Generated bool   `json:"generated,omitempty"`
	Invisible bool   `json:"invisible,omitempty"`
	// Implicit marks row_start and row_end of a table that does not declare them.
	Implicit bool `json:"implicit,omitempty"`
	Form     Form `json:"form,omitempty"`
}
