// Package spill keeps bytes in memory up to a limit and in a temporary file
// beyond it, so that the size of an object never becomes the size of the process.
package spill

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Buffer is an append-only buffer that can be cut back and read at any offset. The
// zero value is not ready: use New. It is not safe for concurrent use, but ReadAt
// may be called concurrently once writing has ended.
type Buffer struct {
	dir     string
	limit   int
	mem     []byte
	file    *os.File // holds everything once it is set; mem is then a write buffer
	flushed int64    // bytes of file written
}

// writeChunk is how much is gathered before a write to the file: system calls
// cost more than copies.
const writeChunk = 1 << 20

// New returns an empty Buffer that keeps up to limit bytes in memory and puts the
// rest into an unnamed temporary file in dir ("" means the system's temporary folder).
// Reset it when it is no longer wanted: that gives the file's space back.
func New(dir string, limit int) *Buffer { return &Buffer{dir: dir, limit: limit} }

// Write appends p. It fails only when the temporary file cannot be written, and the
// buffer then holds what it held before.
func (b *Buffer) Write(p []byte) (int, error) {
	if b.file == nil && len(b.mem)+len(p) > b.limit {
		if err := b.open(); err != nil {
			return 0, fmt.Errorf("spill to a temporary file: %w", err)
		}
	}
	if b.file == nil || len(b.mem)+len(p) < writeChunk {
		b.mem = append(b.mem, p...)
		return len(p), nil
	}
	if err := b.append(b.mem, p); err != nil {
		return 0, fmt.Errorf("spill to a temporary file: %w", err)
	}
	b.mem = b.mem[:0]
	return len(p), nil
}

func (b *Buffer) open() error {
	f, err := os.CreateTemp(b.dir, "txreel-*")
	if err != nil {
		return err
	}
	// Unlinked at once: the space is freed however the process ends.
	if err := os.Remove(f.Name()); err != nil {
		return errors.Join(err, f.Close())
	}
	b.file, b.flushed = f, 0
	return nil
}

// append writes the parts to the file. What it wrote counts only when all is written.
func (b *Buffer) append(parts ...[]byte) error {
	end := b.flushed
	for _, p := range parts {
		if _, err := b.file.WriteAt(p, end); err != nil {
			return err
		}
		end += int64(len(p))
	}
	b.flushed = end
	return nil
}

// Size returns the number of bytes held.
func (b *Buffer) Size() int64 { return b.flushed + int64(len(b.mem)) }

// Truncate cuts the buffer back to its first size bytes.
func (b *Buffer) Truncate(size int64) error {
	if size < 0 || size > b.Size() {
		return fmt.Errorf("truncate a buffer of %d bytes to %d", b.Size(), size)
	}
	if size >= b.flushed {
		b.mem = b.mem[:size-b.flushed]
		return nil
	}
	if err := b.file.Truncate(size); err != nil {
		return fmt.Errorf("cut back a temporary file: %w", err)
	}
	b.flushed, b.mem = size, b.mem[:0]
	return nil
}

// ReadAt implements io.ReaderAt over the bytes held.
func (b *Buffer) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at negative offset %d", off)
	}
	n := 0
	if off < b.flushed {
		part := p[:min(int64(len(p)), b.flushed-off)]
		m, err := b.file.ReadAt(part, off)
		n += m
		if m < len(part) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // of the file, not of what the buffer holds
			}
			return n, fmt.Errorf("read back a temporary file: %w", err)
		}
		off += int64(m)
	}
	if n < len(p) && off-b.flushed < int64(len(b.mem)) {
		n += copy(p[n:], b.mem[off-b.flushed:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Reset empties the buffer, gives its file back and keeps its memory.
func (b *Buffer) Reset() {
	if b.file != nil {
		_ = b.file.Close() // unlinked already; nothing of it is wanted
		b.file = nil
	}
	b.flushed, b.mem = 0, b.mem[:0]
}
