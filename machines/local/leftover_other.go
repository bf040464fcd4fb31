// Systems without /proc: nothing proves whose a process is, so none is looked for.

//go:build !linux

package local

import "syscall"

// Leftovers finds nothing here.
func (f *Folder) Leftovers() ([]*Leftover, error) { return nil, nil }

func (member) signal(syscall.Signal) {}

func (member) lives() bool { return false }
