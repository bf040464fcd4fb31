// A Target says which server to log in to, as whom, and how carefully.

package backend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/postern/postern/proxy/scram"
)

// TLSMode says how a server is spoken to.
type TLSMode string

// The TLS modes. There is none that falls back to plaintext.
const (
	TLSDisable    TLSMode = "disable"     // plaintext
	TLSRequire    TLSMode = "require"     // TLS, whoever presents whatever certificate
	TLSVerifyFull TLSMode = "verify-full" // TLS, with the chain and the host name verified
)

// Auth says what a server may ask for.
type Auth string

// The authentication methods. Those with a password also accept SCRAM, which
// gives less away.
const (
	AuthSCRAM    Auth = "scram"    // SCRAM-SHA-256, with channel binding where the server offers it
	AuthMD5      Auth = "md5"      // a salted MD5 of the password; proves nothing about the server
	AuthPassword Auth = "password" // the password itself; with TLSVerifyFull only
	AuthCert     Auth = "cert"     // nothing but Target.Certificate; with TLSVerifyFull only, and not even SCRAM
)

// Target is a server and a login on it. It is only read.
type Target struct {
	Host string // name or address
	Port uint16

	TLS        TLSMode        // required
	RootCAs    *x509.CertPool // who may sign the server's certificate; nil: the system's
	ServerName string         // what the certificate must name; "": Host
	// Certificate is shown to a server that asks for one; nil: there is none. It
	// may be called at any time, from any goroutine.
	Certificate func() (*tls.Certificate, error)

	User        string // required
	Database    string // "": the server takes the user's name
	Auth        Auth   // "": AuthSCRAM
	Credentials scram.Credentials

	// Replication asks for a walsender: "true" for a physical one, "database" for
	// one that also knows SQL and logical decoding; "": an ordinary session.
	Replication string
	// Settings are run-time parameters to start the session with, the last of a
	// name winning. Pools leave them out: what they dial is for anybody.
	Settings []Parameter

	// Dial opens the TCP connection; nil means a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Control sets socket options before the first byte; nil: none.
	Control func(*net.TCPConn)
	// Permit is asked once the connection is there, before anything of the login is said; its error ends the dial. nil: it is
	// permitted.
	Permit func() error
	// Derive runs a function that burns CPU for as long as the server asks
	// (PBKDF2, up to about a second), and so belongs into a bounded worker. It
	// returns nil only after the function has returned. Nil means to run it in
	// the caller's goroutine, with a lower limit on the work.
	Derive func(ctx context.Context, derive func()) error
}

func (t *Target) address() string {
	return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
}

// checkServer says whether the part of the target that every connection needs
// makes sense. An unknown mode is an error, so that a typo cannot mean plaintext.
func (t *Target) checkServer() error {
	switch t.TLS {
	case TLSDisable, TLSRequire, TLSVerifyFull:
	default:
		return fmt.Errorf("%w: unknown TLS mode %q", ErrTarget, t.TLS)
	}
	if t.Host == "" || t.Port == 0 {
		return fmt.Errorf("%w: host or port is missing", ErrTarget)
	}
	return nil
}

// checkLogin says whether the target can be logged in to at all, before the
// server is bothered with it.
func (t *Target) checkLogin() error {
	hasKey := t.Credentials.Key != nil
	switch {
	case t.User == "":
		return fmt.Errorf("%w: no user", ErrTarget)
	case strings.ContainsRune(t.User+t.Database, 0):
		return fmt.Errorf("%w: a user or database name with a zero byte", ErrTarget)
	case t.Auth == AuthCert && (t.TLS != TLSVerifyFull || t.Certificate == nil):
		return fmt.Errorf("%w: auth %q needs TLS mode %q and a certificate", ErrTarget, t.Auth, TLSVerifyFull)
	case t.Auth != AuthCert && !hasKey && t.Credentials.Password == "":
		return fmt.Errorf("%w: neither a password nor a client key", ErrTarget)
	}
	for _, p := range t.Settings {
		if IsReserved(p.Name) {
			return fmt.Errorf("%w: %q is not a setting", ErrTarget, p.Name)
		}
	}
	switch t.Auth {
	case "", AuthSCRAM, AuthCert:
		return nil
	case AuthMD5, AuthPassword:
		if hasKey {
			return fmt.Errorf("%w: auth %q needs a password, a client key is not enough", ErrTarget, t.Auth)
		}
		if t.Auth == AuthPassword && t.TLS != TLSVerifyFull {
			return fmt.Errorf("%w: auth %q needs TLS mode %q", ErrTarget, t.Auth, TLSVerifyFull)
		}
		return nil
	default:
		return fmt.Errorf("%w: unknown auth %q", ErrTarget, t.Auth)
	}
}
