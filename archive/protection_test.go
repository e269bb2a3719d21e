package archive

import (
	"errors"
	"io/fs"
	"slices"
	"testing"

	"txreel/change"
)

func TestSpans(t *testing.T) {
	t.Parallel()
	type say struct {
		from      change.Seq
		protected bool
	}
	type span struct {
		from, to  change.Seq
		protected bool
	}
	for _, c := range []struct {
		name string
		said []say
		want []span
	}{
		{"nothing", nil, nil},
		{"on", []say{{5, true}}, []span{{5, 0, true}}},
		{"on and off", []say{{5, true}, {9, false}, {20, true}}, []span{{5, 8, true}, {9, 19, false}, {20, 0, true}}},
		{"off from before", []say{{5, true}, {9, false}, {20, true}, {12, false}}, []span{{5, 8, true}, {9, 0, false}}},
		{"all of it taken back", []say{{5, true}, {5, false}}, []span{{5, 0, false}}},
		{"taken back to within the first", []say{{5, true}, {9, false}, {7, false}, {30, true}}, []span{{5, 6, true}, {7, 29, false}, {30, 0, true}}},
		{"the same again", []say{{5, false}, {9, false}, {9, true}, {10, true}}, []span{{5, 8, false}, {9, 0, true}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var said []Protection
			for _, s := range c.said {
				said = append(said, Protection{From: s.from, Protected: s.protected})
			}
			var got []span
			spans := Spans(said)
			for _, s := range spans {
				got = append(got, span{s.From, s.To, s.Protected})
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			// Transaction by transaction, the last word counts.
			for seq := change.Seq(1); seq < 40; seq++ {
				want := false
				for _, s := range c.said {
					if s.from <= seq {
						want = s.protected
					}
				}
				if Protected(spans, seq) != want {
					t.Errorf("%s: protected is %v", seq, !want)
				}
			}
		})
	}
}

func TestProtectionIsCreatedOnce(t *testing.T) {
	t.Parallel()
	a := newArchive(t, newMem())
	ctx := t.Context()
	have, err := a.RecordProtection(ctx, nil, Protection{Epoch: 1, From: 7, Protected: true, Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.RecordProtection(ctx, nil, Protection{Epoch: 1, From: 9, Reason: "another writer"}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("two writers: %v", err)
	}
	if have, err = a.RecordProtection(ctx, have, Protection{Epoch: 1, From: 9, Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	read, err := a.Protections(ctx, 1)
	if err != nil || !slices.Equal(read, have) || len(read) != 2 {
		t.Errorf("read %+v, %v", read, err)
	}
	if read, err := a.Protections(ctx, 2); err != nil || len(read) != 0 {
		t.Errorf("another epoch has %+v, %v", read, err)
	}
}
