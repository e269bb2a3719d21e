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
	err = s.retry(ctx, func() error {
		ctx, w := newWatch(ctx, s.stall)
		rc, info, header, err := s.core.GetObject(ctx, s.bucket, s.prefix+key, opts)
		if err != nil {
			w.end()
			return w.verdict(err)
		}
		w.rest()
		got = &body{store: s, key: key, rc: rc, watch: w, left: info.Size}
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

// body is an object's content as it arrives.
type body struct {
	store *Store
	key   string
	rc    io.ReadCloser
	watch *watch
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
	b.left = length
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

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	b.watch.progress()
	n, err := b.rc.Read(p[:min(int64(len(p)), b.left)])
	b.watch.rest()
	b.left -= int64(n)
	if n > 0 || err == nil {
		return n, nil // an error comes back with the next read
	}
	doing := "read " + b.key + " in " + b.store.name
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, &failure{fmt.Sprintf("%s: the connection ended with %d bytes missing", doing, b.left),
			[]error{io.ErrUnexpectedEOF, archive.ErrUnreachable}}
	}
	return 0, b.store.explain(doing, b.watch.verdict(err))
}

func (b *body) Close() error {
	b.watch.end()
	return b.rc.Close()
}
