package s3

import (
	"context"
	"fmt"
	"strings"

	"github.com/minio/minio-go/v7"

	"txreel/archive"
)

// maxKeys is the most a service lists in one answer.
const maxKeys = 1000

// List implements archive.Store. Objects whose names are no keys, such as the
// folder marks that consoles leave, are passed over.
func (s *Store) List(ctx context.Context, prefix, after string, max int) ([]archive.Object, error) {
	doing := "list " + s.name
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	if max <= 0 {
		return nil, nil
	}
	opts := minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true, MaxKeys: min(max, maxKeys), FetchOwner: new(bool)}
	if after != "" {
		opts.StartAfter = s.prefix + after
	}
	var found []archive.Object
	err := s.request(ctx, s.stall, func(ctx context.Context, w *watch) error {
		found = found[:0]
		last := after
		for info := range s.core.ListObjectsIter(ctx, s.bucket, opts) {
			if info.Err != nil {
				return info.Err
			}
			w.progress()
			key := strings.TrimPrefix(info.Key, s.prefix)
			if !strings.HasPrefix(info.Key, opts.Prefix) || key <= last && last != "" || info.Size < 0 {
				return &protocolError{fmt.Sprintf("the service lists %q after %q for the prefix %q; it must list keys in byte order",
					info.Key, last, opts.Prefix)}
			}
			last = key
			if archive.CheckKey(key) != nil {
				continue
			}
			found = append(found, archive.Object{Key: key, Size: info.Size})
			if len(found) == max {
				return nil // before the iterator asks for more
			}
		}
		return ctx.Err() // the iterator ends silently when it is cancelled
	})
	if err != nil {
		return nil, s.explain(doing, err)
	}
	return found, nil
}
