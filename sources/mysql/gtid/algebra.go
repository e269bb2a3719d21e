package gtid

import (
	"fmt"
	"slices"
	"strings"
)

// Equal reports whether both sets hold the same transactions. For MariaDB the
// last transactions of all domains must be the same, by server as well.
func (s *Set) Equal(o *Set) bool {
	return s.flavor == o.flavor && slices.Equal(s.domains, o.domains) &&
		slices.EqualFunc(s.sources, o.sources, func(a, b source) bool {
			return a.sid == b.sid && a.tag == b.tag && slices.Equal(a.in, b.in)
		})
}

// Contains reports whether s holds every transaction of o. For MariaDB that means
// that every domain of o has come as far in s. Sets of different flavors contain each
// other only if the contained one is empty.
func (s *Set) Contains(o *Set) bool {
	if o.IsEmpty() {
		return true
	}
	if s.flavor != o.flavor {
		return false
	}
	for _, g := range o.domains {
		if !s.Has(g) {
			return false
		}
	}
	for i := range o.sources {
		e := &o.sources[i]
		at, ok := s.source(e.sid, &e.tag)
		if !ok || !containsAll(s.sources[at].in, e.in) {
			return false
		}
	}
	return true
}

func containsAll(outer, inner []Interval) bool {
	for _, in := range inner {
		at := after(outer, in.First)
		if at == 0 || outer[at-1].Last < in.Last {
			return false
		}
	}
	return true
}

// Overlaps reports whether a transaction is in both sets. For MariaDB that means
// that they have a domain in common.
func (s *Set) Overlaps(o *Set) bool {
	if s.flavor != o.flavor {
		return false
	}
	for _, g := range o.domains {
		if _, ok := s.domain(g.Domain); ok {
			return true
		}
	}
	for i := range o.sources {
		e := &o.sources[i]
		at, ok := s.source(e.sid, &e.tag)
		if !ok {
			continue
		}
		for _, in := range e.in {
			have := s.sources[at].in
			if k := after(have, in.Last); k > 0 && have[k-1].Last >= in.First {
				return true
			}
		}
	}
	return false
}

// Union returns the transactions that are in s or in o, as a new set; for MariaDB the one
// that is further of each domain. A set of the other flavor adds nothing.
func (s *Set) Union(o *Set) *Set {
	u := s.Clone()
	if o.flavor != s.flavor {
		return u
	}
	for _, g := range o.domains {
		u.Add(g)
	}
	merged := make([]source, 0, len(s.sources)+len(o.sources))
	a, b := u.sources, o.sources
	for len(a) > 0 && len(b) > 0 {
		switch c := a[0].compare(&b[0].sid, &b[0].tag); {
		case c < 0:
			merged, a = append(merged, a[0]), a[1:]
		case c > 0:
			merged, b = append(merged, b[0].clone()), b[1:]
		default:
			all := slices.Concat(a[0].in, b[0].in)
			merged = append(merged, source{a[0].sid, a[0].tag, normalize(all)})
			a, b = a[1:], b[1:]
		}
	}
	merged = append(merged, a...)
	for i := range b {
		merged = append(merged, b[i].clone())
	}
	u.sources, u.recent = merged, 0
	return u
}

func (e *source) clone() source { return source{e.sid, e.tag, slices.Clone(e.in)} }

// Minus returns the transactions of s that are not in o, as a new set. For MariaDB
// it returns the domains in which s has come further than o, with where s stands.
func (s *Set) Minus(o *Set) *Set {
	if s.flavor != o.flavor {
		return s.Clone()
	}
	rest := New(s.flavor)
	for _, g := range s.domains {
		if !o.Has(g) {
			rest.domains = append(rest.domains, g)
		}
	}
	for i := range s.sources {
		e := s.sources[i].clone()
		if at, ok := o.source(e.sid, &e.tag); ok {
			e.in = subtract(e.in, o.sources[at].in)
		}
		if len(e.in) > 0 {
			rest.sources = append(rest.sources, e)
		}
	}
	return rest
}

// subtract returns what of a is not in b.
func subtract(a, b []Interval) []Interval {
	var out []Interval
	for _, in := range a {
		for len(b) > 0 && b[0].Last < in.First {
			b = b[1:]
		}
		for _, cut := range b {
			if cut.First > in.Last {
				break
			}
			if cut.First > in.First {
				out = append(out, Interval{in.First, cut.First - 1})
			}
			in.First = cut.Last + 1
			if in.First > in.Last {
				break
			}
		}
		if in.First <= in.Last {
			out = append(out, in)
		}
	}
	return out
}

// Missing says for a message what o holds and s lacks: for MySQL the set of it, for
// MariaDB from where to where each domain lacks transactions. It returns "" if
// nothing is missing, and shortens what nobody would read.
func (s *Set) Missing(o *Set) string {
	lack := o.Minus(s)
	if lack.flavor != MariaDB {
		return shorten(lack.String())
	}
	var b strings.Builder
	for i, g := range lack.domains {
		if i > 0 {
			b.WriteString(", ")
		}
		if have, ok := s.Last(g.Domain); ok && s.flavor == MariaDB {
			fmt.Fprintf(&b, "domain %d behind %s up to %s", g.Domain, have, g)
		} else {
			fmt.Fprintf(&b, "all of domain %d up to %s", g.Domain, g)
		}
	}
	return shorten(b.String())
}

func shorten(text string) string {
	const most = 1000
	if len(text) <= most {
		return text
	}
	return fmt.Sprintf("%s… (%d characters more)", text[:most], len(text)-most)
}
