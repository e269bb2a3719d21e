package pgbase

import (
	"io"

	"github.com/klauspost/compress/zstd"

	"txreel/internal/rowsum"
	"txreel/internal/spill"
)

// Chunk is a part of a table being made: what is written to it is compressed, and summed up for the manifest. It is not safe for
// concurrent use.
type Chunk struct {
	Body *spill.Buffer // what is compressed; whole after Close
	Raw  int64         // bytes written
	Rows rowsum.Lines
	zstd *zstd.Encoder
}

// chunkMemory is how much of a compressed chunk stays in memory.
const chunkMemory = 16 << 20

// NewChunk returns an empty Chunk. Beyond 16 MiB it is kept in a temporary file in dir; Release gives that back.
func NewChunk(dir string) (*Chunk, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, err
	}
	c := &Chunk{Body: spill.New(dir, chunkMemory), zstd: enc}
	c.Reset()
	return c, nil
}

// Reset begins another one.
func (c *Chunk) Reset() {
	c.Body.Reset()
	c.Rows.Reset()
	c.Raw = 0
	c.zstd.Reset(struct{ io.Writer }{c.Body})
}

// Write takes lines of COPY's text format, cut anywhere. It fails when the temporary file cannot be written.
func (c *Chunk) Write(p []byte) (int, error) {
	c.Raw += int64(len(p))
	_, _ = c.Rows.Write(p) // never fails
	return c.zstd.Write(p)
}

// Close ends the compression.
func (c *Chunk) Close() error { return c.zstd.Close() }

// Release gives back what the Chunk holds.
func (c *Chunk) Release() { c.Body.Reset() }
