// Client certificates as they come: who is asked for one, what strangers may send, and ways in that have none.

package proxy

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
)

// secured is a door with TLS, and with a tenant that wants certificates of ca.
func secured(t *testing.T, use tenants.ClientCert) (d *door, ca *issuer) {
	t.Helper()
	d, ca = newDoor(t), newIssuer(t, "ca")
	server, key := ca.issue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	d.gate.opts.Certificate = func(*tls.ClientHelloInfo) *tls.Certificate {
		return &tls.Certificate{Certificate: [][]byte{server.Raw}, PrivateKey: key}
	}
	acme, _ := d.directory.Tenant("acme")
	certain := *acme
	certain.ID, certain.ClientCAs, certain.ClientCert = "certain", trusting(ca.cert), use
	if err := d.directory.Put(&certain); err != nil {
		t.Fatal(err)
	}
	return d, ca
}

// now makes a certificate's times fit the clock.
func now(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
}

// shows has a client begin with TLS, show what it is given, and ask for a user. It returns ok for an
// AuthenticationOk, else the first byte of the answer, with an error's SQLSTATE, or why there is none, and whether the client was asked for a certificate.
func (d *door) shows(version uint16, pair *tls.Certificate, user string) (answer string, asked bool) {
	d.t.Helper()
	d.visit(&Listener{Name: "plain"}, func(conn net.Conn) {
		c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}, MinVersion: version, MaxVersion: version,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = true
				return pair, nil
			}})
		if _, err := io.WriteString(c, hello("user", user)); err != nil {
			answer = err.Error()
			return
		}
		var head [5]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			answer = err.Error()
			return
		}
		body := make([]byte, int(head[3])<<8|int(head[4])-4)
		_, _ = io.ReadFull(c, body)
		answer = string(head[:1])
		switch {
		case head[0] == pgwire.ErrorResponse:
			answer += pgwire.ParseError(body).Code
		case string(body) == "\x00\x00\x00\x00":
			answer = "ok"
		}
	})
	return answer, asked
}

// TestNobodyIsAskedForNothing: as long as no tenant wants certificates, handshakes are what they would be without the feature.
func TestNobodyIsAskedForNothing(t *testing.T) {
	d, ca := secured(t, tenants.CertVerifyFull)
	certain, _ := d.directory.Tenant("certain")
	without := *certain
	without.ClientCAs, without.ClientCert = nil, ""
	other := *certain
	other.ClientCAs = trusting(newIssuer(t, "other").cert)
	cert, key := ca.issue(now)
	pair := &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	for i, step := range []struct {
		conf  *tenants.Tenant // nil: it goes
		want  string
		asked bool
	}{{certain, "R", true}, {&without, "R", false}, {&other, "E28000", true}, {certain, "R", true}, {nil, "R", false}} {
		if step.conf == nil {
			d.directory.Remove("certain")
		} else if err := d.directory.Put(step.conf); err != nil {
			t.Fatal(err)
		}
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if answer, asked := d.shows(version, pair, "app.certain"); answer != step.want || asked != step.asked {
				t.Errorf("step %d: %s, asked: %v", i, answer, asked)
			}
			// A tenant that wants none takes no notice.
			if answer, _ := d.shows(version, pair, "app.acme"); answer != "R" {
				t.Errorf("step %d: another tenant: %s", i, answer)
			}
		}
	}
}

