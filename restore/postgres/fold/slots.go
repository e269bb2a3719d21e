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
	// marks has a bit set for each key, and marksPerSlot bits for each slot. Most rows of a base are of no key here: that they are not is
	// seen from what the processor's cache can hold for much longer than the slots themselves.
	marks []uint64
}

// marksPerSlot makes twelve bits for a key or more, since a third of the slots at least is vacant: of keys that are not there one in twelve at most
// is looked for in vain.
const marksPerSlot = 8

func (s *slots) size() int64 { return int64(len(s.all)) * (slotSize + marksPerSlot/8) }

// mark returns where the mark of a key is. The bits that say of which pass a key is are others, and so are those of its slot.
func (s *slots) mark(k key) (word *uint64, bit uint64) {
	i := k.hi & uint64(len(s.all)*marksPerSlot-1)
	return &s.marks[i/64], 1 << (i % 64)
}

// find returns the slot of a key; nil when there is none. It is valid until the next add.
func (s *slots) find(k key) *slot {
	if s.used == 0 {
		return nil
	}
	if word, bit := s.mark(k); *word&bit == 0 {
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
	word, bit := s.mark(k)
	*word |= bit
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
		s.take(size)
	}
}

// take takes memory for a number of slots, a power of two from 64 on.
func (s *slots) take(n int) {
	s.all, s.marks = make([]slot, n), make([]uint64, n*marksPerSlot/64)
}

func (s *slots) grow() {
	old := s.all
	s.take(max(64, 2*len(old)))
	for i := range old {
		if old[i].lo != 0 {
			word, bit := s.mark(old[i].key)
			*word |= bit
			*s.vacant(old[i].key) = old[i]
		}
	}
}
