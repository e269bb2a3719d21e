package capture

import (
	"sync"
	"time"

	"txreel/archive"
	"txreel/change"
)

// Status is what a capture can say of itself at any time. The zero value is
// ready; it may be used concurrently, and across several calls of Run.
type Status struct {
	mu sync.Mutex
	s  Snapshot
}

// Snapshot is a Status at one moment.
type Snapshot struct {
	Seq          change.Seq      // last durable transaction
	Position     change.Position // the source's log up to which everything is durable
	Latest       change.Time     // latest commit time among what is durable
	Segments     uint64          // shipped by this process
	Transactions uint64
	Bytes        uint64
	Durable      time.Time // when something last became durable
	CaughtUp     time.Time // when the source was last seen idle with nothing left to ship
	Received     time.Time // when more of a huge transaction last arrived, with nothing left to ship
}

// Snapshot returns the current values.
func (s *Status) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.s
}

// Progress returns when the capture last got on: something became durable, there
// was nothing to do, or a huge transaction went on arriving.
func (s Snapshot) Progress() time.Time {
	last := s.Durable
	for _, t := range []time.Time{s.CaughtUp, s.Received} {
		if t.After(last) {
			last = t
		}
	}
	return last
}

func (s *Status) durable(x *archive.Sealed, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.Seq, s.s.Position, s.s.Latest, s.s.Durable = x.Last, x.End, x.Latest, now
	s.s.Segments++
	s.s.Transactions += uint64(x.Last - x.First + 1)
	s.s.Bytes += uint64(x.Size)
}

func (s *Status) idle(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.CaughtUp = now
}

func (s *Status) received(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.Received = now
}
