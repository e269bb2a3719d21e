package gtid

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is a set of MySQL transactions as plainly as can be.
type model map[GTID]bool

var tags = func() (tags []Tag) {
	for _, text := range []string{"", "a", "ab", "z9"} {
		tag, _ := ParseTag(text)
		tags = append(tags, tag)
	}
	return tags
}()

func gtids() *rapid.Generator[GTID] {
	return rapid.Custom(func(t *rapid.T) GTID {
		g := GTID{Flavor: MySQL, Tag: rapid.SampledFrom(tags).Draw(t, "tag"), N: rapid.Uint64Range(1, 12).Draw(t, "n")}
		g.SID[15] = rapid.ByteRange(1, 3).Draw(t, "sid")
		return g
	})
}

// sets draws a set, made in one of several ways, and its model.
func sets(t *rapid.T, name string) (*Set, model) {
	m, s := model{}, New(MySQL)
	for _, g := range rapid.SliceOfN(gtids(), 0, 60).Draw(t, name) {
		if s.Add(g) == m[g] {
			t.Fatalf("Add(%s) says that it was new although it was there, or the reverse", g)
		}
		m[g] = true
	}
	return s, m
}

// check compares a set with a model.
func check(t *rapid.T, what string, s *Set, m model) {
	t.Helper()
	if uint64(len(m)) != s.Count() || s.IsEmpty() != (len(m) == 0) {
		t.Fatalf("%s: %s has %d transactions, want %d", what, s, s.Count(), len(m))
	}
	for g := range m {
		if !s.Has(g) {
			t.Fatalf("%s: %s lacks %s", what, s, g)
		}
	}
	for i := range s.sources {
		e := &s.sources[i]
		if len(e.in) == 0 || i > 0 && s.sources[i-1].compare(&e.sid, &e.tag) >= 0 {
			t.Fatalf("%s: the sources of %s are in disorder", what, s)
		}
		for k, in := range e.in {
			if in.First == 0 || in.First > in.Last || k > 0 && e.in[k-1].Last+1 >= in.First {
				t.Fatalf("%s: the intervals of %s are in disorder", what, s)
			}
		}
	}
}

func TestAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, am := sets(t, "a")
		b, bm := sets(t, "b")
		check(t, "a", a, am)

		union := maps.Clone(am)
		maps.Copy(union, bm)
		check(t, "union", a.Union(b), union)
		minus := maps.Clone(am)
		maps.DeleteFunc(minus, func(g GTID, _ bool) bool { return bm[g] })
		check(t, "difference", a.Minus(b), minus)

		contains, overlaps := true, false
		for g := range bm {
			contains = contains && am[g]
			overlaps = overlaps || am[g]
		}
		if a.Contains(b) != contains || a.Overlaps(b) != overlaps || b.Overlaps(a) != overlaps {
			t.Fatalf("%s and %s: contains %v, overlaps %v", a, b, a.Contains(b), a.Overlaps(b))
		}
		if a.Equal(b) != maps.Equal(am, bm) || !a.Equal(a.Clone()) {
			t.Fatalf("%s and %s are equal: %v", a, b, a.Equal(b))
		}
		if !a.Union(b).Equal(b.Union(a)) || !a.Minus(b).Union(b).Equal(a.Union(b)) || !a.Union(b).Contains(a) {
			t.Fatalf("%s and %s: union and difference disagree", a, b)
		}
		if a.Minus(b).Equal(New(MySQL)) != b.Contains(a) || (b.Missing(a) == "") != b.Contains(a) {
			t.Fatalf("%s and %s: what is missing: %s", a, b, b.Missing(a))
		}

		// Operations leave their operands alone, and clones are apart.
		c := a.Clone()
		c.Add(GTID{Flavor: MySQL, N: 99})
		for g := range bm {
			c.Add(g)
		}
		check(t, "a afterwards", a, am)
		check(t, "b afterwards", b, bm)
	})
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, am := sets(t, "a")
		text, err := Parse(MySQL, a.String())
		if err != nil || !text.Equal(a) {
			t.Fatalf("%s read back is %s, %v", a, text, err)
		}
		decoded, err := DecodeMySQL(a.EncodeMySQL())
		if err != nil || !decoded.Equal(a) || !bytes.Equal(decoded.EncodeMySQL(), a.EncodeMySQL()) {
			t.Fatalf("%s decoded is %s, %v", a, decoded, err)
		}

		// Any order of any notation is the same set.
		list := slices.SortedFunc(maps.Keys(am), func(x, y GTID) int { return int(x.N) - int(y.N) })
		var b []byte
		for _, g := range rapid.Permutation(list).Draw(t, "order") {
			b = append(g.AppendTo(b), ",\n "...)
			one, err := ParseGTID(g.String())
			if err != nil || one != g {
				t.Fatalf("%s read back is %s, %v", g, one, err)
			}
		}
		listed, err := Parse(MySQL, string(b))
		if err != nil || !listed.Equal(a) {
			t.Fatalf("%s read as a list is %s, %v", a, listed, err)
		}
	})
}

