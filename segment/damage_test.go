package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"txreel/change"
)

func TestEveryTruncation(t *testing.T) {
	t.Parallel()
	seg := sample(t)
	for n := range len(seg) {
		_, err := readAll(bytes.NewReader(seg[:n]))
		checkDamage(t, err, n)
		if !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
		_, err = readTail(seg[:n], 0)
		checkDamage(t, err, n)
		if !errors.Is(err, ErrTruncated) {
			t.Fatalf("tail of %d bytes: %v", n, err)
		}
	}
	_, err := readAll(bytes.NewReader(append(seg, 0)))
	checkDamage(t, err, len(seg)+1)
}

func TestEveryFlippedBit(t *testing.T) {
	t.Parallel()
	seg := sample(t)
	whole, err := readTail(seg, 0)
	check(t, err)
	index := whole.FrameOffset(len(whole.Frames))
	frames, err := NewFrameReader()
	check(t, err)
	r, err := NewReader(bytes.NewReader(seg))
	check(t, err)
	for i := range seg {
		for flip := 1; flip < 512; flip <<= 1 {
			bad := bytes.Clone(seg)
			bad[i] ^= byte(min(flip, 255)) // the last one flips all eight
			err := r.Reset(bytes.NewReader(bad))
			for err == nil {
				_, err = r.Next()
			}
			if err == io.EOF {
				t.Fatalf("byte %d flipped by %#x: read as if sound", i, flip)
			}
			checkDamage(t, err, len(seg))

			_, err = readTail(bad, TailGuess)
			if int64(i) >= index {
				checkDamage(t, err, len(seg))
			} else if err != nil {
				t.Fatalf("byte %d is not read: %v", i, err)
			}
			for n := range whole.Frames {
				start, end := whole.FrameOffset(n), whole.FrameOffset(n+1)
				err := frames.ReadFrame(bytes.NewReader(bad[start:]), whole.Index, n, func(int, Record) error { return nil })
				if start <= int64(i) && int64(i) < end {
					checkDamage(t, err, len(seg))
				} else if err != nil {
					t.Fatalf("byte %d is not in frame %d: %v", i, n, err)
				}
			}
		}
	}
}

// TestBrokenConnection demands that a reader's own errors stay what they are: a
// transfer that broke off is no damage.
func TestBrokenConnection(t *testing.T) {
	t.Parallel()
	seg := sample(t)
	for n := range len(seg) + 1 {
		for _, cause := range []error{io.ErrUnexpectedEOF, errors.New("connection reset")} {
			_, err := readAll(io.MultiReader(bytes.NewReader(seg[:n]), iotest.ErrReader(cause)))
			if !errors.Is(err, cause) || errors.Is(err, ErrCorrupt) {
				t.Fatalf("after %d bytes: %v", n, err)
			}
		}
	}
}

func TestFutureVersion(t *testing.T) {
	t.Parallel()
	head := split(t, sample(t))
	binary.LittleEndian.PutUint16(head.header[8:], 3)
	binary.LittleEndian.PutUint16(head.header[10:], 400) // all but the checksum may change its meaning
	_, err := readAll(bytes.NewReader(head.join()))
	checkVersionError(t, err)

	foot := split(t, sample(t))
	foot.after = func(b []byte) {
		f := b[len(b)-footerSize:]
		f[0] ^= 0xff
		binary.LittleEndian.PutUint16(f[56:], 3)
		binary.LittleEndian.PutUint32(f[60:], crcOf(f[:60]))
	}
	_, err = readTail(foot.join(), TailGuess)
	checkVersionError(t, err)
}

func checkVersionError(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "version 3, this build reads versions up to 2") {
		t.Fatalf("version 3: %v", err)
	}
}

