package dbtest

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"
)

// TestTemplateIsMadeOnce has several callers want a template that is not there yet, as test processes do after an
// upgrade of the server.
func TestTemplateIsMadeOnce(t *testing.T) {
	dir, err := os.MkdirTemp("", "txpg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // the server's user has to get in
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	binDir, err := findPostgres("")
	if err != nil {
		t.Fatal(err)
	}
	a, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	for range 2 {
		g.Go(func() error {
			path, err := template(t.Context(), binDir, a)
			if err == nil {
				_, err = os.Stat(filepath.Join(path, "global", "pg_control"))
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("%v, left: %v", err, left)
	}
	// A folder that others may write to is not taken for ours.
	if err := os.Chmod(filepath.Join(dir, left[0].Name()), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := template(t.Context(), binDir, a); err == nil {
		t.Error("took a folder anybody can write to")
	}
}
