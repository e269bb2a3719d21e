package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"txreel/archive"
)

// List implements archive.Store. It reads only the directories that can hold a
// key of the answer, and stats only the files of the answer.
func (s *Store) List(ctx context.Context, prefix, after string, max int) ([]archive.Object, error) {
	if max <= 0 {
		return nil, nil
	}
	dir := prefix[:strings.LastIndexByte(prefix, '/')+1]
	if dir != "" {
		if err := archive.CheckKey(strings.TrimSuffix(dir, "/")); err != nil {
			return nil, fmt.Errorf("list %s: %w", s.root, err)
		}
	}
	l := &lister{store: s, prefix: prefix, after: after, max: max}
	if err := l.walk(ctx, dir); err != nil {
		return nil, err
	}
	return l.found, nil
}

type lister struct {
	store         *Store
	prefix, after string
	max           int
	found         []archive.Object
}

// walk appends the objects below dir, which is "" or ends in '/'. Names of
// directories are compared with the '/' that follows them in every key below, so
// a depth-first walk is in byte order of whole keys.
func (l *lister) walk(ctx context.Context, dir string) error {
	keys, err := l.read(ctx, dir)
	if err != nil {
		return err
	}
	slices.Sort(keys)
	for _, key := range keys {
		if len(l.found) == l.max {
			return nil
		}
		if strings.HasSuffix(key, "/") {
			if err := l.walk(ctx, key); err != nil {
				return err
			}
			continue
		}
		path := filepath.Join(l.store.root, filepath.FromSlash(key))
		info, err := os.Stat(path)
		if missing(err) {
			continue
		}
		if err != nil {
			return fault("list "+path, err)
		}
		l.found = append(l.found, archive.Object{Key: key, Size: info.Size()})
	}
	return nil
}

// read returns what in dir may be, or hold, a key of the answer.
func (l *lister) read(ctx context.Context, dir string) ([]string, error) {
	path := filepath.Join(l.store.root, filepath.FromSlash(dir))
	d, err := os.Open(path)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fault("list "+path, err)
	}
	defer d.Close() // read only
	var keys []string
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("list %s: %w", path, err)
		}
		entries, err := d.ReadDir(4096)
		for _, e := range entries {
			key := dir + e.Name()
			if reserved(key) || archive.CheckKey(key) != nil {
				continue
			}
			switch {
			case e.IsDir() && l.holds(key+"/"):
				keys = append(keys, key+"/")
			case e.Type().IsRegular() && key > l.after && strings.HasPrefix(key, l.prefix):
				keys = append(keys, key)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fault("list "+path, err)
		}
	}
	return keys, l.store.settle(strings.TrimSuffix(path, "/"))
}

// holds reports whether a key below dir, which ends in '/', can be in the answer.
func (l *lister) holds(dir string) bool {
	if !strings.HasPrefix(dir, l.prefix) && !strings.HasPrefix(l.prefix, dir) {
		return false
	}
	return dir > l.after || strings.HasPrefix(l.after, dir)
}

// reserved reports whether key is in the store's own directory.
func reserved(key string) bool {
	return key == tmpDir || strings.HasPrefix(key, tmpDir+"/")
}
