// Package lsn reads, prints and compares PostgreSQL's log sequence numbers.
package lsn

import (
	"fmt"
	"strconv"
	"strings"

	"txreel/change"
)

// LSN is a byte position in the write-ahead log.
type LSN uint64

// String prints the LSN as PostgreSQL does: 16/B374D848.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// Position returns the LSN as a position of the record.
func (l LSN) Position() change.Position { return change.Position(l.String()) }

// Parse reads an LSN as PostgreSQL prints it: two hexadecimal numbers of up to
// eight digits with a slash between them, and nothing else.
func Parse(text string) (LSN, error) {
	high, low, ok := strings.Cut(text, "/")
	h, err1 := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if !ok || err1 != nil || err2 != nil || len(high) > 8 || len(low) > 8 {
		return 0, fmt.Errorf("%q is not an LSN: write it as PostgreSQL does, such as 16/B374D848", text)
	}
	return LSN(h<<32 | l), nil
}

// FromPosition reads a position that a PostgreSQL source made.
func FromPosition(p change.Position) (LSN, error) { return Parse(string(p)) }
