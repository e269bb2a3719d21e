package mysql

import (
	"bytes"
	"strconv"
	"strings"

	"txreel/sources/mysql/binlog"
)

// place is where something stands in the binlog files of one server: a file, and a
// position in it, for which the servers have 32 bits in most of what they send and
// files of any size.
type place struct {
	file string
	pos  uint64
}

// String returns the place as the servers' documentation writes it.
func (p place) String() string { return string(p.appendTo(nil)) }

func (p place) appendTo(b []byte) []byte {
	return strconv.AppendUint(append(append(b, p.file...), ':'), p.pos, 10)
}

// pass moves the place behind an event. Positions are known modulo 2^32, and only grow
// within a file; an event that says 0, as what MariaDB 11.4 copies from a cache
// does, ends its size further on. Only a format description never says 0 in a file: one that
// does was sent ahead of a place further on, where MariaDB finds it by its index of GTIDs.
func (p *place) pass(h *binlog.Header) {
	switch {
	case h.LogPos != 0:
		p.reach(uint64(h.LogPos))
	case h.Type != binlog.TypeFormatDescription:
		p.pos += uint64(h.Size)
	}
}

// reach moves the place to a position modulo 2^32, or to a whole one.
func (p *place) reach(pos uint64) {
	const wrap = 1 << 32
	if pos < wrap {
		low := pos
		if pos |= p.pos &^ (wrap - 1); pos < p.pos && low != p.pos%wrap {
			pos += wrap
		}
	}
	p.pos = max(p.pos, pos)
}

// enter moves the place to another file, or to another position in the same.
func (p *place) enter(file []byte, pos uint64) {
	if !bytes.Equal(file, []byte(p.file)) {
		p.file = string(file)
	}
	p.pos = pos
}

// passed reports whether p is known to be at or behind another place of the same server.
func (p place) passed(other place) bool {
	if p.file == other.file {
		return p.pos >= other.pos
	}
	base, number, ok1 := splitFile(p.file)
	otherBase, otherNumber, ok2 := splitFile(other.file)
	return ok1 && ok2 && base == otherBase && number > otherNumber
}

// splitFile takes the name of a binlog file apart, such as "binlog.000123".
func splitFile(file string) (base string, number uint64, ok bool) {
	dot := strings.LastIndexByte(file, '.')
	if dot < 0 {
		return "", 0, false
	}
	number, err := strconv.ParseUint(file[dot+1:], 10, 64)
	return file[:dot], number, err == nil
}
