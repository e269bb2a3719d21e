package gtid

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// String prints the set in its server's own notation, on one line: MySQL breaks the
// line behind each comma when it prints one, and reads both.
func (s *Set) String() string { return string(s.AppendTo(nil)) }

// AppendTo appends what String returns to b.
func (s *Set) AppendTo(b []byte) []byte {
	for i := range s.domains {
		if i > 0 {
			b = append(b, ',')
		}
		b = s.domains[i].AppendTo(b)
	}
	for i := range s.sources {
		e := &s.sources[i]
		if i == 0 || s.sources[i-1].sid != e.sid {
			if i > 0 {
				b = append(b, ',')
			}
			b = e.sid.appendTo(b)
		}
		if !e.tag.IsZero() {
			b = append(append(b, ':'), e.tag.bytes()...)
		}
		for _, in := range e.in {
			b = strconv.AppendUint(append(b, ':'), in.First, 10)
			if in.Last > in.First {
				b = strconv.AppendUint(append(b, '-'), in.Last, 10)
			}
		}
	}
	return b
}

// Parse reads a set as its server prints it, and as people paste it: with blanks, line
// breaks and those that a client printed as \n, in either case, in any order, with
// empty parts and overlapping intervals. The empty text is the empty set.
func Parse(flavor Flavor, text string) (*Set, error) {
	if strings.Contains(text, `\`) {
		text = strings.NewReplacer(`\n`, "\n", `\r`, "\r", `\t`, "\t").Replace(text)
	}
	switch flavor {
	case MySQL:
		return parseMySQLSet(text)
	case MariaDB:
		return parseMariaDBSet(text)
	}
	return nil, fmt.Errorf("read a GTID set of %s: there is no such server", flavor)
}

func parseMySQLSet(text string) (*Set, error) {
	s := New(MySQL)
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		if err := s.parsePart(part); err != nil {
			return nil, fmt.Errorf("read a GTID set: %w", err)
		}
	}
	s.settle()
	return s, nil
}

// parsePart reads what stands between two commas. The set is in no order until
// settle.
func (s *Set) parsePart(part string) error {
	head, rest, more := strings.Cut(part, ":")
	sid, err := ParseUUID(strings.TrimSpace(head))
	if err != nil {
		return err
	}
	e := source{sid: sid}
	for more {
		var word string
		word, rest, more = strings.Cut(rest, ":")
		word = strings.TrimSpace(word)
		if word == "" || word[0] < '0' || word[0] > '9' {
			tag, err := ParseTag(word)
			if err != nil {
				return err
			}
			if tag.IsZero() {
				return fmt.Errorf("there is nothing between two colons of %q: write it as the server does, such as 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7", clip(part))
			}
			s.sources = append(s.sources, e)
			e = source{sid: sid, tag: tag}
			continue
		}
		first, last, isRange := strings.Cut(word, "-")
		in := Interval{}
		if in.First, err = parseN(strings.TrimSpace(first)); err != nil {
			return err
		}
		in.Last = in.First
		if isRange {
			if in.Last, err = parseN(strings.TrimSpace(last)); err != nil {
				return err
			}
		}
		if in.First > in.Last { // the server reads this as an empty interval; a person meant something else
			return fmt.Errorf("the interval %q ends before it begins", clip(word))
		}
		e.in = append(e.in, in)
	}
	s.sources = append(s.sources, e)
	return nil
}

// settle orders what was read, joins what belongs together and drops what is empty.
func (s *Set) settle() {
	slices.SortStableFunc(s.sources, func(a, b source) int { return a.compare(&b.sid, &b.tag) })
	out := s.sources[:0]
	for _, e := range s.sources {
		if k := len(out) - 1; k >= 0 && out[k].sid == e.sid && out[k].tag == e.tag {
			out[k].in = append(out[k].in, e.in...)
			continue
		}
		out = append(out, e)
	}
	for i := range out {
		out[i].in = normalize(out[i].in)
	}
	s.sources = slices.DeleteFunc(out, func(e source) bool { return len(e.in) == 0 })
}

func parseMariaDBSet(text string) (*Set, error) {
	s := New(MariaDB)
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		g, err := parseMariaDB(part)
		if err != nil {
			return nil, fmt.Errorf("read a GTID position: %w", err)
		}
		s.domains = append(s.domains, g)
	}
	slices.SortFunc(s.domains, func(a, b GTID) int { return cmp.Compare(a.Domain, b.Domain) })
	for i := 1; i < len(s.domains); i++ {
		if a, b := s.domains[i-1], s.domains[i]; a.Domain == b.Domain {
			return nil, fmt.Errorf("read a GTID position: %s and %s are of the same domain: name one transaction of each", a, b)
		}
	}
	return s, nil
}
