package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

var (
	long  = flag.Bool("e2e.long", false, "run the long forms: more kills, larger transactions")
	given = flag.String("e2e.txreel", "", "test this txreel binary instead of building one")
)

// binDir holds the binaries under test; TestMain sets it.
var binDir string

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	flag.Parse()
	// These tests wait for servers more than they work: on a small machine more of them fit side by side.
	if n := flag.Lookup("test.parallel"); n.Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) && runtime.GOMAXPROCS(0) < 3 {
		if err := n.Value.Set("3"); err != nil {
			return 0, err
		}
	}
	if binDir, err = os.MkdirTemp("", "txreel-e2e-"); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(binDir)) }()
	return m.Run(), nil
}

// A binary is built when the first test wants it: as people get it, and with the race detector, where the tests have it
// too, for those in which most happens at once.
var (
	buildTxreel = sync.OnceValues(func() (string, error) { return build("txreel", false) })
	buildRacing = sync.OnceValues(func() (string, error) { return build("txreel-race", raceEnabled) })
)

func build(name string, race bool) (string, error) {
	if *given != "" {
		return filepath.Abs(*given)
	}
	path := filepath.Join(binDir, name)
	args := []string{"build", "-o", path, "-ldflags", "-X main.version=e2e"}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "txreel/cmd/txreel")...)
	if !race {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build txreel: %w\n%s", err, out)
	}
	return path, nil
}

// txreel returns the path of the binary under test.
func txreel(t *testing.T) string {
	t.Helper()
	path, err := buildTxreel()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// racing has the race detector look at the place's processes.
func (s *place) racing() {
	s.t.Helper()
	path, err := buildRacing()
	if err != nil {
		s.t.Fatal(err)
	}
	s.binary = path
}

// times returns short, or longer in the long form.
func times(short, longer int) int {
	if *long {
		return longer
	}
	return short
}

// patience is how long anything may take before a test gives up on it; the long form has more to do.
func patience() time.Duration { return time.Duration(times(2, 20)) * time.Minute }
