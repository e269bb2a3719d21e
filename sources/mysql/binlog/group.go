package binlog

import (
	"encoding/binary"
	"math/bits"

	"txreel/change"
	"txreel/sources/mysql/gtid"
)

// Group is what the event that opens a group of events says of it: a GTID,
// ANONYMOUS_GTID or GTID_TAGGED event of MySQL, or a GTID event of MariaDB.
type Group struct {
	// GTID is zero if the transaction is anonymous.
	GTID      gtid.GTID
	Anonymous bool
	Timestamp uint32 // of the header: seconds since 1970

	// MySQL.
	MayBeStatements bool // the group may hold statements, not only rows
	LastCommitted   int64
	SequenceNumber  int64
	// ImmediateCommit is when the server that sent the event committed it, and OriginalCommit
	// when the server did that ran it first; zero where that is unknown.
	ImmediateCommit change.Time
	OriginalCommit  change.Time
	Length          uint64 // of the whole group in bytes, this event included; 0 where unknown
	ServerVersion   uint32 // of the server that sent it, such as 90704; 0 where unknown
	OriginalVersion uint32 // of the server that ran it first

	// MariaDB.
	Flags     uint8  // FL_…
	FlagsMore uint8  // FLX_…
	CommitID  uint64 // equal for what was committed together; 0 where there is none
	ThreadID  uint32 // the connection that ran it, if FLXThreadID is set
	// AlterID is the sequence number of the transaction that started the ALTER which this one
	// commits or rolls back.
	AlterID uint64
	XAID    XAID // if FLPreparedXA or FLCompletedXA is set; aliases the event
}

// XAID is the id of an XA transaction.
type XAID struct {
	Format   uint32
	Global   []byte
	Branch   []byte
	OnePhase bool // XA_PREPARE events: it is a commit in one phase
}

// Flags of MariaDB's GTID event.
const (
	FLStandalone    uint8 = 1 << iota // no event ends the group: one statement is all of it
	FLGroupCommitID                   // CommitID is set
	FLTransactional                   // it can be rolled back
	FLAllowParallel
	FLWaited
	FLDDL
	FLPreparedXA
	FLCompletedXA
)

// Further flags of MariaDB's GTID event (10.8 and later).
const (
	FLXMultiEngine   uint8 = 1 << iota
	FLXStartAlter          // the group is the first half of an ALTER in two phases
	FLXCommitAlter         // the group ends an ALTER that AlterID started
	FLXRollbackAlter       // the group takes back an ALTER that AlterID started
	FLXThreadID            // ThreadID is set (11.5 and later)
)

// CommitTime returns when the group was committed, as exactly as the event says: in
// microseconds for MySQL, and for MariaDB in whole seconds when its first statement
// began.
func (g *Group) CommitTime() change.Time {
	if g.ImmediateCommit != 0 {
		return g.ImmediateCommit
	}
	return change.Time(g.Timestamp) * 1_000_000
}

// Begins reports whether an event of this type opens a group.
func (t Type) Begins() bool {
	switch t {
	case TypeGTID, TypeAnonymousGTID, TypeGTIDTagged, TypeMariaDBGTID:
		return true
	}
	return false
}

// ParseGroup reads an event that opens a group. It allocates nothing.
func ParseGroup(e *Event) (Group, error) {
	g := Group{Timestamp: e.Timestamp}
	r := reader{b: e.Body}
	switch e.Type {
	case TypeGTID, TypeAnonymousGTID:
		g.mysql(&r, e.Type == TypeAnonymousGTID)
	case TypeGTIDTagged:
		g.tagged(&r)
	case TypeMariaDBGTID:
		g.mariadb(&r, e.ServerID)
	default:
		return Group{}, malformed(e)
	}
	if g.GTID.Flavor == gtid.MySQL && (g.GTID.N == 0 || g.GTID.N > gtid.MaxN) {
		r.bad = true
	}
	if r.bad {
		return Group{}, malformed(e)
	}
	return g, nil
}

// mysql reads GTID and ANONYMOUS_GTID. Servers before 8.0 end behind the first
// three fields, or behind the logical clock.
func (g *Group) mysql(r *reader, anonymous bool) {
	g.MayBeStatements = r.u8()&1 != 0
	sid := r.bytes(16)
	n := r.u64()
	if r.bad {
		return
	}
	g.Anonymous = anonymous
	if !anonymous {
		g.GTID = gtid.GTID{Flavor: gtid.MySQL, SID: gtid.UUID(sid), N: n}
	}
	const logicalClock = 2
	if len(r.b) < 17 || r.u8() != logicalClock {
		return
	}
	g.LastCommitted, g.SequenceNumber = int64(r.u64()), int64(r.u64())
	if len(r.b) < 7 {
		return
	}
	const twice = 1 << 55
	when := r.uint(7)
	g.OriginalCommit = change.Time(when)
	if when&twice != 0 {
		when &^= twice
		g.OriginalCommit = change.Time(r.uint(7))
	}
	g.ImmediateCommit = change.Time(when)
	if len(r.b) == 0 {
		return
	}
	g.Length = r.packed()
	if len(r.b) < 4 {
		return
	}
	g.versions(r.u32(), r)
}

