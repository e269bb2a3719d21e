package postgres

import (
	"testing"

	"txreel/sources/postgres/lsn"
)

func TestLeftTimeline(t *testing.T) {
	t.Parallel()
	const history = "1\t0/3000148\tno recovery target specified\n\n# a remark\n2\t16/B374D848\tbefore transaction 7 # x\n"
	for _, c := range []struct {
		name, history string
		was           int32
		at            lsn.LSN
		ok, fails     bool
	}{
		{name: "the first", history: history, was: 1, at: 0x3000148, ok: true},
		{name: "the last", history: history, was: 2, at: 0x16_B374D848, ok: true},
		{name: "another", history: history, was: 3},
		{name: "none", was: 1},
		{name: "nonsense", history: "1\tx\ty\n", was: 1, fails: true},
		{name: "short", history: "1\n", was: 1},
	} {
		if at, ok, err := leftTimeline(c.history, c.was); at != c.at || ok != c.ok || (err != nil) != c.fails {
			t.Errorf("%s: %s, %t, %v", c.name, at, ok, err)
		}
	}
}
