package mysql

import (
	"bytes"
	"testing"

	"txreel/sources/mysql/mybase"
)

// TestAppendValue compares the fast way with the plain one: every byte, in values short and
// long, in front, in the middle and behind.
func TestAppendValue(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 15, 16, 17, 100} {
		for c := range 256 {
			for _, at := range []int{0, size / 2, size - 1} {
				value := bytes.Repeat([]byte{'x'}, size)
				if at >= 0 && at < size {
					value[at] = byte(c)
				}
				if got, want := appendValue([]byte("a\t"), value), mybase.AppendValue([]byte("a\t"), value); !bytes.Equal(got, want) {
					t.Fatalf("%q becomes %q, want %q", value, got, want)
				}
			}
		}
	}
	if got := appendValue(nil, nil); string(got) != `\N` {
		t.Errorf("NULL becomes %q", got)
	}
}
