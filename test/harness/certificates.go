// Certificates for TLS, made on the fly.

package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An Authority signs certificates; who trusts Pool or the PEM file CAFile trusts them.
type Authority struct {
	Pool   *x509.CertPool
	CAFile string

	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// A Pair is a certificate and its key in PEM files.
type Pair struct{ CertFile, KeyFile string }

// Certificates makes a new authority for one test.
func Certificates(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{Pool: x509.NewCertPool(), dir: t.TempDir()}
	der, key := sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "Postern test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, a.key = cert, key
	a.Pool.AddCert(cert)
	a.CAFile = filepath.Join(a.dir, "ca.pem")
	writePEM(t, a.CAFile, "CERTIFICATE", der)
	return a
}

// Issue signs a server certificate for host names and IP addresses.
func (a *Authority) Issue(t testing.TB, names ...string) Pair {
	t.Helper()
	c := &x509.Certificate{Subject: pkix.Name{CommonName: names[0]}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, name)
		}
	}
	return a.pair(t, c)
}

// IssueClient signs a certificate for a client of that common name, after somebody has changed it.
func (a *Authority) IssueClient(t testing.TB, name string, change ...func(*x509.Certificate)) Pair {
	t.Helper()
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	for _, f := range change {
		f(c)
	}
	return a.pair(t, c)
}

// SelfSigned is a certificate that is its own authority, and its key, in PEM.
func SelfSigned(t testing.TB) (cert, secret string) {
	t.Helper()
	der, key := sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true}, nil)
	return encoded("CERTIFICATE", der), encoded("PRIVATE KEY", pkcs8(t, key))
}

func (a *Authority) pair(t testing.TB, c *x509.Certificate) Pair {
	t.Helper()
	der, key := sign(t, c, a)
	base := filepath.Join(a.dir, rand.Text())
	p := Pair{base + ".crt", base + ".key"}
	writePEM(t, p.CertFile, "CERTIFICATE", der)
	writePEM(t, p.KeyFile, "PRIVATE KEY", pkcs8(t, key))
	return p
}

func pkcs8(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// sign completes a certificate, signed by a, or by itself without one.
func sign(t testing.TB, c *x509.Certificate, a *Authority) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := c, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, []byte(encoded(kind, der)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func encoded(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
