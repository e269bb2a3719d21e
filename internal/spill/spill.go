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
	blocks  [][]byte // of blockSize, filled one after the other: growing copies nothing
	held    int      // bytes in blocks
	file    *os.File // holds everything before blocks once it is set
	flushed int64    // bytes of file written
}

const (
	blockSize = 256 << 10
	// writeChunk is how much is gathered before it is written to the file: system calls
	// cost more than copies.
	writeChunk = 4 * blockSize
)

// New returns an empty Buffer that keeps up to limit bytes in memory and puts the
// rest into an unnamed temporary file in dir ("" means the system's temporary folder).
// Reset it when it is no longer wanted: that gives the file's space back.
func New(dir string, limit int) *Buffer { return &Buffer{dir: dir, limit: limit} }

// Write appends p. It fails only when the temporary file cannot be written, and the
// buffer then holds what it held before.
func (b *Buffer) Write(p []byte) (int, error) {
	if b.file == nil && b.held+len(p) > b.limit {
		if err := b.open(); err != nil {
			return 0, fmt.Errorf("spill to a temporary file: %w", err)
		}
	}
	if b.file == nil || b.held+len(p) < writeChunk {
		b.keep(p)
		return len(p), nil
	}
	if err := b.flush(p); err != nil {
		return 0, fmt.Errorf("spill to a temporary file: %w", err)
	}
	return len(p), nil
}

// keep appends p to the blocks.
func (b *Buffer) keep(p []byte) {
	for len(p) > 0 {
		i := b.held / blockSize
		if i == len(b.blocks) {
			b.blocks = append(b.blocks, make([]byte, blockSize))
		}
		n := copy(b.blocks[i][b.held%blockSize:], p)
		b.held, p = b.held+n, p[n:]
	}
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

// flush writes what the blocks hold, and p behind it, to the file. What it wrote counts
// only when all is written.
func (b *Buffer) flush(p []byte) error {
	end := b.flushed
	for i := 0; i*blockSize < b.held; i++ {
		part := b.blocks[i][:min(b.held-i*blockSize, blockSize)]
		if _, err := b.file.WriteAt(part, end); err != nil {
			return err
		}
		end += int64(len(part))
	}
	if _, err := b.file.WriteAt(p, end); err != nil {
		return err
	}
	b.flushed, b.held = end+int64(len(p)), 0
	return nil
}

// Size returns the number of bytes held.
func (b *Buffer) Size() int64 { return b.flushed + int64(b.held) }

// Truncate cuts the buffer back to its first size bytes.
func (b *Buffer) Truncate(size int64) error {
	if size < 0 || size > b.Size() {
		return fmt.Errorf("truncate a buffer of %d bytes to %d", b.Size(), size)
	}
	if size >= b.flushed {
		b.held = int(size - b.flushed)
		return nil
	}
	if err := b.file.Truncate(size); err != nil {
		return fmt.Errorf("cut back a temporary file: %w", err)
	}
	b.flushed, b.held = size, 0
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
	for at := off - b.flushed; n < len(p) && at < int64(b.held); at = off - b.flushed {
		block := b.blocks[at/blockSize]
		m := copy(p[n:], block[at%blockSize:min(int64(b.held)-at/blockSize*blockSize, blockSize)])
		n, off = n+m, off+int64(m)
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
	b.flushed, b.held = 0, 0
}
