package fold

import (
	"encoding/binary"
	"testing"
)

// Every key that was added is found with what is known of it, also after the table has grown, and no other.
func TestSlots(t *testing.T) {
	const n = 10_000
	number := func(i int) key { return hashKey(binary.BigEndian.AppendUint64(nil, uint64(i)), 7) }
	for _, room := range []int64{0, 100, n} {
		var s slots
		s.room(room)
		for i := range n {
			if s.find(number(i)) != nil {
				t.Fatalf("with room for %d: key %d is there before it was added", room, i)
			}
			s.add(number(i)).n = int32(i)
		}
		for i := range 2 * n {
			switch x := s.find(number(i)); {
			case i < n && (x == nil || x.key != number(i) || x.n != int32(i)):
				t.Fatalf("with room for %d: key %d is %+v", room, i, x)
			case i >= n && x != nil:
				t.Fatalf("with room for %d: key %d is there and was never added", room, i)
			}
		}
		if s.used != n || s.size() != int64(len(s.all)*slotSize+len(s.marks)*8) {
			t.Fatalf("with room for %d: %d keys in %d bytes", room, s.used, s.size())
		}
	}
}
