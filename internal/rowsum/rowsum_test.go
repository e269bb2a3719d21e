package rowsum

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func sumOf(rows ...string) (s Sum) {
	for _, r := range rows {
		s.Add([]byte(r))
	}
	return s
}

// TestContent pins what stands in manifests: it must never change. The numbers are those of xxHash's own reference:
// XXH3_128bits of the empty string, of "a" and of "abc", added up by hand.
func TestContent(t *testing.T) {
	for _, c := range []struct {
		rows []string
		want string
	}{
		{nil, "xxh3:00000000000000000000000000000000"},
		{[]string{""}, "xxh3:99aa06d3014798d86001c324468d497f"},
		{[]string{"a"}, "xxh3:a96faf705af16834e6c632b61e964e1f"},
		{[]string{"abc"}, "xxh3:06b05ab6733a618578af5f94892f3950"},
		{[]string{"a", ""}, "xxh3:4319b6435c39010d46c7f5da6523979e"},
	} {
		if got := sumOf(c.rows...).Content(); got != c.want {
			t.Errorf("%q: %s, want %s", c.rows, got, c.want)
		}
	}
	if !Comparable(sumOf("a").Content()) || Comparable("") || Comparable("xxh4:00") {
		t.Error("Comparable does not tell this package's notation from others")
	}
}

// TestSum compares what is the same table with what is another one.
func TestSum(t *testing.T) {
	base := sumOf("1\tone", "2\ttwo", "2\ttwo", "3\t\\N")
	for _, c := range []struct {
		name string
		sum  Sum
		same bool
	}{
		{"another order", sumOf("3\t\\N", "2\ttwo", "1\tone", "2\ttwo"), true},
		{"one bit", sumOf("1\tonf", "2\ttwo", "2\ttwo", "3\t\\N"), false},
		{"one lost and another twice", sumOf("1\tone", "1\tone", "2\ttwo", "3\t\\N"), false},
		{"NULL and its letters", sumOf("1\tone", "2\ttwo", "2\ttwo", "3\tN"), false},
		{"values that moved from one row to another", sumOf("2\tone", "1\ttwo", "2\ttwo", "3\t\\N"), false},
		{"one row fewer", sumOf("1\tone", "2\ttwo", "3\t\\N"), false},
	} {
		if same := c.sum == base && c.sum.Content() == base.Content(); same != c.same {
			t.Errorf("%s: the same is %v", c.name, same)
		}
	}
}

// TestParts cuts rows into pieces, and tables into parts, anywhere.
func TestParts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var rows []string
	for i := range 300 {
		rows = append(rows, fmt.Sprint(i)+strings.Repeat("x", r.IntN(1+i*r.IntN(10))))
	}
	rows = append(rows, "", "", strings.Repeat("long", 1<<18))
	want := sumOf(rows...)
	text := strings.Join(rows, "\n") + "\n"
	for _, most := range []int{1, 7, 250, 5000, len(text)} {
		var l Lines
		_, _ = l.Write([]byte("begun and"))
		l.Reset()
		var parts Sum
		for rest := text; len(rest) > 0; {
			n := 1 + r.IntN(min(most, len(rest)))
			if got, err := l.Write([]byte(rest[:n])); got != n || err != nil {
				t.Fatal(got, err)
			}
			rest = rest[n:]
			if !l.open && r.IntN(3) == 0 {
				parts.Merge(l.Sum)
				l.Reset()
			}
		}
		parts.Merge(l.Sum)
		if parts != want || l.open {
			t.Errorf("in pieces of up to %d bytes: %v, want %v", most, parts, want)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	var l Lines
	text := []byte("1\tone\n2\ttw")
	if n := testing.AllocsPerRun(100, func() { _, _ = l.Write(text) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLines(b *testing.B) {
	for _, size := range []int{20, 100, 500, 5000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			row := []byte(strings.Repeat("v", size-1) + "\n")
			var l Lines
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = l.Write(row)
			}
		})
	}
}
