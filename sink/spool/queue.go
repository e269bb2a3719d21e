package spool

import "time"

// entry is an object on its way.
type entry struct {
	number uint64
	key    string
	size   int64 // of the object
	bytes  int64 // of the file
	name   string
	since  time.Time
}

// push appends an entry whose file is durable. The caller holds mu.
func (s *Store) push(e *entry) {
	s.queue = append(s.queue, e)
	s.keys[e.key] = e
	s.bytes += e.bytes
	s.next = e.number + 1
	s.notify()
}

// pop drops the oldest entry, whose file is removed. The caller holds mu.
func (s *Store) pop() {
	e := s.queue[0]
	s.queue[0] = nil
	s.queue = s.queue[1:]
	delete(s.keys, e.key)
	s.gone.add(e.key)
	s.bytes -= e.bytes
	s.shipped = e.number
	s.notify()
}

// recently is how many keys that have arrived are remembered: creating one of them again is
// refused at once, an older one when it is shipped.
const recently = 4096

// recent is a set of the keys added last.
type recent struct {
	ring []string
	at   int
	set  map[string]bool
}

func (r *recent) add(key string) {
	if r.set == nil {
		r.set = make(map[string]bool)
	}
	if r.set[key] {
		return
	}
	if len(r.ring) < recently {
		r.ring = append(r.ring, key)
	} else {
		delete(r.set, r.ring[r.at])
		r.ring[r.at] = key
		r.at = (r.at + 1) % recently
	}
	r.set[key] = true
}

func (r *recent) has(key string) bool { return r.set[key] }
