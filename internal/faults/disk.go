package faults

import (
	"os"
	"syscall"
	"testing"
)

// SmallDisk mounts a file system of a size as mount(8) has it, such as "1m", which is soon full. It takes root: without, the test says
// that it is skipped; that root cannot mount is a failure.
func SmallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: mounting a tiny file system needs root")
	}
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return mount
}
