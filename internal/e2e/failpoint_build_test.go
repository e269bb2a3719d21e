package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"txreel/internal/failpoint"
)

// buildFailing builds a txreel that has failpoints, whatever else is tested. It is killed in the middle of what it
// does, where the race detector has little to say.
var buildFailing = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binDir, "txreel-failpoints")
	cmd := exec.Command("go", "build", "-tags", "failpoints", "-o", path, "-ldflags", "-X main.version=e2e", "txreel/cmd/txreel")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build txreel with failpoints: %w\n%s", err, out)
	}
	return path, nil
})

// failingTxreel returns the path of a binary that has failpoints.
func failingTxreel(t *testing.T) string {
	t.Helper()
	path, err := buildFailing()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFailpointsAreOff demands that a binary as people get it holds nothing of the failpoints.
func TestFailpointsAreOff(t *testing.T) {
	t.Parallel()
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	plain, failing := read(txreel(t)), read(failingTxreel(t))
	for _, p := range failpoint.All() {
		if bytes.Contains(plain, []byte(p)) {
			t.Errorf("a build without the tag holds the name %q", p)
		}
		if !bytes.Contains(failing, []byte(p)) {
			t.Errorf("a build with the tag does not hold the name %q: it proves nothing that the other one does not", p)
		}
	}
	if name := []byte("TXREEL_TEST_FAILPOINT"); bytes.Contains(plain, name) || !bytes.Contains(failing, name) {
		t.Errorf("%s: the build without the tag knows it: %v, the one with it: %v", name, bytes.Contains(plain, name), bytes.Contains(failing, name))
	}
}
