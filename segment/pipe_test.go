package segment

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"

	"txreel/change"
)

// manyFrames writes transactions of many frames, some larger than one, with some that are
// rolled back in front of, between and behind them.
func manyFrames(t *testing.T, w *Writer) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	row := make([]byte, 3000)
	transaction := func(size int, end func() error) {
		check(t, w.Begin(change.TxnSource))
		for ; size > 0; size -= len(row) {
			for i := range row { // every frame is another, and takes another time
				row[i] = byte(random.IntN(2 + size>>14&63))
			}
			check(t, w.Write(&change.Message{Raw: row}))
		}
		check(t, end())
	}
	commit := func() error { return w.Commit(&change.Message{XID: "x"}) }
	for i := range 6 {
		transaction(100_000, commit)
		transaction(i*frameTarget, w.Rollback)
		transaction((i%3)*frameTarget+i*1000, commit)
		transaction(50_000, w.Rollback)
	}
}

// TestPipeKeepsOrder fills segments whose frames are compressed beside each other, and
// demands the bytes that one encoder makes of one frame after the other.
func TestPipeKeepsOrder(t *testing.T) {
	t.Parallel()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(frameTarget), zstd.WithEncoderCRC(false))
	check(t, err)
	var first, out memory
	w, err := NewWriter(&first, testHeader)
	check(t, err)
	manyFrames(t, w)
	_, err = w.Close("end")
	check(t, err)
	p := split(t, first.b)
	for i, f := range p.frames {
		if !bytes.Equal(f.stored, enc.EncodeAll(f.raw, nil)) {
			t.Errorf("frame %d of %d bytes is compressed in another way", i, len(f.raw))
		}
	}
	if len(p.frames) < 10 {
		t.Fatalf("%d frames: too few to meet each other", len(p.frames))
	}
	for range 3 {
		out.b = out.b[:0]
		check(t, w.Reset(&out, testHeader))
		manyFrames(t, w)
		_, err = w.Close("end")
		check(t, err)
		if !bytes.Equal(out.b, first.b) {
			t.Fatal("the same calls made another segment")
		}
	}
}

// TestPipeMeetsAFullDisk has an Output that fails when the frames of a goroutine are
// written: the caller hears of it, nobody writes any more, and the Writer can begin anew.
func TestPipeMeetsAFullDisk(t *testing.T) {
	t.Parallel()
	w, err := NewWriter(&memory{}, testHeader)
	check(t, err)
	random, row := rand.NewChaCha8([32]byte{}), make([]byte, 4096)
	for _, room := range []int{headerSize, 2 * frameTarget, 5 * frameTarget} {
		full := &short{room: room}
		check(t, w.Reset(full, testHeader))
		check(t, w.Begin(change.TxnSource))
		err := error(nil)
		for i := 0; err == nil && i < 8*frameTarget; i += len(row) {
			_, _ = random.Read(row) // never fails
			err = w.Write(&change.Message{Raw: row})
		}
		if err == nil {
			err = w.Commit(&change.Message{XID: "x"})
		}
		if err == nil {
			_, err = w.Close("end")
		}
		if !errors.Is(err, errFull) {
			t.Fatalf("with room for %d bytes: %v", room, err)
		}
		if _, err := w.Close("end"); !errors.Is(err, errFull) || w.pipe.busy != 0 {
			t.Fatalf("closed in spite of it: %v, %d frames still in the pipe", err, w.pipe.busy)
		}
		if len(full.b) > room {
			t.Fatal("it went on writing")
		}
	}
	var out memory
	check(t, w.Reset(&out, testHeader))
	manyFrames(t, w)
	_, err = w.Close("end")
	check(t, err)
	if _, err := readAll(bytes.NewReader(out.b)); err != nil {
		t.Fatal(err)
	}
}

// short is an Output that takes no more than room bytes, and no write after the one it
// refused.
type short struct {
	memory
	room int
	full bool
}

func (s *short) Write(p []byte) (int, error) {
	if s.full = s.full || len(s.b)+len(p) > s.room; s.full {
		return 0, errFull
	}
	return s.memory.Write(p)
}
