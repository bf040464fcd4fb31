// This node's certificate, and how the keys of others are judged.

package cluster

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"math/big"
	"slices"
	"time"
)

// makeCertificate makes the certificate of one boot. Nothing in it but the key is looked at by others.
func makeCertificate() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "postern"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 §4.1.2.5: it does not expire
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: leaf}, err
}

// fingerprint is what a row has of a certificate's key.
func fingerprint(c *x509.Certificate) string {
	digest := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(digest[:])
}

var errNotSpoken = errors.New("does not speak what nodes speak")

// strangerError is the fingerprint of a key that no row has; "": there is no key.
type strangerError string

// Error implements error.
func (strangerError) Error() string { return "its key is not that of a node with a row in the store" }

// judgeOnly lets one key in.
func judgeOnly(fingerprint string) func(key string) error {
	return func(key string) error {
		if key != fingerprint {
			return ErrWrongKey
		}
		return nil
	}
}

// tlsConfig is for one side of connections between nodes; judge says whether the other side's key may come in. No chain is checked: there is
// none. Nothing is resumed, so that each connection is judged. One of the protocols is spoken inside.
func tlsConfig(own tls.Certificate, judge func(fingerprint string) error, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{own},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // see judge
		SessionTicketsDisabled: true,
		NextProtos:             protocols,
		VerifyConnection: func(s tls.ConnectionState) error {
			if !slices.Contains(protocols, s.NegotiatedProtocol) {
				return errNotSpoken
			}
			if len(s.PeerCertificates) == 0 {
				return strangerError("")
			}
			return judge(fingerprint(s.PeerCertificates[0]))
		},
	}
}
