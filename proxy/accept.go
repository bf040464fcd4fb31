// Accepting connections: one goroutine per listener, which never stops for an error.

package proxy

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/proxyproto"
)

// acceptor serves one listener.
type acceptor struct {
	gate    *Gate
	conf    *Listener
	trusted proxyproto.Trusted
	ln      net.Listener
}

func newAcceptor(g *Gate, conf *Listener, ln net.Listener) *acceptor {
	return &acceptor{gate: g, conf: conf, trusted: proxyproto.NewTrusted(conf.Trusted), ln: ln}
}

// run accepts until the listener is closed. After an error, such as too many
// open files, it waits 5 ms, doubling up to a second.
func (a *acceptor) run() {
	var pause time.Duration
	for {
		conn, err := a.ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			a.gate.limited.log(a.gate.log, slog.LevelError, logKey{cause: "accept"}, "accept failed", "listener", a.conf.Name, "error", err, "pause", pause.String())
			time.Sleep(pause)
			continue
		}
		pause = 0
		a.start(conn.(*net.TCPConn))
	}
}

// start begins the handshake of a connection, if there is room for one. It
// owns conn.
func (a *acceptor) start(conn *net.TCPConn) {
	if !a.gate.enterHandshake(a.conf) {
		conn.Close()
		return
	}
	a.gate.shake(a.handshake(conn))
}

// shake runs a handshake, which has a place, and gives that back.
func (g *Gate) shake(h *handshake) {
	conn := h.tcp
	if !g.spawn(func() {
		defer g.leaveHandshake()
		defer func() {
			if r := recover(); r != nil {
				g.metrics.panics.Inc()
				g.log.Error("panic in handshake", "panic", r, "stack", string(debug.Stack()))
			}
			h.close()
		}()
		h.run()
	}) {
		g.leaveHandshake()
		conn.Close()
	}
}

func (a *acceptor) handshake(conn *net.TCPConn) *handshake {
	return &handshake{visitor: visitor{gate: a.gate, via: a.conf, started: time.Now()}, trusted: a.trusted, tcp: conn, swap: &loop.Swap{Conn: conn}}
}

// socketAddr is the TCP peer, unmapped once and for all.
func socketAddr(c net.Conn) netip.AddrPort {
	a := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
