package gtid

import (
	"strings"
	"testing"
)

const (
	u1 = "00000000-0000-0000-0000-000000000001"
	u2 = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
)

func TestParseGTID(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"mysql", u2 + ":23", u2 + ":23"},
		{"upper case, blanks", " 3E11FA47-71CA-11E1-9E33-C80AA9429562 : 23\n", u2 + ":23"},
		{"without dashes", "3e11fa4771ca11e19e33c80aa9429562:1", u2 + ":1"},
		{"braces", "{" + u2 + "}:1", u2 + ":1"},
		{"tagged", u2 + ":Tag_1:23", u2 + ":tag_1:23"},
		{"longest tag", u2 + ":" + strings.Repeat("x", 32) + ":1", u2 + ":" + strings.Repeat("x", 32) + ":1"},
		{"highest number", u2 + ":9223372036854775806", u2 + ":9223372036854775806"},
		{"mariadb", "0-1-42", "0-1-42"},
		{"mariadb, highest", "4294967295-4294967295-18446744073709551615", "4294967295-4294967295-18446744073709551615"},
		{"empty", "", "error"},
		{"zero", u2 + ":0", "error"},
		{"past the highest", u2 + ":9223372036854775807", "error"},
		{"interval", u2 + ":1-2", "error"},
		{"no number", u2 + ":", "error"},
		{"tag alone", u2 + ":tag", "error"},
		{"empty tag", u2 + "::1", "error"},
		{"digit first in tag", u2 + ":1a:1", "error"},
		{"long tag", u2 + ":" + strings.Repeat("x", 33) + ":1", "error"},
		{"odd tag", u2 + ":a-b:1", "error"},
		{"four parts", u2 + ":a:b:1", "error"},
		{"short uuid", u2[1:] + ":1", "error"},
		{"not hexadecimal", "z" + u2[1:] + ":1", "error"},
		{"dashes elsewhere", "3e11fa4-771ca-11e1-9e33-c80aa9429562:1", "error"},
		{"domain too large", "4294967296-1-1", "error"},
		{"sign", "+1-1-1", "error"},
		{"four numbers", "0-1-2-3", "error"},
	} {
		g, err := ParseGTID(c.in)
		got := g.String()
		if err != nil {
			got = "error"
			if g != (GTID{}) {
				t.Errorf("%s: an error came with %v", c.name, g)
			}
		}
		if got != c.want {
			t.Errorf("%s: ParseGTID(%q) = %s, %v; want %s", c.name, c.in, got, err, c.want)
		}
	}
}

