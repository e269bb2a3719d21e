package s3

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/minio/minio-go/v7"

	"txreel/archive"
)

const (
	maxParts  = 10_000
	maxObject = 5 << 40 // bytes
	// A service that copies the parts of an upload together answers late: it
	// gets a second more for each of these bytes.
	completeRate = 8 << 20
	maxUploads   = 3 // of one object, when the service loses a race or an upload
)

// Create implements archive.Store.
func (s *Store) Create(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if err := archive.CheckKey(key); err != nil {
		return err
	}
	doing := "create " + key + " in " + s.name
	if size < 0 || size > maxObject {
		return fmt.Errorf("%s: S3 objects have 0 to %d bytes, not %d", doing, int64(maxObject), size)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if size <= s.partSize {
		return s.explain(doing, s.put(ctx, key, body, size))
	}
	err := s.multipart(ctx, key, body, size)
	for tries := 1; errors.Is(err, errUploadGone) && tries < maxUploads; tries++ {
		err = s.multipart(ctx, key, body, size)
	}
	return s.explain(doing, err)
}

// put creates an object with a single request.
func (s *Store) put(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	sum, err := sumOf(body, 0, size)
	if err != nil {
		return err
	}
	return s.request(ctx, s.stall, func(ctx context.Context, w *watch) error {
		u := &upload{SectionReader: io.NewSectionReader(body, 0, size), watch: w}
		_, err := s.core.PutObject(ctx, s.bucket, s.prefix+key, u, size, sum.md5, sum.sha256, createOnce())
		return u.verdict(err)
	})
}

// multipart creates an object part by part, each read from body as it is sent.
// minio-go's own multipart upload drops the condition from the completion, the
// one request that needs it.
func (s *Store) multipart(ctx context.Context, key string, body io.ReaderAt, size int64) (err error) {
	var id string
	err = s.request(ctx, s.stall, func(ctx context.Context, _ *watch) error {
		var err error
		id, err = s.core.NewMultipartUpload(ctx, s.bucket, s.prefix+key, minio.PutObjectOptions{})
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.abort(ctx, key, id)
		}
	}()
	partSize := max(s.partSize, (size+maxParts-1)/maxParts)
	var parts []minio.CompletePart
	for off := int64(0); off < size; off += partSize {
		part, err := s.putPart(ctx, key, id, len(parts)+1, io.NewSectionReader(body, off, min(partSize, size-off)))
		if err != nil {
			return err
		}
		parts = append(parts, part)
	}
	limit := s.stall + time.Duration(size/completeRate)*time.Second
	return s.request(ctx, limit, func(ctx context.Context, _ *watch) error {
		_, err := s.core.CompleteMultipartUpload(ctx, s.bucket, s.prefix+key, id, parts, createOnce())
		if codeOf(err) == "NoSuchUpload" || codeOf(err) == "ConditionalRequestConflict" {
			return fmt.Errorf("%w: %w", errUploadGone, err)
		}
		return err
	})
}

// putPart uploads one part.
func (s *Store) putPart(ctx context.Context, key, id string, number int, body *io.SectionReader) (minio.CompletePart, error) {
	sum, err := sumOf(body, 0, body.Size())
	if err != nil {
		return minio.CompletePart{}, err
	}
	var part minio.ObjectPart
	err = s.request(ctx, s.stall, func(ctx context.Context, w *watch) error {
		u := &upload{SectionReader: io.NewSectionReader(body, 0, body.Size()), watch: w}
		var err error
		part, err = s.core.PutObjectPart(ctx, s.bucket, s.prefix+key, id, number, u, body.Size(),
			minio.PutObjectPartOptions{Md5Base64: sum.md5, Sha256Hex: sum.sha256, DisableContentSha256: true})
		return u.verdict(err)
	})
	return minio.CompletePart{PartNumber: number, ETag: part.ETag}, err
}

// abort frees the parts of an upload that will not complete. What it cannot free
// (the service is away, the process dies first) is left to the bucket's lifecycle
// rule for incomplete uploads. A cancelled caller is not kept waiting.
func (s *Store) abort(ctx context.Context, key, id string) {
	limit := min(s.stall, 5*time.Second)
	if ctx.Err() != nil {
		limit = time.Second
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	_ = s.core.AbortMultipartUpload(ctx, s.bucket, s.prefix+key, id) // see above
}

// createOnce asks the service to refuse a key that is taken (Invariant 3), and
// minio-go to sign the hash it is given rather than each chunk.
func createOnce() minio.PutObjectOptions {
	opts := minio.PutObjectOptions{DisableContentSha256: true}
	opts.SetMatchETagExcept("*")
	return opts
}

// sums are what a request promises about its body: every service checks the
// signed SHA-256, and buckets with Object Lock demand the MD5.
type sums struct {
	sha256 string // hex
	md5    string // base64
}

func sumOf(body io.ReaderAt, off, size int64) (sums, error) {
	strong, weak := sha256.New(), md5.New()
	n, err := io.Copy(io.MultiWriter(strong, weak), io.NewSectionReader(body, off, size))
	if err != nil {
		return sums{}, &bodyError{err}
	}
	if n != size {
		return sums{}, &bodyError{fmt.Errorf("%w: %d bytes are missing", io.ErrUnexpectedEOF, size-n)}
	}
	return sums{sha256: hex.EncodeToString(strong.Sum(nil)), md5: base64.StdEncoding.EncodeToString(weak.Sum(nil))}, nil
}
