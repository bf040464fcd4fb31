// Helpers of this package's tests.

package file

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var when = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func write(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// loadText loads content from a folder that also has a password file web.pw, a second rw.pw and a certificate ca.pem.
func loadText(t testing.TB, content string) (*Snapshot, error) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "web.pw", "pw of web\n")
	write(t, dir, "fly.token", "  FlyV1  fm2_a,fm2_b\r\n\n")
	write(t, dir, "rw.pw", "pw of rw\r\n")
	write(t, dir, "blank.pw", "\n")
	write(t, dir, "two-lines.pw", "a\nb\n")
	ca, key := newPair(t)
	write(t, dir, "ca.pem", ca)
	write(t, dir, "ca.key", key)
	write(t, dir, "bad.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	write(t, dir, "key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	path := write(t, dir, "tenants.yaml", content)
	return Load(Options{Path: path, CheckVerifier: checkVerifier, Now: func() time.Time { return when }})
}

func newCA(t testing.TB) string {
	t.Helper()
	cert, _ := newPair(t)
	return cert
}

// newPair is a certificate and its key.
func newPair(t testing.TB) (cert, secret string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}))
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
