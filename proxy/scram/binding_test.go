// Channel bindings of real certificates.

package scram

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

func TestEndpointBinding(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sum256 := func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
	sum384 := func(b []byte) []byte { s := sha512.Sum384(b); return s[:] }
	sum512 := func(b []byte) []byte { s := sha512.Sum512(b); return s[:] }
	for _, c := range []struct {
		algorithm x509.SignatureAlgorithm
		key       crypto.Signer
		want      func([]byte) []byte // nil: no binding
	}{
		{x509.SHA256WithRSA, rsaKey, sum256},
		{x509.SHA384WithRSA, rsaKey, sum384},
		{x509.SHA512WithRSA, rsaKey, sum512},
		{x509.SHA256WithRSAPSS, rsaKey, sum256},
		{x509.SHA512WithRSAPSS, rsaKey, sum512},
		{x509.ECDSAWithSHA256, ecKey, sum256},
		{x509.ECDSAWithSHA384, ecKey, sum384},
		{x509.ECDSAWithSHA512, ecKey, sum512},
		{x509.PureEd25519, edKey, nil},
	} {
		t.Run(c.algorithm.String(), func(t *testing.T) {
			template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour), SignatureAlgorithm: c.algorithm}
			der, err := x509.CreateCertificate(rand.Reader, template, template, c.key.Public(), c.key)
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			want := ChannelBinding{}
			if c.want != nil {
				want = ChannelBinding{EndpointType, c.want(der)}
			}
			for name, got := range map[string]ChannelBinding{
				"ours, not parsed": EndpointBinding(&tls.Certificate{Certificate: [][]byte{der}}),
				"ours, parsed":     EndpointBinding(&tls.Certificate{Certificate: [][]byte{der}, Leaf: leaf}),
				"the peer's":       EndpointBindingX509(leaf),
			} {
				if got.Type != want.Type || !bytes.Equal(got.Data, want.Data) {
					t.Errorf("%s: %+v, want %+v", name, got, want)
				}
			}
		})
	}
	// No signer makes these any more; RFC 5929 has SHA-256 stand in for their hashes.
	for _, old := range []x509.SignatureAlgorithm{x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1} {
		if got := EndpointBindingX509(&x509.Certificate{Raw: []byte("der"), SignatureAlgorithm: old}); !bytes.Equal(got.Data, sum256([]byte("der"))) {
			t.Errorf("%v: %+v", old, got)
		}
	}
	for name, got := range map[string]ChannelBinding{
		"nil":        EndpointBinding(nil),
		"empty":      EndpointBinding(&tls.Certificate{}),
		"not a cert": EndpointBinding(&tls.Certificate{Certificate: [][]byte{{1}}}),
		"nil peer":   EndpointBindingX509(nil),
	} {
		if got.available() || got.Data != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
