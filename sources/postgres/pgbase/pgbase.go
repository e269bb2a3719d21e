// Package pgbase is the PostgreSQL part of a base's manifest: the source writes
// it, the restore reads it.
package pgbase

import "txreel/change"

// SchemaObject is the name of the object that holds the schema: the output of
// pg_dump --format=custom --schema-only under the base's snapshot.
const SchemaObject = "schema.dump"

// LargeObjects and LargeObjectPages are the names of the objects that hold the large objects, if there are any, in COPY's text
// format compressed with zstd: of each its number, owner, privileges and comment; of each page its object's number, the byte it begins at,
// and what it holds.
const (
	LargeObjects     = "large-objects.copy.zst"
	LargeObjectPages = "large-object-pages.copy.zst"
)

// Engine is archive.Base.Engine of a PostgreSQL base.
type Engine struct {
	ServerVersion int         `json:"server_version"` // server_version_num
	Encoding      string      `json:"encoding"`       // server_encoding; data chunks are in it
	Collate       string      `json:"collate"`
	Ctype         string      `json:"ctype"`
	Roles         []string    `json:"roles"` // owners and grantees that the schema names
	Extensions    []Extension `json:"extensions"`
	Sequences     []Sequence  `json:"sequences"`
	MatViews      []Name      `json:"matviews"` // those that were populated
	// Publications are the OIDs of txreel's own publication (pg_publication), which a
	// restored database must not have.
	Publications []uint32 `json:"publications"`
	// Definitions is what the base has to know of the source's log of definitions.
	Definitions Definitions `json:"definitions"`
	// Globals are roles, settings and the like; nil where they could not be read.
	Globals *Globals `json:"globals,omitempty"`
	// Snapshot is what the base's snapshot saw (pg_snapshot); "" where that is not known.
	Snapshot string `json:"snapshot,omitempty"`
	// Visible says how the transactions were told that the base holds, where that was by what its snapshot saw; nil where a slot told.
	Visible *Visible `json:"visible,omitempty"`
	// Slot is why a slot told.
	Slot string `json:"slot,omitempty"`
}

// Visible is what is known of a base whose transactions were told by what its snapshot saw.
type Visible struct {
	// Since is the last transaction that an earlier base is known to hold, and so this one: those behind it were asked for one by one.
	Since change.Seq `json:"since"`
}

// Definitions says whether the source wrote down changes of its schema when the base was taken, and which of them the base
// holds: those of transactions that its snapshot sees (pg_snapshot).
type Definitions struct {
	Logged   bool   `json:"logged"`
	Snapshot string `json:"snapshot,omitempty"`
}

// Name is a qualified name, unquoted.
type Name struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

// Extension is an installed extension.
type Extension struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Sequence is a sequence and its state, read after the base's snapshot was taken.
type Sequence struct {
	Name
	Last      int64  `json:"last"`
	Called    bool   `json:"called"`
	Increment int64  `json:"increment"`
	OwnerOf   *Owner `json:"owner,omitempty"`
}

// Owner is the column that a sequence belongs to.
type Owner struct {
	Name
	Column string `json:"column"`
}

// Table is archive.BaseTable.Engine of a PostgreSQL base. Chunks hold the columns
// Columns in that order, in COPY's text format, compressed with zstd.
type Table struct {
	// OID is the number by which the record knows the table.
	OID uint32 `json:"oid"`
	// Unnumbered tells that nobody knows that number, since no row has come for the table; OID is one that no other table of the base has. The
	// record knows the table by its name.
	Unnumbered bool `json:"unnumbered,omitempty"`
	// Columns are those that data is kept of: all but dropped and generated ones.
	Columns []Column `json:"columns"`
	// Member tells that the table belongs to an extension: once the schema is there
	// the table is, perhaps with rows in it.
	Member bool `json:"member,omitempty"`
	// Unpublished tells that the publication did not have the table: the record holds no change of it.
	Unpublished bool `json:"unpublished,omitempty"`
	// Identity is pg_class.relreplident: d, n, f or i.
	Identity string `json:"identity"`
	// Key names the columns of the primary key, or else of the replica identity
	// index; empty for a table without either.
	Key []string `json:"key"`
	// KeyConstraint and KeyIndex are the OIDs of the constraint (pg_constraint; 0 for
	// a bare index) and of the index behind Key, as pg_restore --list shows them.
	KeyConstraint uint32 `json:"key_constraint,omitempty"`
	KeyIndex      uint32 `json:"key_index,omitempty"`
}

// Column is a column of a Table.
type Column struct {
	Name           string `json:"name"`
	Type           string `json:"type"` // format_type, schema-qualified
	IdentityAlways bool   `json:"identity_always,omitempty"`
}
