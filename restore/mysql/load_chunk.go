package mysql

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"

	"txreel/archive"
)

// chunkReader delivers a chunk's text and, before it lets the end be seen, checks that
// the stored bytes are those of the manifest: what they are loaded into is not
// committed otherwise.
type chunkReader struct {
	key  string
	want string
	sum  hash.Hash
	in   *tee // the stored bytes, through sum
	zstd *zstd.Decoder
	err  error // not io.EOF
}

func newChunkReader(body io.Reader, key, want string) (*chunkReader, error) {
	r := &chunkReader{key: key, want: want, sum: sha256.New()}
	r.in = &tee{in: body, sum: r.sum}
	var err error
	r.zstd, err = zstd.NewReader(r.in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(64<<20))
	return r, err
}

// Read implements io.Reader.
func (r *chunkReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.zstd.Read(p)
	switch {
	case err == io.EOF:
		if _, err := io.Copy(io.Discard, r.in); err != nil {
			r.err = fmt.Errorf("read %s: %w", r.key, err)
		} else if got := hex.EncodeToString(r.sum.Sum(nil)); got != r.want {
			r.err = fmt.Errorf("%w: %s has SHA-256 %s, the manifest says %s: restore from another base", archive.ErrCorrupt, r.key, got, r.want)
		} else {
			return n, io.EOF
		}
		return n, r.err
	case r.in.err != nil: // not the chunk's fault
		r.err = fmt.Errorf("read %s: %w", r.key, r.in.err)
		return n, r.err
	case err != nil:
		r.err = fmt.Errorf("%w: %s: %w", archive.ErrCorrupt, r.key, err)
		return n, r.err
	}
	return n, nil
}

// tee hashes what is read through it and remembers an error of the store.
type tee struct {
	in  io.Reader
	sum hash.Hash
	err error // not io.EOF
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.in.Read(p)
	_, _ = t.sum.Write(p[:n])
	if err != nil && err != io.EOF {
		t.err = err
	}
	return n, err
}

// maxDocument bounds a document of a base: a hundred thousand objects have room in it.
const maxDocument = 1 << 30

// readJSON reads and checks one of the base's documents.
func (l *loader) readJSON(ctx context.Context, name string, v any) error {
	var object *archive.BaseObject
	for i := range l.base.Objects {
		if l.base.Objects[i].Name == name {
			object = &l.base.Objects[i]
		}
	}
	key := l.base.Key(name)
	if object == nil {
		return fmt.Errorf("%w: %s: %w", archive.ErrCorrupt, key, errNoObject)
	}
	body, _, err := l.archive.Store.Open(ctx, key, 0, -1)
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	defer func() { _ = body.Close() }() // it was only read
	r, err := newChunkReader(body, key, object.SHA256)
	if err != nil {
		return err
	}
	defer r.zstd.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return err
	}
	if len(text) > maxDocument {
		return fmt.Errorf("%w: %s holds more than %d bytes", archive.ErrCorrupt, key, maxDocument)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%w: %s: %w", archive.ErrCorrupt, key, err)
	}
	return nil
}
