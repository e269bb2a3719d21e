package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"

	"txreel/change"
)

// RecordKind tells what a Record is.
type RecordKind uint8

// The kinds of records, numbered as in the file.
const (
	// Definition is material for the decoder and belongs to no transaction.
	Definition RecordKind = recordDefinition
	// Begin opens the transaction Seq of kind Kind.
	Begin RecordKind = recordBegin
	// Message is a source message of the open transaction.
	Message RecordKind = recordMessage
	// Commit ends the open transaction; XID, Position, CommitTime, Received and Note are set.
	Commit RecordKind = recordCommit
)

// Record is one step through a segment. Raw is valid until the next call of Next.
type Record struct {
	Kind       RecordKind
	Raw        []byte // Definition and Message: the source's bytes
	Seq        change.Seq
	TxnKind    change.TxnKind
	XID        string
	Position   change.Position
	CommitTime change.Time
	Received   change.Time
	Note       string
}

// FrameReader decompresses frames. The zero value is not ready: use
// NewFrameReader. It is not safe for concurrent use.
type FrameReader struct {
	zstd   *zstd.Decoder
	stored bytes.Buffer
	raw    []byte
}

// NewFrameReader returns a FrameReader that takes no more memory than the frames
// it is shown need.
func NewFrameReader() (*FrameReader, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, err
	}
	return &FrameReader{zstd: dec}, nil
}

// read reads one frame from r, which stands at off, and returns its content,
// valid until the next call. want is the frame's length, frame header included,
// where an index or footer tells it, else 0. seen, if not nil, is given every byte read.
func (f *FrameReader) read(r io.Reader, off int64, want int64, seen io.Writer) (frameHeader, []byte, error) {
	var hb [frameHeaderSize]byte
	if n, err := readFull(r, hb[:]); err != nil {
		return frameHeader{}, nil, shortRead(err, off+int64(n), "a frame header")
	}
	h, err := parseFrameHeader(hb[:], off)
	if err != nil {
		return h, nil, err
	}
	if want != 0 && frameHeaderSize+int64(h.stored) != want {
		return h, nil, corrupt(off, "frame of %d bytes where one of %d belongs", frameHeaderSize+int64(h.stored), want)
	}
	f.stored.Reset()
	if f.stored.Cap() > keepMemory {
		f.stored = bytes.Buffer{}
	}
	// The length is not trusted with memory: the buffer grows with what arrives.
	if n, err := io.CopyN(&f.stored, r, int64(h.stored)); err != nil {
		return h, nil, shortRead(err, off+frameHeaderSize+n, "a frame")
	}
	if h.sum(f.stored.Bytes()) != h.crc {
		return h, nil, corrupt(off, "frame checksum mismatch")
	}
	if seen != nil {
		_, _ = seen.Write(hb[:])
		_, _ = seen.Write(f.stored.Bytes())
	}
	dst := f.room(int(h.raw))
	f.raw, err = f.zstd.DecodeAll(f.stored.Bytes(), dst)
	if err != nil {
		f.raw = nil
		return h, nil, corrupt(off, "frame does not decompress: %w", err)
	}
	if len(f.raw) != int(h.raw) {
		return h, nil, corrupt(off, "frame decompresses to %d bytes, its header says %d", len(f.raw), h.raw)
	}
	return h, f.raw, nil
}

// room returns an empty slice with the capacity to decompress n bytes: the decoder
// never goes beyond it, and works faster with a little more than it fills.
func (f *FrameReader) room(n int) []byte {
	const slack, step = 16, 64 << 10
	if c := cap(f.raw); c < n+slack || c > keepMemory && c > 2*n {
		f.raw = make([]byte, 0, (n+slack+step-1)/step*step)
	}
	return f.raw[:0]
}

// readFull fills b like io.ReadFull, but leaves apart the end of the input, which
// is io.EOF, and a reader's own io.ErrUnexpectedEOF, which says that a connection
// broke and nothing about the segment.
func readFull(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	if n == len(b) {
		err = nil
	}
	return n, err
}

// shortRead turns the end of the input into a truncation and leaves every other
// error, such as a store's, what it is.
func shortRead(err error, off int64, what string) error {
	if err == io.EOF { // not errors.Is: the end of the input is never wrapped
		return truncated(off, what)
	}
	return err
}

// Reader reads a segment from its first byte to its last and checks everything
// on the way: checksums, the order of records, the index against the records, and the
// hash. Not safe for concurrent use.
type Reader struct {
	in     io.Reader
	off    int64
	frames *FrameReader
	hash   hash.Hash
	header Header

	version uint16 // of the segment's format
	raw     []byte // rest of the current frame
	rawSize int
	rawOff  int64
	check   checker
	index   *Index
	sum     Hash
	err     error
}

// NewReader reads the header of the segment that in delivers.
func NewReader(in io.Reader) (*Reader, error) {
	frames, err := NewFrameReader()
	if err != nil {
		return nil, err
	}
	r := &Reader{frames: frames, hash: sha256.New()}
	if err := r.Reset(in); err != nil {
		return nil, err
	}
	return r, nil
}

