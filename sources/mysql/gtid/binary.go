package gtid

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// ErrMalformed is wrapped when an encoded set contradicts its format.
var ErrMalformed = errors.New("malformed GTID set")

// EncodeMySQL encodes a set of MySQL as COM_BINLOG_DUMP_GTID and
// PREVIOUS_GTIDS events hold it: in the encoding with tags only if there are tags.
func (s *Set) EncodeMySQL() []byte { return s.AppendMySQL(nil) }

// AppendMySQL appends what EncodeMySQL returns to b.
func (s *Set) AppendMySQL(b []byte) []byte {
	tagged := slices.ContainsFunc(s.sources, func(e source) bool { return !e.tag.IsZero() })
	if tagged {
		b = binary.LittleEndian.AppendUint64(b, 1<<56|uint64(len(s.sources))<<8|1)
	} else {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s.sources)))
	}
	for i := range s.sources {
		e := &s.sources[i]
		b = append(b, e.sid[:]...)
		if tagged {
			tag := e.tag.bytes()
			b = append(append(b, byte(len(tag)<<1)), tag...)
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(len(e.in)))
		for _, in := range e.in {
			b = binary.LittleEndian.AppendUint64(b, in.First)
			b = binary.LittleEndian.AppendUint64(b, in.Last+1)
		}
	}
	return b
}

// DecodeMySQL decodes what EncodeMySQL encodes, with and without tags.
func DecodeMySQL(b []byte) (*Set, error) {
	if len(b) < 8 {
		return nil, malformed("it has %d bytes, fewer than its head", len(b))
	}
	head := binary.LittleEndian.Uint64(b)
	b = b[8:]
	count, tagged := head, false
	switch version := head >> 56; {
	case version == 0:
	case version == 1 && head&0xff == 1:
		count, tagged = head>>8&(1<<48-1), true
	default:
		return nil, malformed("its encoding is version %d, this build reads 0 and 1", version)
	}
	if count > uint64(len(b))/24 { // uuid and number of intervals
		return nil, malformed("it claims %d sources in %d bytes", count, len(b))
	}
	s := New(MySQL)
	for range count {
		var e source
		var err error
		if e, b, err = decodeSource(b, tagged); err != nil {
			return nil, err
		}
		s.sources = append(s.sources, e)
	}
	if len(b) > 0 {
		return nil, malformed("%d bytes follow its end", len(b))
	}
	s.settle()
	return s, nil
}

// decodeSource decodes the intervals of one uuid and tag, and returns what follows.
func decodeSource(b []byte, tagged bool) (source, []byte, error) {
	var e source
	if len(b) < 24 {
		return e, nil, malformed("it ends within a source")
	}
	copy(e.sid[:], b)
	b = b[16:]
	if tagged {
		n := int(b[0] >> 1)
		if b[0]&1 != 0 || n > len(e.tag) || len(b) < 1+n+8 {
			return e, nil, malformed("it ends within a tag, or a tag is too long")
		}
		var err error
		if e.tag, err = ParseTag(b[1 : 1+n]); err != nil {
			return e, nil, malformed("%w", err)
		}
		b = b[1+n:]
	}
	n := binary.LittleEndian.Uint64(b)
	b = b[8:]
	if n > uint64(len(b))/16 {
		return e, nil, malformed("it claims %d intervals in %d bytes", n, len(b))
	}
	e.in = make([]Interval, n)
	var last uint64
	for i := range e.in {
		first, end := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		if first <= last || end <= first || end > MaxN+1 {
			return e, nil, malformed("its interval %d to %d follows one that ends at %d", first, end, last)
		}
		e.in[i] = Interval{first, end - 1}
		last = end
		b = b[16:]
	}
	return e, b, nil
}

// AppendList decodes the body of a GTID_LIST event of MariaDB, and appends what it
// lists to list: the last transaction of every domain and server, and of each
// domain the newest one last. Flags are the event's own.
func AppendList(list []GTID, b []byte) (_ []GTID, flags uint8, err error) {
	if len(b) < 4 {
		return list, 0, malformed("a GTID_LIST event of %d bytes has no count", len(b))
	}
	head := binary.LittleEndian.Uint32(b)
	count := int(head & (1<<28 - 1))
	b = b[4:]
	if count > len(b)/16 {
		return list, 0, malformed("a GTID_LIST event claims %d GTIDs in %d bytes", count, len(b))
	}
	for range count {
		list = append(list, GTID{
			Flavor: MariaDB,
			Domain: binary.LittleEndian.Uint32(b),
			Server: binary.LittleEndian.Uint32(b[4:]),
			N:      binary.LittleEndian.Uint64(b[8:]),
		})
		b = b[16:]
	}
	return list, uint8(head >> 28), nil
}

// DecodeList decodes the body of a GTID_LIST event of MariaDB into the set of
// what came before it.
func DecodeList(b []byte) (*Set, error) {
	list, _, err := AppendList(nil, b)
	if err != nil {
		return nil, err
	}
	return FromList(list), nil
}

// FromList returns the set that a GTID_LIST event stands for: the newest transaction
// of a domain is the last one listed of it.
func FromList(list []GTID) *Set {
	s := &Set{flavor: MariaDB, domains: slices.Clone(list)}
	slices.SortStableFunc(s.domains, func(a, b GTID) int { return cmp.Compare(a.Domain, b.Domain) })
	out := s.domains[:0]
	for i, g := range s.domains {
		if i+1 == len(s.domains) || s.domains[i+1].Domain != g.Domain {
			out = append(out, g)
		}
	}
	s.domains = out
	return s
}

// EncodeList encodes a set of MariaDB as the body of a GTID_LIST event.
func (s *Set) EncodeList() []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(s.domains)))
	for _, g := range s.domains {
		b = binary.LittleEndian.AppendUint32(b, g.Domain)
		b = binary.LittleEndian.AppendUint32(b, g.Server)
		b = binary.LittleEndian.AppendUint64(b, g.N)
	}
	return b
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}
