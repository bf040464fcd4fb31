// TLS towards clients: the start of a session.

package proxy

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/tenants"
)

// recordHandshake is the first byte of a TLS handshake record.
const recordHandshake = 0x16

// alpn is the protocol name that direct TLS must offer (PostgreSQL 17, "SSL
// Session Encryption").
const alpn = "postgresql"

var (
	errALPN      = errors.New("direct TLS connection without ALPN protocol negotiation")
	errLongHello = errors.New("the client's part is too long")
)

// startTLS holds the TLS handshake. direct says that the client began with it,
// without asking.
func (h *handshake) startTLS(direct bool) error {
	choose := h.gate.opts.Certificate
	if choose == nil {
		return deny(denyProtocol)
	}
	start := time.Now()
	var to *tenants.Tenant // that other nodes serve; nil: it is none
	ahead := &readAhead{Conn: h.tcp, br: h.br, most: maxHello, keep: h.mayGoOn()}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{alpn},
		// A ticket made under one server name must not open another's door.
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if to = h.elsewhere(h.hosts(hello.ServerName)); to != nil {
				ahead.keep, ahead.mute = false, true
				return nil, errElsewhere
			}
			ahead.keep, ahead.kept = false, nil
			if direct && len(hello.SupportedProtos) == 0 {
				return nil, errALPN
			}
			return nil, nil
		},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			h.cert = choose(hello)
			return h.cert, nil
		},
	}
	h.askForCertificate(config)
	h.br = bufio.NewReaderSize(nil, readBuffer)
	h.swap = &loop.Swap{Conn: ahead}
	session := tls.Server(h.swap, config)
	if err := session.HandshakeContext(h.gate.ctx); err != nil {
		if errors.Is(err, errElsewhere) {
			h.br = ahead.br
			return h.passOnHello(to, ahead.kept, direct)
		}
		h.gate.count(denyProtocol, "")
		if errors.Is(err, io.EOF) {
			return errQuiet
		}
		return fmt.Errorf("TLS handshake: %w", err)
	}
	h.gate.metrics.phase.WithLabelValues("tls").Observe(time.Since(start).Seconds())
	ahead.most = math.MaxInt
	h.tls = session
	h.takeCertificate(session.ConnectionState().PeerCertificates)
	h.sslDone, h.gssDone = true, true
	h.br.Reset(session)
	return nil
}

// readAhead is a conn of which some bytes were read already. It reads exactly
// those first, and never ahead itself.
type readAhead struct {
	net.Conn
	br   *bufio.Reader
	most int // bytes that may still be read

	keep bool // what is read is kept, too
	kept []byte
	mute bool // what is written is dropped
}

func (r *readAhead) Write(p []byte) (int, error) {
	if r.mute {
		return len(p), nil
	}
	return r.Conn.Write(p)
}

func (r *readAhead) Read(p []byte) (n int, err error) {
	if r.most == 0 {
		return 0, errLongHello
	}
	p = p[:min(len(p), r.most)]
	if ahead := r.br.Buffered(); ahead > 0 {
		n, err = r.br.Read(p[:min(len(p), ahead)])
	} else {
		n, err = r.Conn.Read(p)
	}
	r.most -= n
	if r.keep {
		r.kept = append(r.kept, p[:n]...)
	}
	return n, err
}
