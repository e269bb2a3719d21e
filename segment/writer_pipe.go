package segment

import (
	"encoding"

	"github.com/klauspost/compress/zstd"
)

const (
	// pipeDepth is how many full frames may be on their way through compression while the
	// next one fills: one processor compresses more slowly than a fast source sends.
	pipeDepth = 2
	// keepFrame is the size up to which the buffers of a frame are kept for another. A
	// larger frame, which holds one huge message, is waited for: it is in memory alone.
	keepFrame = 4 * frameTarget
)

// pipe compresses frames, and gives them back in the order they were put in. Its caller
// is one goroutine. The goroutine of a frame touches nothing but that frame, and ends once it is
// compressed: next and drop join it; if a segment is given up without either, it ends by itself
// within the time that one frame takes.
type pipe struct {
	zstd   *zstd.Encoder
	jobs   [pipeDepth]*job // a ring
	oldest int
	busy   int
}

// job is a frame on its way through compression.
type job struct {
	raw    []byte
	flags  uint32
	packed []byte        // frame header and compressed bytes
	done   chan struct{} // holds a token when packed is there
}

func newPipe() (pipe, error) {
	// The fastest level is also the one that packs rows best for its time
	// (BenchmarkPgbench): the next is slower and larger, the one after that halves the
	// speed for 2 % on pgbench and 13 % on text. What comes out depends on nothing but
	// the frame, also with several at work.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(pipeDepth), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(frameTarget), zstd.WithEncoderCRC(false))
	p := pipe{zstd: enc}
	for i := range p.jobs {
		p.jobs[i] = &job{done: make(chan struct{}, 1)}
	}
	return p, err
}

// full reports that the oldest frame must be taken out before another is put in.
func (p *pipe) full() bool { return p.busy == pipeDepth }

// put begins to compress a frame. It keeps raw, and returns an empty buffer for it.
func (p *pipe) put(flags uint32, raw []byte) []byte {
	j := p.jobs[(p.oldest+p.busy)%pipeDepth]
	free := j.raw[:0]
	if free == nil {
		free = make([]byte, 0, min(cap(raw), keepFrame))
	}
	j.raw, j.flags = raw, flags
	p.busy++
	go j.run(p.zstd) // joined by next and drop
	return free
}

func (j *job) run(enc *zstd.Encoder) {
	j.packed = packFrame(enc, j.flags, j.raw, j.packed[:0])
	j.done <- struct{}{}
}

// next takes the oldest frame out, waiting for it; the pipe must not be empty. The bytes are
// valid until put or pack is called.
func (p *pipe) next() []byte {
	j := p.jobs[p.oldest]
	<-j.done
	p.oldest, p.busy = (p.oldest+1)%pipeDepth, p.busy-1
	packed := j.packed
	if cap(j.packed) > keepFrame {
		j.packed = nil
	}
	if cap(j.raw) > keepFrame {
		j.raw = nil
	}
	return packed
}

// drop waits for all that is in the pipe and forgets it.
func (p *pipe) drop() {
	for p.busy > 0 {
		p.next()
	}
}

// pack compresses a frame at once; the pipe must be empty.
func (p *pipe) pack(flags uint32, raw []byte) []byte {
	j := p.jobs[p.oldest]
	packed := packFrame(p.zstd, flags, raw, j.packed[:0])
	if cap(packed) <= keepFrame {
		j.packed = packed
	}
	return packed
}

// packFrame appends a frame of raw to dst, which is empty.
func packFrame(enc *zstd.Encoder, flags uint32, raw, dst []byte) []byte {
	dst = enc.EncodeAll(raw, append(dst, make([]byte, frameHeaderSize)...))
	h := frameHeader{raw: uint32(len(raw)), stored: uint32(len(dst) - frameHeaderSize), flags: flags}
	h.crc = h.sum(dst[frameHeaderSize:])
	h.put(dst)
	return dst
}

// frame ends a frame after the first n bytes of the buffer, and keeps what stands behind them
// in it.
func (w *Writer) frame(n int, defs bool) error {
	if w.pipe.full() {
		if err := w.collect(); err != nil {
			return err
		}
	}
	var flags uint32
	if defs {
		flags = flagDefinitions
	}
	rest := w.buf[n:]
	w.buf = append(w.pipe.put(flags, w.buf[:n]), rest...)
	w.frames = append(w.frames, Frame{Raw: n, Definitions: defs})
	if n > keepFrame {
		return w.drain()
	}
	return nil
}

// collect writes the oldest frame of the pipe.
func (w *Writer) collect() error {
	i := len(w.frames) - w.pipe.busy
	packed := w.pipe.next()
	if w.undo.set && w.undo.frames == i { // Rollback comes back to here
		state, err := w.hash.(encoding.BinaryAppender).AppendBinary(w.undo.hash[:0])
		if err != nil {
			w.err = err
			return err
		}
		w.undo.hash, w.undo.off = state, w.off
	}
	w.frames[i].Stored = len(packed)
	return w.write(packed)
}

// drain writes all frames of the pipe.
func (w *Writer) drain() error {
	for w.pipe.busy > 0 {
		if err := w.collect(); err != nil {
			return err
		}
	}
	return nil
}