// noVersion is what servers write for a version they do not know.
const noVersion = 999999

func (g *Group) versions(immediate uint32, r *reader) {
	const twice = 1 << 31
	original := immediate
	if immediate&twice != 0 {
		immediate &^= twice
		original = r.u32()
	}
	if immediate != noVersion {
		g.ServerVersion = immediate
	}
	if original != noVersion {
		g.OriginalVersion = original
	}
}

// tagged reads GTID_TAGGED, whose fields have numbers and lengths of their own.
func (g *Group) tagged(r *reader) {
	if version := r.varlen(); version != 1 {
		r.bad = true
		return
	}
	r.varlen() // the size of all
	needed := r.varlen()
	var sid gtid.UUID
	var tag gtid.Tag
	var n uint64
	sawOriginal, sawVersion := false, false
	for !r.bad && len(r.b) > 0 {
		field := r.varlen()
		switch field {
		case 0:
			g.MayBeStatements = r.varlen()&1 != 0
		case 1:
			for i := range sid {
				sid[i] = byte(r.varlen())
			}
		case 2:
			n = uint64(r.varlenSigned())
		case 3:
			text := r.bytes(r.varlen())
			parsed, err := gtid.ParseTag(text)
			tag, r.bad = parsed, r.bad || err != nil
		case 4:
			g.LastCommitted = r.varlenSigned()
		case 5:
			g.SequenceNumber = r.varlenSigned()
		case 6:
			g.ImmediateCommit = change.Time(r.varlen())
		case 7:
			g.OriginalCommit, sawOriginal = change.Time(r.varlen()), true
		case 8:
			g.Length = r.varlen()
		case 9:
			g.ServerVersion = uint32(r.varlen())
		case 10:
			g.OriginalVersion, sawVersion = uint32(r.varlen()), true
		case 11:
			r.varlen() // the ticket of a commit group
		default: // of a later server; only what is behind the last needed field may be passed over
			r.bad = r.bad || field <= needed
			r.b = nil
		}
	}
	if !sawOriginal {
		g.OriginalCommit = g.ImmediateCommit
	}
	if !sawVersion {
		g.OriginalVersion = g.ServerVersion
	}
	if g.ServerVersion == noVersion {
		g.ServerVersion = 0
	}
	if g.OriginalVersion == noVersion {
		g.OriginalVersion = 0
	}
	g.GTID = gtid.GTID{Flavor: gtid.MySQL, SID: sid, Tag: tag, N: n}
}

// varlen takes an integer whose first byte has as many low one-bits as bytes follow
// it.
func (r *reader) varlen() uint64 {
	first := r.u8()
	more := bits.TrailingZeros8(^first)
	if more == 8 {
		return r.u64()
	}
	rest := r.bytes(uint64(more))
	var b [8]byte
	b[0] = first
	copy(b[1:], rest)
	return binary.LittleEndian.Uint64(b[:]) >> (more + 1)
}

// varlenSigned takes one whose lowest bit is the sign.
func (r *reader) varlenSigned() int64 {
	v := r.varlen()
	if v&1 != 0 {
		return -1 - int64(v>>1)
	}
	return int64(v >> 1)
}

// mariadb reads MariaDB's GTID event.
func (g *Group) mariadb(r *reader, server uint32) {
	n := r.u64()
	domain := r.u32()
	g.Flags = r.u8()
	g.GTID = gtid.GTID{Flavor: gtid.MariaDB, Domain: domain, Server: server, N: n}
	if g.Flags&FLGroupCommitID != 0 {
		g.CommitID = r.u64()
	}
	if g.Flags&(FLPreparedXA|FLCompletedXA) != 0 {
		g.XAID.Format = r.u32()
		global, branch := uint64(r.u8()), uint64(r.u8())
		g.XAID.Global, g.XAID.Branch = r.bytes(global), r.bytes(branch)
	}
	if len(r.b) == 0 {
		return
	}
	g.FlagsMore = r.u8()
	if g.FlagsMore&FLXMultiEngine != 0 {
		r.u8()
	}
	if g.FlagsMore&(FLXCommitAlter|FLXRollbackAlter) != 0 {
		g.AlterID = r.u64()
	}
	if g.FlagsMore&FLXThreadID != 0 {
		g.ThreadID = r.u32()
	}
}
