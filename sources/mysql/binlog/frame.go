package binlog

import (
	"encoding/binary"

	"txreel/sources/mysql/gtid"
)

// Frames reports whether events of this type frame the log, or a connection that
// reads it: they say nothing of any transaction.
func (t Type) Frames() bool {
	switch t {
	case TypeFormatDescription, TypeStartV3, TypeRotate, TypeStop, TypeHeartbeat, TypeHeartbeatV2, TypePreviousGTIDs,
		TypeGTIDList, TypeBinlogCheckpoint, TypeStartEncryption, TypeSlave:
		return true
	}
	return false
}

// Rotate names the file that comes next, or, in an artificial event, the one that the sender
// now reads. Name aliases the event.
type Rotate struct {
	Position uint64
	Name     []byte
}

// ParseRotate reads a ROTATE event.
func ParseRotate(e *Event) (Rotate, error) {
	r := reader{b: e.Body}
	rotate := Rotate{Position: r.u64(), Name: r.b}
	if r.bad || len(rotate.Name) == 0 || e.Type != TypeRotate {
		return Rotate{}, malformed(e)
	}
	return rotate, nil
}

// Heartbeat says that nothing has happened, and how far the sender has read. Name aliases
// the event.
type Heartbeat struct {
	Name     []byte
	Position uint64 // modulo 2^32 in version 1
}

// The numbers of a version 2 heartbeat's fields.
const (
	heartbeatEnd = iota
	heartbeatName
	heartbeatPosition
)

// ParseHeartbeat reads a HEARTBEAT event of either version.
func ParseHeartbeat(e *Event) (Heartbeat, error) {
	if e.Type == TypeHeartbeat {
		return Heartbeat{Name: e.Body, Position: uint64(e.LogPos)}, nil
	}
	var h Heartbeat
	r := reader{b: e.Body}
	for !r.bad && len(r.b) > 0 {
		field := r.packed()
		if field == heartbeatEnd {
			break
		}
		value := reader{b: r.bytes(r.packed())}
		switch field {
		case heartbeatName:
			h.Name = value.b
		case heartbeatPosition:
			h.Position = value.packed()
			r.bad = r.bad || value.bad
		}
	}
	if r.bad || e.Type != TypeHeartbeatV2 {
		return Heartbeat{}, malformed(e)
	}
	return h, nil
}

// ParsePrevious reads what a new binlog file says came before it: a PREVIOUS_GTIDS
// event of MySQL, or a GTID_LIST event of MariaDB.
func ParsePrevious(e *Event) (*gtid.Set, error) {
	switch e.Type {
	case TypePreviousGTIDs:
		return gtid.DecodeMySQL(e.Body)
	case TypeGTIDList:
		return gtid.DecodeList(e.Body)
	}
	return nil, malformed(e)
}

// Incident is the server's own report that its log lacks something.
type Incident struct {
	Number  uint16 // 1: lost events
	Message []byte // aliases the event
}

// ParseIncident reads an INCIDENT event.
func ParseIncident(e *Event) (Incident, error) {
	r := reader{b: e.Body}
	i := Incident{Number: r.u16()}
	i.Message = r.bytes(uint64(r.u8()))
	if r.bad || e.Type != TypeIncident {
		return Incident{}, malformed(e)
	}
	return i, nil
}

// AppendEvent appends an event with the given body to b. It fills in the header's size
// and adds the checksum; the rest of the header is the caller's.
func AppendEvent(b []byte, h Header, body []byte, sum Checksum) []byte {
	start := len(b)
	b = appendHeader(b, h)
	return finish(append(b, body...), start, sum)
}

func appendHeader(b []byte, h Header) []byte {
	b = binary.LittleEndian.AppendUint32(b, h.Timestamp)
	b = append(b, byte(h.Type))
	b = binary.LittleEndian.AppendUint32(b, h.ServerID)
	b = binary.LittleEndian.AppendUint32(b, h.Size)
	b = binary.LittleEndian.AppendUint32(b, h.LogPos)
	return binary.LittleEndian.AppendUint16(b, h.Flags)
}

