// Clients that another node has passed on: each is served as if it had come to the listener of the same name here, from the address that the
// node says. It goes no further.

package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/proxyproto"
)

// Serve serves a client that another node has passed on, until its session or ctx ends. Of the node it believes the PROXY header. It does
// not close the stream.
func (g *Gate) Serve(ctx context.Context, node string, s Stream) {
	started := time.Now()
	_ = s.SetDeadline(started.Add(min(g.opts.Timeouts.ProxyHeader, g.opts.Timeouts.Login)))
	far, ok := s.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return
	}
	br := bufio.NewReaderSize(s, readBuffer)
	peer, name, err := proxyproto.ReadPassed(br, netip.AddrPortFrom(far.AddrPort().Addr().Unmap(), far.AddrPort().Port()))
	if err != nil {
		if e, ok := errors.AsType[*proxyproto.Error](err); ok {
			g.metrics.headerByName[e.Reason].Inc()
		}
		g.count(denyHeader, "")
		g.limited.log(g.log, slog.LevelWarn, logKey{cause: "passed:" + node}, "client of another node without a usable PROXY header closed", "node", node, "error", err)
		return
	}
	g.metrics.headerByName[proxyproto.ReasonOK].Inc()
	via, answer := g.takes(name)
	if answer != answerServed {
		g.limited.log(g.log, slog.LevelInfo, logKey{cause: "passed:" + string(answer)}, "client of another node not taken", "node", node, "listener", clip(name), "answer", string(answer))
		_, _ = s.Write([]byte{answer})
		_ = s.CloseWrite()
		_, _ = io.CopyN(io.Discard, br, lingerBytes)
		return
	}
	defer g.clients.Add(-passedSockets)
	inner, outer, err := loop.Pipe()
	if err != nil {
		g.leaveHandshake()
		g.limited.log(g.log, slog.LevelError, logKey{cause: "passed"}, "client of another node not served", "node", node, "error", err)
		return
	}
	defer outer.Close()
	born := make(chan func(), 1)
	g.shake(&handshake{visitor: visitor{gate: g, via: via, peer: peer, started: started, born: born}, tcp: inner.(socket), swap: &loop.Swap{Conn: inner}, passed: true})
	if _, err := s.Write([]byte{answerServed}); err != nil {
		return
	}
	_ = s.SetDeadline(time.Time{})

	ctx, over := context.WithCancel(ctx)
	defer over()
	defer context.AfterFunc(g.ctx, over)()
	go follow(ctx, s, born)
	c := carriage{client: &passed{s, br}, server: &inside{outer.(socket)}, log: g.log, panics: g.metrics.panics.Inc}
	c.run(ctx, g.opts.TCP.UserTimeout)
}

// takes says which listener a client of another node has come to, and takes a place for its handshake and passedSockets if that may begin.
func (g *Gate) takes(name string) (via *Listener, answer byte) {
	i := slices.IndexFunc(g.opts.Listeners, func(l Listener) bool { return l.Name == name })
	switch {
	case i < 0:
		return nil, answerUnknown
	case g.draining.Load():
		return nil, answerDraining
	case g.clients.Add(passedSockets) > g.admits.Load() || !g.enterHandshake(&g.opts.Listeners[i]):
		g.clients.Add(-passedSockets)
		return nil, answerBusy
	}
	return &g.opts.Listeners[i], answerServed
}

// follow sends the session away, between two transactions, when the node that its client came to drains.
func follow(ctx context.Context, s Stream, born <-chan func()) {
	select {
	case <-s.Left():
	case <-ctx.Done():
		return
	}
	select {
	case sendAway := <-born:
		sendAway()
	case <-ctx.Done():
	}
}

// passed is a stream of which some bytes were read already.
type passed struct {
	Stream
	br *bufio.Reader
}

func (p *passed) Read(b []byte) (int, error) { return p.br.Read(b) }

// inside is the outer end of a socket pair: at its other end is this very gate. What that closes without having read all has ended all the same.
type inside struct{ socket }

func (e *inside) Read(b []byte) (int, error) {
	n, err := e.socket.Read(b)
	if errors.Is(err, syscall.ECONNRESET) {
		err = io.EOF
	}
	return n, err
}
