package fold

import "github.com/zeebo/xxh3"

// key is the hash of a key, or of a whole row. 128 bits with a secret seed: for two to meet by accident takes more rows than
// there are, and the counts of rows that a restore compares at its end would tell.
type key struct{ hi, lo uint64 }

func hashKey(b []byte, seed uint64) key {
	h := xxh3.Hash128Seed(b, seed)
	if h.Lo == 0 { // which marks an empty slot
		h.Lo = 1
	}
	return key{h.Hi, h.Lo}
}

// slot is what is known of a key.
type slot struct {
	key
	// n is the waiter that wants the row that the key had before, plus one; of a multiset: rows yet to be taken.
	n    int32
	live bool // whether the key must have a row before what was met of it
}

const slotSize = 24

// slots is a hash table of keys: open addressing, linear probing, nothing is ever removed. The zero value is empty.
type slots struct {
	all  []slot
	used int
}

func (s *slots) size() int64 { return int64(len(s.all)) * slotSize }

// find returns the slot of a key; nil when there is none. It is valid until the next add.
func (s *slots) find(k key) *slot {
	if s.used == 0 {
		return nil
	}
	mask := uint64(len(s.all) - 1)
	for i := k.lo & mask; ; i = (i + 1) & mask {
		switch p := &s.all[i]; {
		case p.key == k:
			return p
		case p.lo == 0:
			return nil
		}
	}
}

// add returns the slot of a key that has none yet. It is valid until the next add.
func (s *slots) add(k key) *slot {
	if s.used*3 >= len(s.all)*2 {
		s.grow()
	}
	s.used++
	p := s.vacant(k)
	p.key = k
	return p
}

func (s *slots) vacant(k key) *slot {
	mask := uint64(len(s.all) - 1)
	i := k.lo & mask
	for s.all[i].lo != 0 {
		i = (i + 1) & mask
	}
	return &s.all[i]
}

// room prepares an empty table for a number of keys.
func (s *slots) room(n int64) {
	size := 64
	for int64(size)*2 < n*3 {
		size *= 2
	}
	if n > 0 {
		s.all = make([]slot, size)
	}
}

func (s *slots) grow() {
	old := s.all
	s.all = make([]slot, max(64, 2*len(old)))
	for i := range old {
		if old[i].lo != 0 {
			*s.vacant(old[i].key) = old[i]
		}
	}
}
