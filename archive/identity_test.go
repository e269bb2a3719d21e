package archive

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestInit(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	st := newMem()
	if _, err := Open(ctx, st); !errors.Is(err, ErrNoArchive) {
		t.Errorf("open of nothing: %v", err)
	}
	a := newArchive(t, st)
	again := newArchive(t, st)
	opened, err := Open(ctx, st)
	if err != nil || again.Identity != a.Identity || opened.Identity != a.Identity || a.id != opened.id || a.id == [16]byte{} {
		t.Errorf("identities %+v, %+v, %+v: %v", a.Identity, again.Identity, opened.Identity, err)
	}
	for _, change := range []func(*Identity){
		func(i *Identity) { i.Engine = "mysql" },
		func(i *Identity) { i.System = "1" },
		func(i *Identity) { i.Database = "shop2" },
	} {
		want := testIdentity
		change(&want)
		if _, err := Init(ctx, st, want); !errors.Is(err, ErrOtherDatabase) || !strings.Contains(err.Error(), "shop") {
			t.Errorf("init for %+v: %v", want, err)
		}
	}
	if n := len(st.keys); n != 1 {
		t.Errorf("%d objects, want archive.json alone", n)
	}
}

func TestInitRefusesOverwritingStore(t *testing.T) {
	t.Parallel()
	st := newMem()
	st.overwrites = true
	if _, err := Init(t.Context(), st, testIdentity); !errors.Is(err, ErrOverwrites) {
		t.Errorf("a store that overwrites: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	newer := testIdentity
	newer.Format, newer.Archive = FormatVersion+1, strings.Repeat("ab", 16)
	short := testIdentity
	short.Format, short.Archive = FormatVersion, "abcd"
	encode := func(key string, v any) string {
		b, err := encodeJSON(key, v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	sound := encode(identityKey, newer)
	for _, c := range []struct {
		name, body string
		want       error
	}{
		{"a newer format", sound, ErrVersion},
		{"an archive id that is none", encode(identityKey, short), ErrCorrupt},
		{"no JSON", "hello", ErrCorrupt},
		{"nothing", "", ErrCorrupt},
		{"JSON without its hash", "{\n  \"format\": 1\n}\n", ErrCorrupt},
		{"another value", strings.Replace(sound, "shop", "shoq", 1), ErrCorrupt},
		{"another object's", encode(epochJSON(1), newer), ErrCorrupt},
		{"an array", encode(identityKey, []int{1}), ErrCorrupt},
	} {
		st := newMem()
		st.set(identityKey, []byte(c.body))
		_, err := Open(context.Background(), st)
		if !errors.Is(err, c.want) || errors.Is(c.want, ErrCorrupt) && !strings.Contains(err.Error(), identityKey) {
			t.Errorf("archive.json is %s: %v", c.name, err)
		}
		if _, err := Init(context.Background(), st, testIdentity); !errors.Is(err, c.want) {
			t.Errorf("init where archive.json is %s: %v", c.name, err)
		}
	}
}

// Life runs the whole life of an archive in a store that imports this package.
func Life(t *testing.T, st Store) {
	t.Helper()
	ctx := t.Context()
	a := newEpoch(t, st)
	a.fan = 2
	w := newWriter(t, a, 1)
	next := writeSegments(t, w, 1, 3, 1, 2, 1)
	w = newWriter(t, a, 1)
	writeSegments(t, w, next, 2)
	all, _, err := read(a, 1, 1, 9)
	if err != nil || len(all) != 9 {
		t.Fatalf("%d transactions, %v", len(all), err)
	}
	for i, x := range all {
		if x != numbered(i+1) {
			t.Errorf("transaction %d is %+v", i+1, x)
		}
	}
	b, err := NewBase(1, "test")
	if err != nil {
		t.Fatal(err)
	}
	o, err := a.CreateObject(ctx, b, "data/1", strings.NewReader("1\n"), 2)
	if err != nil {
		t.Fatal(err)
	}
	b.Objects, b.Seq = []BaseObject{o}, 9
	if err := a.CommitBase(ctx, b); err != nil {
		t.Fatal(err)
	}
	n := 0
	for x, err := range a.Segments(ctx, 1, 4) {
		if err != nil || x.Key == "" {
			t.Fatal(err)
		}
		n++
	}
	if n != 4 {
		t.Errorf("%d segments from transaction 4 on, want 4", n)
	}
	a, err = Open(ctx, st)
	if err != nil {
		t.Fatal(err)
	}
	a.fan = 2
	if r, err := a.Verify(ctx, VerifyOptions{Full: true}); err != nil || r.Segments != 5 || r.Bases != 1 || r.Rollups != 3 || len(r.Notes) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
