package ddl

import (
	"slices"
	"testing"
)

func TestTexts(t *testing.T) {
	const ours = "PL/pgSQL function txreel.on_ddl() line 7 at GET DIAGNOSTICS"
	for _, c := range []struct {
		name, context, function string
		texts                   []string
		number                  int
	}{
		{"by itself", ours, "", []string{"what was sent"}, 0},
		{"in a function", ours + "\nSQL statement \"CREATE TABLE t (a int)\"\nPL/pgSQL function f() line 1 at SQL statement", "", []string{"CREATE TABLE t (a int)"}, 0},
		{"with a quote at the end of a line", ours + "\nSQL statement \"CREATE TABLE \"a\"\n(b int)\"", "", []string{"CREATE TABLE \"a", "CREATE TABLE \"a\"\n(b int)"}, 0},
		{"in a function in SQL", ours + "\nSQL function \"f\" statement 2\nPL/pgSQL function g() line 1", "f", nil, 2},
		{"in one whose name has quotes", ours + "\nSQL function \"a \"f\" statement 10", `a "f`, nil, 10},
		{"in one that says as much", ours + "\nSQL function \"f\" statement 1\" statement 3", `f" statement 1`, nil, 3},
		{"in one before it starts", ours + "\nSQL function \"f\" during startup", "", nil, 0},
	} {
		e := Entry{Query: "what was sent", Context: c.context}
		texts, function, number := e.Texts()
		if !slices.Equal(texts, c.texts) || function != c.function || number != c.number {
			t.Errorf("%s: %q, %q, %d", c.name, texts, function, number)
		}
	}
}
