package mybase

import (
	"strings"
	"testing"

	"txreel/internal/rowsum"
)

// TestContentOfLines gives rows in pieces of every size, and expects the sum of the lines of a chunk.
func TestContentOfLines(t *testing.T) {
	table := &Table{Columns: []Column{{Name: "a", Form: FormBytes}, {Name: "generated"}, {Name: "b", Form: FormText, Type: "uuid"}}}
	rows := [][]string{{"1", "tab\tline\nback\\"}, {"", "\x00NULL"}, {"\x00NULL", ""}, {strings.Repeat("x\n", spillAt), "y"}, {"after", strings.Repeat("\\", spillAt-6)}, {"end", "z"}}
	var want rowsum.Sum
	for _, r := range rows {
		var line []byte
		for i, v := range r {
			if i > 0 {
				line = append(line, '\t')
			}
			if v == "\x00NULL" {
				line = AppendValue(line, nil)
			} else {
				line = AppendValue(line, []byte(v))
			}
		}
		want.Add(line)
	}
	var c Content
	for _, size := range []int{1, 3, 1000, 1 << 20} {
		c.Begin(table)
		if !c.Plain() || c.Columns() != 2 {
			t.Errorf("plain %v, %d columns", c.Plain(), c.Columns())
		}
		for _, r := range rows {
			for _, v := range r {
				if v == "\x00NULL" {
					c.Null()
					continue
				}
				for len(v) > 0 {
					n := min(size, len(v))
					c.Piece([]byte(v[:n]))
					v = v[n:]
				}
				c.EndValue()
			}
			c.EndRow()
		}
		if c.Sum != want {
			t.Errorf("in pieces of %d bytes: %v, want %v", size, c.Sum, want)
		}
	}
	c.Piece([]byte(strings.Repeat("begun", spillAt))) // and never ended
	c.Begin(table)
	if c.Content() != (rowsum.Sum{}).Content() {
		t.Error("a row that was begun is in the next table")
	}
}

// TestNumbers writes the numbers of documents, whole and byte by byte.
func TestNumbers(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"a": 1.10, "b": [1.1, -0.5e3, 0.0, -0.0]}`, `{"a": 1.1e+00, "b": [1.1e+00, -5e+02, 0e+00, -0e+00]}`},
		{`[1, -9223372036854775808, 18446744073709551615, 18446744073709551616]`, `[1, -9223372036854775808, 18446744073709551615, 1.8446744073709552e+19]`},
		{`12345678901234567890.12345678901234567890`, `1.2345678901234567e+19`},
		{`1.2345678901234567e19`, `1.2345678901234567e+19`},
		{`{"1.50": "1.50 \" 1.50 \\", "e": true, "x": null, "f": false}`, `{"1.50": "1.50 \" 1.50 \\", "e": true, "x": null, "f": false}`},
		{`1e999`, `1e999`},
		{`"2024-01-01 00:00:00.000000"`, `"2024-01-01 00:00:00.000000"`},
		{`[]`, `[]`},
		{`-`, `-`},
		{strings.Repeat("9", 300) + ",1.0", "1e+12891e+12891e+42,1e+00"},
	} {
		for _, size := range []int{len(c.in), 1} {
			var n numbers
			var got []byte
			for rest := c.in; len(rest) > 0; {
				k := min(size, len(rest))
				got = n.append(got, []byte(rest[:k]))
				rest = rest[k:]
			}
			if got = n.end(got); string(got) != c.want {
				t.Errorf("%s in pieces of %d becomes %s, want %s", c.in, size, got, c.want)
			}
		}
	}
	table := &Table{Columns: []Column{{Name: "id", Form: FormBytes}, {Name: "j", Form: FormText, Type: "json"}, {Name: "k", Form: FormBytes}}}
	var a, b Content
	for c, text := range map[*Content]string{&a: `{"n": 1.50}`, &b: `{"n": 1.5}`} {
		c.Begin(table)
		if c.Plain() {
			t.Error("a table with JSON is plain")
		}
		for _, v := range []string{"1.50", text, "1.50"} {
			c.Piece([]byte(v))
			c.EndValue()
		}
		c.EndRow()
	}
	if a.Sum != b.Sum {
		t.Error("1.50 and 1.5 in JSON differ")
	}
}