// TestCertificatesAreBounded: what is too much is as good as none, and only what crypto/tls cannot read, or is without end, ends the
// handshake, whoever it is for.
func TestCertificatesAreBounded(t *testing.T) {
	d, ca := secured(t, tenants.CertVerifyFull)
	cert, key := ca.issue(now)
	type shown struct {
		chain [][]byte
		key   crypto.Signer
	}
	larger := func(names int) shown {
		c, key := ca.issue(func(c *x509.Certificate) {
			now(c)
			for range names {
				c.DNSNames = append(c.DNSNames, "a.example.com")
			}
		})
		return shown{[][]byte{c.Raw}, key}
	}
	n := new(big.Int).Lsh(big.NewInt(1), 16383)
	huge, err := x509.CreateCertificate(rand.Reader, cert, ca.cert, &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	chain := func(more int, certs ...[]byte) shown {
		for range more {
			certs = append(certs, ca.cert.Raw)
		}
		return shown{certs, key}
	}
	for name, c := range map[string]struct {
		shown
		want string // "": the handshake has ended without a word of Postgres's protocol
	}{
		"none":                    {shown{nil, key}, "E28000"},
		"one":                     {chain(0, cert.Raw), "R"},
		"five":                    {chain(4, cert.Raw), "R"},
		"six":                     {chain(5, cert.Raw), "E28000"},
		"many names":              {larger(900), "R"},
		"too many names":          {larger(1200), "E28000"},
		"a hundred":               {chain(99, cert.Raw), "E28000"},
		"more than the handshake": {larger(6000), ""},
		"a key of 16384 bits":     {chain(0, huge), ""},
		"behind it, too":          {chain(0, cert.Raw, huge), ""},
		"no certificate at all":   {chain(0, []byte("hello")), ""},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, user := range []string{"app.certain", "app.nowhere"} {
				want := c.want
				if user == "app.nowhere" && want == "E28000" {
					want = "R"
				}
				answer, _ := d.shows(version, &tls.Certificate{Certificate: c.chain, PrivateKey: c.key}, user)
				if got := answer; got != want && (want != "" || got == "R" || strings.HasPrefix(got, "E")) {
					t.Errorf("%s, %s, to %s: %s, want %q", name, tls.VersionName(version), user, got, want)
				}
			}
		}
	}
}

// TestDoorsHaveNoCertificate: a caller that comes by another way than a connection is refused where one is wanted.
func TestDoorsHaveNoCertificate(t *testing.T) {
	for _, use := range []tenants.ClientCert{tenants.CertVerifyCA, tenants.CertVerifyFull, tenants.CertInstead} {
		d, _ := secured(t, use)
		way := d.gate.Door(Listener{Name: "door"})
		for _, secure := range []bool{true, false} {
			seat, err := way.Admit(t.Context(), Caller{Client: netip.MustParseAddrPort("198.51.100.7:1"), Secure: secure, Startup: startupOf(t, "user", "app.certain"), Proof: Password("right")})
			want := map[bool]string{true: sayNoCert, false: "this tenant requires TLS"}[secure]
			var e *pgwire.Error
			if !errors.As(err, &e) || e.Code != "28000" || e.Message != want {
				t.Errorf("%s, secure: %v: %v, %v", use, secure, seat, err)
			}
		}
	}
}

// TestHelloIsBounded: what a stranger sends is not even read for longer than that.
func TestHelloIsBounded(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		d, ca := secured(t, tenants.CertVerifyFull)
		cert, key := ca.issue(func(c *x509.Certificate) { c.DNSNames = make([]string, 40_000) })
		answer, _ := d.shows(version, &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}, "app.certain")
		if answer == "R" || strings.HasPrefix(answer, "E") || !strings.Contains(d.log.String(), errLongHello.Error()) {
			t.Errorf("%s: answer %s, log %s", tls.VersionName(version), answer, d.log)
		}
	}
}

// TestInsteadOfAPassword: who is named is in without one, if the tenant has such a user, and no failure is held against an address.
func TestInsteadOfAPassword(t *testing.T) {
	d, ca := secured(t, tenants.CertInstead)
	for user, want := range map[string]string{
		"app":   "ok",
		"ghost": "E28000",
	} {
		cert, key := ca.issue(func(c *x509.Certificate) { now(c); c.Subject.CommonName = user })
		for range netrestrict.DefaultTenantFailures + 1 {
			if answer, _ := d.shows(tls.VersionTLS13, &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}, user+".certain"); answer != want {
				t.Fatalf("%s: %s, want %s", user, answer, want)
			}
		}
	}
	n := &d.gate.tenant("certain").counters
	if ok, failed := n.loginsOK.Load(), n.loginsFailed.Load(); ok != failed || ok != netrestrict.DefaultTenantFailures+1 {
		t.Errorf("%d logins, %d failed", ok, failed)
	}
	if got := d.refusals(); len(got) > 0 {
		t.Errorf("counted %v: a failed login is not a refusal", got)
	}
}
