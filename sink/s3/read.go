package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"txreel/archive"
)

// beyond is more than any object has: offsets and counts above it mean "to the
// end", and are not put to the test of a service's integers.
const beyond = 1 << 50

// protocolError is an answer that breaks S3's rules; asking again does not help.
type protocolError struct{ text string }

func (e *protocolError) Error() string { return e.text }

// Open implements archive.Store. It costs one request; a second one asks for the
// size when the range lies outside the object.
func (s *Store) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, int64, error) {
	if err := archive.CheckKey(key); err != nil {
		return nil, 0, err
	}
	doing := "open " + key + " in " + s.name
	if err := ctx.Err(); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", doing, err)
	}
	opts, err := rangeOf(off, n)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", doing, err)
	}
	var got *body
	var size int64
	parent := ctx // lives as long as the body is read
	err = s.retry(ctx, func() error {
		ctx, w := newWatch(ctx, s.stall)
		rc, info, header, err := s.core.GetObject(ctx, s.bucket, s.prefix+key, opts)
		if err != nil {
			w.end()
			return w.verdict(err)
		}
		w.rest()
		got = &body{store: s, ctx: parent, key: key, etag: info.ETag, rc: rc, watch: w}
		if size, err = got.check(header, info.Size, off, n); err != nil {
			got.Close() // the answer is of no use
		}
		return err
	})
	if codeOf(err) == minio.InvalidRange {
		size, err = s.outside(ctx, key, off)
		if err == nil {
			return io.NopCloser(strings.NewReader("")), size, nil
		}
	}
	if err != nil {
		return nil, 0, s.explain(doing, err)
	}
	return got, size, nil
}

// rangeOf asks for the range that archive.Store.Open describes. A range without
// bytes cannot be said in HTTP: it asks for one, which check drops.
func rangeOf(off, n int64) (minio.GetObjectOptions, error) {
	var opts minio.GetObjectOptions
	off = min(max(off, -beyond), beyond)
	switch {
	case off < 0:
		return opts, opts.SetRange(0, off)
	case n < 0 || n > beyond:
		if off == 0 {
			return opts, nil
		}
		return opts, opts.SetRange(off, 0)
	}
	return opts, opts.SetRange(off, off+max(n, 1)-1)
}

// outside returns the size of an object that has no byte in the range asked for,
// or an error when the range starts behind its end.
func (s *Store) outside(ctx context.Context, key string, off int64) (int64, error) {
	if off < 0 {
		return 0, nil // only an empty object has no last bytes
	}
	var info minio.ObjectInfo
	err := s.request(ctx, s.stall, func(ctx context.Context, _ *watch) (err error) {
		info, err = s.core.StatObject(ctx, s.bucket, s.prefix+key, minio.StatObjectOptions{})
		return err
	})
	if err == nil && off > info.Size {
		err = &protocolError{fmt.Sprintf("offset %d is past its end at %d", off, info.Size)}
	}
	return info.Size, err
}

// body is an object's content as it arrives. When its connection breaks it asks for the rest, as long
// as a Store repeats a request.
type body struct {
	store *Store
	ctx   context.Context // Open's: of the requests for the rest
	key   string
	etag  string
	rc    io.ReadCloser
	watch *watch
	at    int64 // offset of the next byte
	left  int64
}

// check compares the answer with the range asked for and returns the object's
// size. length is the answer's.
func (b *body) check(header http.Header, length, off, n int64) (int64, error) {
	from, size := int64(0), length
	if r := header.Get("Content-Range"); r != "" {
		var ok bool
		if from, length, size, ok = parseContentRange(r); !ok {
			return 0, &protocolError{fmt.Sprintf("the service sent the Content-Range %q", r)}
		}
	}
	if length < 0 || size < 0 {
		return 0, &protocolError{"the service does not say how long the object is"}
	}
	wantFrom, want := off, size-off
	if off < 0 {
		wantFrom = max(size+max(off, -beyond), 0)
		want = size - wantFrom
	} else if n >= 0 {
		want = min(n, want)
	}
	if size == 0 && off == 0 || want == 0 && off >= 0 && off <= size {
		b.left = 0
		return size, nil
	}
	if from != wantFrom || length != want {
		return 0, &protocolError{fmt.Sprintf("the service sent %d bytes from offset %d, not the %d from %d asked for; "+
			"it must honour Range", length, from, want, wantFrom)}
	}
	b.at, b.left = from, length
	return size, nil
}

// parseContentRange reads "bytes 0-9/1000".
func parseContentRange(s string) (from, length, size int64, ok bool) {
	span, total, ok1 := strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	first, last, ok2 := strings.Cut(span, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	ok = ok1 && ok2 && errors.Join(err1, err2, err3) == nil && 0 <= from && from <= to && to < size
	return from, to - from + 1, size, ok
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := b.arrive(p)
	if err != nil && passing(err) && b.store.retryFor >= 0 {
		err = b.store.retry(b.ctx, func() (err error) {
			if err = b.resume(); err == nil {
				n, err = b.arrive(p)
			}
			return err
		})
	}
	if err == nil {
		return n, nil
	}
	doing := "read " + b.key + " in " + b.store.name
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, &failure{fmt.Sprintf("%s: the connection ended with %d bytes missing", doing, b.left),
			[]error{io.ErrUnexpectedEOF, archive.ErrUnreachable}}
	}
	return 0, b.store.explain(doing, err)
}

// arrive reads what has come, at least a byte: an error that comes with bytes comes back with the next call.
func (b *body) arrive(p []byte) (n int, err error) {
	b.watch.progress()
	for n == 0 && err == nil {
		n, err = b.rc.Read(p[:min(int64(len(p)), b.left)])
	}
	b.watch.rest()
	b.at, b.left = b.at+int64(n), b.left-int64(n)
	switch {
	case n > 0:
		return n, nil
	case err == io.EOF:
		return 0, io.ErrUnexpectedEOF
	}
	return 0, b.watch.verdict(err)
}

// resume asks for the bytes that are left of what Open was answered.
func (b *body) resume() error {
	b.Close()
	opts, err := rangeOf(b.at, b.left)
	if err == nil && b.etag != "" {
		err = opts.SetMatchETag(b.etag)
	}
	if err != nil {
		return err
	}
	ctx, w := newWatch(b.ctx, b.store.stall)
	rc, info, header, err := b.store.core.GetObject(ctx, b.store.bucket, b.store.prefix+b.key, opts)
	if err != nil {
		w.end()
		if codeOf(err) == minio.PreconditionFailed {
			return &protocolError{"it is not the object any more that it was when its reading began"}
		}
		return w.verdict(err)
	}
	w.rest()
	rest := *b
	rest.rc, rest.watch = rc, w
	if _, err = rest.check(header, info.Size, b.at, b.left); err != nil {
		rest.Close()
		return err
	}
	*b = rest
	return nil
}

func (b *body) Close() error {
	b.watch.end()
	return b.rc.Close()
}
