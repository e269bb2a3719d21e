package archive

import (
	"context"
	"io"
)

// Store is the place an archive lives in: a flat space of objects under keys
// such as "epochs/00000001/segments/0000000000000001.seg". Keys are relative to
// the archive's root, use '/' as separator and hold only [A-Za-z0-9._/-].
//
// A Store moves opaque bytes; every meaning of a key or of a byte is the
// archive's. All methods may be called concurrently. Errors wrap fs.ErrExist and
// fs.ErrNotExist where stated, wrap ErrUnreachable when a retry later may
// succeed (network, 5xx, throttling, deadline), and are otherwise final
// (credentials, missing bucket, malformed request).
//
// A Store has no overwrite and no delete: capture needs neither, so its
// credentials need neither.
type Store interface {
	// Create writes the size bytes of body as a new object and returns once the
	// object is durable and visible to Open and List. When key is taken it
	// returns an error wrapping fs.ErrExist and leaves the object that is there
	// untouched (Invariant 3); of two racing calls at most one succeeds. After
	// any other error the object may or may not exist: whole, never in part.
	Create(ctx context.Context, key string, body io.ReaderAt, size int64) error

	// Open returns a reader over a range of an object, and the object's whole
	// size. off >= 0 starts there, n < 0 reads to the end; off < 0 asks for the
	// last -off bytes (the whole object when it is shorter) and n is then
	// ignored. A range that ends past the object is cut at its end; an offset
	// past the end is an error. A missing key is an error wrapping
	// fs.ErrNotExist, reported by Open itself, never by Read. A body that ends
	// early is io.ErrUnexpectedEOF from Read, never a silent short read.
	Open(ctx context.Context, key string, off, n int64) (body io.ReadCloser, size int64, err error)

	// List returns up to max objects whose key starts with prefix and sorts
	// after the key after (which need not exist; "" starts at the beginning),
	// in byte order of their keys. Fewer than max objects means there are no
	// more. An object that Create has returned for is listed. One call costs one
	// request as long as max <= 1000.
	List(ctx context.Context, prefix, after string, max int) ([]Object, error)

	// String names the store for people, without secrets: "s3://bucket/prefix"
	// or a path.
	String() string
}

// Object is one entry of a listing.
type Object struct {
	Key  string
	Size int64 // bytes
}
