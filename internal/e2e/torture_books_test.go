package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
)

// item is an element of a list of the bank.
type item struct{ list, pos, client, n int }

// books are what the bank's tables hold after some transactions, computed.
type books struct {
	balances []int64
	lens     []int
	items    []item
	entries  map[entry]int // with the number of notes
}

func newBooks() *books {
	b := &books{balances: make([]int64, bankAccounts), lens: make([]int, bankLists), entries: make(map[entry]int)}
	for i := range b.balances {
		b.balances[i] = bankBalance
	}
	return b
}

// apply adds a transaction.
func (b *books) apply(d *deed) {
	if d.src >= 0 {
		b.balances[d.src] -= int64(d.amount)
		b.balances[d.dst] += int64(d.amount)
	}
	if d.list >= 0 {
		b.lens[d.list]++
		b.items = append(b.items, item{d.list, b.lens[d.list], d.client, d.n})
	}
	b.entries[d.entry] = d.notes
}

// compare fails the test unless a database, asked through query, holds exactly this. The invariants are looked at by
// themselves: they hold at every point, whatever the books say.
func (b *books) compare(t *testing.T, what string, query func(sql string) [][]string) {
	t.Helper()
	var sum, wanted int64
	for i, row := range numbers(t, query("SELECT id, balance FROM accounts ORDER BY id"), 2) {
		sum += int64(row[1])
		if row[0] != i || i >= len(b.balances) || b.balances[i] != int64(row[1]) {
			t.Errorf("%s: account %d holds %d", what, row[0], row[1])
		}
	}
	if wanted = bankAccounts * bankBalance; sum != wanted {
		t.Errorf("%s: the accounts hold %d together, not %d", what, sum, wanted)
	}
	var lists []int
	for _, row := range numbers(t, query("SELECT id, len FROM heads ORDER BY id"), 2) {
		lists = append(lists, row[1])
	}
	if !slices.Equal(lists, b.lens) {
		t.Errorf("%s: the lists are %d long, not %d", what, lists, b.lens)
	}
	var items []item
	next := make(map[int]int)
	for _, row := range numbers(t, query("SELECT list, pos, client, n FROM items ORDER BY list, pos"), 4) {
		if next[row[0]]++; next[row[0]] != row[1] {
			t.Errorf("%s: list %d has a hole before %d", what, row[0], row[1])
			next[row[0]] = row[1]
		}
		items = append(items, item{row[0], row[1], row[2], row[3]})
	}
	want := slices.SortedFunc(slices.Values(b.items), func(x, y item) int {
		if x.list != y.list {
			return x.list - y.list
		}
		return x.pos - y.pos
	})
	if !slices.Equal(items, want) {
		t.Errorf("%s: the lists hold %d items, or others than the %d they must", what, len(items), len(want))
	}
	found := make(map[entry]bool)
	for _, row := range numbers(t, query(`SELECT e.client, e.n, e.notes, (SELECT count(*) FROM notes o WHERE o.client = e.client AND o.n = e.n) FROM entries e`), 4) {
		e := entry{row[0], row[1]}
		notes, ok := b.entries[e]
		if found[e] = true; !ok || notes != row[2] || notes != row[3] {
			t.Errorf("%s: transaction %v is there with %d of %d notes; it must be: %v", what, e, row[3], row[2], ok)
		}
	}
	if len(found) != len(b.entries) {
		t.Errorf("%s: %d transactions are there, not %d", what, len(found), len(b.entries))
	}
	all := 0
	for _, notes := range b.entries {
		all += notes
	}
	if got := numbers(t, query("SELECT count(*) FROM notes"), 1)[0][0]; got != all {
		t.Errorf("%s: %d notes are there, not %d", what, got, all)
	}
}

// numbers parses rows of so many columns.
func numbers(t *testing.T, rows [][]string, columns int) [][]int {
	t.Helper()
	out := make([][]int, len(rows))
	for i, row := range rows {
		if len(row) != columns {
			t.Fatalf("%q has not %d columns", row, columns)
		}
		for _, text := range row {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(fmt.Errorf("row %q: %w", row, err))
			}
			out[i] = append(out[i], n)
		}
	}
	return out
}
