package segment

import (
	"bytes"
	"fmt"
	"io"
)

// TailGuess is how much of a segment's end to ask for first: index and footer of
// most segments fit.
const TailGuess = 64 << 10

// Tail is what stands at the end of a segment.
type Tail struct {
	*Index
	Size int64
	Hash Hash
	// Packed is the index frame as stored, footer included: all that FrameReader.Tail
	// needs. It is part of the slice that Tail was given.
	Packed []byte
}

// Tail decodes index and footer from the last bytes b of a segment of size
// bytes. When b is too short it returns need, the number of last bytes to call it
// with instead. The records are not read, so neither the hash nor the index is
// checked against them.
func (f *FrameReader) Tail(b []byte, size int64) (t *Tail, need int64, err error) {
	if size < headerSize+frameHeaderSize+footerSize {
		return nil, 0, truncated(size, "its shortest form")
	}
	if int64(len(b)) > size {
		return nil, 0, fmt.Errorf("tail of %d bytes of a segment of %d", len(b), size)
	}
	if len(b) < footerSize {
		return nil, footerSize, nil
	}
	foot, err := parseFooter(b[len(b)-footerSize:], size)
	if err != nil {
		return nil, 0, err
	}
	if need = foot.length + footerSize; need > int64(len(b)) {
		if foot.length > maxIndexStored {
			return nil, 0, corrupt(foot.index, "index of %d bytes", foot.length)
		}
		return nil, need, nil
	}
	packed := b[int64(len(b))-need:]
	h, raw, err := f.read(bytes.NewReader(packed[:foot.length]), foot.index, foot.length, nil)
	if err != nil {
		return nil, 0, err
	}
	if h.flags != flagIndex {
		return nil, 0, corrupt(foot.index, "no index where the footer places it")
	}
	x, err := decodeIndex(raw, foot.version)
	if err != nil {
		return nil, 0, &CorruptError{Offset: foot.index, Err: err}
	}
	if x.FrameOffset(len(x.Frames)) != foot.index {
		return nil, 0, corrupt(foot.index, "the frames of the index do not end where the index begins")
	}
	return &Tail{Index: x, Size: size, Hash: foot.hash, Packed: packed}, 0, nil
}

// ReadFrame reads the frame number i of a segment from r, which delivers the
// segment's bytes from x.FrameOffset(i) on, and calls record for each of its records in
// order. raw slices are valid during the call only.
func (f *FrameReader) ReadFrame(r io.Reader, x *Index, i int, record func(offset int, rec Record) error) error {
	off := x.FrameOffset(i)
	h, raw, err := f.read(r, off, int64(x.Frames[i].Stored), nil)
	if err != nil {
		return err
	}
	if len(raw) != x.Frames[i].Raw || h.flags == flagIndex || (h.flags == flagDefinitions) != x.Frames[i].Definitions {
		return corrupt(off, "frame %d is not the one the index describes", i)
	}
	for at := 0; at < len(raw); {
		rec, n, err := parseRecord(raw[at:], x.version)
		if err != nil {
			return corrupt(off, "record at byte %d of the frame: %w", at, err)
		}
		if err := record(at, rec); err != nil {
			return err
		}
		at += n
	}
	return nil
}
