package dir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"txreel/archive"
	"txreel/internal/failpoint"
)

const (
	dirMode  = 0o750
	fileMode = 0o640 // an archive holds the whole database
)

// Create implements archive.Store. The order in which bytes become durable is:
// the file's content, the directories above it, its name.
func (s *Store) Create(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	path, err := s.path(key)
	if err != nil {
		return err
	}
	if size < 0 {
		return fmt.Errorf("create %s: size %d is negative", path, size)
	}
	if err := s.prepare(); err != nil {
		return err
	}
	tmp, err := s.temp()
	if err != nil {
		return err
	}
	defer func() {
		os.Remove(tmp.Name()) // the next Store removes what stays
		tmp.Close()           // synced, or not wanted
	}()
	if err := fill(ctx, tmp, io.NewSectionReader(body, 0, size), size); err != nil {
		return fault("create "+path, err)
	}
	failpoint.Hit(failpoint.DirSynced)
	for range linkTries {
		if err := s.makeDirs(filepath.Dir(path)); err != nil {
			return err
		}
		if err = os.Link(tmp.Name(), path); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		s.forget(filepath.Dir(path)) // somebody removed it, for it was empty
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		// The one who made it may not have synced its name yet, and the caller
		// may find that it is the very object it wanted to write.
		if err := syncDir(filepath.Dir(path)); err != nil {
			return err
		}
		return fmt.Errorf("create %s: %w", path, fs.ErrExist)
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
		return fmt.Errorf("create %s: this file system has no hard links, which create-once needs; choose another: %w", path, err)
	case err != nil:
		return fault("create "+path, err)
	}
	failpoint.Hit(failpoint.DirLinked)
	err = syncDir(filepath.Dir(path))
	failpoint.Hit(failpoint.DirSettled)
	return err
}

// linkTries is how often the folders of an object are made when they vanish before it is in them.
const linkTries = 3

// fill copies body to f and makes it durable.
func fill(ctx context.Context, f *os.File, body io.Reader, size int64) error {
	buf := make([]byte, min(size, 1<<20))
	for left := size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		chunk := buf[:min(left, int64(len(buf)))]
		if n, err := io.ReadFull(body, chunk); err != nil {
			return fmt.Errorf("body of %d bytes ends after %d: %w", size, size-left+int64(n), err)
		}
		if _, err := f.Write(chunk); err != nil {
			return err
		}
		left -= int64(len(chunk))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	failpoint.Hit(failpoint.DirWritten)
	return f.Sync()
}

// prepare makes the root and tmpDir, once: when they vanish later, the disk they
// were on is gone, and an object written below the empty mount point would be
// lost to every reader.
func (s *Store) prepare() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prepared {
		return nil
	}
	for _, d := range []string{s.root, filepath.Join(s.root, tmpDir)} {
		if err := os.Mkdir(d, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return fault("archive directory", err)
		}
		if err := syncDir(filepath.Dir(d)); err != nil {
			return err
		}
	}
	s.sweep()
	s.prepared = true
	return nil
}

// temp creates a temporary file and locks it for as long as it is open: the lock
// tells sweep that its writer lives.
func (s *Store) temp() (*os.File, error) {
	for {
		f, err := os.OpenFile(filepath.Join(s.root, tmpDir, rand.Text()), os.O_CREATE|os.O_EXCL|os.O_RDWR, fileMode)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("archive directory %s: %w: it was there before; is its disk still mounted? %w",
				s.root, archive.ErrUnreachable, err)
		}
		if err != nil {
			return nil, fault("archive directory", err)
		}
		if s.own(f) {
			return f, nil
		}
		f.Close() // another process swept it between open and lock
	}
}

// own locks f and reports whether its name still leads to it.
func (s *Store) own(f *os.File) bool {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		// Only a lock held by someone else says that f is being swept; a file
		// system without locks is never swept either.
		return !errors.Is(err, syscall.EWOULDBLOCK)
	}
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(f.Name())
	return err == nil && os.SameFile(mine, named)
}

// sweep removes temporary files whose writer is dead. Their removal is a
// courtesy: nothing reads them, so errors are of no interest.
func (s *Store) sweep() {
	entries, err := os.ReadDir(filepath.Join(s.root, tmpDir))
	if err != nil {
		return
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(s.root, tmpDir, e.Name()))
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			os.Remove(f.Name()) // see above
		}
		f.Close() // read only
	}
}
