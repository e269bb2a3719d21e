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
	binDir, err := findPostgres("", 0)
	if err != nil {
		t.Fatal(err)
	}
	a, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	root, flavor, err := findMySQL(MySQLOptions{Flavor: "mariadb"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, whole string
		template    func() (string, error)
	}{
		{"postgres", "global/pg_control", func() (string, error) { return template(t.Context(), binDir, a) }},
		{"mariadb", "mysql/global_priv.MAD", func() (string, error) { return mysqlTemplate(t.Context(), flavor, root, nil) }},
	} {
		var g errgroup.Group
		for range 2 {
			g.Go(func() error {
				path, err := c.template()
				if err == nil {
					_, err = os.Stat(filepath.Join(path, c.whole))
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != 1 {
			t.Fatalf("%s: %v, left: %v", c.name, err, left)
		}
		// A folder that others may write to is not taken for ours.
		path := filepath.Join(dir, left[0].Name())
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
		if _, err := c.template(); err == nil {
			t.Errorf("%s: took a folder anybody can write to", c.name)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}
