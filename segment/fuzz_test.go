package segment

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
)

func seed(f *testing.F) {
	paths, err := filepath.Glob(vectorDir + "/*.txt")
	check(f, err)
	if len(paths) == 0 {
		f.Fatal("no vectors")
	}
	for _, path := range paths {
		f.Add(readVector(f, path).data)
	}
}

// allowed reports whether err is one that bytes of any kind may cause.
func allowed(err error) bool {
	var c *CorruptError
	return errors.As(err, &c) != errors.Is(err, ErrVersion)
}

func FuzzReader(f *testing.F) {
	seed(f)
	frames, err := NewFrameReader()
	check(f, err)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readAll(bytes.NewReader(b))
		if err != nil {
			if !allowed(err) {
				t.Fatal(err)
			}
			return
		}
		// What reads as sound from front to back must do so from its end, too.
		tail, err := readTail(b, 0)
		check(t, err)
		if tail.Hash != c.hash {
			t.Fatalf("hash %x, from the end %x", c.hash, tail.Hash)
		}
		for i := range tail.Frames {
			check(t, frames.ReadFrame(bytes.NewReader(b[tail.FrameOffset(i):]), tail.Index, i, func(int, Record) error { return nil }))
		}
	})
}

// FuzzTail also mends the checksums, without which little but they are tested.
func FuzzTail(f *testing.F) {
	seed(f)
	for _, name := range []string{"v2-one-insert", "v2-several-frames", "v2-many-tables", "v2-note"} {
		f.Add(split(f, readVector(f, vectorDir+"/"+name+".txt").data).index)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		try(t, b)
		p := parts{header: make([]byte, headerSize), index: b}
		try(t, p.join())
	})
}

func try(t *testing.T, b []byte) {
	tail, err := readTail(b, TailGuess)
	if err != nil {
		if !allowed(err) {
			t.Fatal(err)
		}
		return
	}
	if tail.First() == 0 || tail.Last() < tail.First() {
		t.Fatalf("transactions %s to %s", tail.First(), tail.Last())
	}
	frames, err := NewFrameReader()
	check(t, err)
	for i := range tail.Frames {
		off := min(tail.FrameOffset(i), int64(len(b)))
		if err := frames.ReadFrame(bytes.NewReader(b[off:]), tail.Index, i, func(int, Record) error { return nil }); err != nil && !allowed(err) {
			t.Fatal(err)
		}
	}
}
