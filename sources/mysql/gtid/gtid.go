// Package gtid reads, prints, compares and collects the global transaction ids
// of MySQL and MariaDB, as single ids and as sets. It does no I/O.
package gtid

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Flavor tells whose notation and whose rules apply.
type Flavor uint8

// The flavors. The zero Flavor is neither.
const (
	MySQL Flavor = iota + 1
	MariaDB
)

// String returns the server's name.
func (f Flavor) String() string {
	switch f {
	case MySQL:
		return "MySQL"
	case MariaDB:
		return "MariaDB"
	}
	return fmt.Sprintf("flavor %d", uint8(f))
}

// MaxN is the highest transaction number that MySQL gives out.
const MaxN = 1<<63 - 2

// UUID is the server uuid in a GTID of MySQL.
type UUID [16]byte

// String prints the uuid as MySQL does.
func (u UUID) String() string { return string(u.appendTo(nil)) }

func (u UUID) appendTo(b []byte) []byte {
	b = append(hex.AppendEncode(b, u[:4]), '-')
	b = append(hex.AppendEncode(b, u[4:6]), '-')
	b = append(hex.AppendEncode(b, u[6:8]), '-')
	b = append(hex.AppendEncode(b, u[8:10]), '-')
	return hex.AppendEncode(b, u[10:])
}

// ParseUUID reads a uuid as MySQL does: with dashes, without them, or with dashes
// in braces; in either case of letters.
func ParseUUID(text string) (UUID, error) {
	var u UUID
	digits := text
	switch {
	case len(digits) == 38 && digits[0] == '{' && digits[37] == '}':
		digits = digits[1:37]
		fallthrough
	case len(digits) == 36:
		if digits[8] != '-' || digits[13] != '-' || digits[18] != '-' || digits[23] != '-' {
			return u, notUUID(text)
		}
		digits = digits[:8] + digits[9:13] + digits[14:18] + digits[19:23] + digits[24:]
	}
	if len(digits) != 32 {
		return u, notUUID(text)
	}
	if _, err := hex.Decode(u[:], []byte(digits)); err != nil {
		return UUID{}, notUUID(text)
	}
	return u, nil
}

func notUUID(text string) error {
	return fmt.Errorf("%q is not a server uuid: write it as MySQL does, such as 3e11fa47-71ca-11e1-9e33-c80aa9429562", clip(text))
}

// Tag is the part that a user may add to the uuid in a GTID of MySQL (8.3 and
// later): up to 32 characters, filled up with zeros. The zero Tag is none.
type Tag [32]byte

// String returns the tag as MySQL prints it.
func (t Tag) String() string { return string(t.bytes()) }

func (t *Tag) bytes() []byte {
	for n := range t {
		if t[n] == 0 {
			return t[:n]
		}
	}
	return t[:]
}

// IsZero reports whether there is no tag.
func (t Tag) IsZero() bool { return t[0] == 0 }

// ParseTag reads a tag and brings it to lower case, as MySQL does. The empty text
// is no tag.
func ParseTag[T string | []byte](text T) (Tag, error) {
	var t Tag
	if len(text) > len(t) {
		return Tag{}, notTag(string(text[:len(t)]) + "…")
	}
	for i := range len(text) {
		c := text[i]
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c >= 'a' && c <= 'z' || c == '_':
		case c >= '0' && c <= '9' && i > 0:
		default:
			return Tag{}, notTag(string(text))
		}
		t[i] = c
	}
	return t, nil
}

func notTag(text string) error {
	return fmt.Errorf("%q is not the tag of a GTID: it has at most 32 letters, digits and underscores, and does not begin with a digit", clip(text))
}

// GTID identifies one transaction. MySQL fills SID, Tag and N; MariaDB fills
// Domain, Server and N, its sequence number. Two GTIDs are the same
// transaction if they are equal.
type GTID struct {
	Flavor Flavor
	SID    UUID
	Tag    Tag
	Domain uint32
	Server uint32
	N      uint64
}

// IsZero reports whether g is no GTID, as that of an anonymous transaction.
func (g GTID) IsZero() bool { return g.Flavor == 0 }

// String prints the GTID as its server does: "3e11fa47-…:23", "3e11fa47-…:tag:23",
// or "0-1-42". The zero GTID prints as "".
func (g GTID) String() string { return string(g.AppendTo(nil)) }

// AppendTo appends what String returns to b.
func (g GTID) AppendTo(b []byte) []byte {
	switch g.Flavor {
	case MySQL:
		b = append(g.SID.appendTo(b), ':')
		if !g.Tag.IsZero() {
			b = append(append(b, g.Tag.bytes()...), ':')
		}
		return strconv.AppendUint(b, g.N, 10)
	case MariaDB:
		b = append(strconv.AppendUint(b, uint64(g.Domain), 10), '-')
		b = append(strconv.AppendUint(b, uint64(g.Server), 10), '-')
		return strconv.AppendUint(b, g.N, 10)
	}
	return b
}

// ParseGTID reads the GTID of one transaction as either server prints it.
func ParseGTID(text string) (GTID, error) {
	trimmed := strings.TrimSpace(text)
	if strings.Contains(trimmed, ":") {
		return parseMySQL(trimmed)
	}
	return parseMariaDB(trimmed)
}

func parseMySQL(text string) (GTID, error) {
	parts := strings.Split(text, ":")
	if len(parts) > 3 {
		return GTID{}, notGTID(text)
	}
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	g := GTID{Flavor: MySQL}
	var err error
	if g.SID, err = ParseUUID(parts[0]); err != nil {
		return GTID{}, fmt.Errorf("%w; %w", notGTID(text), err)
	}
	if len(parts) == 3 {
		if g.Tag, err = ParseTag(parts[1]); err != nil {
			return GTID{}, fmt.Errorf("%w; %w", notGTID(text), err)
		}
		if g.Tag.IsZero() {
			return GTID{}, notGTID(text)
		}
	}
	if g.N, err = parseN(parts[len(parts)-1]); err != nil {
		return GTID{}, fmt.Errorf("%w; %w", notGTID(text), err)
	}
	return g, nil
}

func parseMariaDB(text string) (GTID, error) {
	parts := strings.Split(text, "-")
	if len(parts) != 3 {
		return GTID{}, notGTID(text)
	}
	domain, err1 := parseDigits(parts[0], 32)
	server, err2 := parseDigits(parts[1], 32)
	seq, err3 := parseDigits(parts[2], 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return GTID{}, notGTID(text)
	}
	return GTID{Flavor: MariaDB, Domain: uint32(domain), Server: uint32(server), N: seq}, nil
}

// parseN reads a transaction number of MySQL.
func parseN(text string) (uint64, error) {
	n, err := parseDigits(text, 64)
	if err != nil || n == 0 || n > MaxN {
		return 0, fmt.Errorf("%q is not a transaction number from 1 to %d", clip(text), int64(MaxN))
	}
	return n, nil
}

// parseDigits reads decimal digits and nothing else.
func parseDigits(text string, bits int) (uint64, error) {
	return strconv.ParseUint(text, 10, bits)
}

func notGTID(text string) error {
	return fmt.Errorf("%q is not the GTID of a transaction: write it as the server prints it, such as 3e11fa47-71ca-11e1-9e33-c80aa9429562:23 or 0-1-42", clip(text))
}

// clip shortens what a message quotes.
func clip(text string) string {
	const most = 80
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
