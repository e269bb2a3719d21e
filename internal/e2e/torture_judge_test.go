package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestVerdict judges records that are as they must be, and others: each that is not is found and called by its name.
func TestVerdict(t *testing.T) {
	t.Parallel()
	change := func(seq int, op, table, after string) string {
		return fmt.Sprintf(`{"record":"change","seq":"%016x","op":"%s","table":"%s","after":{%s}}`, seq, op, table, after)
	}
	// Client 1 moves 5 from account 0 to 1 and appends to list 0; then it moves 7 back, and writes two notes; then it
	// appends to list 0 once more. Each begins after the one before was acknowledged.
	first := func(seq int) []string {
		return []string{change(seq, "insert", "entries", `"client":"1","n":"1","src":"0","dst":"1","amount":"5","list":"0","notes":"0"`),
			change(seq, "update", "accounts", `"id":"0","balance":"995"`), change(seq, "update", "accounts", `"id":"1","balance":"1005"`),
			change(seq, "update", "heads", `"id":"0","len":"1"`), change(seq, "insert", "items", `"list":"0","pos":"1","client":"1","n":"1"`)}
	}
	second := func(seq int) []string {
		return []string{change(seq, "insert", "entries", `"client":"1","n":"2","src":"0","dst":"1","amount":"-7","list":"-1","notes":"2"`),
			change(seq, "insert", "notes", `"client":"1","n":"2","part":"1"`), change(seq, "insert", "notes", `"client":"1","n":"2","part":"2"`),
			change(seq, "update", "accounts", `"id":"0","balance":"1002"`), change(seq, "update", "accounts", `"id":"1","balance":"998"`)}
	}
	third := func(seq int) []string {
		return []string{change(seq, "insert", "entries", `"client":"1","n":"3","src":"-1","dst":"-1","amount":"0","list":"0","notes":"0"`),
			change(seq, "update", "heads", `"id":"0","len":"2"`), change(seq, "insert", "items", `"list":"0","pos":"2","client":"1","n":"3"`)}
	}
	undone := func(seq int) []string {
		return []string{change(seq, "insert", "entries", `"client":"1","n":"4","src":"-1","dst":"-1","amount":"0","list":"1","notes":"0"`),
			change(seq, "update", "heads", `"id":"1","len":"1"`), change(seq, "insert", "items", `"list":"1","pos":"1","client":"1","n":"4"`)}
	}
	unheard := func(seq int) []string {
		return []string{change(seq, "insert", "entries", `"client":"1","n":"5","src":"2","dst":"3","amount":"1","list":"-1","notes":"0"`),
			change(seq, "update", "accounts", `"id":"2","balance":"999"`), change(seq, "update", "accounts", `"id":"3","balance":"1001"`)}
	}
	for _, tt := range []struct {
		name string
		txns [][]string
		want verdict
	}{
		{"as it must be", [][]string{first(1), second(2), third(3)}, verdict{checked: 3, unknown: 1}},
		{"unknown and there", [][]string{first(1), unheard(2), second(3), third(4)}, verdict{checked: 4, unknown: 1}},
		{"unknown and there twice", [][]string{first(1), unheard(2), unheard(3), second(4), third(5)}, verdict{checked: 5, unknown: 1, duplicated: 1}},
		{"lost at the end", [][]string{first(1), second(2)}, verdict{checked: 2, unknown: 1, lost: 1}},
		{"lost in the middle", [][]string{first(1), third(2)}, verdict{checked: 2, unknown: 1, lost: 1}},
		{"lost, and values tell", [][]string{second(1), third(2)}, verdict{checked: 2, unknown: 1, lost: 1, reordered: 3}},
		{"duplicated", [][]string{first(1), second(2), second(3), third(4)}, verdict{checked: 4, unknown: 1, duplicated: 1}},
		{"reordered as a client saw", [][]string{first(1), third(2), second(3)}, verdict{checked: 3, unknown: 1, reordered: 1}},
		{"reordered, and values tell", [][]string{second(1), first(2), third(3)}, verdict{checked: 3, unknown: 1, reordered: 5}},
		{"rolled back", [][]string{first(1), second(2), third(3), undone(4)}, verdict{checked: 4, unknown: 1, phantom: 1}},
		{"a row is missing", [][]string{first(1), slices.Delete(second(2), 2, 3), third(3)}, verdict{checked: 3, unknown: 1, torn: 1}},
		{"a row too many", [][]string{first(1), append(second(2), change(2, "insert", "notes", `"part":"1003"`)), third(3)}, verdict{checked: 3, unknown: 1, torn: 1}},
		{"two in one", [][]string{append(first(1), second(1)...), third(2)}, verdict{checked: 2, unknown: 1, lost: 1, torn: 1, reordered: 2}},
		{"beheaded", [][]string{first(1), second(2)[1:], third(3)}, verdict{checked: 2, unknown: 1, lost: 1, torn: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &bank{txns: map[entry]*memory{
				{1, 1}: {deed: deed{entry{1, 1}, 0, 1, 5, 0, 0}, began: 1, acked: 2},
				{1, 2}: {deed: deed{entry{1, 2}, 0, 1, -7, -1, 2}, began: 3, acked: 4},
				{1, 3}: {deed: deed{entry{1, 3}, -1, -1, 0, 0, 0}, began: 5, acked: 6},
				{1, 4}: {deed: deed{entry{1, 4}, -1, -1, 0, 1, 0}, began: 7, acked: 8, rolledBack: true},
				{1, 5}: {deed: deed{entry{1, 5}, 2, 3, 1, -1, 0}, began: 1},
			}}
			text := `{"record":"header"}` + "\n"
			for _, txn := range tt.txns {
				text += strings.Join(txn, "\n") + "\n"
			}
			path := filepath.Join(t.TempDir(), "export")
			if err := os.WriteFile(path, []byte(text+`{"record":"trailer","complete":true}`+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			var told []string
			_, got := judgeRecord(t, b, path, func(format string, args ...any) { told = append(told, fmt.Sprintf(format, args...)) })
			if got != tt.want || (got.bad() == 0) != (len(told) == 0) {
				t.Errorf("%+v, want %+v:\n%s", got, tt.want, strings.Join(told, "\n"))
			}
		})
	}
}
