// The certificates that clients are shown: read from files, and again while running.

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/files"
)

// maxPEM bounds a certificate chain, and a key, in bytes.
const maxPEM = 4 << 20

// certificates holds the key pairs in use. Safe for concurrent use.
type certificates struct {
	files     []configs.CertificateFile
	lane      *files.Lane
	reloading sync.Mutex
	pairs     atomic.Pointer[[]tls.Certificate]
}

// loadCertificates reads the key pairs of tls.certificates; the first serves clients whose server name no other is for. It
// returns nil where TLS is not configured.
func loadCertificates(conf *configs.Config) (*certificates, error) {
	if len(conf.TLS.Certificates) == 0 {
		return nil, nil
	}
	c := &certificates{files: conf.TLS.Certificates, lane: files.NewLane()}
	if err := c.reload(); err != nil {
		return nil, fmt.Errorf("tls.certificates: %w", err)
	}
	return c, nil
}

// pair reads a certificate and its key.
func (c *certificates) pair(f configs.CertificateFile) (tls.Certificate, error) {
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

// reload reads the files again. On an error the old pairs stay.
func (c *certificates) reload() error {
	c.reloading.Lock()
	defer c.reloading.Unlock()
	pairs := make([]tls.Certificate, 0, len(c.files))
	var problems []error
	for _, f := range c.files {
		pair, err := c.pair(f)
		if err == nil && pair.Leaf == nil {
			pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0])
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("certificate %s: %w", f.Cert, err))
			continue
		}
		pairs = append(pairs, pair)
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	if len(pairs) == 0 {
		return errors.New("no certificate")
	}
	c.pairs.Store(&pairs)
	return nil
}

// paths lists the files to watch.
func (c *certificates) paths() []string {
	var out []string
	for _, f := range c.files {
		out = append(out, f.Cert, f.Key)
	}
	return out
}

// expiry returns when each certificate expires, by its file's name.
func (c *certificates) expiry() map[string]time.Time {
	out := make(map[string]time.Time)
	for i, p := range *c.pairs.Load() {
		out[c.files[i].Cert] = p.Leaf.NotAfter
	}
	return out
}

// choose finds the certificate for a ClientHello.
func (c *certificates) choose(hello *tls.ClientHelloInfo) *tls.Certificate {
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
