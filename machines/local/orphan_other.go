// Systems without a parent-death signal: a server outlives a process that was killed.

//go:build !linux

package local

import "syscall"

func dieWithParent(*syscall.SysProcAttr) {}
