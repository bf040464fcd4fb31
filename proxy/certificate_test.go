package proxy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
)

// issuer is an authority of tests.
type issuer struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
}

var certNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func newIssuer(t testing.TB, name string) *issuer {
	t.Helper()
	i := &issuer{t: t}
	i.cert, i.key = i.issue(func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = name, true, true, x509.KeyUsageCertSign, nil
		c.NotAfter = certNow.AddDate(100, 0, 0)
	})
	return i
}

// issue signs a client's certificate for app that is good in every way, after somebody has changed that.
func (i *issuer) issue(change func(*x509.Certificate)) (*x509.Certificate, crypto.Signer) {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		i.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "app"}, NotBefore: certNow.Add(-time.Hour), NotAfter: certNow.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	change(c)
	parent, signer := i.cert, i.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		i.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		i.t.Fatal(err)
	}
	return cert, key
}

func (i *issuer) client(change func(*x509.Certificate)) []*x509.Certificate {
	cert, _ := i.issue(change)
	return []*x509.Certificate{cert}
}

// between makes an authority that this one has signed.
func (i *issuer) between(change func(*x509.Certificate)) *issuer {
	out := &issuer{t: i.t}
	out.cert, out.key = i.issue(func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = "between", true, true, x509.KeyUsageCertSign, nil
		change(c)
	})
	return out
}

func trusting(certs ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// named is a subject of common names, in their order.
func named(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		var sequence pkix.RDNSequence
		for _, name := range names {
			sequence = append(sequence, pkix.RelativeDistinguishedNameSET{{Type: oidCommonName, Value: name}})
		}
		raw, err := asn1.Marshal(sequence)
		if err != nil {
			panic(err)
		}
		c.RawSubject = raw
	}
}

