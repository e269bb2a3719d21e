package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"txreel/change"
)

func TestGlobals(t *testing.T) {
	t.Parallel()
	store := newMem()
	a := newEpoch(t, store)
	ctx := t.Context()
	if last, err := a.LastGlobals(ctx, 1); last != nil || err != nil {
		t.Fatalf("an epoch without any: %v, %v", last, err)
	}
	var last *Globals
	for i := 1; i <= 21; i++ {
		g, err := a.RecordGlobals(ctx, last, Globals{Epoch: 1, Position: change.Position(fmt.Sprint(i * 10)), Hash: strings.Repeat("0a", 32), State: json.RawMessage(`{"n":1}`)})
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			if _, err := a.RecordGlobals(ctx, last, Globals{Epoch: 1, Position: "11", Hash: strings.Repeat("0b", 32), State: json.RawMessage(`{}`)}); !errors.Is(err, fs.ErrExist) {
				t.Errorf("two writers: %v", err)
			}
		}
		last = g
		if got, err := a.LastGlobals(ctx, 1); err != nil || got.Number != uint64(i) {
			t.Fatalf("last of %d: %v, %v", i, got, err)
		}
	}
	for upto := range 23 {
		got, next, err := a.FindGlobals(ctx, 1, func(g *Globals) (bool, error) { return g.Number <= uint64(upto), nil })
		if err != nil {
			t.Fatal(err)
		}
		if want := min(upto, 21); want == 0 != (got == nil) || got != nil && got.Number != uint64(want) || want == 21 != (next == nil) || next != nil && next.Number != uint64(want+1) {
			t.Errorf("up to %d: found %v, then %v", upto, got, next)
		}
	}
	for _, bad := range []Globals{
		{Epoch: 1, Hash: strings.Repeat("0a", 32), State: json.RawMessage(`{}`)},
		{Epoch: 1, Position: "1", Hash: "0a", State: json.RawMessage(`{}`)},
		{Epoch: 1, Position: "1", Hash: strings.Repeat("0a", 32)},
	} {
		if _, err := a.RecordGlobals(ctx, last, bad); err == nil {
			t.Errorf("recorded %+v", bad)
		}
	}
	if r, err := verify(t, store, false); err != nil || len(r.Notes) != 0 {
		t.Errorf("verify: %v, %v", r.Notes, err)
	}
	damaged := store.clone()
	b, _ := encodeJSON(globalKey(1, 3), last) // another's content
	damaged.set(globalKey(1, 3), b)
	if r, err := verify(t, damaged, false); err == nil || r.mentions(globalKey(1, 3)) == nil {
		t.Errorf("verify of another's content: %v", err)
	}
	store.remove(globalKey(1, 7))
	if r, err := verify(t, store, false); err == nil || r.mentions(globalKey(1, 7)) == nil {
		t.Errorf("verify without the seventh: %v", err)
	}
	if last, err := a.LastGlobals(ctx, 2); last != nil || err != nil {
		t.Errorf("another epoch: %v, %v", last, err)
	}
}
