package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// makeDirs makes dir and what is missing between it and the root, which must
// exist, and leaves all of them durable.
func (s *Store) makeDirs(dir string) error {
	if s.isSettled(dir) {
		return nil
	}
	rel, err := filepath.Rel(s.root, dir)
	if err != nil {
		return fmt.Errorf("create %s: %w", dir, err)
	}
	path := s.root
	if rel == "." {
		return s.settle(dir)
	}
	for part := range strings.SplitSeq(rel, string(filepath.Separator)) {
		path = filepath.Join(path, part)
		if err := os.Mkdir(path, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return fault("create "+path, err)
		}
	}
	return s.settle(dir)
}

// settle syncs dir and the directories between it and the root, unless this
// Store did so before: whatever a process that died left in them is durable
// afterwards.
func (s *Store) settle(dir string) error {
	for d := dir; !s.isSettled(d); d = filepath.Dir(d) {
		if err := syncDir(d); err != nil {
			return err
		}
		if d == s.root || len(d) < len(s.root) {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for d := dir; !s.synced[d] && len(d) >= len(s.root); d = filepath.Dir(d) {
		s.synced[d] = true
	}
	return nil
}

// forget takes back that dir and the directories between it and the root are settled.
func (s *Store) forget(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d := dir; len(d) > len(s.root); d = filepath.Dir(d) {
		delete(s.synced, d)
	}
}

func (s *Store) isSettled(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.synced[dir]
}

// syncDir makes the names in dir durable. File systems that cannot sync a
// directory, or are mounted read-only, have nothing to sync.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fault("sync directory "+dir, err)
	}
	defer d.Close() // read only
	err = d.Sync()
	if err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.ENOTSUP) {
		return fault("sync directory "+dir, err)
	}
	return nil
}