// TestTailChecks reads the ends of segments whose index is wrong in ways that only
// show beside the records, which Tail does not read, or in itself.
func TestTailChecks(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Index){
		"unknown kind":            func(x *Index) { x.Txns[1].Kind = 3 },
		"begins out of order":     func(x *Index) { x.Txns[0].Offset, x.Txns[0].Frame = x.Txns[1].Offset, x.Txns[1].Frame },
		"begin behind its frame":  func(x *Index) { x.Txns[0].Offset = x.Frames[0].Raw },
		"begin in no frame":       func(x *Index) { x.Txns[2].Frame = len(x.Frames) },
		"frames too short":        func(x *Index) { x.Frames[0].Stored-- },
		"a frame of no bytes":     func(x *Index) { x.Frames[0].Raw = 0 },
		"a frame beyond any size": func(x *Index) { x.Frames[0].Raw = maxRaw + 1 },
		"a note too long":         func(x *Index) { x.Txns[1].Note = strings.Repeat("x", change.MaxNote+1) },
		"a note too long in all": func(x *Index) {
			x.Txns[1].Note, x.Txns[2].Note = strings.Repeat("x", change.MaxNote), strings.Repeat("x", change.MaxNote+1)
		},
	} {
		p := split(t, sample(t))
		p.reindex(spoil)
		if _, err := readTail(p.join(), TailGuess); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTailNeed demands that no footer makes a caller fetch more than an index may
// take.
func TestTailNeed(t *testing.T) {
	t.Parallel()
	frames, err := NewFrameReader()
	check(t, err)
	for _, length := range []int64{maxIndexStored, maxIndexStored + 1} {
		f := footer{index: headerSize, length: length, size: headerSize + length + footerSize}
		_, need, err := frames.Tail(f.encode(), f.size)
		if length > maxIndexStored {
			checkDamage(t, err, int(f.size))
		} else if err != nil || need != length+footerSize {
			t.Errorf("needs %d bytes for an index of %d: %v", need, length, err)
		}
	}
}

// TestWrongFrame reads a sound frame that is not the one the index describes.
func TestWrongFrame(t *testing.T) {
	t.Parallel()
	seg := sample(t)
	whole, err := readTail(seg, 0)
	check(t, err)
	frames, err := NewFrameReader()
	check(t, err)
	nothing := func(int, Record) error { return nil }
	checkDamage(t, frames.ReadFrame(bytes.NewReader(seg[whole.FrameOffset(1):]), whole.Index, 0, nothing), len(seg))
	x := *whole.Index
	x.Frames = append([]Frame(nil), x.Frames...)
	x.Frames[0].Definitions = false
	checkDamage(t, frames.ReadFrame(bytes.NewReader(seg[headerSize:]), &x, 0, nothing), len(seg))
	stop := errors.New("stop")
	if err := frames.ReadFrame(bytes.NewReader(seg[headerSize:]), whole.Index, 0, func(int, Record) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("the caller's error came back as %v", err)
	}
}

// TestLongNote reads a record whose note is too long, alone, where no index is
// compared with it.
func TestLongNote(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]error{change.MaxNote: nil, change.MaxNote + 1: ErrCorrupt} {
		p := split(t, sample(t))
		p.frames = p.frames[:1]
		commit := appendString([]byte{0, 0, 0, 0}, strings.Repeat("x", n))
		p.frames[0] = part{raw: append(record(recordBegin, 1, 1), record(recordCommit, commit...)...)}
		p.reindex(func(x *Index) { x.Txns = x.Txns[:1]; x.Txns[0].Note = "" })
		p.relocate()
		seg := p.join()
		tail, err := readTail(seg, TailGuess)
		check(t, err)
		frames, err := NewFrameReader()
		check(t, err)
		err = frames.ReadFrame(bytes.NewReader(seg[headerSize:]), tail.Index, 0, func(_ int, r Record) error {
			if r.Kind == Commit && len(r.Note) != n {
				t.Errorf("note of %d bytes, want %d", len(r.Note), n)
			}
			return nil
		})
		if !errors.Is(err, want) {
			t.Errorf("note of %d bytes: %v, want %v", n, err, want)
		}
	}
}

