package dbtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// templateLayout changes when initdb's arguments below do, so that an older build's template is not used.
const templateLayout = "2"

// template returns an initialised data folder that is never started, only copied: running initdb costs ten copies.
// It is made once per binary and user, under the system's temporary folder, and appears there by rename: a process
// sees a whole one or none.
func template(ctx context.Context, binDir string, a account) (string, error) {
	initdb, err := filepath.EvalSymlinks(filepath.Join(binDir, "initdb"))
	if err != nil {
		return "", fmt.Errorf("find initdb: %w", err)
	}
	// A package upgrade replaces postgres in place; its size and age tell.
	server, err := os.Stat(filepath.Join(binDir, "postgres"))
	if err != nil {
		return "", fmt.Errorf("find postgres: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%d\n%d\n%d", templateLayout, initdb, server.Size(),
		server.ModTime().UnixNano(), a.uid))
	path := filepath.Join(os.TempDir(), "txreel-initdb-"+hex.EncodeToString(sum[:8]))
	if ok, err := usableTemplate(path, a); ok || err != nil {
		return path, err
	}

	fresh, err := os.MkdirTemp("", "txreel-initdb-new-")
	if err != nil {
		return "", fmt.Errorf("make template folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(fresh) }() // empty or gone on success
	if err := a.own(fresh); err != nil {
		return "", fmt.Errorf("make template folder: %w", err)
	}
	if err := initDB(ctx, initdb, fresh, a); err != nil {
		return "", err
	}
	err = os.Rename(fresh, path)
	if err != nil && (errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY)) {
		err = nil // another process was faster
	}
	if err != nil {
		return "", fmt.Errorf("keep template folder: %w", err)
	}
	return path, nil
}

// initDB runs initdb.
func initDB(ctx context.Context, initdb, dir string, a account) error {
	cmd := exec.CommandContext(ctx, initdb, "-D", dir, "-U", "postgres", "-E", "UTF8", "--locale=C", "-N",
		"--auth-local=trust", "--auth-host=scram-sha-256")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = filepath.Dir(dir), serverEnv(), a.procAttr(0)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run initdb: %w: %s", err, tailOf(string(out), 5))
	}
	return nil
}

// usableTemplate tells whether path is a template; one somebody else could have planted is an error.
func usableTemplate(path string, a account) (bool, error) {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for template folder: %w", err)
	}
	if !st.IsDir() || st.Mode().Perm() != 0o700 || !ownedBy(st, a.uid) {
		return false, fmt.Errorf("template folder %s is not ours (mode %v): remove it", path, st.Mode())
	}
	return true, nil
}

// copyTree copies a data folder with owners and modes. The target must not exist. cp needs a quarter of the system
// calls that Go's library does, and shares blocks where the file system can.
func copyTree(ctx context.Context, from, to string) error {
	if out, err := exec.CommandContext(ctx, "cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, tailOf(string(out), 3))
	}
	return nil
}
