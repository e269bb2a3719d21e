// Package segment reads and writes segments: immutable files of whole
// transactions in commit order, as specified in docs/format.md. It knows no
// network, no clock and no database.
package segment

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"txreel/change"
)

// The constants of the format. They are part of every file ever written: change
// none of them, raise Version instead.
const (
	// Version is the format version this build writes, and the newest it reads. It
	// reads all before it, too.
	Version = 2
	// versionNotes is the first version whose transactions have a note and a time of
	// receipt.
	versionNotes = 2

	headerSize      = 108
	frameHeaderSize = 16
	footerSize      = 72

	engineSize = 16 // bytes of the engine's name in the header

	headerMagic = "\x89TXSEG\r\n"
	footerMagic = "TXSEGEND"

	flagDefinitions = 1 << 0 // the frame holds at least one definition record
	flagIndex       = 1 << 1 // the frame is the index

	recordDefinition = 1
	recordBegin      = 2
	recordMessage    = 3
	recordCommit     = 4

	// maxRaw bounds a frame before compression: one message of the largest size a
	// server sends (1 GiB), its record header, and what may stand before it.
	maxRaw = 1<<30 + 1<<26
	// maxMessage bounds a message, so that a frame with one message and what may
	// stand before it stays below maxRaw.
	maxMessage = maxRaw - 1<<21
	// maxIndex bounds the index before compression. It is decoded as a whole, so it
	// is held to less than a frame of records.
	maxIndex = 1 << 26
	// maxXID and maxPosition bound a transaction's id and a position.
	maxXID      = 1 << 10
	maxPosition = change.MaxPosition
	// maxNames bounds the ids, positions and notes of a segment together: the index stores
	// what they share with their neighbours once, a reader's memory holds them whole.
	maxNames = 1 << 27
	// maxRatio bounds how many bytes one stored byte may decompress to. No Zstandard
	// frame exceeds it: its densest block takes 4 bytes for 128 KiB.
	maxRatio = 1 << 15
	// maxStored bounds a frame as stored: incompressible data grows a little.
	maxStored      = maxRaw + maxRaw>>6
	maxIndexStored = frameHeaderSize + maxIndex + maxIndex>>6
)

// HashSize is the size of a segment's hash in bytes.
const HashSize = sha256.Size

// Hash identifies a segment by its content: the SHA-256 of all its bytes up to
// the hash itself. The next segment repeats it, so that the segments of an epoch
// form a chain.
type Hash [HashSize]byte

// Header says whose segment it is and where it stands in the chain.
type Header struct {
	Archive [16]byte   // the archive's id
	Engine  string     // "postgres", "mysql" or "mariadb": which decoder reads the messages
	Epoch   uint64     // the epoch it belongs to
	First   change.Seq // Seq of its first transaction
	Prev    Hash       // hash of the segment before it; zero for an epoch's first
	// Latest is the latest commit time in the epoch before this segment. Commit
	// times may go backwards; their running maximum cannot, so it can be searched.
	Latest change.Time
}

// Errors that callers tell apart. All reach them inside a *CorruptError, except
// ErrVersion.
var (
	// ErrCorrupt is wrapped by every error about bytes that are not what the
	// format demands, truncation included.
	ErrCorrupt = errors.New("segment corrupt")
	// ErrTruncated is wrapped, beside ErrCorrupt, when a segment ends too early.
	ErrTruncated = errors.New("segment truncated")
	// ErrVersion is wrapped when a segment was written by a newer format version.
	ErrVersion = errors.New("segment version not supported")
)

// CorruptError says where a segment is damaged, and how.
type CorruptError struct {
	Key    string // the object, when it is known
	Offset int64  // the byte at which the damage shows
	Err    error
}

// Error implements error.
func (e *CorruptError) Error() string {
	key := e.Key
	if key == "" {
		key = "segment"
	}
	return fmt.Sprintf("%s: damaged at byte %d: %v", key, e.Offset, e.Err)
}

