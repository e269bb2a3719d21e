package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"txreel/archive"
)

const (
	lockName   = "lock"
	markerName = "archive" // says whose the folder is
)

// Holds reports whether a folder holds what has not arrived yet. It opens nothing.
func Holds(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		_, ok := parseName(e.Name())
		return ok
	})
}

// recover takes possession of the folder and reads what is in it.
func (s *Store) recover(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.own(); err != nil {
		return err
	}
	names, err := s.list()
	if err != nil {
		return err
	}
	if err := s.mark(names); err != nil {
		return err
	}
	for _, name := range names {
		number, ok := parseName(name)
		if !ok {
			continue
		}
		e, err := s.readEntry(name, number)
		if err != nil {
			return err
		}
		if n := len(s.queue); n > 0 && s.queue[n-1].number+1 != number {
			return s.damaged(name, fmt.Sprintf("the file before it, of number %016x, is missing", number-1))
		}
		if len(s.queue) == 0 {
			s.shipped = number - 1
		}
		if s.keys[e.key] != nil {
			return s.damaged(name, "another file has the same key")
		}
		s.push(e)
		s.recovered = number
	}
	// A process that was killed may not have synced the names it made.
	return s.folder.Sync()
}

// own makes the folder, if need be, and keeps other processes out of it.
func (s *Store) own() error {
	if err := os.Mkdir(s.dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	parent, err := os.Open(filepath.Dir(s.dir))
	if err != nil {
		return err
	}
	err = parent.Sync()
	parent.Close() // read only
	if err != nil {
		return err
	}
	if s.folder, err = os.Open(s.dir); err != nil {
		return err
	}
	if s.lock, err = os.OpenFile(filepath.Join(s.dir, lockName), os.O_CREATE|os.O_RDWR, fileMode); err != nil {
		return err
	}
	err = syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return fmt.Errorf("%w: a process that runs uses the folder; give each capture a spool of its own", archive.ErrOtherWriter)
	case err != nil:
		return fmt.Errorf("lock: %w; choose a folder on a local disk", err)
	}
	return nil
}

// list returns the names in the folder in order, without a file that was not finished.
func (s *Store) list() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		switch e.Name() {
		case incoming, incoming + "." + markerName:
			if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
				return nil, err
			}
		case lockName, "lost+found":
		default:
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// marker is the content of the file that says whose the folder is. identity is the SHA-256 of
// the archive's identity object, once it is known.
func (s *Store) marker(identity string) []byte {
	return fmt.Appendf(nil, "a txreel spool; txreel makes and removes the files here\nstore %s\nidentity %s\n", s.inner, identity)
}

// mark refuses a folder that is not for this archive, and takes one that is empty.
func (s *Store) mark(names []string) error {
	if slices.Contains(names, markerName) {
		have, err := os.ReadFile(filepath.Join(s.dir, markerName))
		if err != nil {
			return err
		}
		before := bytes.TrimSuffix(s.marker(""), []byte("\n"))
		identity, ok := bytes.CutPrefix(have, before)
		if !ok || !bytes.HasSuffix(identity, []byte("\n")) {
			return fmt.Errorf("%w: the spool is another archive's, %s says which; give each archive a spool of its own",
				archive.ErrOtherDatabase, filepath.Join(s.dir, markerName))
		}
		s.identity = string(bytes.TrimSuffix(identity, []byte("\n")))
		return nil
	}
	if len(names) > 0 {
		return fmt.Errorf("the folder holds %s, which is no spool's; name an empty folder, or one that does not exist", names[0])
	}
	return s.writeMarker("")
}

// writeMarker puts the marker in its place.
func (s *Store) writeMarker(identity string) error {
	tmp := filepath.Join(s.dir, incoming+"."+markerName)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(s.marker(identity))
	if err == nil {
		err = s.do("sync marker", f.Sync)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := s.do("rename marker", func() error { return os.Rename(tmp, filepath.Join(s.dir, markerName)) }); err != nil {
		return err
	}
	if err := s.folder.Sync(); err != nil {
		return err
	}
	s.identity = identity
	return nil
}
