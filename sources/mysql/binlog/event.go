package binlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Errors that callers tell apart.
var (
	// ErrMalformed is wrapped when bytes contradict the format of what they should be.
	ErrMalformed = errors.New("malformed binlog event")
	// ErrChecksum is wrapped when an event's checksum is not that of its bytes.
	ErrChecksum = errors.New("binlog event with a wrong checksum")
)

// Magic begins a binlog file.
const Magic = "\xfebin"

// HeaderSize is the size of an event's header.
const HeaderSize = 19

// MaxEventSize is the size of the largest event a server writes.
const MaxEventSize = 1 << 30

// Flags of an event's header.
const (
	FlagInUse          uint16 = 0x0001 // FORMAT_DESCRIPTION: the file is open, or its server crashed
	FlagThreadSpecific uint16 = 0x0004 // depends on the connection that ran it, as temporary tables do
	FlagSuppressUse    uint16 = 0x0008
	FlagArtificial     uint16 = 0x0020 // made by the sender, in no file
	FlagRelayLog       uint16 = 0x0040
	FlagIgnorable      uint16 = 0x0080 // who does not know the type may pass over it
	FlagSkipReplay     uint16 = 0x8000 // MariaDB: written with skip_replication on
)

// Header is what every event begins with.
type Header struct {
	Timestamp uint32 // seconds since 1970: when the statement began
	Type      Type
	ServerID  uint32 // of the server that wrote it first
	Size      uint32 // of the whole event, its header and checksum included
	// LogPos is where the next event begins in the file, modulo 2^32; 0 in artificial events,
	// in those of a TRANSACTION_PAYLOAD, and for most of what MariaDB 11.4 and later writes.
	LogPos uint32
	Flags  uint16
}

// ParseHeader reads the header at the beginning of b. It demands a size that an
// event can have, not that b holds all of it.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes hold no header", ErrMalformed, len(b))
	}
	h := Header{
		Timestamp: binary.LittleEndian.Uint32(b),
		Type:      Type(b[4]),
		ServerID:  binary.LittleEndian.Uint32(b[5:]),
		Size:      binary.LittleEndian.Uint32(b[9:]),
		LogPos:    binary.LittleEndian.Uint32(b[13:]),
		Flags:     binary.LittleEndian.Uint16(b[17:]),
	}
	if h.Size < HeaderSize || h.Size > MaxEventSize {
		return Header{}, fmt.Errorf("%w: the header of a %s event claims %d bytes", ErrMalformed, h.Type, h.Size)
	}
	return h, nil
}

// Has reports whether all of the flags are set.
func (h *Header) Has(flags uint16) bool { return h.Flags&flags == flags }

// Event is one event. Its slices alias the bytes it was parsed from.
type Event struct {
	Header
	Raw  []byte // all of it, as the server sent it
	Body []byte // Raw without header and checksum
}

// Checksum tells what follows the body of every event.
type Checksum uint8

// The checksums. The numbers are the servers' own.
const (
	ChecksumNone  Checksum = 0
	ChecksumCRC32 Checksum = 1 // 4 bytes: CRC-32 as in IEEE 802.3, least significant byte first
)

// String returns the name that the variable binlog_checksum has for it.
func (c Checksum) String() string {
	switch c {
	case ChecksumNone:
		return "NONE"
	case ChecksumCRC32:
		return "CRC32"
	}
	return fmt.Sprintf("checksum %d", uint8(c))
}

// Size returns the number of bytes of the checksum.
func (c Checksum) Size() int {
	if c == ChecksumCRC32 {
		return 4
	}
	return 0
}

// Parse reads one whole event. Its size must be that of its header. A
// FORMAT_DESCRIPTION event says by itself how it ends.
func Parse(raw []byte, sum Checksum) (Event, error) {
	h, err := ParseHeader(raw)
	if err != nil {
		return Event{}, err
	}
	if uint64(h.Size) != uint64(len(raw)) {
		return Event{}, fmt.Errorf("%w: a %s event of %d bytes claims %d", ErrMalformed, h.Type, len(raw), h.Size)
	}
	if h.Type == TypeFormatDescription {
		sum, err = formatChecksum(raw)
		if err != nil {
			return Event{}, err
		}
	}
	end := len(raw) - sum.Size()
	if end < HeaderSize {
		return Event{}, fmt.Errorf("%w: a %s event of %d bytes has no room for a checksum", ErrMalformed, h.Type, len(raw))
	}
	return Event{Header: h, Raw: raw, Body: raw[HeaderSize:end:end]}, nil
}

// Verify compares the checksum, if there is one, with the bytes.
func (e *Event) Verify() error {
	end := HeaderSize + len(e.Body)
	if end == len(e.Raw) {
		return nil
	}
	stored := binary.LittleEndian.Uint32(e.Raw[end:])
	if computed := checksum(e.Raw[:end]); computed != stored {
		return fmt.Errorf("%w: a %s event of %d bytes says %08x, its bytes are %08x", ErrChecksum, e.Type, len(e.Raw), stored, computed)
	}
	return nil
}

// checksum computes the CRC of an event. A server clears the flag that its file is open
// only when it closes the file, so that the CRC never covers it.
func checksum(b []byte) uint32 {
	if b[4] != byte(TypeFormatDescription) || b[17]&byte(FlagInUse) == 0 {
		return crc32.ChecksumIEEE(b)
	}
	sum := crc32.ChecksumIEEE(b[:17])
	sum = crc32.Update(sum, crc32.IEEETable, []byte{b[17] &^ byte(FlagInUse)})
	return crc32.Update(sum, crc32.IEEETable, b[18:])
}
