package segment_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"txreel/segment"
)

// What follows is a second reader, written from docs/format.md alone: it shares
// no line with package segment, which only FuzzStranger asks. It proves that the document says enough.

// stranger lists a segment as the vectors do.
type stranger struct {
	lines   []string
	version uint16

	open, beat  bool
	next        uint64
	latest      int64
	frames      [][3]uint64 // stored, raw, flags
	found       []string    // what the index must say of each transaction
	begins      [2]uint64
	count, size uint64
}

var (
	errReject      = errors.New("rejected")
	errNewer       = errors.New("version not known")
	castagnoli     = crc32.MakeTable(crc32.Castagnoli)
	u16, u32, u64  = binary.LittleEndian.Uint16, binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	segmentMagic   = []byte{0x89, 0x54, 0x58, 0x53, 0x45, 0x47, 0x0d, 0x0a}
	endMarker      = []byte{0x54, 0x58, 0x53, 0x45, 0x47, 0x45, 0x4e, 0x44}
	frameLimits    = [2]uint32{1158676480, 1140850688}
	indexLimit     = uint32(67108864)
	idLimit, posLi = uint64(1024), uint64(65536)
	noteLimit      = uint64(256)
)

func (s *stranger) add(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func reject(why string) error { return fmt.Errorf("%w: %s", errReject, why) }

func (s *stranger) read(b []byte) error {
	if len(b) < 108 || !bytes.Equal(b[:8], segmentMagic) || crc32.Checksum(b[:104], castagnoli) != u32(b[104:]) {
		return reject("header")
	}
	if s.version = u16(b[8:]); s.version > 2 {
		return errNewer
	} else if s.version == 0 || u16(b[10:]) != 108 || u32(b[12:]) != 0 {
		return reject("header fields")
	}
	name, rest, _ := bytes.Cut(b[80:96], []byte{0})
	if len(bytes.Trim(rest, "\x00")) > 0 {
		return reject("engine")
	}
	s.next, s.latest = u64(b[40:]), int64(u64(b[96:]))
	if s.next == 0 {
		return reject("first")
	}
	s.add("header engine=%s archive=%x epoch=%d first=%d prev=%x latest=%d", name, b[16:32], u64(b[32:]), s.next, b[48:80], s.latest)

	first := s.next
	at := 108
	for {
		f, raw, err := frame(b[at:])
		if err != nil {
			return err
		}
		size := 16 + int(f[0])
		if f[2] == 2 {
			if err := s.index(raw, first); err != nil {
				return err
			}
			return s.footer(b, at, at+size)
		}
		s.frames = append(s.frames, [3]uint64{uint64(size), f[1], f[2]})
		if err := s.records(raw); err != nil {
			return err
		}
		at += size
	}
}

func frame(b []byte) (f [3]uint64, raw []byte, err error) {
	if len(b) < 16 {
		return f, nil, reject("frame header cut")
	}
	stored, size, flags := u32(b), u32(b[4:]), u32(b[8:])
	if stored > frameLimits[0] || size > frameLimits[1] || size == 0 || flags > 2 || flags == 2 && size > indexLimit || uint64(size) > uint64(stored)*32768 {
		return f, nil, reject("frame header")
	}
	if uint64(len(b)) < 16+uint64(stored) {
		return f, nil, reject("frame cut")
	}
	data := b[16 : 16+stored]
	if crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, data) != u32(b[12:]) {
		return f, nil, reject("frame checksum")
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return f, nil, err
	}
	defer dec.Close()
	raw, err = dec.DecodeAll(data, make([]byte, 0, size))
	if err != nil || len(raw) != int(size) {
		return f, nil, reject("frame data")
	}
	return [3]uint64{uint64(stored), uint64(size), uint64(flags)}, raw, nil
}

// cursor reads the notation of section 1; what does not fit panics with reject and
// is caught in guard.
type cursor struct{ b []byte }

func guard(err *error) {
	if r := recover(); r != nil {
		e, ok := r.(error)
		if !ok || !errors.Is(e, errReject) {
			panic(r)
		}
		*err = e
	}
}

func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.b)) {
		panic(reject("cut"))
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) uvarint() (v uint64) {
	for shift := 0; ; shift += 7 {
		x := c.take(1)[0]
		if shift == 63 && x > 1 {
			panic(reject("number"))
		}
		v |= uint64(x&0x7f) << shift
		if x < 0x80 {
			return v
		}
	}
}

