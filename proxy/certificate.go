// Client certificates: who is asked for one, how large it may be, and whether it is good for a tenant's user.

package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"slices"
	"time"

	"github.com/postern/postern/tenants"
)

// What a stranger's certificates may be. Their keys are bounded by crypto/tls (RSA: 8192 bits).
const (
	maxChain      = 5        // certificates that are looked at, its own included
	maxChainBytes = 16 << 10 // of them all
	// maxHello bounds what is read of a client until its TLS handshake is over. crypto/tls would take four times as much.
	maxHello = 64 << 10
)

// identity is what a visitor has shown of itself on its way here.
type identity struct {
	asked bool                // or there was nobody to ask
	chain []*x509.Certificate // the first one is its own, and it has the key
	long  bool                // it has shown more than is looked at, which is then not there
}

// countCertificates keeps count of the tenants that want certificates. While there are none, no client is asked.
func (g *Gate) countCertificates(all []tenants.Change) {
	for _, c := range all {
		if c.Old != nil && c.Old.ClientCAs != nil {
			g.wantCertificates.Add(-1)
		}
		if c.New != nil && c.New.ClientCAs != nil {
			g.wantCertificates.Add(1)
		}
	}
}

// askForCertificate has the TLS handshake ask for a certificate if there is any tenant that wants one. Whose it should be nobody
// knows yet, so that everybody is asked, no authority is named, and whatever comes is judged later, by [judgeCertificate]: most tenants
// want none, and theirs must not fail for what a client shows to whoever asks.
func (h *handshake) askForCertificate(config *tls.Config) {
	if h.gate.wantCertificates.Load() == 0 {
		return
	}
	h.shown.asked = true
	config.ClientAuth = tls.RequestClientCert
	config.VerifyPeerCertificate = func(chain [][]byte, _ [][]*x509.Certificate) error {
		n := 0
		for _, cert := range chain {
			n += len(cert)
		}
		h.shown.long = len(chain) > maxChain || n > maxChainBytes
		return nil
	}
}

// takeCertificate keeps what a client has shown, if that is not too much.
func (h *handshake) takeCertificate(chain []*x509.Certificate) {
	if !h.shown.long {
		h.shown.chain = chain
	}
}

// judgeCertificate says what speaks against a certificate, or against there being none, for a user of a tenant; nil: nothing, or
// the tenant wants none.
func judgeCertificate(conf *tenants.Tenant, shown identity, user string, now time.Time) error {
	switch {
	case conf.ClientCAs == nil:
		return nil
	case !shown.asked:
		return deny(denyNotRead) // nobody wanted one when it came: it may try again
	case shown.long:
		return deny(denyCertificateLong)
	case len(shown.chain) == 0:
		return deny(denyNoCertificate)
	}
	cert := shown.chain[0]
	if _, err := cert.Verify(x509.VerifyOptions{Roots: conf.ClientCAs, Intermediates: between(shown.chain[1:]), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return deny(causeOf(err))
	}
	if conf.ClientCert != tenants.CertVerifyCA && !namesUser(cert, user) {
		return deny(denyCertificateOfAnother, clip(user))
	}
	return nil
}

// between are the certificates that may link a client's to its authority. The first one of a name counts: else whoever shows many of
// one name has all ways through them tried, each step of which is a signature to verify.
func between(certs []*x509.Certificate) *x509.CertPool {
	names, all := make(map[string]bool), x509.NewCertPool()
	for _, c := range certs {
		if name := string(c.RawSubject); !names[name] {
			names[name] = true
			all.AddCert(c)
		}
	}
	return all
}

// causeOf tells the log what is wrong with a certificate.
func causeOf(err error) denial {
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch e.Reason {
		case x509.Expired:
			return denyCertificateExpired
		case x509.IncompatibleUsage:
			return denyCertificateUse
		}
	}
	return denyCertificateUntrusted
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3} // immutable

// namesUser reports whether a certificate is a user's: its common name is the user's name, or one of the DNS names and mail addresses
// is. Bytes are compared, as roles are; there are no wildcards. Who has several common names has none: others take the first, or the last.
func namesUser(cert *x509.Certificate, user string) bool {
	names, found := 0, false
	for _, n := range cert.Subject.Names {
		if n.Type.Equal(oidCommonName) {
			names++
			found = n.Value == user
		}
	}
	return names == 1 && found || slices.Contains(cert.DNSNames, user) || slices.Contains(cert.EmailAddresses, user)
}