// Unwrap lets errors.Is find ErrCorrupt and the cause.
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }

func corrupt(off int64, format string, args ...any) error {
	return &CorruptError{Offset: off, Err: fmt.Errorf(format, args...)}
}

func truncated(off int64, what string) error {
	return &CorruptError{Offset: off, Err: fmt.Errorf("%w: it ends inside %s", ErrTruncated, what)}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (h *Header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, headerMagic)
	binary.LittleEndian.PutUint16(b[8:], Version)
	binary.LittleEndian.PutUint16(b[10:], headerSize)
	copy(b[16:32], h.Archive[:])
	binary.LittleEndian.PutUint64(b[32:], h.Epoch)
	binary.LittleEndian.PutUint64(b[40:], uint64(h.First))
	copy(b[48:80], h.Prev[:])
	copy(b[80:96], h.Engine)
	binary.LittleEndian.PutUint64(b[96:], uint64(h.Latest))
	binary.LittleEndian.PutUint32(b[104:], crc32.Checksum(b[:104], castagnoli))
	return b
}

// parseHeader checks magic, checksum and version before anything else, so that a
// newer segment is named as such and damage never is.
func parseHeader(b []byte) (h Header, version uint16, err error) {
	if len(b) < headerSize {
		return h, 0, truncated(int64(len(b)), "the header")
	}
	if string(b[:8]) != headerMagic {
		return h, 0, corrupt(0, "no segment: the magic bytes are %x", b[:8])
	}
	// The checksum stands here in every version: a flipped bit in the version field
	// is damage, not a version.
	if crc32.Checksum(b[:104], castagnoli) != binary.LittleEndian.Uint32(b[104:]) {
		return h, 0, corrupt(0, "header checksum mismatch")
	}
	version = binary.LittleEndian.Uint16(b[8:])
	if err := checkVersion(version, 8); err != nil {
		return h, 0, err
	}
	if n := binary.LittleEndian.Uint16(b[10:]); n != headerSize {
		return h, 0, corrupt(10, "header size %d, want %d", n, headerSize)
	}
	if flags := binary.LittleEndian.Uint32(b[12:]); flags != 0 {
		return h, 0, corrupt(12, "unknown header flags %#x", flags)
	}
	copy(h.Archive[:], b[16:32])
	h.Epoch = binary.LittleEndian.Uint64(b[32:])
	h.First = change.Seq(binary.LittleEndian.Uint64(b[40:]))
	copy(h.Prev[:], b[48:80])
	h.Engine = strings.TrimRight(string(b[80:96]), "\x00")
	if strings.ContainsRune(h.Engine, 0) {
		return h, 0, corrupt(80, "engine %q", h.Engine)
	}
	h.Latest = change.Time(binary.LittleEndian.Uint64(b[96:]))
	if h.First == 0 {
		return h, 0, corrupt(40, "first Seq is zero")
	}
	return h, version, nil
}

// checkVersion judges a version whose checksum was right.
func checkVersion(v uint16, off int64) error {
	switch {
	case v == 0:
		return corrupt(off, "version 0")
	case v > Version:
		return fmt.Errorf("%w: version %d, this build reads versions up to %d", ErrVersion, v, Version)
	}
	return nil
}

type frameHeader struct {
	stored uint32 // bytes that follow
	raw    uint32 // bytes they decompress to
	flags  uint32
	crc    uint32 // CRC-32C of the three fields above and the stored bytes
}

func (f frameHeader) put(b []byte) {
	binary.LittleEndian.PutUint32(b, f.stored)
	binary.LittleEndian.PutUint32(b[4:], f.raw)
	binary.LittleEndian.PutUint32(b[8:], f.flags)
	binary.LittleEndian.PutUint32(b[12:], f.crc)
}

