package main

import (
	"context"
	"net/url"
	"strings"

	"txreel/archive"
	"txreel/sink/dir"
	"txreel/sink/s3"
)

// archiveFlag is shared by all commands that use an archive.
type archiveFlag struct {
	Archive string `required:"" placeholder:"URL" help:"Where the archive is: s3://bucket/prefix?endpoint=https://… or a directory."`
}

// open opens the store the flag names; release ends its connections.
func (f archiveFlag) open(ctx context.Context) (store archive.Store, release func(), err error) {
	switch {
	case strings.HasPrefix(f.Archive, "s3://"):
		opts, err := s3.ParseURL(f.Archive)
		if err != nil {
			return nil, nil, &usageError{err.Error()}
		}
		s, err := s3.Open(ctx, opts)
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
	case strings.Contains(f.Archive, "://") && !strings.HasPrefix(f.Archive, "file://"):
		return nil, nil, &usageError{"--archive takes s3://bucket/prefix?endpoint=… or the path of a directory"}
	}
	path := f.Archive
	if u, err := url.Parse(path); err == nil && u.Scheme == "file" {
		path = u.Path
	}
	s, err := dir.Open(path)
	if err != nil {
		return nil, nil, err
	}
	return s, func() {}, nil
}

// openArchive opens an archive that must exist.
func (f archiveFlag) openArchive(ctx context.Context) (*archive.Archive, func(), error) {
	store, release, err := f.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	a, err := archive.Open(ctx, store)
	if err != nil {
		release()
		return nil, nil, err
	}
	return a, release, nil
}
