// Certificates: what a tenant's clients have to show, and what is shown to its server.

package tenants

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
)

// ClientCert says what a client's certificate is for.
type ClientCert string

// The uses.
const (
	CertVerifyCA   ClientCert = "verify-ca"   // any that is signed by ClientCAs; the password comes after it
	CertVerifyFull ClientCert = "verify-full" // and it names the user
	CertInstead    ClientCert = "instead"     // it names the user, and there is no password
)

// ParseChain reads a certificate and those that link it to its authority, and returns them in PEM without anything else. Whoever
// has put a key beside them is told so, because what is a certificate's is shown to people.
func ParseChain(text []byte) (string, error) {
	if _, err := ParseRoots(text); err != nil {
		return "", err
	}
	var chain []byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	return string(chain), nil
}

// KeyPair is what ClientCert and ClientKey make together. Its errors repeat nothing of the key.
func (u Upstream) KeyPair() (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair([]byte(u.ClientCert), []byte(u.ClientKey.Reveal()))
	if err != nil {
		return nil, errors.New("is not the key of client_cert, in PEM and without a password")
	}
	return &pair, nil
}

// validateClientCert judges what clients have to show. What it asks of users is in validateUser.
func validateClientCert(p place, t *Tenant) {
	at := p.key("client_cert")
	if t.ClientCAs == nil {
		if t.ClientCert != "" {
			at.fail("means nothing without client_ca")
		}
		return
	}
	oneOf(at, t.ClientCert, CertVerifyCA, CertVerifyFull, CertInstead)
}

// maxKey bounds the key of a certificate, in bytes of PEM.
const maxKey = 64 << 10

// validateKeyPair judges what is shown to the server of an upstream or a machine.
func validateKeyPair(p place, u Upstream) {
	cert, key := p.key("client_cert"), p.key("client_key")
	switch {
	case u.ClientCert == "" && u.ClientKey.IsZero():
	case u.TLS == TLSDisable && u.ClientCert == "":
		key.fail("means nothing with tls: disable")
	case u.TLS == TLSDisable:
		cert.fail("means nothing with tls: disable")
	case u.ClientCert == "":
		cert.fail("client_cert is missing: client_key needs it")
	case u.ClientKey.IsZero():
		key.fail("client_key is missing: client_cert needs it")
	case len(u.ClientKey.Reveal()) > maxKey:
		key.fail("must not be longer than %d bytes", maxKey)
	default:
		if _, err := u.KeyPair(); err != nil {
			key.fail("%v", err)
		}
	}
}

// validateProof judges what proves that a client is the user, and what proves to the server that it is Postern.
func validateProof(p place, u *User, t *Tenant) {
	login, at := p.key("upstream"), t.Upstream
	stored := !u.Password.IsZero() || !u.ServerPassword.IsZero()
	switch {
	case !u.Verifier.IsZero() && !u.Password.IsZero(), t.ClientCert != CertInstead && u.Verifier.IsZero() && u.Password.IsZero():
		p.fail("needs exactly one of verifier and password")
	case t.ClientCert == CertInstead && !stored && u.ServerAuth != AuthCert:
		login.key("password").fail("upstream.password is missing: with client_cert: instead there is no client's password to log in to the server with")
	}
	auth := login.key("auth")
	oneOf(auth, u.ServerAuth, AuthSCRAM, AuthMD5, AuthPassword, AuthCert)
	switch {
	case (u.ServerAuth == AuthMD5 || u.ServerAuth == AuthPassword) && !stored:
		auth.fail("needs a password for the server, which a verifier is not: add upstream.password")
	case u.ServerAuth == AuthPassword && (at.TLS == TLSDisable || at.TLS == TLSRequire):
		auth.fail("sends the password in clear text, which needs a server with tls: verify-full")
	case u.ServerAuth == AuthCert && (at.TLS != TLSVerifyFull || at.ClientCert == ""):
		auth.fail("needs a server with tls: verify-full, and a client_cert to show to it")
	case u.ServerAuth == AuthCert && !u.ServerPassword.IsZero():
		login.key("password").fail("means nothing with auth: cert")
	}
}
