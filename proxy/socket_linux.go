// Socket options on Linux, where what an accepted connection has is what its listener had.

package proxy

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listen opens a listener whose connections inherit the TCP options: setting
// them once saves a handful of system calls per client.
func (g *Gate) listen(network, address string) (net.Listener, error) {
	keep := g.keepAlive()
	c := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(p uintptr) {
			fd := int(p)
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
			for _, o := range []struct{ name, value int }{
				{unix.TCP_KEEPIDLE, int(keep.Idle / time.Second)},
				{unix.TCP_KEEPINTVL, int(keep.Interval / time.Second)},
				{unix.TCP_KEEPCNT, keep.Count},
			} {
				if o.value > 0 {
					_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, o.name, o.value)
				}
			}
			if d := g.opts.TCP.UserTimeout; d > 0 {
				setUserTimeout(fd, d)
			}
		})
	}}
	return c.Listen(context.Background(), network, address)
}

// setUserTimeout bounds how long sent bytes may stay unacknowledged.
func setUserTimeout(fd int, d time.Duration) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}
