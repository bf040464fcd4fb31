// Two ends of a connection inside this process: one for a loop, one for a goroutine.

package loop

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pair returns a descriptor for Attach, which the caller owns, and the other end of its connection.
func Pair() (fd int, far net.Conn, err error) {
	syscall.ForkLock.RLock() // not every system makes sockets that are closed on exec from the start
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(ends[0])
		unix.CloseOnExec(ends[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, nil, fmt.Errorf("socket pair: %w", err)
	}
	f := os.NewFile(uintptr(ends[1]), "socket pair")
	defer f.Close()
	if far, err = net.FileConn(f); err == nil {
		if err = unix.SetNonblock(ends[0], true); err == nil {
			return ends[0], far, nil
		}
		far.Close()
	}
	closeFD(ends[0])
	return -1, nil, fmt.Errorf("socket pair: %w", err)
}

// Pipe returns both ends of a connection inside this process, as sockets.
func Pipe() (near, far net.Conn, err error) {
	fd, far, err := Pair()
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), "socket pair")
	defer f.Close()
	if near, err = net.FileConn(f); err != nil {
		far.Close()
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	return near, far, nil
}
