//go:build !linux

// How a child is started elsewhere: enough to compile, because the figures come from Linux's /proc.

package main

import "syscall"

func childAttr(as account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if as.set {
		attr.Credential = &syscall.Credential{Uid: uint32(as.uid), Gid: uint32(as.gid)}
	}
	return attr
}
