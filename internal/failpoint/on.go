//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// variable says what to do, where, and the how manieth time that is reached, as in "kill:capture-read:3".
const variable = "TXREEL_TEST_FAILPOINT"

// order is what the variable says.
type order struct {
	at   Point
	left atomic.Int64 // times it is reached until then
	obey func()
}

// armed is what Arm was told; nil is nothing. It outlives calls because Hit is called everywhere, and belongs to
// builds for tests only.
var armed atomic.Pointer[order]

// Arm takes what the environment says.
func Arm(getenv func(name string) string) error {
	text := getenv(variable)
	if text == "" {
		return nil
	}
	words := strings.Split(text, ":")
	if len(words) != 3 {
		return fmt.Errorf("%s=%s: want kill:POINT:N or pause:POINT:N", variable, text)
	}
	n, err := strconv.ParseInt(words[2], 10, 64)
	o := &order{at: Point(words[1])}
	switch o.left.Store(n); {
	case err != nil || n < 1:
		return fmt.Errorf("%s=%s: %q is no number of times", variable, text, words[2])
	case !slices.Contains(All(), o.at):
		return fmt.Errorf("%s=%s: there is no point %q", variable, text, o.at)
	case words[0] == "kill":
		o.obey = kill
	case words[0] == "pause":
		o.obey = pause
	default:
		return fmt.Errorf("%s=%s: %q is neither kill nor pause", variable, text, words[0])
	}
	armed.Store(o)
	return nil
}

// Hit does what Arm was told, if it was told so of p and this time.
func Hit(p Point) {
	if o := armed.Load(); o != nil && o.at == p && o.left.Add(-1) == 0 {
		o.obey()
	}
}

// Step is Hit for one of a group of steps that have names of their own.
func Step(group, step string) { Hit(Point(group + "-" + step)) }

// kill ends the process as the kernel does when memory runs out: nothing more is run.
func kill() {
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL) // of oneself it does not fail
	select {}
}

// pause stops the whole process until somebody sends it SIGCONT.
func pause() {
	resumed := make(chan os.Signal, 1)
	signal.Notify(resumed, syscall.SIGCONT)
	defer signal.Stop(resumed)
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP) // see kill
	<-resumed                                           // this thread may have gone on for a moment
}
