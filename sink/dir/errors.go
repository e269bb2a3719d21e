package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"txreel/archive"
)

// fault wraps err with what was being done. Conditions that pass by themselves
// or by an administrator's hand (a full disk, a file server away) wrap
// archive.ErrUnreachable, so that capture waits for them.
func fault(doing string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s: %w: free some space: %w", doing, archive.ErrUnreachable, err)
	case errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, syscall.EHOSTDOWN),
		errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.EMFILE),
		errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%s: %w: %w", doing, archive.ErrUnreachable, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w; give this user access to the directory", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// missing reports whether err says that no such file exists: also when a part of
// its path is a file.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
