//go:build !failpoints

package failpoint

// Arm does nothing in this build.
func Arm(func(name string) string) error { return nil }

// Hit does nothing in this build.
func Hit(Point) {}

// Step does nothing in this build.
func Step(_, _ string) {}