// TestJudgeCertificate has what clients may show to a tenant, and how the log calls what is wrong with it; "": it is good.
func TestJudgeCertificate(t *testing.T) {
	ca, stranger := newIssuer(t, "ca"), newIssuer(t, "ca") // of one name
	other := newIssuer(t, "other")
	asIs := func(*x509.Certificate) {}
	between := ca.between(asIs)
	twin := ca.between(asIs)
	chained := append(between.client(asIs), between.cert)
	onlyServers := ca.between(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	noAuthority := ca.between(func(c *x509.Certificate) { c.IsCA = false })
	old := ca.between(func(c *x509.Certificate) { c.NotAfter = certNow.Add(-time.Minute) })
	pinned := stranger.client(asIs)
	const bad, another = "certificate_not_trusted", "certificate_of_another_user"
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		ca    string // of any certificate of the tenant's authority
		full  string // and of one that names app
	}{
		{"none", nil, "certificate_missing", "certificate_missing"},
		{"a good one", ca.client(asIs), "", ""},
		{"one without usages", ca.client(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), "", ""},
		{"one for everything", ca.client(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), "", ""},
		{"a server's", ca.client(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "certificate_not_for_clients", "certificate_not_for_clients"},
		{"a server's, of a usage that nobody knows", ca.client(func(c *x509.Certificate) {
			c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{{1, 2, 3}}
		}), "certificate_not_for_clients", "certificate_not_for_clients"},
		{"expired", ca.client(func(c *x509.Certificate) { c.NotAfter = certNow.Add(-time.Minute) }), "certificate_expired_or_not_valid_yet", "certificate_expired_or_not_valid_yet"},
		{"not valid yet", ca.client(func(c *x509.Certificate) { c.NotBefore = certNow.Add(time.Minute) }), "certificate_expired_or_not_valid_yet", "certificate_expired_or_not_valid_yet"},
		{"of another authority", other.client(asIs), bad, bad},
		{"of another authority of that name", stranger.client(asIs), bad, bad},
		{"with another authority's certificate", append(stranger.client(asIs), ca.cert), bad, bad},
		{"with its own authority's certificate", append(stranger.client(asIs), stranger.cert), bad, bad},
		{"with one between", chained, "", ""},
		{"with one between, and another of its name behind it", append(append(between.client(asIs), between.cert), twin.cert), "", ""},
		{"with one between, and another of its name before it", append(append(between.client(asIs), twin.cert), between.cert), bad, bad},
		{"with one between, which is not shown", chained[:1], bad, bad},
		{"with one between that is for servers only", append(onlyServers.client(asIs), onlyServers.cert), "certificate_not_for_clients", "certificate_not_for_clients"},
		{"signed by who is no authority", append(noAuthority.client(asIs), noAuthority.cert), bad, bad},
		{"with one between that is expired", append(old.client(asIs), old.cert), "certificate_expired_or_not_valid_yet", "certificate_expired_or_not_valid_yet"},
		{"an extension that nobody knows, and must", ca.client(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), bad, bad},
		{"one that is trusted itself", pinned, "", ""},

		{"of another user", ca.client(named("bob")), "", another},
		{"in capitals", ca.client(named("APP")), "", another},
		{"with a NUL behind the name", ca.client(named("app\x00.example.com")), "", another},
		{"with a blank behind the name", ca.client(named("app ")), "", another},
		{"with the tenant behind the name", ca.client(named("app.acme")), "", another},
		{"of nobody", ca.client(named()), "", another},
		{"of nobody, by name", ca.client(named("")), "", another},
		{"of two, the user first", ca.client(named("app", "bob")), "", another},
		{"of two, the user last", ca.client(named("bob", "app")), "", another},
		{"of the user, twice", ca.client(named("app", "app")), "", another},
		{"by DNS name", ca.client(func(c *x509.Certificate) { named("bob")(c); c.DNSNames = []string{"x", "app"} }), "", ""},
		{"by DNS name, in capitals", ca.client(func(c *x509.Certificate) { named("bob")(c); c.DNSNames = []string{"App"} }), "", another},
		{"by a wildcard", ca.client(func(c *x509.Certificate) { named()(c); c.DNSNames = []string{"*", "*.acme", "a*"} }), "", another},
		{"by mail", ca.client(func(c *x509.Certificate) { named()(c); c.EmailAddresses = []string{"app"} }), "", ""},
		{"by the first part of a mail address", ca.client(func(c *x509.Certificate) { named()(c); c.EmailAddresses = []string{"app@example.com"} }), "", another},
		{"by organisation", ca.client(func(c *x509.Certificate) { c.Subject = pkix.Name{Organization: []string{"app"}} }), "", another},
	} {
		for use, want := range map[tenants.ClientCert]string{tenants.CertVerifyCA: c.ca, tenants.CertVerifyFull: c.full, tenants.CertInstead: c.full} {
			conf := &tenants.Tenant{ClientCAs: trusting(ca.cert, pinned[0]), ClientCert: use}
			got := ""
			err := judgeCertificate(conf, identity{asked: true, chain: c.chain}, "app", certNow)
			if err != nil {
				got = err.Error()
				if d := err.(*denied); d.told.Code != "28000" || denials[d.why].reason != reasonCertificate {
					t.Errorf("%s: told %v", c.name, d.told)
				}
			}
			if got != want {
				t.Errorf("%s, %s: %q, want %q", c.name, use, got, want)
			}
		}
		if err := judgeCertificate(&tenants.Tenant{}, identity{}, "app", certNow); err != nil {
			t.Errorf("a tenant that wants none: %v", err)
		}
	}
	if err := judgeCertificate(&tenants.Tenant{ClientCAs: trusting(ca.cert)}, identity{asked: true, long: true}, "app", certNow); fmt.Sprint(err) != "certificate_chain_too_long" {
		t.Errorf("too long a chain: %v", err)
	}
	for user, good := range map[string]bool{"app": true, "": false, "bob": false} {
		if err := judgeCertificate(&tenants.Tenant{ClientCAs: trusting(ca.cert)}, identity{asked: true, chain: ca.client(asIs)}, user, certNow); (err == nil) != good {
			t.Errorf("user %q: %v", user, err)
		}
	}
	// Who came when nobody wanted a certificate may come again.
	if err := judgeCertificate(&tenants.Tenant{ClientCAs: trusting(ca.cert)}, identity{}, "app", certNow); fmt.Sprint(err) != fmt.Sprint(deny(denyNotRead)) {
		t.Errorf("not asked: %v", err)
	}
}