func TestMariaDBAgainstModel(t *testing.T) {
	t.Parallel()
	draw := func(t *rapid.T, name string) (*Set, map[uint32]uint64) {
		s, m := New(MariaDB), map[uint32]uint64{}
		for _, n := range rapid.SliceOfN(rapid.Uint64Range(0, 39), 0, 8).Draw(t, name) {
			g := GTID{Flavor: MariaDB, Domain: uint32(n % 4), Server: uint32(n % 3), N: n/4 + 1}
			if s.Add(g) != (g.N > m[g.Domain]) {
				t.Fatalf("Add(%s) to %s is wrong", g, s)
			}
			m[g.Domain] = max(m[g.Domain], g.N)
		}
		return s, m
	}
	rapid.Check(t, func(t *rapid.T) {
		a, am := draw(t, "a")
		b, bm := draw(t, "b")
		contains, overlaps := true, false
		for domain, n := range bm {
			contains = contains && am[domain] >= n
			overlaps = overlaps || am[domain] > 0
		}
		if a.Contains(b) != contains || a.Overlaps(b) != overlaps || a.Minus(b).IsEmpty() != b.Contains(a) {
			t.Fatalf("%s and %s: contains %v, overlaps %v", a, b, a.Contains(b), a.Overlaps(b))
		}
		u := a.Union(b)
		if !u.Contains(a) || !u.Contains(b) || len(u.Domains()) != len(mergedKeys(am, bm)) {
			t.Fatalf("%s and %s: union %s", a, b, u)
		}
		back, err := Parse(MariaDB, u.String())
		if err != nil || !back.Equal(u) {
			t.Fatalf("%s read back is %s, %v", u, back, err)
		}
		if list, err := DecodeList(u.EncodeList()); err != nil || !list.Equal(u) {
			t.Fatalf("%s decoded is %s, %v", u, list, err)
		}
	})
}

func mergedKeys(a, b map[uint32]uint64) map[uint32]uint64 {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"", "0-1-2,3-4-5", u1 + ":1-5:7-9,\n" + u2 + ":tag:1-3:b:1", "{" + u1 + "}:1", u1 + ":1:", "\\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, flavor := range []Flavor{MySQL, MariaDB} {
			if s, err := Parse(flavor, text); err == nil {
				if back := mustParse(t, flavor, s.String()); !back.Equal(s) {
					t.Errorf("%q reads as %s, and that as %s", text, s, back)
				}
			}
		}
		if g, err := ParseGTID(text); err == nil {
			if back, err := ParseGTID(g.String()); err != nil || back != g {
				t.Errorf("%q reads as %s, and that as %s, %v", text, g, back, err)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, text := range []string{"", u1 + ":1-5:7-9," + u2 + ":1", u1 + ":tag:1-3"} {
		f.Add(mustParse(f, MySQL, text).EncodeMySQL())
	}
	f.Add(mustParse(f, MariaDB, "0-1-2,3-4-5").EncodeList())
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeMySQL(b); err == nil {
			if back, err := DecodeMySQL(s.EncodeMySQL()); err != nil || !back.Equal(s) {
				t.Errorf("%x is %s, and that encoded again %s, %v", b, s, back, err)
			}
		}
		if s, err := DecodeList(b); err == nil {
			if back, err := DecodeList(s.EncodeList()); err != nil || !back.Equal(s) {
				t.Errorf("%x is %s, and that encoded again %s, %v", b, s, back, err)
			}
		}
	})
}
