// What Linux knows beside: when a connection ends whose other side acknowledges nothing.

package postgres

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func endUnanswered(network, _ string, raw syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	return raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unanswered.Milliseconds()))
	})
}
