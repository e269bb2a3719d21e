package spool

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"txreel/archive"
)

// A file of the queue is the object's bytes, its key, and a trailer of trailerSize bytes:
//
//	8  trailerMagic
//	8  number in the queue, little endian, as all numbers
//	8  size of the object
//	2  length of the key
//	32 SHA-256 of everything before
//
// Its name is the number in 16 hexadecimal digits and, for people, the key.
const (
	trailerMagic = "TXSPOOL1"
	trailerSize  = 8 + 8 + 8 + 2 + sha256.Size
	nameLimit    = 200 // bytes of a name; file systems allow 255

	incoming = "incoming" // a file that is not whole yet
)

// fileName returns the name of a file. No key has a '+' in it.
func fileName(number uint64, key string) string {
	name := fmt.Sprintf("%016x+%s", number, strings.ReplaceAll(key, "/", "+"))
	return name[:min(len(name), nameLimit)]
}

// parseName returns the number in a name; ok is false for names that are not of the queue.
func parseName(name string) (number uint64, ok bool) {
	digits, _, ok := strings.Cut(name, "+")
	number, err := strconv.ParseUint(digits, 16, 64)
	return number, ok && err == nil && len(digits) == 16 && digits == strings.ToLower(digits)
}

// trailer returns what follows the object in its file, without the SHA-256.
func trailer(number uint64, key string, size int64) []byte {
	b := append([]byte(key), trailerMagic...)
	b = binary.LittleEndian.AppendUint64(b, number)
	b = binary.LittleEndian.AppendUint64(b, uint64(size))
	return binary.LittleEndian.AppendUint16(b, uint16(len(key)))
}

// damaged is the lasting error about a file that does not hold what was written to it.
func (s *Store) damaged(name, what string) error {
	return fmt.Errorf("%w: the file %s of the spool is damaged: %s. It was acknowledged to the source and has not arrived in %s; "+
		"put the file back from a copy, or move the folder away: the record then ends before it", archive.ErrCorrupt, filepath.Join(s.dir, name), what, s.inner)
}

// readEntry reads the trailer of a file and compares it with the file's name and length. The
// object's bytes are checked before they are shipped.
func (s *Store) readEntry(name string, number uint64) (*entry, error) {
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() < trailerSize {
		return nil, s.damaged(name, fmt.Sprintf("it has %d bytes", info.Size()))
	}
	var t [trailerSize]byte
	if _, err := f.ReadAt(t[:], info.Size()-trailerSize); err != nil {
		return nil, err
	}
	size, length := binary.LittleEndian.Uint64(t[16:]), binary.LittleEndian.Uint16(t[24:])
	switch {
	case string(t[:8]) != trailerMagic:
		return nil, s.damaged(name, "it does not end with a trailer")
	case binary.LittleEndian.Uint64(t[8:]) != number:
		return nil, s.damaged(name, "its trailer has another number than its name")
	case size != uint64(info.Size())-trailerSize-uint64(length) || info.Size() < trailerSize+int64(length):
		return nil, s.damaged(name, "it is not as long as its trailer says")
	}
	key := make([]byte, length)
	if _, err := f.ReadAt(key, int64(size)); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := archive.CheckKey(string(key)); err != nil || fileName(number, string(key)) != name {
		return nil, s.damaged(name, "its key is not the one in its name")
	}
	return &entry{number: number, key: string(key), size: int64(size), bytes: info.Size(), name: name, since: info.ModTime()}, nil
}

// verify reads a whole file and compares it with its SHA-256.
func (s *Store) verify(f *os.File, e *entry) error {
	h := sha256.New()
	if n, err := io.Copy(h, io.NewSectionReader(f, 0, e.bytes-sha256.Size)); err != nil {
		return fmt.Errorf("spool: %w", err)
	} else if n != e.bytes-sha256.Size {
		return s.damaged(e.name, "it was cut")
	}
	var want [sha256.Size]byte
	if _, err := f.ReadAt(want[:], e.bytes-sha256.Size); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if !bytes.Equal(h.Sum(nil), want[:]) {
		return s.damaged(e.name, "its bytes are not those of its SHA-256")
	}
	return nil
}
