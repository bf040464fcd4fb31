// The TCP options that accepted connections have.

package proxy

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOptionsReachTheSockets of clients and of servers, as the kernel tells them. Multipath TCP would keep them from it.
func TestOptionsReachTheSockets(t *testing.T) {
	b := newBench(t)
	b.gate.opts.TCP = TCP{KeepaliveIdle: 41 * time.Second, KeepaliveInterval: 7 * time.Second, KeepaliveCount: 3, UserTimeout: time.Minute}
	ln, err := b.gate.listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var dialer net.Dialer
	dialer.SetMultipathTCP(true)
	dialed, err := dialer.DialContext(t.Context(), "tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	server, err := new(net.Dialer).DialContext(t.Context(), "tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	b.gate.tuneSocket(server.(*net.TCPConn))
	for name, conn := range map[string]net.Conn{"a client's": accepted, "a server's": server} {
		for option, want := range map[struct {
			name         string
			level, which int
		}]int{
			{"the protocol", unix.SOL_SOCKET, unix.SO_PROTOCOL}:           unix.IPPROTO_TCP,
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE}:          1,
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}:         41,
			{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}:       7,
			{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT}:           3,
			{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}: 0, // the loop's, which lets those live that acknowledge
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY}:           1,
		} {
			raw, err := conn.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var got int
			if err2 := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), option.level, option.which) }); err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			if got != want {
				t.Errorf("%s socket: %s is %d, want %d", name, option.name, got, want)
			}
		}
	}
	if mptcp, err := dialed.(*net.TCPConn).MultipathTCP(); mptcp || err != nil {
		t.Errorf("a client got multipath TCP (%v)", err)
	}
}