// finish writes the size into the event that begins at start, and adds its checksum.
func finish(b []byte, start int, sum Checksum) []byte {
	binary.LittleEndian.PutUint32(b[start+9:], uint32(len(b)-start+sum.Size()))
	if sum == ChecksumCRC32 {
		b = binary.LittleEndian.AppendUint32(b, checksum(b[start:]))
	}
	return b
}

// AppendRotate appends a ROTATE event to b. What a sender says of the file that it reads
// now has FlagArtificial, and neither a timestamp nor a position of its own.
func AppendRotate(b []byte, h Header, next Rotate, sum Checksum) []byte {
	start := len(b)
	h.Type = TypeRotate
	b = binary.LittleEndian.AppendUint64(appendHeader(b, h), next.Position)
	return finish(append(b, next.Name...), start, sum)
}

// AppendHeartbeat appends a HEARTBEAT event of version 1 to b. Its position is the
// header's.
func AppendHeartbeat(b []byte, h Header, name string, sum Checksum) []byte {
	start := len(b)
	h.Type = TypeHeartbeat
	return finish(append(appendHeader(b, h), name...), start, sum)
}

// AppendHeartbeatV2 appends a HEARTBEAT_V2 event to b, for those who asked for it when they
// asked for the log.
func AppendHeartbeatV2(b []byte, h Header, name string, position uint64, sum Checksum) []byte {
	start := len(b)
	h.Type = TypeHeartbeatV2
	b = append(appendHeader(b, h), heartbeatName)
	b = append(appendPacked(b, uint64(len(name))), name...)
	value := appendPacked(nil, position)
	b = append(b, heartbeatPosition, byte(len(value)))
	b = append(append(b, value...), heartbeatEnd)
	return finish(b, start, sum)
}

// AppendPrevious appends to b what begins a binlog file behind its format: a
// PREVIOUS_GTIDS event, or MariaDB's GTID_LIST.
func AppendPrevious(b []byte, h Header, held *gtid.Set, sum Checksum) []byte {
	if held.Flavor() == gtid.MariaDB {
		h.Type = TypeGTIDList
		return AppendEvent(b, h, held.EncodeList(), sum)
	}
	h.Type = TypePreviousGTIDs
	return AppendEvent(b, h, held.EncodeMySQL(), sum)
}

// AppendStop appends a STOP event to b.
func AppendStop(b []byte, h Header, sum Checksum) []byte {
	h.Type = TypeStop
	return AppendEvent(b, h, nil, sum)
}

// AppendMoved appends a copy of the event to b that says logPos instead of where the
// event stood in its own file, with a checksum if the event had one. FORMAT_DESCRIPTION
// events lose FlagInUse: the copy stands in a file that is complete.
func AppendMoved(b []byte, e *Event, logPos uint32) []byte {
	h := e.Header
	h.LogPos = logPos
	if h.Type == TypeFormatDescription {
		h.Flags &^= FlagInUse
	}
	sum := ChecksumNone
	if len(e.Raw) > HeaderSize+len(e.Body) {
		sum = ChecksumCRC32
	}
	return AppendEvent(b, h, e.Body, sum)
}

// Resume returns a copy of a FORMAT_DESCRIPTION event for a reader that goes on in the middle
// of its file: without the time that the server started, which would make a replica
// drop its temporary tables and roll back what it has open.
func Resume(e *Event) ([]byte, error) {
	if e.Type != TypeFormatDescription || len(e.Body) < formatLengthsAt {
		return nil, malformed(e)
	}
	b := append([]byte(nil), e.Raw[:HeaderSize+len(e.Body)]...)
	clear(b[HeaderSize+formatCreatedAt:][:4])
	binary.LittleEndian.PutUint32(b[13:], 0)
	b[17] = b[17]&^byte(FlagInUse) | byte(FlagArtificial)
	sum := ChecksumNone
	if len(e.Raw) > len(b) {
		sum = ChecksumCRC32
	}
	return finish(b, 0, sum), nil
}
