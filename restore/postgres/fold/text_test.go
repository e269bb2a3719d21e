package fold

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestText compares the notation of lines with a plain account of it, for values of every length and byte, and reads it back.
func TestText(t *testing.T) {
	letters := map[byte]byte{'\b': 'b', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't', '\v': 'v', '\\': '\\'}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 20_000 {
		v := make([]byte, random.IntN(40))
		for k := range v {
			v[k] = byte(' ' + random.IntN(95))
		}
		if len(v) > 0 && i%3 > 0 { // any byte in any place
			v[random.IntN(len(v))] = byte(i / 3)
		}
		var want []byte
		for _, c := range v {
			if l, ok := letters[c]; ok {
				want = append(want, '\\', l)
			} else {
				want = append(want, c)
			}
		}
		got := appendField(nil, v)
		if !bytes.Equal(got, want) {
			t.Fatalf("%q becomes %q, want %q", v, got, want)
		}
		if back := appendPlain(nil, got); !bytes.Equal(back, v) {
			t.Fatalf("%q comes back as %q", v, back)
		}
	}
}
