// How a child is started on Linux.

package main

import "syscall"

// childAttr puts a child into a session of its own, as a service manager does, and has the kernel end it when our main
// thread dies (see prctl(2), PR_SET_PDEATHSIG). A session is a group, so that a terminal's Ctrl-C reaches us alone and we
// stop things in order. It is also what the kernel schedules by (sched(7), autogroups): a pooler in pgbench's session is
// preempted by the very process that it has just woken, twice as often as one of its own, and that would be measured.
func childAttr(as account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGQUIT}
	if as.set {
		attr.Credential = &syscall.Credential{Uid: uint32(as.uid), Gid: uint32(as.gid)}
	}
	return attr
}
