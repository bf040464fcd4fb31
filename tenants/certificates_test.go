package tenants

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
)

var certPEM, keyPEM = newPair() // immutable

// newPair is a certificate that nobody has signed but itself, and its key.
func newPair() (cert string, secret Secret) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "postern"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	encode := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return encode("CERTIFICATE", der), NewSecret(encode("PRIVATE KEY", text))
}

// TestChainsHoldNoKeys: what is shown to people has nothing in it that is not a certificate.
func TestChainsHoldNoKeys(t *testing.T) {
	key := keyPEM.Reveal()
	broken := strings.Replace(key, "-----END", "!\n-----END", 1) // no PEM any more, and still a key
	for text, want := range map[string]string{
		certPEM:                               certPEM,
		"my own\n" + certPEM + "\n" + certPEM: certPEM + certPEM,
		broken + certPEM:                      certPEM,
		certPEM + key:                         "",
		key + certPEM:                         "",
		key:                                   "",
		"":                                    "",
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n": "",
	} {
		got, err := ParseChain([]byte(text))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
		if err != nil && strings.Contains(err.Error(), strings.Split(key, "\n")[1]) {
			t.Error("the error has the key")
		}
	}
}

func TestKeyPair(t *testing.T) {
	if _, err := (Upstream{ClientCert: certPEM, ClientKey: keyPEM}).KeyPair(); err != nil {
		t.Error(err)
	}
	other, _ := newPair()
	for _, u := range []Upstream{{}, {ClientCert: other, ClientKey: keyPEM}, {ClientCert: certPEM, ClientKey: NewSecret("hunter2")}, {ClientCert: certPEM}} {
		if pair, err := u.KeyPair(); err == nil || pair != nil || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%v, %v", pair, err)
		}
	}
}
