//go:build !linux

package dbtest

import (
	"os"
	"syscall"
)

// procAttr has nothing to add where only Linux offers a parent-death signal; root cannot start a server here.
func (a account) procAttr(syscall.Signal) *syscall.SysProcAttr { return nil }

// childrenOf knows no children here: the server's own check for a dead postmaster ends them.
func childrenOf(int) []int { return nil }

func alive(int) bool { return false }

func ownedBy(os.FileInfo, int) bool { return true }