func TestParseSet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		flavor   Flavor
		in, want string
	}{
		{"empty", MySQL, " \n", ""},
		{"commas", MySQL, ",,", ""},
		{"server's own", MySQL, u1 + ":1-5:7-9,\n" + u2 + ":1", u1 + ":1-5:7-9," + u2 + ":1"},
		{"as batch clients print", MySQL, u1 + `:1-5,\n` + u2 + ":1", u1 + ":1-5," + u2 + ":1"},
		{"other order", MySQL, u2 + ":1," + u1 + ":7-9:1-5", u1 + ":1-5:7-9," + u2 + ":1"},
		{"touching", MySQL, u1 + ":1-5:6:7-9", u1 + ":1-9"},
		{"overlapping, twice", MySQL, u1 + ":1-5," + strings.ToUpper(u1) + " : 3 - 9 ", u1 + ":1-9"},
		{"tagged", MySQL, u1 + ":1-3:tag:1-5:7", u1 + ":1-3:tag:1-5:7"},
		{"tags in another order", MySQL, u1 + ":b:1:A:2:3," + u1 + ":4", u1 + ":4:a:2-3:b:1"},
		{"uuid alone", MySQL, u1 + "," + u2 + ":1", u2 + ":1"},
		{"tag alone", MySQL, u1 + ":a," + u2 + ":a:b:1", u2 + ":b:1"},
		{"highest", MySQL, u1 + ":9223372036854775806", u1 + ":9223372036854775806"},
		{"backwards", MySQL, u1 + ":5-4", "error"},
		{"nothing between colons", MySQL, u1 + ":1::2", "error"},
		{"nothing behind a colon", MySQL, u1 + ":", "error"},
		{"number too large", MySQL, u1 + ":1-9223372036854775807", "error"},
		{"no uuid", MySQL, "0-1-42", "error"},
		{"mariadb", MariaDB, "5-1-7, 0-3-42\n", "0-3-42,5-1-7"},
		{"mariadb, empty", MariaDB, "", ""},
		{"domain twice", MariaDB, "0-1-1,0-2-2", "error"},
		{"mysql's notation", MariaDB, u1 + ":1", "error"},
		{"no flavor", 0, "", "error"},
	} {
		s, err := Parse(c.flavor, c.in)
		got := "error"
		if err == nil {
			got = s.String()
		}
		if got != c.want {
			t.Errorf("%s: Parse(%q) = %s, %v; want %s", c.name, c.in, got, err, c.want)
		}
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flavor           Flavor
		have, want, text string
	}{
		{MySQL, u1 + ":1-5", u1 + ":1-9," + u2 + ":3", u1 + ":6-9," + u2 + ":3"},
		{MySQL, u1 + ":1-9", u1 + ":1-5", ""},
		{MariaDB, "0-1-40", "0-2-42,1-1-7", "domain 0 behind 0-1-40 up to 0-2-42, all of domain 1 up to 1-1-7"},
		{MariaDB, "0-1-42", "0-2-42", ""},
	} {
		if got := mustParse(t, c.flavor, c.have).Missing(mustParse(t, c.flavor, c.want)); got != c.text {
			t.Errorf("what %q lacks of %q: %q, want %q", c.have, c.want, got, c.text)
		}
	}
	long := New(MySQL)
	for n := uint64(1); n < 2000; n += 2 {
		long.Add(GTID{Flavor: MySQL, N: n})
	}
	if got := New(MySQL).Missing(long); len(got) > 1100 || !strings.Contains(got, "more)") {
		t.Errorf("a long set is %d characters in a message: %.60s", len(got), got)
	}
}

func TestMariaDBSequence(t *testing.T) {
	t.Parallel()
	s := mustParse(t, MariaDB, "0-1-10")
	g := func(domain, server uint32, n uint64) GTID {
		return GTID{Flavor: MariaDB, Domain: domain, Server: server, N: n}
	}
	if s.Add(g(0, 2, 10)) || s.Add(g(0, 1, 9)) || s.String() != "0-1-10" {
		t.Errorf("a sequence number that does not rise was taken: %s", s)
	}
	if !s.Add(g(0, 2, 15)) || !s.Add(g(3, 1, 1)) || s.String() != "0-2-15,3-1-1" {
		t.Errorf("after two new transactions: %s", s)
	}
	s.Put(g(0, 1, 11))
	if last, ok := s.Last(0); s.String() != "0-1-11,3-1-1" || !ok || last != g(0, 1, 11) {
		t.Errorf("after Put: %s", s)
	}
	if !s.Has(g(0, 7, 11)) || s.Has(g(0, 1, 12)) || s.Has(g(9, 1, 1)) || s.Add(GTID{Flavor: MySQL, N: 1}) {
		t.Error("Has or Add took one for another")
	}
}

// TestAddAllocates shows that the set of what capture holds costs nothing per
// transaction, whichever of several sources it comes from.
func TestAddAllocates(t *testing.T) {
	for _, flavor := range []Flavor{MySQL, MariaDB} {
		s, n := New(flavor), uint64(0)
		add := func() {
			n++
			for i := range 3 {
				tag, _ := ParseTag([]string{"", "a", "b"}[i])
				s.Add(GTID{Flavor: flavor, Tag: tag, Domain: uint32(i), Server: 1, N: n})
			}
		}
		add()
		if got := testing.AllocsPerRun(100, add); got != 0 {
			t.Errorf("%s: %v allocations for three transactions", flavor, got)
		}
	}
}

func mustParse(t interface {
	Helper()
	Fatal(...any)
}, flavor Flavor, text string) *Set {
	t.Helper()
	s, err := Parse(flavor, text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
