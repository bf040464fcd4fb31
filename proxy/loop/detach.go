// Taking a descriptor away from the Go runtime's poller.

package loop

import (
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// Detach duplicates the connection's descriptor and closes the net.Conn, so
// that the runtime's poller forgets it. The caller owns the descriptor, which
// is non-blocking. The net.Conn is closed on an error too.
func Detach(conn interface {
	io.Closer
	syscall.Conn
}) (fd int, err error) {
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("detach: %w", err)
	}
	fd = -1
	var dupErr error
	err = raw.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil {
		err = dupErr
	}
	if err != nil {
		return -1, fmt.Errorf("detach: %w", err)
	}
	return fd, nil
}

func shutdownFD(fd int) { _ = unix.Shutdown(fd, unix.SHUT_WR) }
func closeFD(fd int)    { _ = unix.Close(fd) }

// CloseFD closes a descriptor that Detach returned and no loop took.
func CloseFD(fd int) { closeFD(fd) }
