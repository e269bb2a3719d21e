package gtid

import (
	"bytes"
	"cmp"
	"math"
	"slices"
)

// Set is a set of transactions of one flavor. For MySQL it holds the intervals of
// transaction numbers of every uuid and tag. For MariaDB it holds the last
// transaction of every replication domain, and stands for all of the domain
// up to it, as MariaDB's own positions do. Make one with New, Parse or one of the
// decoders. A Set is not safe for concurrent use while it is changed.
type Set struct {
	flavor  Flavor
	sources []source // MySQL: ordered as the server prints them, none is empty
	domains []GTID   // MariaDB: ordered by domain
	recent  int      // the source that Add extended last
}

// source is what a set holds of one uuid and tag.
type source struct {
	sid UUID
	tag Tag
	// in is ordered, and no two intervals touch.
	in []Interval
}

// Interval is an unbroken run of transaction numbers, both ends included.
type Interval struct {
	First, Last uint64
}

// New returns an empty set.
func New(flavor Flavor) *Set { return &Set{flavor: flavor} }

// Flavor returns whose transactions the set holds.
func (s *Set) Flavor() Flavor { return s.flavor }

// IsEmpty reports whether the set holds no transaction.
func (s *Set) IsEmpty() bool { return len(s.sources) == 0 && len(s.domains) == 0 }

// Clone returns a copy that shares nothing with s.
func (s *Set) Clone() *Set {
	c := &Set{flavor: s.flavor, sources: slices.Clone(s.sources), domains: slices.Clone(s.domains)}
	for i := range c.sources {
		c.sources[i].in = slices.Clone(c.sources[i].in)
	}
	return c
}

// Count returns the number of transactions in a set of MySQL, and 0 for MariaDB,
// whose sequence numbers may have holes. It stops at the highest uint64.
func (s *Set) Count() uint64 {
	var n uint64
	for i := range s.sources {
		for _, in := range s.sources[i].in {
			more := in.Last - in.First + 1
			if n > math.MaxUint64-more {
				return math.MaxUint64
			}
			n += more
		}
	}
	return n
}

// Domains returns the last transaction of every domain of a set of MariaDB, in the
// order of their numbers. The slice belongs to the set.
func (s *Set) Domains() []GTID { return s.domains }

// Last returns the last transaction of a domain of MariaDB.
func (s *Set) Last(domain uint32) (GTID, bool) {
	i, ok := s.domain(domain)
	if !ok {
		return GTID{}, false
	}
	return s.domains[i], true
}

// Has reports whether the set holds the transaction. For MariaDB that means that
// its domain has come as far.
func (s *Set) Has(g GTID) bool {
	switch {
	case g.Flavor != s.flavor:
		return false
	case s.flavor == MariaDB:
		i, ok := s.domain(g.Domain)
		return ok && g.N <= s.domains[i].N
	}
	i, ok := s.source(g.SID, &g.Tag)
	if !ok {
		return false
	}
	in := s.sources[i].in
	at := after(in, g.N)
	return at > 0 && g.N <= in[at-1].Last
}

// Add puts a transaction into the set and reports whether it was new. It is not new,
// and the set stays as it is, if Has holds: MySQL shows a transaction again that
// was there before, or MariaDB's sequence number does not rise within its domain.
// A GTID of the other flavor, or without a number, is never new.
func (s *Set) Add(g GTID) bool {
	switch {
	case g.Flavor != s.flavor || g.Flavor == 0:
		return false
	case s.flavor == MariaDB:
		i, ok := s.domain(g.Domain)
		if ok && g.N <= s.domains[i].N {
			return false
		}
		s.put(i, ok, g)
		return true
	case g.N == 0 || g.N > MaxN:
		return false
	}
	i, ok := s.source(g.SID, &g.Tag)
	if !ok {
		s.sources = slices.Insert(s.sources, i, source{g.SID, g.Tag, []Interval{{g.N, g.N}}})
		s.recent = i
		return true
	}
	s.recent = i
	return s.sources[i].add(g.N)
}

// Put makes g the last transaction of its domain, wherever the domain stood before. It is
// for servers of MariaDB that run without gtid_strict_mode, whose sequence numbers may
// fall. It does nothing to a set of MySQL.
func (s *Set) Put(g GTID) {
	if s.flavor != MariaDB || g.Flavor != MariaDB {
		return
	}
	i, ok := s.domain(g.Domain)
	s.put(i, ok, g)
}

func (s *Set) put(i int, known bool, g GTID) {
	if known {
		s.domains[i] = g
		return
	}
	s.domains = slices.Insert(s.domains, i, g)
}

// domain returns where a domain is, or belongs.
func (s *Set) domain(domain uint32) (int, bool) {
	return slices.BinarySearchFunc(s.domains, domain, func(g GTID, d uint32) int { return cmp.Compare(g.Domain, d) })
}

// source returns where a source is, or belongs.
func (s *Set) source(sid UUID, tag *Tag) (int, bool) {
	if s.recent < len(s.sources) {
		if e := &s.sources[s.recent]; e.sid == sid && e.tag == *tag {
			return s.recent, true
		}
	}
	low, high := 0, len(s.sources)
	for low < high {
		mid := (low + high) / 2
		switch c := s.sources[mid].compare(&sid, tag); {
		case c == 0:
			return mid, true
		case c < 0:
			low = mid + 1
		default:
			high = mid
		}
	}
	return low, false
}

// compare orders sources as MySQL does: by uuid, then the one without a tag, then
// by tag.
func (e *source) compare(sid *UUID, tag *Tag) int {
	if c := bytes.Compare(e.sid[:], sid[:]); c != 0 {
		return c
	}
	return bytes.Compare(e.tag[:], tag[:])
}

// after returns the index of the first interval that begins behind n.
func after(in []Interval, n uint64) int {
	if k := len(in); k > 0 && in[k-1].First <= n {
		return k
	}
	at, _ := slices.BinarySearchFunc(in, n, func(i Interval, n uint64) int {
		if i.First <= n {
			return -1
		}
		return 1
	})
	return at
}

// add puts one transaction number into the intervals and reports whether it is new.
func (e *source) add(n uint64) bool {
	at := after(e.in, n)
	if at > 0 && n <= e.in[at-1].Last {
		return false
	}
	joinsLeft := at > 0 && e.in[at-1].Last+1 == n
	joinsRight := at < len(e.in) && e.in[at].First == n+1
	switch {
	case joinsLeft && joinsRight:
		e.in[at-1].Last = e.in[at].Last
		e.in = slices.Delete(e.in, at, at+1)
	case joinsLeft:
		e.in[at-1].Last = n
	case joinsRight:
		e.in[at].First = n
	default:
		e.in = slices.Insert(e.in, at, Interval{n, n})
	}
	return true
}

// normalize orders intervals and joins those that overlap or touch.
func normalize(in []Interval) []Interval {
	byFirst := func(a, b Interval) int { return cmp.Compare(a.First, b.First) }
	if !slices.IsSortedFunc(in, byFirst) {
		slices.SortFunc(in, byFirst)
	}
	out := in[:0]
	for _, i := range in {
		if k := len(out) - 1; k >= 0 && i.First <= out[k].Last+1 {
			out[k].Last = max(out[k].Last, i.Last)
			continue
		}
		out = append(out, i)
	}
	return out
}
