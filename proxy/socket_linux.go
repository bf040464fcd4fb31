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
// them once saves a handful of system calls per client. Those of multipath TCP,
// which Go's listeners speak by default, would not.
//
// TCP_USER_TIMEOUT is not among them: it also ends connections whose peer
// acknowledges and does not read. The loops have tcp.user_timeout instead, see
// loop.EndSilent.
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
		})
	}}
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), network, address)
}
