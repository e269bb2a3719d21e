package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"txreel/capture"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sources/postgres/lsn"
)

// msgFence is a logical message with a content of choice, as the server sends it outside any transaction.
func msgFence(at lsn.LSN, prefix, content string) []byte {
	m := msgMessage(0, at)[:10]
	m = append(append(m, prefix...), 0)
	return append(append(m, 0, 0, 0, byte(len(content))), content...)
}

func TestParserOfFences(t *testing.T) {
	t.Parallel()
	fence := func(at lsn.LSN, number int) []byte {
		return msgFence(at, fencePrefix, fmt.Sprintf("fence ours %d", number))
	}
	for _, c := range []struct {
		name    string
		in      [][]byte
		notes   []string
		written *fenced
		missing bool
	}{
		{name: "in order", in: [][]byte{fence(0x10, 1), msgBegin(0x10, 5), msgCommit(0x10, 0x20), fence(0x30, 2)}, notes: []string{"fence ours 1", "", "fence ours 2"}, written: &fenced{2, 0x30}},
		{name: "one missing", in: [][]byte{fence(0x10, 1), fence(0x30, 3)}, notes: []string{"fence ours 1"}, missing: true},
		{name: "the first missing", in: [][]byte{fence(0x10, 2)}, missing: true},
		{name: "one again", in: [][]byte{fence(0x10, 1), fence(0x30, 1)}, notes: []string{"fence ours 1"}, missing: true},
		{name: "the last missing", in: [][]byte{fence(0x10, 1), msgBegin(0x30, 5), msgCommit(0x30, 0x40)}, notes: []string{"fence ours 1", ""}, written: &fenced{2, 0x40}, missing: true},
		{name: "the last still to come", in: [][]byte{fence(0x10, 1), msgBegin(0x30, 5), msgCommit(0x30, 0x40)}, notes: []string{"fence ours 1", ""}, written: &fenced{2, 0x41}},
		{name: "of a stream before", in: [][]byte{msgFence(0x10, fencePrefix, "fence theirs 7"), fence(0x30, 1)}, notes: []string{"", "fence ours 1"}},
		{name: "of somebody else", in: [][]byte{msgFence(0x10, "other", "fence ours 9"), msgFence(0x20, fencePrefix, "fence ours 09"), msgFence(0x30, fencePrefix, "x")}, notes: []string{"", "", ""}},
		{name: "in a transaction", in: [][]byte{msgBegin(0x10, 5), msgCommit(0x10, 0x20)}, notes: []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &parser{chain: "ours"}
			all, err := tryParse(p, c.in...)
			if err == nil {
				err = p.fences(c.written)
			}
			if errors.Is(err, capture.ErrGap) != c.missing || err != nil && !strings.Contains(err.Error(), "did not come out") {
				t.Errorf("%v, want a gap %v", err, c.missing)
			}
			var notes []string
			for _, m := range all {
				if m.Kind == change.KindCommit {
					notes = append(notes, m.Note)
				}
			}
			if !slices.Equal(notes, c.notes) {
				t.Errorf("notes %q, want %q", notes, c.notes)
			}
		})
	}
}

// testFences expects fences while there is traffic, and none without.
func testFences(t *testing.T, pg *dbtest.Postgres) {
	s := newSite(t, pg, "fences")
	o := s.options("")
	o.fenceEvery = time.Millisecond
	src, err := s.tryOpen(o)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range 3 {
		s.exec("insert into t default values")
		for fences := len(got); len(got) == fences; {
			if m := next(t, src); m.Kind == change.KindCommit && m.Note != "" {
				got = append(got, m.Note)
			}
		}
		if f, ok := change.ParseFence(got[i]); !ok || f.Chain != src.parser.chain || f.Number != uint64(i+1) {
			t.Fatalf("fences %q", got)
		}
	}
	for looks, seen := 0, src.Health(); looks < 5; {
		if m, err := src.Next(t.Context()); err != nil || m.Kind != change.KindIdle {
			t.Fatalf("without traffic: %+v, %v", m, err)
		}
		if h := src.Health(); h != seen { // each look makes a new one
			looks, seen = looks+1, h
		}
	}
	// What swallows a fence is found by the position alone.
	src.written.Store(&fenced{number: 4, behind: src.start})
	if err := failure(t, src); !errors.Is(err, capture.ErrGap) || !strings.Contains(err.Error(), "fence 4") {
		t.Error(err)
	}
	// Those that were not acknowledged come again, and belong to no chain of the next stream.
	again := s.open("")
	for range 2 * len(got) {
		if x := anyTransaction(t, again); x.commit.Note != "" {
			t.Errorf("note %q", x.commit.Note)
		}
	}
	// Where the role may not write any, the stream goes on without.
	s.exec(`do $$ declare f regprocedure; begin
		for f in select oid from pg_proc where proname = 'pg_logical_emit_message' loop execute 'revoke execute on function ' || f || ' from public'; end loop; end $$`)
	s.exec("create role mute login replication password 'x'; grant select on all tables in schema public to mute")
	again.Close()
	o.URL = pg.URLAs("mute", "x", s.db)
	if src, err = s.tryOpen(o); err != nil {
		t.Fatal(err)
	}
	s.exec("insert into t default values")
	for range 2*len(got) + 1 {
		anyTransaction(t, src)
	}
	var first *Health
	eventually(t, "another look", func() bool {
		if _, err := src.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = src.Health() // nil before the first look
		}
		return first != nil && src.Health().At.Sub(first.At) > 300*time.Millisecond
	})
	s.exec("drop owned by mute; drop role mute")
}
