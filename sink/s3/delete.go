package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/minio/minio-go/v7"

	"txreel/archive"
)

var _ archive.Deleter = (*Store)(nil)

// Delete implements archive.Deleter. Where the bucket keeps versions, it hides the object behind a delete marker, and
// the bucket's lifecycle rule for noncurrent versions frees the space.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := archive.CheckKey(key); err != nil {
		return err
	}
	doing := "delete " + key + " in " + s.name
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	err := s.request(ctx, s.stall, func(ctx context.Context, _ *watch) error {
		return s.core.RemoveObject(ctx, s.bucket, s.prefix+key, minio.RemoveObjectOptions{})
	})
	var resp minio.ErrorResponse
	if !errors.As(err, &resp) || passing(err) {
		return s.explain(doing, err)
	}
	switch resp.Code {
	case minio.NoSuchKey:
		return nil
	case "ObjectLocked", "AccessDenied", "MethodNotAllowed":
		return &failure{fmt.Sprintf("%s: the store refuses (%s). Either the credentials lack s3:DeleteObject on the objects below %q of bucket %s, "+
			"or a bucket policy, a retention or a legal hold of the bucket's own keeps the object; it can go when that ends", doing, resp.Code, s.prefix, s.bucket), []error{err, fs.ErrPermission}}
	}
	return s.explain(doing, err)
}
