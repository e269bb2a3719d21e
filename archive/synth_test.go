package archive

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"strings"
	"sync"
	"testing"

	"txreel/change"
	"txreel/segment"
)

// synthStore holds the segments of an epoch far too long to write: each is made when
// it is asked for. It has n segments of 1 to 2·most-1 transactions.
type synthStore struct {
	t    testing.TB
	id   [16]byte
	n    int
	most int

	mu     sync.Mutex
	counts counts
}

func (s *synthStore) String() string { return "synthetic" }

func (s *synthStore) Create(context.Context, string, io.ReaderAt, int64) error { return fs.ErrInvalid }

// noise is a number below n that depends on i alone.
func noise(i, salt, n int) int {
	x := uint64(i)*0x9E3779B97F4A7C15 + uint64(salt)*0xD1B54A32D192ED03
	x ^= x >> 29
	x *= 0xBF58476D1CE4E5B9
	return int((x >> 33) % uint64(n))
}

// first is the first transaction of segment i, which counts from 0.
func (s *synthStore) first(i int) change.Seq {
	if i == 0 {
		return 1
	}
	return change.Seq(1 + i*s.most + noise(i, 1, s.most))
}

// commitTime of transaction seq in segment i: a second a segment, and up to 9 back.
func (s *synthStore) commitTime(i int, seq change.Seq) change.Time {
	return change.Time(i)*1_000_000 + change.Time(seq-s.first(i)) - change.Time(noise(int(seq), 2, 9_000_000))
}

// latest is the latest commit time up to segment i.
func (s *synthStore) latest(i int) change.Time {
	latest := change.Time(0)
	for j := max(0, i-9); j <= i; j++ {
		for seq := s.first(j); seq < s.first(j+1); seq++ {
			latest = max(latest, s.commitTime(j, seq))
		}
	}
	return latest
}

func (s *synthStore) segment(i int) []byte {
	var out output
	latest := change.Time(0)
	if i > 0 {
		latest = s.latest(i - 1)
	}
	w, err := segment.NewWriter(&out, segment.Header{Archive: s.id, Engine: testIdentity.Engine, Epoch: 1, First: s.first(i), Latest: latest})
	for seq := s.first(i); seq < s.first(i+1) && err == nil; seq++ {
		if err = w.Begin(change.TxnHeartbeat); err == nil {
			err = w.Commit(&change.Message{Kind: change.KindCommit, Position: change.Position(seq.String()), CommitTime: s.commitTime(i, seq)})
		}
	}
	if err == nil {
		_, err = w.Close(change.Position(s.first(i + 1).String()))
	}
	if err != nil {
		s.t.Error(err)
	}
	return out
}

type output []byte

func (o *output) Write(p []byte) (int, error) {
	*o = append(*o, p...)
	return len(p), nil
}

func (o *output) Truncate(n int64) error {
	*o = (*o)[:n]
	return nil
}

func (s *synthStore) Open(_ context.Context, key string, off, n int64) (io.ReadCloser, int64, error) {
	s.mu.Lock()
	s.counts.opens++
	s.mu.Unlock()
	seq, err := parseSegmentKey(1, key)
	i := s.at(seq)
	if err != nil || i >= s.n || s.first(i) != seq {
		return nil, 0, fmt.Errorf("open %s: %w", key, fs.ErrNotExist)
	}
	return cut(s.segment(i), off, n)
}

// at is the first segment that begins at or after seq.
func (s *synthStore) at(seq change.Seq) int {
	return sort.Search(s.n, func(i int) bool { return s.first(i) >= seq })
}

func (s *synthStore) List(_ context.Context, prefix, after string, limit int) ([]Object, error) {
	s.mu.Lock()
	s.counts.lists++
	s.mu.Unlock()
	if limit > 1000 || prefix != segmentsKey(1) {
		return nil, nil
	}
	i := 0
	if after != "" {
		seq, err := change.ParseSeq(strings.TrimSuffix(strings.TrimPrefix(after, prefix), ".seg"))
		if err != nil {
			return nil, err
		}
		i = s.at(seq + 1)
	}
	var found []Object
	for ; i < s.n && len(found) < limit; i++ {
		found = append(found, Object{Key: SegmentKey(1, s.first(i)), Size: -1})
	}
	return found, nil
}

func (s *synthStore) archive() *Archive {
	return &Archive{Store: s, Identity: testIdentity, id: s.id, packs: new(packs), fan: rollupFan, spill: spillLimit}
}

func (s *synthStore) requests(f func()) int {
	s.counts = counts{}
	f()
	return s.counts.all()
}

// The tail is found in O(log n) requests, whatever the segments hold.
func TestTailRequests(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 2, 999, 1000, 1001, 100_000, 31_536_000, 1 << 40} {
		for _, most := range []int{1, 700} {
			if most > 1 && n > 2 && n < 1001 {
				continue
			}
			s := &synthStore{t: t, n: n, most: most}
			a := s.archive()
			var tail Tail
			var err error
			took := s.requests(func() { tail, err = a.Tail(t.Context(), 1) })
			want := Tail{Epoch: 1}
			if n > 0 {
				want = Tail{Epoch: 1, Segment: s.first(n - 1), Seq: s.first(n) - 1, Position: change.Position(s.first(n).String()), Latest: s.latest(n - 1), Hash: tail.Hash}
			}
			if err != nil || tail != want {
				t.Errorf("%d segments of up to %d: tail %+v, want %+v: %v", n, 2*most, tail, want, err)
			}
			if took > 100 {
				t.Errorf("%d segments of up to %d: %d requests", n, 2*most, took)
			}
		}
	}
}

// A moment in a month of seconds is found in at most 100 requests, exactly, though
// commit times go backwards by up to 9 seconds.
func TestFirstAfterRequests(t *testing.T) {
	t.Parallel()
	r := rng(t)
	for _, s := range []*synthStore{
		{t: t, n: 2_592_000, most: 1}, {t: t, n: 2_592_000, most: 20}, {t: t, n: 40_000_000, most: 100},
	} {
		a := s.archive()
		worst := 0
		for range 3 {
			i := r.IntN(s.n)
			at := change.Time(i) * 1_000_000
			var got segment.Entry
			var ok bool
			var err error
			worst = max(worst, s.requests(func() { got, ok, err = a.FirstAfter(t.Context(), 1, at) }))
			var want change.Seq
			for j := max(0, i-2); want == 0 && j < min(s.n, i+15); j++ {
				for seq := s.first(j); seq < s.first(j+1); seq++ {
					if s.commitTime(j, seq) > at {
						want = seq
						break
					}
				}
			}
			if err != nil || ok != (want > 0) || got.Seq != want {
				t.Errorf("%d segments, after second %d: %s, %t, %v; want %s", s.n, i, got.Seq, ok, err, want)
			}
		}
		if worst > 100 {
			t.Errorf("%d segments of up to %d transactions: %d requests", s.n, 2*s.most, worst)
		}
		t.Logf("%d segments of up to %d transactions: at most %d requests", s.n, 2*s.most, worst)
	}
}
