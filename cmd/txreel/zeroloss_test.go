package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"txreel/archive"
	"txreel/capture"
	"txreel/change"
	"txreel/segment"
	"txreel/sink/dir"
)

// TestInterrupted looks at what a capture puts on record before anything else: after one that was killed while COMMIT
// waited, that this is over.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Init(ctx, store, archive.Identity{Engine: enginePostgres, System: "1", Database: "d"})
	if err != nil {
		t.Fatal(err)
	}
	note := func(have []archive.Protection, from change.Seq, protected bool) []archive.Protection {
		t.Helper()
		have, err := a.RecordProtection(ctx, have, archive.Protection{Epoch: 1, From: from, Protected: protected, Reason: "test"})
		if err != nil {
			t.Fatal(err)
		}
		return have
	}
	check := func(behind change.Seq, want ...bool) []archive.Protection {
		t.Helper()
		have, err := interrupted(ctx, a, 1, 100, behind)
		if err != nil {
			t.Fatal(err)
		}
		again, err := a.Protections(ctx, 1)
		if err != nil || !slices.Equal(have, again) {
			t.Fatalf("it returned %+v, on record is %+v: %v", have, again, err)
		}
		spans := archive.Spans(have)
		var got []bool
		for seq := range change.Seq(len(want)) {
			got = append(got, archive.Protected(spans, seq+1))
		}
		if !slices.Equal(got, want) {
			t.Errorf("transactions from 1 on are protected: %v, want %v", got, want)
		}
		return have
	}
	check(0, false, false) // COMMIT never waited
	note(nil, 2, true)
	have := check(3, false, true, true, false, false)
	if n := len(have); n != 2 || len(check(4, false, true, true, false, false)) != n {
		t.Errorf("an end that is on record was put there again: %+v", have)
	}
	note(have, 6, true)
	check(4, false, true, true, false, false, false) // it was not sure as far as it had recorded
}

// TestUncertain looks at what a capture takes back of a protection that one before it claimed and was killed under: as
// many segments as may arrive before anybody has looked.
func TestUncertain(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for _, tt := range []struct {
		from change.Seq // of the protection
		want []archive.Span
	}{
		{2, []archive.Span{{From: 2, To: 20 - unsureSegments, Protected: true}, {From: 21 - unsureSegments}}},
		{10, []archive.Span{{From: 10}}},
	} {
		store, err := dir.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		a, err := archive.Init(ctx, store, archive.Identity{Engine: enginePostgres, System: "1", Database: "d"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.StartEpoch(ctx, nil, archive.CauseFirst, "", nil); err != nil {
			t.Fatal(err)
		}
		w, err := a.NewWriter(ctx, 1, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		for n := range 20 {
			position := change.Position(fmt.Sprintf("%08d", n))
			if err := w.Heartbeat(position, change.Time(n)); err != nil {
				t.Fatal(err)
			}
			s, err := w.Seal(position)
			if err == nil {
				err = w.Ship(ctx, s)
			}
			if err != nil {
				t.Fatal(err)
			}
			w.Release(s)
		}
		if _, err := a.RecordProtection(ctx, nil, archive.Protection{Epoch: 1, From: tt.from, Protected: true}); err != nil {
			t.Fatal(err)
		}
		have, err := interrupted(ctx, a, 1, w.Tail().Seq, math.MaxUint64)
		if err != nil {
			t.Fatal(err)
		}
		got := archive.Spans(have)
		for i := range got {
			got[i].Reason, got[i].Noted = "", ""
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("protected from %d on: %+v, want %+v", tt.from, got, tt.want)
		}
		w.Close()
	}
}

// asked is a source that says how often it was asked whether COMMIT waits.
type asked struct{ looks atomic.Int64 }

func (s *asked) Protect(context.Context) (change.Position, error) { return "0", nil }
func (s *asked) Expose(context.Context) error                     { return nil }
func (s *asked) Exposed(context.Context) (string, error)          { s.looks.Add(1); return "", nil }
func (s *asked) Holds(_, _ change.Position) (bool, error)         { return true, nil }

// TestArrived lets segments arrive while COMMIT waits: none follows too many of which nobody knows.
func TestArrived(t *testing.T) {
	t.Parallel()
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a := &archive.Archive{Store: store}
	source := &asked{}
	p := newProtector(a, 1, nil, source, durable{1, "1"})
	ctx, cancel := context.WithCancel(t.Context())
	status := &capture.Status{}
	var on atomic.Bool
	b := &breaker{}
	p.status, p.breaker, p.on = status, b, &on
	var joined sync.WaitGroup
	joined.Go(func() {
		if _, err := p.once(ctx); err != nil {
			t.Error(err)
		}
		close(p.ended)
	})
	for !on.Load() {
		time.Sleep(time.Millisecond)
	}
	for n := range change.Seq(10 * unsureSegments) {
		before := source.looks.Load()
		p.arrived(ctx, &archive.Sealed{Summary: segment.Summary{Last: 2 + n, End: "2"}})
		if n%unsureSegments == unsureSegments-1 && source.looks.Load() == before {
			t.Fatalf("after %d segments nobody has looked", n+1)
		}
	}
	cancel()
	joined.Wait()
	p.arrived(t.Context(), &archive.Sealed{Summary: segment.Summary{Last: 1000}}) // nobody is there to look
	if spans := archive.Spans(p.record); len(spans) != 2 || spans[1].Protected || spans[1].From < 9*unsureSegments {
		t.Errorf("the record says %+v", spans)
	}
}

// mute is a store whose first create of a protection takes effect unheard.
type mute struct {
	archive.Store
	created int
}

// Create implements archive.Store.
func (s *mute) Create(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	err := s.Store.Create(ctx, key, body, size)
	if strings.Contains(key, "/protection/") && s.created == 0 && err == nil {
		err = archive.ErrUnreachable
	}
	s.created++
	return err
}

// TestNoteUnheard notes the end of a protection in a store that does not answer: the second try finds its own note.
func TestNoteUnheard(t *testing.T) {
	t.Parallel()
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := &mute{Store: store}
	p := newProtector(&archive.Archive{Store: m}, 1, nil, &asked{}, durable{1, "1"})
	if err := p.note(t.Context(), 1, false, "the store"); err != nil || m.created != 2 || len(p.record) != 1 {
		t.Errorf("%d tries, on record %+v: %v", m.created, p.record, err)
	}
}
