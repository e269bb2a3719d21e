package dir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"txreel/archive"
)

var _ archive.Deleter = (*Store)(nil)

// Delete implements archive.Deleter. Folders that it leaves empty go too, as far as nobody minds.
func (s *Store) Delete(ctx context.Context, key string) error {
	path, err := s.path(key)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s: %w", path, err)
	}
	info, err := os.Lstat(path)
	switch {
	case missing(err):
		return nil
	case err != nil:
		return fault("delete "+path, err)
	case !info.Mode().IsRegular():
		return nil // no object
	}
	if err := os.Remove(path); err != nil && !missing(err) {
		return fault("delete "+path, err)
	}
	for d := filepath.Dir(path); ; d = filepath.Dir(d) {
		if err := syncDir(d); err != nil && !missing(err) {
			return err
		}
		if d == s.root || !s.removeEmpty(d) {
			return nil
		}
	}
}

// removeEmpty removes a folder that is empty, and reports whether it is gone. Who is about to link an object into it
// makes it again (makeDirs).
func (s *Store) removeEmpty(dir string) bool {
	s.mu.Lock()
	delete(s.synced, dir)
	s.mu.Unlock()
	err := syscall.Rmdir(dir)
	return err == nil || errors.Is(err, syscall.ENOENT)
}