func parseFrameHeader(b []byte, off int64) (frameHeader, error) {
	f := frameHeader{
		stored: binary.LittleEndian.Uint32(b),
		raw:    binary.LittleEndian.Uint32(b[4:]),
		flags:  binary.LittleEndian.Uint32(b[8:]),
		crc:    binary.LittleEndian.Uint32(b[12:]),
	}
	switch {
	case f.stored > maxStored:
		return f, corrupt(off, "frame of %d stored bytes, the limit is %d", f.stored, maxStored)
	case f.raw == 0:
		return f, corrupt(off, "empty frame")
	case f.raw > maxRaw || uint64(f.raw) > uint64(f.stored)*maxRatio:
		return f, corrupt(off, "frame of %d bytes, %d stored: the limits are %d bytes and %d for each stored one", f.raw, f.stored, maxRaw, maxRatio)
	case f.flags != 0 && f.flags != flagDefinitions && f.flags != flagIndex:
		return f, corrupt(off, "unknown frame flags %#x", f.flags)
	case f.flags == flagIndex && f.raw > maxIndex:
		return f, corrupt(off, "index of %d bytes, the limit is %d", f.raw, maxIndex)
	}
	return f, nil
}

// sum returns the checksum of the frame whose header fields are f's and whose
// stored bytes are p.
func (f frameHeader) sum(p []byte) uint32 {
	var b [12]byte
	binary.LittleEndian.PutUint32(b[:], f.stored)
	binary.LittleEndian.PutUint32(b[4:], f.raw)
	binary.LittleEndian.PutUint32(b[8:], f.flags)
	return crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, p)
}

type footer struct {
	version uint16 // set by parseFooter
	index   int64  // offset of the index frame
	length  int64  // its length, frame header included
	size    int64  // of the whole segment
	hash    Hash
}

func (f *footer) encode() []byte {
	b := make([]byte, footerSize)
	binary.LittleEndian.PutUint64(b, uint64(f.index))
	binary.LittleEndian.PutUint64(b[8:], uint64(f.length))
	binary.LittleEndian.PutUint64(b[16:], uint64(f.size))
	copy(b[24:56], f.hash[:])
	binary.LittleEndian.PutUint16(b[56:], Version)
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	copy(b[64:], footerMagic)
	return b
}

// parseFooter reads the last footerSize bytes of a segment of the given size.
func parseFooter(b []byte, size int64) (footer, error) {
	off := size - footerSize
	sound := crc32.Checksum(b[:60], castagnoli) == binary.LittleEndian.Uint32(b[60:])
	switch marked := string(b[64:72]) == footerMagic; {
	case !marked && !sound:
		return footer{}, &CorruptError{Offset: off, Err: fmt.Errorf("%w: it does not end in a footer", ErrTruncated)}
	case !marked:
		return footer{}, corrupt(off+64, "the end marker is %x", b[64:72])
	case !sound:
		return footer{}, corrupt(off, "footer checksum mismatch")
	}
	version := binary.LittleEndian.Uint16(b[56:])
	if err := checkVersion(version, off+56); err != nil {
		return footer{}, err
	}
	if flags := binary.LittleEndian.Uint16(b[58:]); flags != 0 {
		return footer{}, corrupt(off+58, "unknown footer flags %#x", flags)
	}
	f := footer{
		version: version,
		index:   int64(binary.LittleEndian.Uint64(b)),
		length:  int64(binary.LittleEndian.Uint64(b[8:])),
		size:    int64(binary.LittleEndian.Uint64(b[16:])),
	}
	copy(f.hash[:], b[24:56])
	switch {
	case f.size != size:
		return f, corrupt(off+16, "the footer speaks of %d bytes, the object has %d", f.size, size)
	case f.index < headerSize || f.length < frameHeaderSize || f.index > off || f.length != off-f.index:
		return f, corrupt(off, "index at %d of %d bytes does not end where the footer begins", f.index, f.length)
	}
	return f, nil
}
