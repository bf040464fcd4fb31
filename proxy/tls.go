// TLS towards clients: certificates that are reloaded while running, and the start of a session.

package proxy

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern/postern/files"
	"github.com/postern/postern/proxy/loop"
)

// recordHandshake is the first byte of a TLS handshake record.
const recordHandshake = 0x16

// alpn is the protocol name that direct TLS must offer (PostgreSQL 17, "SSL
// Session Encryption").
const alpn = "postgresql"

// CertificateFile names a PEM certificate chain and its key.
type CertificateFile struct{ Cert, Key string }

// maxPEM bounds a certificate chain, and a key, in bytes.
const maxPEM = 4 << 20

// Certificates holds the key pairs in use. Safe for concurrent use.
type Certificates struct {
	files     []CertificateFile
	lane      *files.Lane
	reloading sync.Mutex
	pairs     atomic.Pointer[[]tls.Certificate]
}

// LoadCertificates reads key pairs; the first serves clients whose server name
// no other is for.
func LoadCertificates(list []CertificateFile) (*Certificates, error) {
	c := &Certificates{files: list, lane: files.NewLane()}
	return c, c.Reload()
}

// pair reads a certificate and its key.
func (c *Certificates) pair(f CertificateFile) (tls.Certificate, error) {
	cert, err := c.lane.Read(f.Cert, maxPEM)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := c.lane.Read(f.Key, maxPEM)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// Reload reads the files again. On an error the old pairs stay.
func (c *Certificates) Reload() error {
	c.reloading.Lock()
	defer c.reloading.Unlock()
	pairs := make([]tls.Certificate, 0, len(c.files))
	for _, f := range c.files {
		pair, err := c.pair(f)
		if err != nil {
			return fmt.Errorf("certificate %s: %w", f.Cert, err)
		}
		if pair.Leaf == nil {
			if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
				return fmt.Errorf("certificate %s: %w", f.Cert, err)
			}
		}
		pairs = append(pairs, pair)
	}
	if len(pairs) == 0 {
		return errors.New("no certificate")
	}
	c.pairs.Store(&pairs)
	return nil
}

// Files lists the files to watch.
func (c *Certificates) Files() []string {
	var out []string
	for _, f := range c.files {
		out = append(out, f.Cert, f.Key)
	}
	return out
}

// Expiry returns when each certificate expires, by its file's name.
func (c *Certificates) Expiry() map[string]time.Time {
	out := make(map[string]time.Time)
	for i, p := range *c.pairs.Load() {
		out[c.files[i].Cert] = p.Leaf.NotAfter
	}
	return out
}

// choose finds the certificate for a ClientHello.
func (c *Certificates) choose(hello *tls.ClientHelloInfo) *tls.Certificate {
	pairs := *c.pairs.Load()
	if name := strings.TrimSuffix(hello.ServerName, "."); name != "" {
		for i := range pairs {
			if pairs[i].Leaf.VerifyHostname(name) == nil && hello.SupportsCertificate(&pairs[i]) == nil {
				return &pairs[i]
			}
		}
	}
	return &pairs[0]
}

var errALPN = errors.New("direct TLS connection without ALPN protocol negotiation")

// startTLS holds the TLS handshake. direct says that the client began with it,
// without asking.
func (h *handshake) startTLS(direct bool) error {
	certs := h.gate.opts.Certificates
	if certs == nil {
		return deny(denyProtocol)
	}
	start := time.Now()
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{alpn},
		// A ticket made under one server name must not open another's door.
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if direct && len(hello.SupportedProtos) == 0 {
				return nil, errALPN
			}
			return nil, nil
		},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			h.cert = certs.choose(hello)
			return h.cert, nil
		},
	}
	ahead := h.br
	h.br = bufio.NewReaderSize(nil, readBuffer)
	h.swap = &loop.Swap{Conn: &readAhead{h.tcp, ahead}}
	session := tls.Server(h.swap, config)
	if err := session.HandshakeContext(h.gate.ctx); err != nil {
		h.gate.count(denyProtocol, "")
		if errors.Is(err, io.EOF) {
			return errQuiet
		}
		return fmt.Errorf("TLS handshake: %w", err)
	}
	h.gate.metrics.phase.WithLabelValues("tls").Observe(time.Since(start).Seconds())
	h.tls = session
	h.sslDone, h.gssDone = true, true
	h.br.Reset(session)
	return nil
}

// readAhead is a conn of which some bytes were read already. It reads exactly
// those first, and never ahead itself.
type readAhead struct {
	net.Conn
	br *bufio.Reader
}

func (r *readAhead) Read(p []byte) (int, error) {
	if n := r.br.Buffered(); n > 0 {
		return r.br.Read(p[:min(len(p), n)])
	}
	return r.Conn.Read(p)
}
