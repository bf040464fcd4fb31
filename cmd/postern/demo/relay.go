// The demo's load balancer: it passes connections on behind a PROXY header that names a client of our choice.

package demo

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"

	goproxy "github.com/pires/go-proxyproto"
)

// relay is a listener whose connections all seem to come from one address.
type relay struct {
	ln     net.Listener
	source *net.TCPAddr // of every client, as the header tells it
}

// newRelay listens but serves nobody yet.
func newRelay(address, source string) (*relay, error) {
	ip := net.ParseIP(source)
	if ip == nil {
		return nil, fmt.Errorf("relay: %q is no IP address", source)
	}
	ln, err := net.Listen("tcp4", address)
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	return &relay{ln: ln, source: &net.TCPAddr{IP: ip, Port: 50000}}, nil
}

// serve passes connections on to target until ctx ends, and returns when all
// of them are closed.
func (r *relay) serve(ctx context.Context, target string, log *slog.Logger) {
	var conns sync.WaitGroup
	defer conns.Wait()
	defer context.AfterFunc(ctx, func() { r.ln.Close() })()
	for {
		client, err := r.ln.Accept()
		if err != nil {
			if ctx.Err() == nil {
				log.Warn("the demo's relay ended", "source", r.source.IP.String(), "error", err)
			}
			return
		}
		conns.Go(func() {
			if err := r.pass(ctx, client.(*net.TCPConn), target); err != nil {
				log.Warn("the demo's relay cannot pass a connection on", "error", err)
			}
		})
	}
}

// pass owns client. It returns when both directions have ended.
func (r *relay) pass(ctx context.Context, client *net.TCPConn, target string) error {
	defer client.Close()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", target)
	if err != nil {
		return err
	}
	gate := conn.(*net.TCPConn)
	defer gate.Close()
	if _, err := goproxy.HeaderProxyFromAddrs(2, r.source, r.ln.Addr()).WriteTo(gate); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { client.Close(); gate.Close() })()
	var both sync.WaitGroup
	both.Go(func() { copyHalf(gate, client) })
	both.Go(func() { copyHalf(client, gate) })
	both.Wait()
	return nil
}

// copyHalf copies one direction and passes its end on. A connection that breaks ends both directions.
func copyHalf(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	_ = to.CloseWrite()
}
