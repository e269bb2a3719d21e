package binlog

import (
	"fmt"

	"txreel/sources/mysql/gtid"
)

// Place tells where an event stands among the groups of a log. A group is a
// transaction, or a statement that is one by itself.
type Place uint8

// The places.
const (
	// Frame is an event that belongs to the log, not to a group; see Type.Frames.
	Frame Place = iota + 1
	// Stray is any other event outside of a group: of a type this build does not know, of one
	// that may be ignored, an INCIDENT, or a statement without the event that opens a group.
	Stray
	// Begins is the event that opens a group.
	Begins
	// Inside is an event of the open group.
	Inside
	// Ends is the last event of the open group.
	Ends
)

// String returns the place's name.
func (p Place) String() string {
	switch p {
	case Frame:
		return "frame"
	case Stray:
		return "stray"
	case Begins:
		return "begins"
	case Inside:
		return "inside"
	case Ends:
		return "ends"
	}
	return fmt.Sprintf("place %d", uint8(p))
}

// state is where in a group the Grouper is.
type state uint8

const (
	outside state = iota
	opened        // behind the GTID event
	before        // behind an event that prepares the one statement of the group
	within        // behind BEGIN: only an end marker ends it
	alone         // MariaDB: behind the GTID event of a standalone group
)

// Grouper finds the groups of a log by the rules of the server that wrote it. It is
// shown every event in order. The zero value is ready.
type Grouper struct {
	// Group is the open group, or the last one.
	Group Group
	state state
}

// Open reports whether a group is open.
func (g *Grouper) Open() bool { return g.state != outside }

// Reset forgets an open group, as at the beginning of a connection.
func (g *Grouper) Reset() { g.state = outside }

// Next says where the event stands. Torn means that the open group, which Group
// described until now, never ended: another began, or another file. No server writes that
// into its log, but one that crashed may have left it there, and a connection
// may have lost the rest. An error means that an event that opens a group cannot be read.
func (g *Grouper) Next(e *Event) (place Place, torn bool, err error) {
	if e.Type.Begins() {
		torn = g.Open()
		g.state = outside
		if g.Group, err = ParseGroup(e); err != nil {
			return Stray, torn, err
		}
		g.state = opened
		if g.Group.Flags&FLStandalone != 0 {
			g.state = alone
		} else if g.Group.GTID.Flavor == gtid.MariaDB {
			g.state = within
		}
		return Begins, torn, nil
	}
	if e.Type.Frames() {
		switch e.Type {
		case TypeFormatDescription, TypeRotate, TypeStop: // a group is whole within one file
			torn = g.Open()
			g.state = outside
		}
		return Frame, torn, nil
	}
	if g.state == outside {
		return Stray, false, nil
	}
	g.state = g.after(e)
	if g.state == outside {
		return Ends, false, nil
	}
	return Inside, false, nil
}

// after returns the state behind an event of the open group.
func (g *Grouper) after(e *Event) state {
	if e.Type == TypeIncident { // it ends the group that lets replicas skip it
		return outside
	}
	switch {
	case g.state == alone:
		return g.afterAlone(e)
	case g.Group.GTID.Flavor == gtid.MariaDB:
		return g.afterMariaDB(e)
	}
	return g.afterMySQL(e)
}

// afterMySQL follows the state machine that MySQL's own receivers use
// (Transaction_boundary_parser).
func (g *Grouper) afterMySQL(e *Event) state {
	switch e.Type {
	case TypeXID, TypeXAPrepare, TypeTransactionPayload:
		return outside
	case TypeQuery:
		return g.afterQuery(queryText(e))
	case TypeIntvar, TypeRand, TypeUserVar:
		if g.state == opened {
			return before
		}
	case TypeTableMap, TypeWriteRows, TypeUpdateRows, TypeDeleteRows, TypePartialUpdateRows, TypeWriteRowsV1, TypeUpdateRowsV1,
		TypeDeleteRowsV1, TypeBeginLoadQuery, TypeAppendBlock, TypeExecuteLoadQuery:
		return within // servers write them behind BEGIN only
	}
	return g.state
}

func (g *Grouper) afterQuery(text []byte) state {
	switch {
	case string(text) == "BEGIN" || hasPrefix(text, "XA START"):
		return within
	case string(text) == "COMMIT", hasPrefix(text, "ROLLBACK") && !hasPrefix(text, "ROLLBACK TO "), hasPrefix(text, "XA ROLLBACK"):
		return outside
	case g.state == within:
		return within
	}
	return outside // a statement that is the whole group
}

// afterMariaDB follows what MariaDB's receivers do: only a commit, a rollback or a prepare
// ends a group that is not standalone.
func (g *Grouper) afterMariaDB(e *Event) state {
	switch e.Type {
	case TypeXID, TypeXAPrepare:
		return outside
	case TypeQuery:
		if text := string(queryText(e)); text == "COMMIT" || text == "ROLLBACK" {
			return outside
		}
	}
	return g.state
}

// afterAlone waits for the one statement of a standalone group of MariaDB, and passes what
// prepares it.
func (g *Grouper) afterAlone(e *Event) state {
	switch e.Type {
	case TypeIntvar, TypeRand, TypeUserVar, TypeTableMap, TypeAnnotateRows, TypeBeginLoadQuery, TypeAppendBlock, TypeDeleteFile:
		return alone
	}
	return outside
}
