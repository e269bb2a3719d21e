package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxObjectWindow bounds the memory that decompressing an object of a base takes.
const maxObjectWindow = 64 << 20

// ObjectReader delivers what a compressed object of a base holds and, before it lets the
// end be seen, checks that the stored bytes are those of the manifest. It must be closed.
type ObjectReader struct {
	key  string
	want string
	body io.ReadCloser
	in   *tee // the stored bytes, through its sum
	zstd *zstd.Decoder
	err  error // not io.EOF
}

// OpenObject opens an object of a base that is compressed with zstd.
func (a *Archive) OpenObject(ctx context.Context, b *Base, o BaseObject) (*ObjectReader, error) {
	key := b.Key(o.Name)
	body, size, err := a.Store.Open(ctx, key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	r := &ObjectReader{key: key, want: o.SHA256, body: body, in: &tee{in: body, sum: sha256.New()}}
	if size != o.Size {
		err = fmt.Errorf("%w: %s has %d bytes, the manifest says %d", ErrCorrupt, key, size, o.Size)
	} else {
		r.zstd, err = zstd.NewReader(r.in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxObjectWindow))
	}
	if err != nil {
		_ = body.Close() // the error is the one before
		return nil, err
	}
	return r, nil
}

// Close ends the reading.
func (r *ObjectReader) Close() {
	r.zstd.Close()
	_ = r.body.Close() // it was only read
}

// Err returns the error that ended the reading; nil at the end, and before. For a caller who
// hands the reader to somebody that says of its errors only that there was one.
func (r *ObjectReader) Err() error { return r.err }

// Read implements io.Reader.
func (r *ObjectReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.zstd.Read(p)
	switch {
	case err == io.EOF:
		if _, err := io.Copy(io.Discard, r.in); err != nil {
			r.err = fmt.Errorf("read %s: %w", r.key, err)
		} else if got := hex.EncodeToString(r.in.sum.Sum(nil)); got != r.want {
			r.err = fmt.Errorf("%w: %s has SHA-256 %s, the manifest says %s: restore from another base", ErrCorrupt, r.key, got, r.want)
		} else {
			return n, io.EOF
		}
		return n, r.err
	case r.in.err != nil: // not the object's fault
		r.err = fmt.Errorf("read %s: %w", r.key, r.in.err)
		return n, r.err
	case err != nil:
		r.err = fmt.Errorf("%w: %s: %w", ErrCorrupt, r.key, err)
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

// Read implements io.Reader.
func (t *tee) Read(p []byte) (int, error) {
	n, err := t.in.Read(p)
	_, _ = t.sum.Write(p[:n])
	if err != nil && err != io.EOF {
		t.err = err
	}
	return n, err
}
