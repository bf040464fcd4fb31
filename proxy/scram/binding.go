// Channel binding ties a SCRAM login to the TLS connection it runs in, by the hash of the server's certificate.

package scram

import (
	"crypto"
	_ "crypto/sha256" // for crypto.Hash.New
	_ "crypto/sha512" // for crypto.Hash.New
	"crypto/tls"
	"crypto/x509"
)

// EndpointType is the only channel-binding type that Postgres speaks (RFC 5929 section 4).
const EndpointType = "tls-server-end-point"

// ChannelBinding identifies a TLS connection. The zero value means that there is none, and that -PLUS is not possible:
// the connection is in plaintext, or its certificate has no defined binding. Its data is no secret.
type ChannelBinding struct {
	Type string // EndpointType, or "" for none
	Data []byte // the certificate's hash
}

// available says whether -PLUS can be offered or used.
func (cb ChannelBinding) available() bool { return cb.Type != "" }

// EndpointBinding returns the binding of the certificate that we showed a client: pass exactly that one when the choice
// went by SNI. It is the zero value for nil, for a certificate that does not parse, and where EndpointBindingX509 says.
func EndpointBinding(cert *tls.Certificate) ChannelBinding {
	if cert == nil || len(cert.Certificate) == 0 {
		return ChannelBinding{}
	}
	leaf := cert.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return ChannelBinding{}
		}
	}
	return EndpointBindingX509(leaf)
}

// EndpointBindingX509 returns the binding of a server's certificate. It is the zero value where RFC 5929 defines no
// hash, as for Ed25519 signatures, and for nil.
func EndpointBindingX509(cert *x509.Certificate) ChannelBinding {
	if cert == nil {
		return ChannelBinding{}
	}
	var hash crypto.Hash
	switch cert.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1, // RFC 5929: SHA-256 instead of these
		x509.SHA256WithRSA, x509.SHA256WithRSAPSS, x509.ECDSAWithSHA256, x509.DSAWithSHA256:
		hash = crypto.SHA256
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		hash = crypto.SHA384
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		hash = crypto.SHA512
	default:
		return ChannelBinding{}
	}
	h := hash.New()
	h.Write(cert.Raw)
	return ChannelBinding{Type: EndpointType, Data: h.Sum(nil)}
}
