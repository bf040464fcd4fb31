// Copying a replication session's bytes, both ways, until one side ends.

package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/pgwire"
)

const (
	// upBuffer is for acknowledgements, and downBuffer for what is streamed.
	upBuffer   = 8 << 10
	downBuffer = 64 << 10
	// tlsRecord bounds the plaintext of one TLS record to a client: libpq's
	// asynchronous API, which the replication tools use, hangs on larger ones.
	tlsRecord = 8 << 10
	// dismissFor is how long a server may take to notice that its client is gone.
	dismissFor = 200 * time.Millisecond
)

// up copies from the client to the server. It begins before there is one: a
// client that leaves meanwhile is not waited for, and what it sends early is
// held, a buffer of it.
func (r *replica) up() {
	defer r.recovered()
	buf := make([]byte, upBuffer)
	farewell := string(pgwire.AppendTerminate(nil))
	for {
		n, err := r.br.Read(buf)
		if n > 0 {
			r.in.Add(uint64(n))
			r.tenant.counters.bytesIn.Add(uint64(n))
			r.goodbye.Store(n >= len(farewell) && string(buf[n-len(farewell):n]) == farewell)
			select {
			case <-r.served:
			case <-r.ctx.Done():
				return
			}
			passed := r.cancels.yield(r.ctx)
			_, err := serverStream(r.server).Write(buf[:n])
			passed()
			if err != nil {
				r.ebb() // it is gone; what it said before is read still
				return
			}
		}
		switch {
		case err == nil:
			continue
		case err != io.EOF:
			r.end(&ending{"client_closed", nil})
			return
		}
		select {
		case <-r.served:
			r.ebb()
		default:
			r.end(&ending{"client_closed", nil})
		}
		return
	}
}

// ebb passes on that nothing comes from the client any more. Whether it still
// reads cannot be known, so a server that says nothing for a while is left.
func (r *replica) ebb() {
	r.ebbing.Store(true)
	_ = r.server.Net.SetReadDeadline(time.Now().Add(abandonFor))
	if r.server.TLS != nil {
		_ = r.server.TLS.CloseWrite()
	}
	r.closeWrite()
}

func (r *replica) closeWrite() {
	if tcp, ok := r.server.Net.Conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

// dismiss parts with a server that has not ended by itself. One that listens
// goes when it hears that nothing more comes; what does not listen is a query,
// or a copy of the cluster, and is cancelled.
func (r *replica) dismiss() {
	if !r.ebbing.Load() {
		_ = r.server.Net.SetReadDeadline(time.Now().Add(dismissFor))
		r.closeWrite()
		if _, err := io.Copy(io.Discard, r.server.Net); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
	r.cancelServer()
}

// down copies from the server to the client, and says why no longer, and
// whether it is the server that has ended.
func (r *replica) down() (over *ending, ended bool) {
	buf := make([]byte, downBuffer)
	from := serverStream(r.server)
	for {
		n, err := from.Read(buf)
		if over := r.write(buf[:n]); over != nil {
			return over, false
		}
		if r.ebbing.Load() {
			_ = r.server.Net.SetReadDeadline(time.Now().Add(abandonFor))
		}
		switch {
		case err == nil:
		case r.ebbing.Load():
			return &ending{"client_closed", nil}, !errors.Is(err, os.ErrDeadlineExceeded)
		default:
			return &ending{"server_lost", nil}, !errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
}

// write sends bytes to the client.
func (r *replica) write(b []byte) *ending {
	r.out.Add(uint64(len(b)))
	r.tenant.counters.bytesOut.Add(uint64(len(b)))
	for len(b) > 0 {
		var n int
		var err error
		if r.tls != nil {
			n, err = r.tls.Write(b[:min(len(b), tlsRecord)])
		} else {
			n, err = r.tcp.Write(b)
		}
		if err != nil {
			return &ending{"client_closed", nil}
		}
		b = b[n:]
	}
	return nil
}

func serverStream(c *backend.Conn) net.Conn {
	if c.TLS != nil {
		return c.TLS
	}
	return c.Net
}
