package binlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"txreel/sources/mysql/gtid"
)

// Format is what a FORMAT_DESCRIPTION event says of the events behind it.
type Format struct {
	Flavor   gtid.Flavor
	Version  string // the server's version, as SELECT VERSION() shows it, cut to 50 bytes
	Created  uint32 // when the server started, in the first file after a start; else 0
	Checksum Checksum
	// postHeader holds the size of the fixed part of a type's body at index type-1.
	postHeader []byte
}

// The layout of a FORMAT_DESCRIPTION event's body, and what follows it.
const (
	formatVersionAt = 2
	formatCreatedAt = formatVersionAt + 50
	formatLengthsAt = formatCreatedAt + 4 + 1
	formatTail      = 1 + 4 // algorithm, checksum
)

// ParseFormat reads a FORMAT_DESCRIPTION event that Parse returned.
func ParseFormat(e *Event) (*Format, error) {
	b := e.Body
	if e.Type != TypeFormatDescription || len(b) < formatLengthsAt {
		return nil, fmt.Errorf("%w: a %s event of %d bytes describes no format", ErrMalformed, e.Type, len(e.Raw))
	}
	if v := binary.LittleEndian.Uint16(b); v != 4 {
		return nil, fmt.Errorf("%w: binlog format version %d, this build reads 4", ErrMalformed, v)
	}
	if n := b[formatLengthsAt-1]; n != HeaderSize {
		return nil, fmt.Errorf("%w: headers of %d bytes, this build reads %d", ErrMalformed, n, HeaderSize)
	}
	f := &Format{
		Flavor:  gtid.MySQL,
		Version: formatVersion(b),
		Created: binary.LittleEndian.Uint32(b[formatCreatedAt:]),
	}
	if strings.Contains(f.Version, "MariaDB") {
		f.Flavor = gtid.MariaDB
	}
	lengths := b[formatLengthsAt:]
	if checksummed(f.Version) {
		lengths = lengths[:len(lengths)-1] // Parse cut off the checksum, the algorithm stands before it
		f.Checksum = Checksum(b[len(b)-1])
		if f.Checksum > ChecksumCRC32 {
			return nil, fmt.Errorf("%w: checksum algorithm %d, this build knows NONE and CRC32", ErrMalformed, f.Checksum)
		}
	}
	f.postHeader = bytes.Clone(lengths)
	return f, nil
}

// formatVersion returns the server's version in a FORMAT_DESCRIPTION event's body.
func formatVersion(body []byte) string {
	v := body[formatVersionAt:formatCreatedAt]
	if end := bytes.IndexByte(v, 0); end >= 0 {
		v = v[:end]
	}
	return string(v)
}

// checksummed reports whether a server of this version ends its FORMAT_DESCRIPTION with an
// algorithm and a checksum, whatever the algorithm: those from MySQL 5.6.1 and MariaDB
// 5.3 on do. The replication protocol prefixes MariaDB's version with "5.5.5-".
func checksummed(version string) bool {
	var part [3]int
	rest := version
	for i := range part {
		n, digits := 0, 0
		for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' && digits < 4 {
			n, digits = 10*n+int(rest[digits]-'0'), digits+1
		}
		part[i], rest = n, strings.TrimPrefix(rest[digits:], ".")
	}
	number := part[0]<<16 | part[1]<<8 | part[2]
	if strings.Contains(version, "MariaDB") {
		return number >= 5<<16|3<<8
	}
	return number >= 5<<16|6<<8|1
}

// formatChecksum returns how a FORMAT_DESCRIPTION event ends, before anything else of it is read.
func formatChecksum(raw []byte) (Checksum, error) {
	if len(raw) < HeaderSize+formatLengthsAt {
		return 0, fmt.Errorf("%w: a FORMAT_DESCRIPTION event of %d bytes", ErrMalformed, len(raw))
	}
	if !checksummed(formatVersion(raw[HeaderSize:])) {
		return ChecksumNone, nil
	}
	if len(raw) < HeaderSize+formatLengthsAt+formatTail {
		return 0, fmt.Errorf("%w: a FORMAT_DESCRIPTION event of %d bytes has no checksum algorithm", ErrMalformed, len(raw))
	}
	return ChecksumCRC32, nil
}

// Parse reads one whole event of this format; see the function Parse.
func (f *Format) Parse(raw []byte) (Event, error) { return Parse(raw, f.Checksum) }

// postHeaderSize returns the size of the fixed part of a type's body, or otherwise where
// the format does not say.
func (f *Format) postHeaderSize(t Type, otherwise int) int {
	if f == nil || t == 0 || int(t) > len(f.postHeader) || f.postHeader[t-1] == 0 {
		return otherwise
	}
	return int(f.postHeader[t-1])
}

// flavor returns whose format it is; of none, MySQL's.
func (f *Format) flavor() gtid.Flavor {
	if f == nil || f.Flavor == 0 {
		return gtid.MySQL
	}
	return f.Flavor
}
