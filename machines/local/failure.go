// What a failure means to those who wait for a machine.

package local

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/postern/postern/machines"
)

// failed makes a driver's error of err; nil stays nil.
func failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return &machines.Error{Kind: kindOf(err), Op: op, Err: err}
}

// kindOf sorts failures:
//
//   - Busy: another process changes the machine, or has changed it since.
//   - Gone: the machine was closed, and is nobody's any more.
//   - Unreachable: this computer has no PostgreSQL to run.
//   - Auth: this computer does not let us: no account to run as, a folder that it may not enter or write.
//   - Capacity: no disk, memory, process or descriptor is left.
//   - Transient: all else, such as a server that ends at once, a time that was too short, a role that PostgreSQL refuses.
func kindOf(err error) machines.Kind {
	is := func(these ...error) bool {
		for _, e := range these {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case is(errClosed):
		return machines.Gone
	case is(errOldEpoch):
		return machines.Busy
	case is(errNoPrograms):
		return machines.Unreachable
	case is(errNoAccount, errNoWay, fs.ErrPermission):
		return machines.Auth
	case is(syscall.ENOSPC, syscall.EDQUOT, syscall.ENOMEM, syscall.EAGAIN, syscall.EMFILE, syscall.ENFILE):
		return machines.Capacity
	}
	return machines.Transient
}