func (c *cursor) varint() int64 {
	v := c.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (c *cursor) text(limit uint64) string {
	s := string(c.take(c.uvarint()))
	if uint64(len(s)) > limit {
		panic(reject("length"))
	}
	return s
}

func (c *cursor) shared(before string, limit uint64) string {
	n := c.uvarint()
	if n > uint64(len(before)) {
		panic(reject("shared"))
	}
	s := before[:n] + c.text(limit)
	if uint64(len(s)) > limit {
		panic(reject("length"))
	}
	return s
}

// number reads a count of entries of at least size bytes each.
func (c *cursor) number(size int) uint64 {
	n := c.uvarint()
	if n > uint64(len(c.b)/size) {
		panic(reject("count"))
	}
	return n
}

func (s *stranger) records(raw []byte) (err error) {
	defer guard(&err)
	c := cursor{raw}
	definitions := false
	for len(c.b) > 0 {
		offset := uint64(len(raw) - len(c.b))
		kind := c.take(1)[0]
		body := cursor{c.take(c.uvarint())}
		switch kind {
		case 1:
			definitions = true
			s.add("definition %x", body.b)
			body.b = nil
		case 2:
			seq, of := body.uvarint(), body.take(1)[0]
			if s.open || seq != s.next || of != 1 && of != 2 {
				return reject("begin")
			}
			s.open, s.beat, s.count, s.size = true, of == 2, 0, 0
			s.begins = [2]uint64{uint64(len(s.frames) - 1), offset}
			s.add("begin seq=%d kind=%d", seq, of)
		case 3:
			if !s.open || s.beat {
				return reject("message")
			}
			s.count, s.size = s.count+1, s.size+uint64(len(body.b))
			s.add("message %x", body.b)
			body.b = nil
		case 4:
			if !s.open {
				return reject("commit")
			}
			id, position, at := body.text(idLimit), body.text(posLi), body.varint()
			var added string // by version 2
			if s.version == 2 {
				added = fmt.Sprintf(" received=%d note=%x", body.varint(), body.text(noteLimit))
			}
			if s.beat && id != "" {
				return reject("heartbeat")
			}
			s.latest = max(s.latest, at)
			s.add("commit xid=%s position=%s time=%d%s", id, position, at, added)
			of := 1
			if s.beat {
				of = 2
			}
			s.found = append(s.found, fmt.Sprintf("txn seq=%d kind=%d xid=%s position=%s time=%d messages=%d bytes=%d frame=%d offset=%d%s",
				s.next, of, id, position, at, s.count, s.size, s.begins[0], s.begins[1], added))
			s.open = false
			s.next++
		default:
			return reject("kind")
		}
		if len(body.b) > 0 {
			return reject("body too long")
		}
	}
	if definitions != (s.frames[len(s.frames)-1][2] == 1) {
		return reject("definitions flag")
	}
	return nil
}

func (s *stranger) index(raw []byte, first uint64) (err error) {
	defer guard(&err)
	if s.open {
		return reject("unfinished transaction")
	}
	c := cursor{raw}
	end, latest := c.text(posLi), c.varint()
	if latest != s.latest || c.number(3) != uint64(len(s.frames)) {
		return reject("index")
	}
	for i, f := range s.frames {
		if c.uvarint() != f[0] || c.uvarint() != f[1] || uint64(c.take(1)[0]) != f[2] {
			return reject("index frame")
		}
		s.add("frame %d stored=%d raw=%d definitions=%t", i, f[0], f[1], f[2] == 1)
	}
	var tables []string
	for range c.number(10) {
		tables = append(tables, fmt.Sprintf("schema=%s name=%s version=%d", c.text(1<<40), c.text(1<<40), u64(c.take(8))))
	}
	least := 11
	if s.version == 2 {
		least = 14
	}
	if c.uvarint() != first || c.number(least) != uint64(len(s.found)) || len(s.found) == 0 {
		return reject("index transactions")
	}
	var at, number uint64
	var id, position, note, added string
	var time, received int64
	for i, want := range s.found {
		kind := c.take(1)[0]
		number += c.uvarint()
		at = c.uvarint()
		id, position = c.shared(id, idLimit), c.shared(position, posLi)
		time += c.varint()
		if s.version == 2 {
			received += c.varint()
			note = c.shared(note, noteLimit)
			added = fmt.Sprintf(" received=%d note=%x", received, note)
		}
		got := fmt.Sprintf("txn seq=%d kind=%d xid=%s position=%s time=%d messages=%d bytes=%d frame=%d offset=%d%s",
			first+uint64(i), kind, id, position, time, c.uvarint(), c.uvarint(), number, at, added)
		if got != want {
			return reject("index entry")
		}
		s.lines = append(s.lines, got)
		for range c.number(5) {
			n := c.uvarint()
			if n >= uint64(len(tables)) {
				return reject("table")
			}
			s.add("touched %s inserts=%d updates=%d deletes=%d truncates=%d", tables[n], c.uvarint(), c.uvarint(), c.uvarint(), c.uvarint())
		}
	}
	if len(c.b) > 0 {
		return reject("index too long")
	}
	s.add("end position=%s latest=%d", end, latest)
	return nil
}

func (s *stranger) footer(b []byte, index, end int) error {
	f := b[end:]
	if len(f) != 72 || !bytes.Equal(f[64:], endMarker) || crc32.Checksum(f[:60], castagnoli) != u32(f[60:]) {
		return reject("footer")
	}
	if u16(f[56:]) > 2 {
		return errNewer
	}
	hash := sha256.Sum256(b[:end+24])
	if u16(f[56:]) != s.version || u16(f[58:]) != 0 || u64(f) != uint64(index) || u64(f[8:]) != uint64(end-index) || u64(f[16:]) != uint64(len(b)) || !bytes.Equal(f[24:56], hash[:]) {
		return reject("footer fields")
	}
	s.lines[len(s.lines)-1] += fmt.Sprintf(" hash=%x", hash)
	return nil
}

// TestStranger reads every vector with the second reader.
func TestStranger(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("../testdata/segments/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal("no vectors", err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		head, body, _ := strings.Cut(string(text), "\n\n")
		data, err := hex.DecodeString(strings.ReplaceAll(body, "\n", ""))
		if err != nil {
			t.Fatal(err)
		}
		var expect string
		var list []string
		for line := range strings.SplitSeq(head, "\n") {
			if v, ok := strings.CutPrefix(line, "expect: "); ok {
				expect = v
			} else if v, ok := strings.CutPrefix(line, "list: "); ok {
				list = append(list, v)
			}
		}
		var s stranger
		err = s.read(data)
		switch expect {
		case "ok":
			if err != nil || !slices.Equal(s.lines, list) {
				t.Errorf("%s: %v\n%s\nwant\n%s", path, err, strings.Join(s.lines, "\n"), strings.Join(list, "\n"))
			}
		case "version":
			if !errors.Is(err, errNewer) {
				t.Errorf("%s: %v", path, err)
			}
		default:
			if !errors.Is(err, errReject) {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// FuzzStranger puts segments together that are sound but for the records and the
// index, and demands that both readers make the same of them.
func FuzzStranger(f *testing.F) {
	paths, err := filepath.Glob("../testdata/segments/*.txt")
	if err != nil || len(paths) == 0 {
		f.Fatal("no vectors", err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		_, body, _ := strings.Cut(string(text), "\n\n")
		b, err := hex.DecodeString(strings.ReplaceAll(body, "\n", ""))
		if err != nil || len(b) < 108 {
			continue
		}
		head, first, raws := b[:104], 0, [][]byte{}
		for at := 108; ; {
			h, raw, err := frame(b[at:])
			if err != nil {
				break
			}
			if at == 108 {
				first = int(h[2])
			}
			raws = append(raws, raw)
			at += 16 + int(h[0])
		}
		if len(raws) == 2 {
			f.Add(head, raws[0], uint8(first), raws[1])
		}
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20), zstd.WithEncoderCRC(false))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, head, records []byte, flags uint8, index []byte) {
		b := append(make([]byte, 0, 4096), head...)
		b = append(b, make([]byte, max(0, 104-len(b)))...)[:104]
		copy(b, segmentMagic)
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
		put := func(raw []byte, flags uint32) {
			data := enc.EncodeAll(raw, nil)
			h := binary.LittleEndian.AppendUint32(nil, uint32(len(data)))
			h = binary.LittleEndian.AppendUint32(h, uint32(len(raw)))
			h = binary.LittleEndian.AppendUint32(h, flags)
			b = append(b, binary.LittleEndian.AppendUint32(h, crc32.Update(crc32.Checksum(h, castagnoli), castagnoli, data))...)
			b = append(b, data...)
		}
		put(records, uint32(flags))
		at := len(b)
		put(index, 2)
		foot := binary.LittleEndian.AppendUint64(nil, uint64(at))
		foot = binary.LittleEndian.AppendUint64(foot, uint64(len(b)-at))
		foot = binary.LittleEndian.AppendUint64(foot, uint64(len(b)+72))
		hash := sha256.Sum256(append(b, foot...))
		foot = append(append(foot, hash[:]...), b[8], b[9], 0, 0)
		foot = binary.LittleEndian.AppendUint32(foot, crc32.Checksum(foot, castagnoli))
		b = append(append(b, foot...), endMarker...)

		var s stranger
		want := s.read(b)
		r, err := segment.NewReader(bytes.NewReader(b))
		for err == nil {
			_, err = r.Next()
		}
		if (want == nil) != (err == io.EOF) || errors.Is(want, errNewer) != errors.Is(err, segment.ErrVersion) {
			t.Fatalf("the reader says %v, by the document %v", err, want)
		}
	})
}