// Reset starts over with another segment and keeps the memory.
func (r *Reader) Reset(in io.Reader) error {
	*r = Reader{in: in, frames: r.frames, hash: r.hash}
	r.hash.Reset()
	b := make([]byte, headerSize)
	n, err := readFull(in, b)
	if err != nil {
		r.err = shortRead(err, int64(n), "the header")
		return r.err
	}
	r.header, r.version, r.err = parseHeader(b)
	r.hash.Write(b)
	r.off = headerSize
	r.check.next, r.check.latest = r.header.First, r.header.Latest
	return r.err
}

// Header returns the segment's header.
func (r *Reader) Header() Header { return r.header }

// Index returns the index; nil before Next has returned io.EOF.
func (r *Reader) Index() *Index { return r.index }

// Hash returns the segment's hash; zero before Next has returned io.EOF.
func (r *Reader) Hash() Hash { return r.sum }

// Next returns the next record. io.EOF means that the whole segment was read
// and is sound; any other error stays.
func (r *Reader) Next() (Record, error) {
	for r.err == nil && len(r.raw) == 0 {
		r.err = r.frame()
	}
	if r.err != nil {
		return Record{}, r.err
	}
	rec, n, err := parseRecord(r.raw, r.version)
	if err == nil {
		err = r.check.record(&rec, r.rawSize-len(r.raw))
	}
	if err != nil {
		r.err = corrupt(r.rawOff, "record at byte %d of the frame: %w", r.rawSize-len(r.raw), err)
		return Record{}, r.err
	}
	r.raw = r.raw[n:]
	return rec, nil
}

func (r *Reader) frame() error {
	h, raw, err := r.frames.read(r.in, r.off, 0, r.hash)
	if err != nil {
		return err
	}
	off := r.off
	r.off += frameHeaderSize + int64(h.stored)
	if h.flags&flagIndex != 0 {
		return r.end(off, raw)
	}
	r.raw, r.rawSize, r.rawOff = raw, len(raw), off
	r.check.frame(Frame{Stored: int(h.stored) + frameHeaderSize, Raw: len(raw), Definitions: h.flags&flagDefinitions != 0})
	return nil
}

// end reads the footer behind the index that stands at off and compares all that
// was read with it. It returns io.EOF when the segment is sound.
func (r *Reader) end(off int64, raw []byte) error {
	x, err := decodeIndex(raw, r.version)
	if err != nil {
		return &CorruptError{Offset: off, Err: err}
	}
	if err := r.check.index(x); err != nil {
		return &CorruptError{Offset: off, Err: err}
	}
	var b [footerSize + 1]byte
	n, err := readFull(r.in, b[:])
	switch {
	case err == nil:
		return corrupt(r.off+footerSize, "bytes after the end marker")
	case err != io.EOF || n < footerSize:
		return shortRead(err, r.off+int64(n), "the footer")
	}
	f, err := parseFooter(b[:footerSize], r.off+footerSize)
	if err != nil {
		return err
	}
	if f.version != r.version {
		return corrupt(r.off+56, "the footer is of version %d, the header of version %d", f.version, r.version)
	}
	if f.index != off {
		return corrupt(r.off, "the footer places the index at %d, it stands at %d", f.index, off)
	}
	r.hash.Write(b[:24])
	if r.hash.Sum(r.sum[:0]); r.sum != f.hash {
		return corrupt(r.off+24, "segment hash mismatch")
	}
	r.index = x
	return io.EOF
}

// parseRecord reads the record at the start of b, which is of a segment of the given
// version, and returns its length.
func parseRecord(b []byte, version uint16) (Record, int, error) {
	kind := RecordKind(b[0])
	size, n := binary.Uvarint(b[1:])
	if n <= 0 || size > uint64(len(b)-1-n) {
		return Record{}, 0, fmt.Errorf("it runs over the end of its frame")
	}
	start := 1 + n
	end := start + int(size)
	rec := Record{Kind: kind, Raw: b[start:end:end]}
	switch kind {
	case Definition, Message:
		return rec, end, nil
	case Begin:
		d := decoder{b: rec.Raw}
		rec.Seq, rec.TxnKind = change.Seq(d.uvarint()), change.TxnKind(d.byte())
		rec.Raw = nil
		if d.err == nil && !knownKind(rec.TxnKind) {
			d.fail("unknown kind of transaction %d", rec.TxnKind)
		}
		return rec, end, d.done()
	case Commit:
		d := decoder{b: rec.Raw}
		rec.XID, rec.Position, rec.CommitTime = d.name(maxXID), change.Position(d.name(maxPosition)), change.Time(d.varint())
		if version >= versionNotes {
			rec.Received, rec.Note = change.Time(d.varint()), d.name(change.MaxNote)
		}
		rec.Raw = nil
		return rec, end, d.done()
	}
	return rec, 0, fmt.Errorf("unknown kind %d", kind)
}

func (d *decoder) done() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	return d.err
}
