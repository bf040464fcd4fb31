// Servers that misbehave around TLS: in front of it, in its handshake, and inside.

package backend

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern/postern/proxy/pgwire"
)

func TestDialRefusesHostileTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	hour := time.Now().Add(time.Hour)
	unverified := func(t *testing.T, err error) {
		t.Helper()
		var bad *tls.CertificateVerificationError
		if !errors.As(err, &bad) {
			t.Errorf("err = %v, want a CertificateVerificationError", err)
		}
	}
	answering := func(s string) script { return func(c net.Conn) { startup(c); _, _ = c.Write([]byte(s)) } }
	login := func(net.Conn) {}
	for _, tc := range []struct {
		name   string
		script script
		retry  bool
		wants  wants
	}{
		{"no TLS", answering("N"), false, is(ErrTLSRefused)},
		{"F19 X", answering("X"), false, isViolation("byte 0x58")},
		{"F19 SS", answering("SS"), false, isViolation("plaintext behind")},
		{"F19 S and a login in plaintext", answering("S" + string(append(pgwire.AppendAuthenticationOk(nil), greeting()...))), false, isViolation("plaintext behind")},
		{"F19 N and a login in plaintext", answering("N" + string(append(pgwire.AppendAuthenticationOk(nil), greeting()...))), false, isViolation("byte 0x4e")},
		{"F19 error text", answering(string(fatal("53300", "your password please"))), false, func(t *testing.T, err error) {
			isViolation("byte 0x45")(t, err)
			if strings.Contains(err.Error(), "please") {
				t.Errorf("unauthenticated text in %v", err)
			}
		}},
		{"closes before the handshake", func(c net.Conn) { startup(c); _, _ = c.Write([]byte("S")); hangUp(c) }, true, func(t *testing.T, err error) {
			if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("err = %v, want an early close", err)
			}
		}},
		{"S, then no TLS", func(c net.Conn) { answering("S")(c); readHello(c); _, _ = c.Write(greeting()) }, false, func(t *testing.T, err error) {
			var record tls.RecordHeaderError
			if !errors.As(err, &record) {
				t.Errorf("err = %v, want a RecordHeaderError", err)
			}
		}},
		{"F30 expired certificate", inTLS(ca.issue(t, "db.test", time.Now().Add(-time.Hour)), login), false, unverified},
		{"F30 another machine's certificate", inTLS(ca.issue(t, "other.test", hour), login), false, unverified},
		{"F30 unknown authority", inTLS(other.issue(t, "db.test", hour), login), false, unverified},
	} {
		t.Run(tc.name, func(t *testing.T) {
			target := serve(t, tc.script)
			target.TLS, target.RootCAs, target.ServerName = TLSVerifyFull, ca.pool(), "db.test"
			c, err := Dial(within(t, patience), target)
			if err == nil {
				c.Close()
				t.Fatal("the login succeeded")
			}
			tc.wants(t, err)
			if Retryable(err) != tc.retry {
				t.Errorf("Retryable(%v) = %v", err, !tc.retry)
			}
		})
	}
}

// A server that never asked for the certificate has not been shown who we are.
func TestDialWantsItsCertificateSeen(t *testing.T) {
	ca := newAuthority(t)
	login := func(c net.Conn) {
		startup(c)
		_, _ = c.Write(append(pgwire.AppendAuthenticationOk(nil), greeting()...))
	}
	target := serve(t, inTLS(ca.issue(t, "db.test", time.Now().Add(time.Hour)), login))
	target.TLS, target.RootCAs, target.ServerName, target.Auth, target.Certificate = TLSVerifyFull, ca.pool(), "db.test", AuthCert, ca.client(t, "app")
	c, err := Dial(within(t, patience), target)
	if err == nil {
		c.Close()
	}
	is(ErrNoProof)(t, err)
}

// A server that refuses our certificate may have reset the connection by the time that we write: its reason is told anyhow.
func TestAlertBeforeAReset(t *testing.T) {
	ca := newAuthority(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	refused := make(chan error, 1)
	cert := ca.issue(t, "db.test", time.Now().Add(time.Hour))
	go func() {
		c, err := ln.Accept()
		if err != nil {
			refused <- err
			return
		}
		err = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()}).Handshake()
		_ = c.(*net.TCPConn).SetLinger(0) // a reset
		_ = c.Close()
		refused <- err
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	show := newAuthority(t).client(t, "app")
	w := &wire{ctx: t.Context(), tls: tls.Client(conn, &tls.Config{RootCAs: ca.pool(), ServerName: "db.test",
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return show() }})}
	if err := w.tls.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-refused; err == nil {
		t.Fatal("the certificate was taken")
	}
	deadline := time.Now().Add(patience)
	for err = nil; err == nil && time.Now().Before(deadline); { // until the reset is there
		err = w.send([]byte("startup"), nil)
	}
	if err == nil || Retryable(err) || !strings.Contains(err.Error(), "unknown certificate authority") {
		t.Errorf("err = %v, want an alert", err)
	}
}

// readHello reads the ClientHello's record.
func readHello(c io.Reader) {
	var head [5]byte
	_, _ = io.ReadFull(c, head[:])
	_, _ = io.CopyN(io.Discard, c, int64(head[3])<<8|int64(head[4]))
}

// corked collects what is written until it is let go, so that several TLS
// records arrive at once.
type corked struct {
	net.Conn
	on  bool
	buf []byte
}

func (c *corked) Write(b []byte) (int, error) {
	if !c.on {
		return c.Conn.Write(b)
	}
	c.buf = append(c.buf, b...)
	return len(b), nil
}

// Bytes behind ReadyForQuery are found inside TLS too, in the same record and in one of their own.
func TestDialFindsBytesBehindReadyInsideTLS(t *testing.T) {
	cert := newAuthority(t).issue(t, "db.test", time.Now().Add(time.Hour))
	late := message('A', "\x00\x00\x00\x01c\x00p\x00")
	for _, tc := range []struct {
		name    string
		records [][]byte
		wants   string
	}{
		{"none", [][]byte{greeting()}, ""},
		{"same record", [][]byte{append(greeting(), late...)}, "bytes behind ReadyForQuery"},
		{"next record", [][]byte{greeting(), late}, "bytes behind ReadyForQuery"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			target := serve(t, func(c net.Conn) {
				cork := &corked{Conn: c}
				inTLS(cert, func(inner net.Conn) {
					honestSCRAM(inner)
					cork.on = true
					_, _ = inner.Write(pgwire.AppendAuthenticationOk(nil))
					for _, r := range tc.records {
						_, _ = inner.Write(r)
					}
					_, _ = c.Write(cork.buf)
				})(cork)
			})
			target.TLS = TLSRequire
			c, err := Dial(within(t, patience), target)
			switch {
			case tc.wants != "":
				isViolation(tc.wants)(t, err)
			case err != nil:
				t.Fatal(err)
			default:
				c.Close()
			}
		})
	}
}