func TestMisuse(t *testing.T) {
	t.Parallel()
	for _, h := range []Header{{}, {First: 1, Engine: "seventeen letters"}, {First: 1, Engine: "a\x00b"}} {
		if w, err := NewWriter(&memory{}, h); err == nil || w != nil {
			t.Errorf("header %+v accepted", h)
		}
	}
	w, err := NewWriter(&memory{}, Header{First: 1})
	check(t, err)
	message := &change.Message{Raw: []byte("x")}
	refused := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s accepted", what)
		}
	}
	refused("a message outside a transaction", w.Write(message))
	refused("a commit outside a transaction", w.Commit(message))
	check(t, w.Rollback())
	_, err = w.Close("")
	refused("the close of an empty segment", err)
	refused("an unknown kind", w.Begin(9))
	check(t, w.Begin(change.TxnSource))
	refused("a second begin", w.Begin(change.TxnSource))
	check(t, w.Write(&change.Message{Touched: []change.Touch{{Op: change.OpMessage}}})) // a touch without a table
	refused("a long id", w.Commit(&change.Message{XID: strings.Repeat("x", maxXID+1)}))
	refused("a long position", w.Commit(&change.Message{Position: change.Position(strings.Repeat("x", maxPosition+1))}))
	refused("a long note", w.Commit(&change.Message{Note: strings.Repeat("x", change.MaxNote+1)}))
	check(t, w.Commit(&change.Message{XID: strings.Repeat("x", maxXID), Position: change.Position(strings.Repeat("x", maxPosition)), Note: strings.Repeat("x", change.MaxNote)}))
	check(t, w.Begin(change.TxnHeartbeat))
	refused("a message in a heartbeat", w.Write(message))
	refused("a heartbeat with an id", w.Commit(&change.Message{XID: "1"}))
	check(t, w.Commit(&change.Message{}))
	_, err = w.Close(change.Position(strings.Repeat("x", maxPosition+1)))
	refused("a long end", err)
	_, err = w.Close("end")
	check(t, err)
	refused("a begin after the close", w.Begin(change.TxnSource))
	_, err = w.Close("end")
	refused("a second close", err)
}

func TestFull(t *testing.T) {
	t.Parallel()
	w, err := NewWriter(discard{}, Header{First: 1})
	check(t, err)
	for !w.Full() {
		check(t, w.Begin(change.TxnHeartbeat))
		check(t, w.Commit(&change.Message{Position: change.Position(strings.Repeat("x", maxPosition))}))
	}
	if n := w.Txns() * maxPosition; n < maxNames/2 || n > maxNames/2+maxPosition {
		t.Errorf("full after %d bytes of positions", n)
	}
	var last error
	for last == nil {
		check(t, w.Begin(change.TxnHeartbeat))
		last = w.Commit(&change.Message{Position: change.Position(strings.Repeat("x", maxPosition))})
	}
	if n := w.Txns() * maxPosition; n > maxNames {
		t.Errorf("%d bytes of positions accepted", n)
	}
	_, err = w.Close("end") // of what came before
	check(t, err)
}

// TestFullOfNotes comes to both limits of names with notes alone.
func TestFullOfNotes(t *testing.T) {
	t.Parallel()
	w, err := NewWriter(discard{}, Header{First: 1})
	check(t, err)
	note := strings.Repeat("x", change.MaxNote)
	add := func() error {
		check(t, w.Begin(change.TxnHeartbeat))
		return w.Commit(&change.Message{Note: note})
	}
	w.index.names = maxNames/2 - 2*len(note)
	for i := range 3 {
		if w.Full() {
			t.Errorf("full before note %d", i)
		}
		check(t, add())
	}
	if !w.Full() {
		t.Error("not full beyond half the limit")
	}
	w.index.names = maxNames - 2*len(note)
	check(t, add())
	check(t, add())
	if add() == nil {
		t.Error("a note beyond the limit is accepted")
	}
}

// failing is an Output that fails once, at its nth call.
type failing struct {
	memory
	left int
}

var errFull = errors.New("no space left")

func (f *failing) Write(p []byte) (int, error) {
	if f.left--; f.left == -1 {
		return 0, errFull
	}
	return f.memory.Write(p)
}

func (f *failing) Truncate(size int64) error {
	if f.left--; f.left == -1 {
		return errFull
	}
	return f.memory.Truncate(size)
}

// TestOutputFails demands that no error of the Output is forgotten: the Writer
// says so again whatever is asked of it next.
func TestOutputFails(t *testing.T) {
	t.Parallel()
	run := func(left int) (out *failing, closed error) {
		out = &failing{left: left}
		w, err := NewWriter(out, testHeader)
		if err != nil {
			return out, err
		}
		w.target = 64
		for i := range 4 { // errors are ignored on purpose
			_ = w.Begin(change.TxnSource)
			for range 3 {
				_ = w.Write(&change.Message{Raw: make([]byte, 50)})
			}
			if i == 2 {
				_ = w.Rollback()
			} else {
				_ = w.Commit(&change.Message{})
			}
		}
		_, err = w.Close("end")
		return out, err
	}
	sound, err := run(1000)
	check(t, err)
	for n := range 1000 - sound.left {
		if _, err := run(n); !errors.Is(err, errFull) {
			t.Errorf("output fails at call %d: %v", n, err)
		}
	}
}
