package gtid

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"txreel/internal/dbtest"
)

// TestAgainstMySQL compares the notation and the algebra of sets with the server's own, for sets
// written in disorder.
func TestAgainstMySQL(t *testing.T) {
	t.Parallel()
	m := dbtest.My(t, "mysql")
	random := rand.New(rand.NewPCG(1, 2))
	type pair struct{ a, b string }
	var pairs []pair
	var query strings.Builder
	for range 400 {
		p := pair{scribble(random), scribble(random)}
		pairs = append(pairs, p)
		fmt.Fprintf(&query, "SELECT GTID_SUBTRACT('%s', ''), GTID_SUBTRACT('%s', '%s'), GTID_SUBSET('%s', '%s');", p.a, p.a, p.b, p.b, p.a)
	}
	for i, row := range m.MustQuery(t, "", query.String()) {
		a, b := mustParse(t, MySQL, pairs[i].a), mustParse(t, MySQL, pairs[i].b)
		for k := range 2 {
			row[k] = strings.ReplaceAll(row[k], ",\n", ",")
		}
		if a.String() != row[0] {
			t.Errorf("%q prints as %s, MySQL prints %s", pairs[i].a, a, row[0])
		}
		if got := a.Minus(b).String(); got != row[1] {
			t.Errorf("%s minus %s is %s, MySQL says %s", a, b, got, row[1])
		}
		if a.Contains(b) != (row[2] == "1") {
			t.Errorf("%s contains %s: %v, MySQL says %s", a, b, a.Contains(b), row[2])
		}
	}

	// What the server refuses is refused.
	for _, text := range []string{u1 + ":0", u1 + ":", u1 + "::1", u1 + ":1-9223372036854775807", u1 + ":x-y:1", u1 + ":1a:1", u1[1:] + ":1", u1 + ":" + strings.Repeat("x", 33) + ":1", "0-1-2"} {
		if err := m.Exec(t.Context(), "", "SELECT GTID_SUBTRACT('"+text+"', '')"); err == nil {
			t.Errorf("MySQL takes %q", text)
		}
		if s, err := Parse(MySQL, text); err == nil {
			t.Errorf("%q reads as %s", text, s)
		}
	}
}

// scribble writes a set as nobody should.
func scribble(random *rand.Rand) string {
	var b strings.Builder
	for range random.IntN(5) {
		uuid := fmt.Sprintf("%08x-0000-0000-0000-00000000000A", random.IntN(3)<<30)
		if random.IntN(2) == 0 {
			uuid = strings.ToUpper(uuid)
		}
		b.WriteString(uuid)
		for range 1 + random.IntN(5) {
			if random.IntN(4) == 0 {
				fmt.Fprintf(&b, " : %s", []string{"a", "B", "_z9", "ab"}[random.IntN(4)])
			}
			first := 1 + random.IntN(30)
			fmt.Fprintf(&b, ":%d", first)
			if random.IntN(2) == 0 {
				fmt.Fprintf(&b, " - %d", first+random.IntN(5))
			}
		}
		b.WriteString([]string{",", ",\n", " , ", ",,"}[random.IntN(4)])
	}
	return b.String()
}

// TestAgainstMariaDB compares positions with the server's own notation of them.
func TestAgainstMariaDB(t *testing.T) {
	t.Parallel()
	m := dbtest.My(t, "mariadb")
	for _, text := range []string{"", "0-1-42", "7-1-18446744073709551615,0-4294967295-2 , 4294967295-3-1", "3-1-1,2-1-1,1-1-1,10-1-1"} {
		got := mustParse(t, MariaDB, text).String()
		if said := m.MustQuery(t, "", "SET GLOBAL gtid_slave_pos = '"+strings.ReplaceAll(text, " ", "")+"'; SELECT @@gtid_slave_pos"); said[0][0] != got {
			t.Errorf("%q prints as %s, MariaDB prints %s", text, got, said[0][0])
		}
	}
	for _, text := range []string{"0-1-1,0-2-2", "0-1", "4294967296-1-1", "0-1-18446744073709551616", "a-b-c"} {
		if err := m.Exec(t.Context(), "", "SET GLOBAL gtid_slave_pos = '"+text+"'"); err == nil {
			t.Errorf("MariaDB takes %q", text)
		}
		if s, err := Parse(MariaDB, text); err == nil {
			t.Errorf("%q reads as %s", text, s)
		}
	}
}
