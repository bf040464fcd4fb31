// How a child is started on Linux.

package main

import "syscall"

// childAttr puts a child into a group of its own, so that a terminal's Ctrl-C reaches us alone and we stop things in
// order, and has the kernel end it when our main thread dies (see prctl(2), PR_SET_PDEATHSIG).
func childAttr(as account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	if as.set {
		attr.Credential = &syscall.Credential{Uid: uint32(as.uid), Gid: uint32(as.gid)}
	}
	return attr
}
